// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What it costs to share a step among the threads of a context: ThreadPool::run with one item per thread, each of which
// waits for all others to have begun. So no thread takes two, and time ends when the last has come and all are back.
// Google Benchmark: it repeats, and knows how often.
#include "runtime/ThreadPool.h"

#include <benchmark/benchmark.h>
#include <chrono>
#include <thread>

using namespace kvcc;
using Clock = std::chrono::steady_clock;

static void computeFor(Clock::duration duration) {
  for (auto end = Clock::now() + duration; Clock::now() < end;)
    ;
}

/// `pause` is what the caller does before it comes.
static void forkAndJoin(benchmark::State &state, void (*pause)()) {
  ThreadPool pool(unsigned(state.range(0)));
  const unsigned threads = pool.size();
  std::atomic<unsigned> begun{0};
  auto meet = [&](int64_t) {
    begun.fetch_add(1, std::memory_order_relaxed);
    while (begun.load(std::memory_order_relaxed) < threads)
      ;
  };
  for (auto _ : state) {
    pause();
    begun = 0;
    auto start = Clock::now();
    pool.run(threads, 0, meet);
    state.SetIterationTime(std::chrono::duration<double>(Clock::now() - start).count());
  }
}

/// Two threads, and all that the machine has.
static void counts(benchmark::internal::Benchmark *benchmark) {
  unsigned all = std::thread::hardware_concurrency();
  benchmark->ArgName("threads")->Arg(2)->UseManualTime()->Unit(benchmark::kMicrosecond);
  if (all > 2)
    benchmark->Arg(all);
}

BENCHMARK_CAPTURE(forkAndJoin, at_once, [] {})->Apply(counts);
// A worker still spins after the first of these pauses.
BENCHMARK_CAPTURE(forkAndJoin, after_20_us, [] { computeFor(std::chrono::microseconds(20)); })
    ->Apply(counts)
    ->Iterations(5000);
BENCHMARK_CAPTURE(forkAndJoin, after_2_ms, [] { computeFor(std::chrono::milliseconds(2)); })
    ->Apply(counts)
    ->Iterations(200);
BENCHMARK_CAPTURE(forkAndJoin, after_5_ms_of_sleep, [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); })
    ->Apply(counts)
    ->Iterations(200);

BENCHMARK_MAIN();
