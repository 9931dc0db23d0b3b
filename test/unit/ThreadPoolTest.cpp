// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The resident pool: every item once, whoever calls.
#include "runtime/ThreadPool.h"
#include "gtest/gtest.h"

using namespace kvcc;

namespace {

TEST(ThreadPoolTest, RunsEveryItemOnce) {
  ThreadPool pool(4);
  EXPECT_EQ(pool.size(), 4u);
  for (int64_t items : {0, 1, 3, 4, 1000})
    for (unsigned threads : {0u, 1u, 2u, 100u}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(items));
      pool.run(items, threads, [&](int64_t item) { ++seen[size_t(item)]; });
      for (auto &count : seen)
        EXPECT_EQ(count.load(), 1);
    }
}

TEST(ThreadPoolTest, WakesAfterSleeping) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::atomic<int64_t> sum{0};
    pool.run(100, 0, [&](int64_t item) { sum += item; });
    EXPECT_EQ(sum.load(), 4950);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

// Linux wakes a worker beside a caller that has slept too, where it would wait until the job is over.
TEST(ThreadPoolTest, WorkersThatSleptShareTheWork) {
  if (std::thread::hardware_concurrency() < 2)
    GTEST_SKIP() << "one processor";
  ThreadPool pool(2);
  int shared = 0;
  constexpr int kRounds = 20;
  for (int round = 0; round < kRounds; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> others{0};
    auto caller = std::this_thread::get_id();
    pool.run(20, 0, [&](int64_t) {
      others += std::this_thread::get_id() != caller;
      auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(100);
      while (std::chrono::steady_clock::now() < end) {
      }
    });
    shared += others > 0;
  }
  // Machines are shared: a processor may be away for some rounds.
  EXPECT_GE(shared, kRounds / 4);
#ifdef __linux__
  // A worker that was asleep may be anywhere but where the caller was then; one processor less than the caller has.
  cpu_set_t all, ofWorker;
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  CPU_ZERO(&ofWorker);
  auto caller = std::this_thread::get_id();
  for (int round = 0; round < kRounds && CPU_COUNT(&ofWorker) == 0; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    pool.run(2, 0, [&](int64_t) {
      if (std::this_thread::get_id() != caller)
        sched_getaffinity(0, sizeof(ofWorker), &ofWorker);
      else
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
  }
  cpu_set_t both;
  CPU_AND(&both, &all, &ofWorker);
  EXPECT_TRUE(CPU_EQUAL(&both, &ofWorker));
  EXPECT_EQ(CPU_COUNT(&ofWorker), CPU_COUNT(&all) - 1);
#endif
}

TEST(ThreadPoolTest, RunsOnTheThreadsOfTheHost) {
  int calls = 0;
  auto backwards = [](void *user, int64_t items, void (*body)(void *, int64_t), void *data) {
    ++*static_cast<int *>(user);
    for (int64_t item = items; item-- > 0;)
      body(data, item);
  };
  ThreadPool pool(4, backwards, &calls);
  std::vector<int64_t> order;
  pool.run(3, 0, [&](int64_t item) { order.push_back(item); });
  EXPECT_EQ(order, (std::vector<int64_t>{2, 1, 0}));
  EXPECT_EQ(calls, 1);
  // One item, or one thread, needs nobody else.
  pool.run(1, 0, [&](int64_t item) { order.push_back(item); });
  pool.run(2, 1, [&](int64_t item) { order.push_back(item); });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(order, (std::vector<int64_t>{2, 1, 0, 0, 0, 1}));
}

TEST(ThreadPoolTest, SeveralCallersAtOnce) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int round = 0; round < 500; ++round)
        pool.run(7, 0, [&](int64_t) { sum.fetch_add(1, std::memory_order_relaxed); });
    });
  for (std::thread &caller : callers)
    caller.join();
  EXPECT_EQ(sum.load(), 4 * 500 * 7);
}

} // namespace
