// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The resident pool.
#include "runtime/ThreadPool.h"

#include <algorithm>
#include <chrono>
#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

using namespace kvcc;

static constexpr uint64_t kEnd = ~uint64_t(0), kWorkersMask = 0xffff;
/// Longer than the gap between steps that follow each other at once, shorter than anybody would notice.
static constexpr std::chrono::microseconds kSpin(50);

static void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

ThreadPool::ThreadPool(unsigned threads)
    : threadCount(std::clamp(threads ? threads : std::thread::hardware_concurrency(), 1u, 1024u)) {}

ThreadPool::ThreadPool(unsigned threads, ParallelFor parallelFor, void *user) : ThreadPool(threads) {
  this->parallelFor = parallelFor;
  this->user = user;
}

ThreadPool::~ThreadPool() {
  ticket.store(kEnd, std::memory_order_release);
  ticket.notify_all();
  for (std::thread &worker : workers)
    worker.join();
}

void ThreadPool::takeItems() {
  for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < jobItems;)
    (*job)(item);
}

void ThreadPool::work(unsigned worker) {
  uint64_t seen = 0;
  while (true) {
    uint64_t current = ticket.load(std::memory_order_acquire);
    if (current == seen) {
      auto end = std::chrono::steady_clock::now() + kSpin;
      while ((current = ticket.load(std::memory_order_acquire)) == seen && std::chrono::steady_clock::now() < end)
        relax();
      if (current == seen) {
        sleepers.fetch_add(1, std::memory_order_relaxed);
        ticket.wait(seen, std::memory_order_acquire);
        sleepers.fetch_sub(1, std::memory_order_relaxed);
        continue;
      }
    }
    if (current == kEnd)
      return;
    seen = current;
    if (worker >= (current & kWorkersMask))
      continue;
    // Join the job, unless it is closed or gone.
    uint64_t at = state.load(std::memory_order_acquire);
    while (at >> 16 == current >> 16 && !(at & kClosed))
      if (state.compare_exchange_weak(at, at + 1, std::memory_order_acq_rel)) {
        takeItems();
        state.fetch_sub(1, std::memory_order_release);
        break;
      }
  }
}

void ThreadPool::addWorkers(unsigned count) {
#ifdef __linux__
  if (workers.empty() && sched_getaffinity(0, sizeof(affinity), &affinity) != 0)
    CPU_ZERO(&affinity); // more processors than this type knows
  avoided = -1;
#endif
  while (workers.size() < count)
    workers.emplace_back([this, worker = unsigned(workers.size())] { work(worker); });
}

/// A caller that has slept itself finds its workers queued behind it, on its own processor: Linux likes to wake threads
/// beside who wakes them, and the job is over before it moves them. Called by the holder of `busy`.
void ThreadPool::keepOffCaller([[maybe_unused]] unsigned helpers) {
#ifdef __linux__
  int here = sched_getcpu();
  bool isNeeded = avoided >= 0 || sleepers.load(std::memory_order_relaxed) > 0;
  if (here < 0 || here == avoided || !isNeeded)
    return;
  avoided = here;
  cpu_set_t others = affinity;
  CPU_CLR(size_t(here), &others);
  if (CPU_COUNT(&others) == 0)
    return;
  for (unsigned i = 0; i < helpers; ++i)
    pthread_setaffinity_np(workers[i].native_handle(), sizeof(others), &others);
#endif
}

void ThreadPool::run(int64_t items, unsigned threads, llvm::function_ref<void(int64_t)> body) {
  unsigned wanted = unsigned(std::min<int64_t>(threads ? std::min(threads, threadCount) : threadCount, items));
  if (parallelFor && wanted > 1) {
    parallelFor(
        user, items, [](void *data, int64_t item) { (*static_cast<llvm::function_ref<void(int64_t)> *>(data))(item); },
        &body);
    return;
  }
  std::unique_lock lock(busy, std::defer_lock);
  if (wanted <= 1 || !lock.try_lock()) {
    for (int64_t item = 0; item < items; ++item)
      body(item);
    return;
  }
  unsigned helpers = wanted - 1;
  if (workers.size() < helpers)
    addWorkers(helpers);
  keepOffCaller(helpers);
  job = &body;
  jobItems = items;
  next.store(0, std::memory_order_relaxed);
  uint64_t number = ((ticket.load(std::memory_order_relaxed) >> 16) + 1) << 16;
  state.store(number, std::memory_order_release);
  ticket.store(number | helpers, std::memory_order_release);
  ticket.notify_all();
  takeItems();
  state.fetch_or(kClosed, std::memory_order_acq_rel);
  for (int spins = 0; state.load(std::memory_order_acquire) & kCount; ++spins) {
    relax();
    if (spins > 1000) // a worker with an item has lost its processor
      std::this_thread::yield();
  }
}
