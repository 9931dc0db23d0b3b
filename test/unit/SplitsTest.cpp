// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How steps are split on a GPU, against what was measured on an H100 (tools/bench/results/cuda-2026-11-26*.md).
#include "runtime/Splits.h"

#include "gtest/gtest.h"

using namespace kvcc;

namespace {

/// A scheme at Llama-3.1-8B's shape: bytes of a block of 32 tokens of a KV head, and of those in windows.
struct Kernel {
  const char *name;
  int64_t blockBytes, windowBlocks, unit, resident;
  bool staged;
};
constexpr Kernel kInnerqBase{"innerq-base", 3584, 6, 2, 3, true}, kKvcc3{"kvcc-3", 2688, 6, 2, 3, true},
    kKivi2{"kivi-2", 3072, 6, 2, 3, true}, kFp8{"fp8", 8320, 0, 1, 3, true}, kFp16{"fp16", 16384, 0, 1, 2, false};

GpuShape getH100(const Kernel &kernel) { return {132, kernel.resident, 2.93e12}; }
GpuStep makeStep(const Kernel &kernel, int64_t batch, int64_t tokens) {
  constexpr int64_t kHeads = 8, kWindowBytes = 16384;
  int64_t blocks = tokens / 32, windows = std::min(blocks, kernel.windowBlocks), items = kHeads * batch;
  double bytes = double(items * ((blocks - windows) * kernel.blockBytes + windows * kWindowBytes));
  return {items, blocks, bytes, 4, kernel.unit, kernel.staged};
}

struct Measured {
  Kernel kernel;
  int64_t batch, tokens, splits;
  double microseconds;
};
constexpr Measured kMeasured[] = {
    {kInnerqBase, 1, 1024, 4, 9.6},     {kKvcc3, 1, 1024, 4, 10.7},         {kKivi2, 1, 1024, 4, 9.3},
    {kInnerqBase, 1, 4096, 16, 11.1},   {kInnerqBase, 1, 4096, 8, 10.9},    {kKvcc3, 1, 4096, 16, 11.0},
    {kFp16, 1, 4096, 7, 14.0},          {kFp16, 1, 4096, 5, 15.3},          {kInnerqBase, 1, 32768, 16, 20.3},
    {kKvcc3, 1, 32768, 22, 22.4},       {kKivi2, 1, 32768, 19, 22.1},       {kKivi2, 1, 32768, 16, 19.3},
    {kFp8, 1, 32768, 7, 40.8},          {kFp8, 1, 32768, 33, 35.1},         {kFp16, 1, 32768, 6, 61.9},
    {kFp16, 1, 32768, 22, 55.7},        {kInnerqBase, 8, 1024, 1, 12.1},    {kFp16, 8, 1024, 1, 17.3},
    {kInnerqBase, 8, 4096, 2, 21.0},    {kInnerqBase, 8, 4096, 4, 21.8},    {kKivi2, 8, 4096, 2, 19.7},
    {kKivi2, 8, 4096, 4, 18.9},         {kFp8, 8, 4096, 1, 36.1},           {kFp16, 8, 4096, 1, 54.8},
    {kInnerqBase, 8, 32768, 2, 102.9},  {kInnerqBase, 8, 32768, 5, 115.1},  {kKivi2, 8, 32768, 3, 96.9},
    {kFp8, 8, 32768, 1, 239.6},         {kFp8, 8, 32768, 5, 215.9},         {kFp16, 8, 32768, 1, 379.0},
    {kFp16, 8, 32768, 3, 372.0},        {kInnerqBase, 32, 1024, 1, 21.4},   {kInnerqBase, 32, 4096, 1, 55.0},
    {kKvcc3, 32, 4096, 1, 48.0},        {kKivi2, 32, 4096, 1, 48.0},        {kFp8, 32, 4096, 1, 104.6},
    {kInnerqBase, 32, 32768, 1, 359.3}, {kInnerqBase, 32, 32768, 2, 435.6}, {kKvcc3, 32, 32768, 1, 286.8},
    {kKvcc3, 32, 32768, 2, 324.2},      {kKivi2, 32, 32768, 1, 310.1},      {kKivi2, 32, 32768, 2, 389.3},
    {kFp8, 32, 32768, 1, 770.5},        {kFp8, 32, 32768, 2, 805.7},        {kFp16, 32, 32768, 1, 1395.6},
};

TEST(SplitsTest, EstimatesWhatWasMeasured) {
  constexpr double kLaunch = 2.5; // microseconds
  for (const Measured &m : kMeasured) {
    double estimate =
        kLaunch + 1e6 * estimateSplitSeconds(getH100(m.kernel), makeStep(m.kernel, m.batch, m.tokens), m.splits);
    EXPECT_NEAR(estimate / m.microseconds, 1, 0.2)
        << m.kernel.name << " batch " << m.batch << ", " << m.tokens << " tokens, " << m.splits << " splits";
  }
}

TEST(SplitsTest, ChoosesNoSplitThatWasSlower) {
  // Of two that were measured, the choice is not the one that took a tenth more.
  for (const Measured &slow : kMeasured)
    for (const Measured &fast : kMeasured) {
      if (slow.kernel.name != fast.kernel.name || slow.batch != fast.batch || slow.tokens != fast.tokens ||
          slow.microseconds < 1.1 * fast.microseconds)
        continue;
      GpuStep step = makeStep(slow.kernel, slow.batch, slow.tokens);
      EXPECT_NE(chooseSplits(getH100(slow.kernel), step, step.blocks / 8), slow.splits)
          << slow.kernel.name << " batch " << slow.batch << ", " << slow.tokens << " tokens";
    }
}

TEST(SplitsTest, StaysWithinWhatIsAllowed) {
  GpuStep step = makeStep(kInnerqBase, 1, 32768);
  EXPECT_EQ(chooseSplits(getH100(kInnerqBase), step, 1), 1);
  EXPECT_LE(chooseSplits(getH100(kInnerqBase), step, 5), 5);
  // Where whole items fill the GPU several times, splits only make the end even.
  EXPECT_LE(chooseSplits(getH100(kInnerqBase), makeStep(kInnerqBase, 128, 4096), 16), 8);
}

} // namespace
