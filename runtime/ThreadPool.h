// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A small resident pool for work of microseconds. LLVM's ThreadPool queues closures under a lock and wakes
// through a condition variable, which costs more than a short decode step; hence this one.
#ifndef KVCC_RUNTIME_THREADPOOL_H
#define KVCC_RUNTIME_THREADPOOL_H

#include "llvm/ADT/STLFunctionalExtras.h"

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>
#ifdef __linux__
#include <sched.h>
#endif

namespace kvcc {

/// Workers spin for a moment after a job, then sleep; those that sleep are woken elsewhere than on the caller's
/// processor, but within the affinity of the first caller. A job takes the items in order, one at a time, so that
/// uneven items end together. Several callers at once are fine: while the workers are busy with one
/// caller's job, another caller's runs on its own thread alone.
class ThreadPool {
public:
  /// `threads` counts the caller; 0 stands for the number of processors. Workers start with the first job
  /// that wants them.
  explicit ThreadPool(unsigned threads = 0);
  /// A pool without workers: the host's `parallelFor(user, items, body, data)` calls body(data, i) for every i below
  /// items, on threads of its own, and returns when all are done. `threads` is how many it has.
  using ParallelFor = void (*)(void *user, int64_t items, void (*body)(void *data, int64_t item), void *data);
  ThreadPool(unsigned threads, ParallelFor parallelFor, void *user);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;

  unsigned size() const { return threadCount; }

  /// Calls body(0) .. body(items-1), on at most `threads` threads (0: all; the host's decides itself whether it is more
  /// than one), and returns when all are done.
  /// `body` must not throw.
  void run(int64_t items, unsigned threads, llvm::function_ref<void(int64_t)> body);

private:
  void work(unsigned worker);
  void takeItems();
  void addWorkers(unsigned count); // to have `count` of them
  void keepOffCaller(unsigned helpers);

  const unsigned threadCount;
  ParallelFor parallelFor = nullptr;
  void *user = nullptr;
  std::vector<std::thread> workers;
  std::atomic<unsigned> sleepers{0};
#ifdef __linux__
  cpu_set_t affinity; // of workers, before they keep off a processor
  int avoided = -1;
#endif
  std::mutex busy; // held by the caller whose job it is

  // The job. A worker reads it only while it is counted in `state`, and the caller changes it only while nobody
  // is: it closes the job when its items are all taken, so that workers that wake late never delay it.
  const llvm::function_ref<void(int64_t)> *job = nullptr;
  int64_t jobItems = 0;
  alignas(64) std::atomic<int64_t> next{0};
  /// Number of the job in the upper bits, workers that it wants in the lower 16; all ones ends the pool.
  alignas(64) std::atomic<uint64_t> ticket{0};
  /// Number of the job in the upper bits, then a bit that says it is closed, then workers at it in the lower 15.
  alignas(64) std::atomic<uint64_t> state{kClosed};
  static constexpr uint64_t kClosed = 0x8000, kCount = 0x7fff;
};

} // namespace kvcc

#endif
