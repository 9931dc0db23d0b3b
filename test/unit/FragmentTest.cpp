// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Kernels for tensor cores, executed on the host: every width of codes with every way of scaling, over head sizes and
// groups of query heads, with threads in random order.
#include "test/unit/KernelTestSupport.h"

#include "gtest/gtest.h"

#include <random>

using namespace kvcc;
using namespace kvcc::test;

namespace {

/// One side of a format: where its scales go is a matter of which way groups lie.
std::string makeSide(bool isKey, int64_t bits, int64_t style, int64_t headDim) {
  static const char *const kMaps[] = {"sym_signed", "asym", "hybrid", "sym"};
  const char *map = kMaps[(bits + style) % 4];
  // Along the reduction: channels of keys, tokens of values.
  std::string group = isKey ? "1x32" : "32x1";
  if (style == 1) { // across it: scales fold into what multiplies
    group = isKey ? "32x1" : "1x32";
    map = bits % 2 ? "asym" : "sym";
  } else if (style == 2) { // one of a token; half a block of tokens
    group = isKey ? "1x" + std::to_string(headDim) : "16x1";
  }
  return "<i" + std::to_string(bits) + ", map = " + map + ", group = " + group +
         ", scale = " + (bits % 3 ? "f16" : "bf16") + ">";
}

class FragmentTest : public testing::TestWithParam<int64_t> {};

TEST_P(FragmentTest, Agrees) {
  // 7 widths, 3 ways and 8 head sizes have no divisors in common nor have 11 groups of heads.
  int64_t i = GetParam();
  static constexpr int64_t kGroups[] = {1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 16};
  Problem problem;
  problem.target = "cuda-host";
  problem.headDim = 32 * (1 + i * 5 % 8);
  problem.kvHeads = 1 + i % 2;
  problem.qHeads = problem.kvHeads * kGroups[i % 11];
  problem.dtype = i % 4 == 3 ? "bf16" : "f16";
  int64_t keyBits = 2 + i % 7, valueBits = 2 + (3 * i + 1) % 7;
  problem.scheme = "k = " + makeSide(true, keyBits, i % 3, problem.headDim) +
                   "; v = " + makeSide(false, valueBits, (i + 1) % 3, problem.headDim) +
                   "; window = <sink = 32, recent = 32, flush = 32>";
  problem.lens = {290, 1, 65, 129};
  Tensors tensors = makeRandomTensors(problem, unsigned(i + 1));
  for (int64_t splits : {1, 3}) {
    problem.splits = splits;
    problem.seed = uint64_t(i * 2 + splits);
    expectAgrees(problem, tensors, problem.dtype == "bf16" ? 1e-2 : 5e-3);
  }
}

TEST(FragmentsTest, TwoTilesOfHeadsShareAPass) {
  for (auto [scheme, heads, headDim] : {std::tuple("innerq-small", 16, 128), {"kvcc-3.5", 12, 128}, {"q8_0", 9, 64}}) {
    Problem problem;
    problem.target = "cuda-host";
    problem.scheme = scheme;
    problem.qHeads = 2 * heads;
    problem.headDim = headDim;
    problem.lens = {290, 65};
    problem.splits = 3;
    auto program = loadProgram(problem);
    ASSERT_TRUE(bool(program)) << toString(program.takeError());
    EXPECT_EQ((*program)->getPlan().schedule.getHeads(), heads);
    expectAgrees(problem, makeRandomTensors(problem), 5e-3);
  }
}

TEST(FragmentsTest, AnyNumberOfStages) {
  for (int64_t stages : {0, 1, 2, 5}) {
    Problem problem;
    problem.target = "cuda-host";
    problem.stages = stages;
    problem.lens = {700, 33, 0};
    auto program = loadProgram(problem);
    ASSERT_TRUE(bool(program)) << toString(program.takeError());
    EXPECT_EQ((*program)->getPlan().schedule.getStages(), stages);
    expectAgrees(problem, makeRandomTensors(problem), 5e-3);
  }
}

TEST(FragmentsTest, ManyPartsAreMerged) {
  // More than are read at a time; later ones weigh more, and some are empty.
  Problem problem;
  problem.target = "cuda-host";
  problem.lens = {3000, 64, 0};
  problem.splits = 40;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Fill plain = [&](int64_t, int64_t, int64_t, int64_t) { return normal(random); };
  Fill keys = [&](int64_t, int64_t, int64_t token, int64_t) { return normal(random) * (token > 2200 ? 3.0f : 1.0f); };
  for (const char *scheme : {"innerq-small", "fp16"}) {
    problem.scheme = scheme;
    expectAgrees(problem, makeTensors(problem, plain, keys, plain), 5e-3);
  }
}

INSTANTIATE_TEST_SUITE_P(Widths, FragmentTest, testing::Range<int64_t>(0, 21));

} // namespace
