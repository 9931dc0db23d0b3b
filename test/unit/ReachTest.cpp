// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What models change about the softmax: bounded logits, sink logits, and queries that do not reach all tokens.
#include "test/unit/KernelTestSupport.h"

#include "gtest/gtest.h"

using namespace llvm;
using namespace kvcc;
using namespace kvcc::test;

namespace {

/// Windows, flushes, placements and transforms that differ in where blocks end and in what logits lack.
const char *const kSchemes[] = {
    "fp16",   "innerq-small", "innerq-hybrid", "kvcc-3",
    "kivi-2", "q4_0",         "int4-token",    "kvcc-4; window = <sink = 40, recent = 64, flush = 64>"};

using Case = std::tuple<const char *, const char *>;
class Reaches : public testing::TestWithParam<Case> {
protected:
  Problem makeProblem() const {
    auto [target, scheme] = GetParam();
    Problem problem;
    problem.target = target;
    problem.scheme = scheme;
    problem.lens = {0, 1, 33, 129, 300, 517};
    return problem;
  }
  /// The first of them where a kernel takes seconds to compile.
  template <typename T> static std::vector<T> few(std::vector<T> all) {
    if (StringRef(std::get<0>(GetParam())) == "cuda-host")
      all.resize(1);
    return all;
  }
  /// Splits that end within and between the kinds of blocks give the same.
  static void expectRight(Problem problem, double rounding = 0) {
    Tensors tensors = makeRandomTensors(problem);
    for (int64_t splits : {1, 3}) {
      problem.splits = splits;
      problem.seed = uint64_t(splits);
      expectAgrees(problem, tensors, getBoundOf(problem) + rounding);
    }
  }
  static double getBoundOf(const Problem &problem) {
    auto program = loadProgram(problem);
    if (!program) {
      ADD_FAILURE() << toString(program.takeError());
      return 0;
    }
    return getBound((*program)->getPlan());
  }
};

TEST_P(Reaches, SlidingWindows) {
  for (int64_t tokens : few<int64_t>({100, 1, 256, 1000})) {
    Problem problem = makeProblem();
    problem.reach = kv::Reach::Sliding;
    problem.windowTokens = tokens;
    expectRight(problem);
  }
}

TEST_P(Reaches, Chunks) {
  for (int64_t tokens : few<int64_t>({100, 32, 516})) {
    Problem problem = makeProblem();
    problem.reach = kv::Reach::Chunked;
    problem.windowTokens = tokens;
    expectRight(problem);
  }
}

TEST_P(Reaches, Softcap) {
  for (double cap : few<double>({4.0, 0.5, 50.0})) {
    Problem problem = makeProblem();
    problem.softcap = cap;
    expectRight(problem);
  }
}

TEST_P(Reaches, SinkLogits) {
  Problem problem = makeProblem();
  problem.sinkLogits = true;
  expectRight(problem);
}

TEST_P(Reaches, AllOfThem) {
  Problem problem = makeProblem();
  problem.softcap = 20;
  problem.sinkLogits = true;
  problem.reach = kv::Reach::Sliding;
  problem.windowTokens = 77;
  expectRight(problem);
  problem.dtype = "f32"; // other kernels on CUDA
  expectRight(problem);
  problem.dtype = "bf16";
  problem.roundsOut = true;
  problem.compute = "f32";
  expectRight(problem, 4e-3);
}

INSTANTIATE_TEST_SUITE_P(Schemes, Reaches,
                         testing::Combine(testing::Values("cpu", "cuda-host"), testing::ValuesIn(kSchemes)));
INSTANTIATE_TEST_SUITE_P(Portable, Reaches,
                         testing::Combine(testing::Values("cpu:generic"), testing::Values("fp16", "kvcc-3")));

TEST(Reach, SinksTakeWeightOfTheirOwn) {
  Problem problem;
  problem.scheme = "fp16";
  problem.sinkLogits = true;
  Tensors tensors = makeRandomTensors(problem);
  auto program = loadProgram(problem);
  ASSERT_TRUE(bool(program)) << toString(program.takeError());
  // A sink far above all logits leaves nothing, and its logit is the lse; one far below changes nothing.
  tensors.sinks.assign(size_t(problem.qHeads), 1000.0f);
  auto high = runStep(**program, problem, tensors);
  ASSERT_TRUE(bool(high)) << toString(high.takeError());
  for (float number : high->out)
    EXPECT_EQ(number, 0);
  for (float lse : high->lse)
    EXPECT_FLOAT_EQ(lse, 1000);
  tensors.sinks.assign(size_t(problem.qHeads), -1000.0f);
  auto low = runStep(**program, problem, tensors);
  ASSERT_TRUE(bool(low)) << toString(low.takeError());
  Problem without = problem;
  without.sinkLogits = false;
  auto plain = loadProgram(without);
  ASSERT_TRUE(bool(plain)) << toString(plain.takeError());
  auto same = runStep(**plain, without, tensors);
  ASSERT_TRUE(bool(same)) << toString(same.takeError());
  EXPECT_EQ(low->lse, same->lse);
}

} // namespace
