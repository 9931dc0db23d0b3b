// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How steps are split on a GPU, against what was measured on an H100 (tools/bench/results/cuda-2026-11-27-rounds.md;
// fp8 and fp16: cuda-2026-11-26-rounds.md).
#include "runtime/Splits.h"

#include "gtest/gtest.h"

using namespace kvcc;

namespace {

/// A scheme at Llama-3.1-8B's shape: bytes of a block of 32 tokens of a KV head, and of those in windows.
struct Kernel {
  const char *name;
  int64_t blockBytes, windowBlocks, resident;
  bool staged;
};
constexpr Kernel kInnerqBase{"innerq-base", 3584, 4, 3, true}, kKvcc3{"kvcc-3", 2688, 4, 3, true},
    kKivi2{"kivi-2", 3072, 4, 3, true}, kQ40{"q4_0", 4608, 0, 3, true}, kFp8{"fp8", 8320, 0, 3, true},
    kFp16{"fp16", 16384, 0, 2, false};

GpuShape getH100(const Kernel &kernel) { return {132, kernel.resident, 2.93e12, true}; }
GpuStep makeStep(const Kernel &kernel, int64_t batch, int64_t tokens) {
  constexpr int64_t kHeads = 8, kWindowBytes = 16384;
  int64_t blocks = tokens / 32, windows = std::min(blocks, kernel.windowBlocks), items = kHeads * batch;
  double bytes = double(items * ((blocks - windows) * kernel.blockBytes + windows * kWindowBytes));
  return {items, blocks, bytes, 4, kernel.staged};
}

struct Measured {
  Kernel kernel;
  int64_t batch, tokens, splits;
  double microseconds;
};
constexpr Measured kMeasured[] = {
    {kInnerqBase, 1, 1024, 4, 7.2},
    {kInnerqBase, 1, 1024, 2, 8.9},
    {kInnerqBase, 1, 1024, 1, 9.5},
    {kKvcc3, 1, 1024, 4, 7.5},
    {kKvcc3, 1, 1024, 2, 9.0},
    {kKvcc3, 1, 1024, 1, 9.6},
    {kQ40, 1, 1024, 8, 5.2},
    {kQ40, 1, 1024, 2, 8.3},
    {kQ40, 1, 1024, 1, 8.0},
    {kInnerqBase, 1, 32768, 15, 21.0},
    {kInnerqBase, 1, 32768, 32, 19.9},
    {kInnerqBase, 1, 32768, 16, 19.6},
    {kInnerqBase, 1, 32768, 8, 27.2},
    {kKvcc3, 1, 32768, 32, 18.8},
    {kKvcc3, 1, 32768, 16, 18.3},
    {kKvcc3, 1, 32768, 8, 24.7},
    {kQ40, 1, 32768, 32, 24.4},
    {kQ40, 1, 32768, 16, 23.1},
    {kQ40, 1, 32768, 8, 25.2},
    {kInnerqBase, 8, 1024, 1, 10.5},
    {kInnerqBase, 8, 1024, 2, 12.8},
    {kKvcc3, 8, 1024, 1, 12.0},
    {kKvcc3, 8, 1024, 2, 13.0},
    {kKvcc3, 8, 1024, 4, 11.9},
    {kQ40, 8, 1024, 1, 9.2},
    {kQ40, 8, 1024, 2, 12.0},
    {kQ40, 8, 1024, 4, 11.1},
    {kInnerqBase, 8, 4096, 4, 20.7},
    {kInnerqBase, 8, 4096, 6, 21.5},
    {kInnerqBase, 8, 4096, 3, 20.6},
    {kKvcc3, 8, 4096, 4, 19.0},
    {kKvcc3, 8, 4096, 6, 20.9},
    {kKvcc3, 8, 4096, 3, 20.6},
    {kKivi2, 8, 4096, 4, 18.6},
    {kKivi2, 8, 4096, 6, 19.6},
    {kKivi2, 8, 4096, 3, 20.0},
    {kQ40, 8, 4096, 4, 22.4},
    {kQ40, 8, 4096, 6, 23.5},
    {kQ40, 8, 4096, 3, 23.9},
    {kInnerqBase, 8, 32768, 4, 99.1},
    {kInnerqBase, 8, 32768, 32, 105.8},
    {kInnerqBase, 8, 32768, 16, 105.8},
    {kInnerqBase, 8, 32768, 8, 113.8},
    {kKvcc3, 8, 32768, 4, 78.8},
    {kKvcc3, 8, 32768, 32, 90.4},
    {kKvcc3, 8, 32768, 16, 84.7},
    {kKvcc3, 8, 32768, 8, 90.7},
    {kQ40, 8, 32768, 4, 125.6},
    {kQ40, 8, 32768, 32, 129.4},
    {kQ40, 8, 32768, 16, 130.2},
    {kQ40, 8, 32768, 8, 129.4},
    {kInnerqBase, 32, 1024, 1, 23.4},
    {kInnerqBase, 32, 1024, 2, 31.0},
    {kKvcc3, 32, 1024, 1, 22.7},
    {kKvcc3, 32, 1024, 2, 28.2},
    {kQ40, 32, 1024, 1, 21.0},
    {kQ40, 32, 1024, 2, 27.0},
    {kInnerqBase, 32, 4096, 1, 59.1},
    {kInnerqBase, 32, 4096, 6, 64.3},
    {kInnerqBase, 32, 4096, 3, 65.4},
    {kKvcc3, 32, 4096, 1, 49.0},
    {kKvcc3, 32, 4096, 6, 60.4},
    {kKvcc3, 32, 4096, 3, 56.0},
    {kKivi2, 32, 4096, 1, 51.6},
    {kKivi2, 32, 4096, 6, 60.3},
    {kKivi2, 32, 4096, 3, 58.9},
    {kQ40, 32, 4096, 1, 69.2},
    {kQ40, 32, 4096, 6, 72.8},
    {kQ40, 32, 4096, 3, 71.6},
    {kFp8, 8, 4096, 1, 36.1},
    {kFp8, 8, 32768, 1, 239.6},
    {kFp8, 8, 32768, 5, 215.9},
    {kFp8, 32, 4096, 1, 104.6},
    {kFp8, 32, 32768, 1, 770.5},
    {kFp8, 32, 32768, 2, 805.7},
    {kFp16, 1, 32768, 6, 61.9},
    {kFp16, 1, 32768, 22, 55.7},
    {kFp16, 8, 1024, 1, 17.3},
    {kFp16, 8, 4096, 1, 54.8},
    {kFp16, 8, 32768, 1, 379.0},
    {kFp16, 8, 32768, 3, 372.0},
    {kFp16, 32, 32768, 1, 1395.6},
};

TEST(SplitsTest, EstimatesWhatWasMeasured) {
  constexpr double kLaunch = 2.5; // microseconds
  for (const Measured &m : kMeasured) {
    // What begins sooner, q4_0 without windows, takes less than is estimated where there is little more than a
    // beginning.
    if (m.microseconds < 9)
      continue;
    double estimate =
        kLaunch + 1e6 * estimateSplitSeconds(getH100(m.kernel), makeStep(m.kernel, m.batch, m.tokens), m.splits);
    EXPECT_NEAR(estimate / m.microseconds, 1, 0.25)
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
      EXPECT_NE(chooseSplits(getH100(slow.kernel), step, step.blocks / 4), slow.splits)
          << slow.kernel.name << " batch " << slow.batch << ", " << slow.tokens << " tokens";
    }
}

TEST(SplitsTest, OverlapsWhereAllAreResident) {
  GpuShape gpu = getH100(kInnerqBase);
  EXPECT_TRUE(beginsBeside(gpu, 66));
  EXPECT_FALSE(beginsBeside(gpu, 67));
  EXPECT_TRUE(overlapsLaunches(gpu, 132));
  // Where two of three multiprocessors could hold all, they might.
  EXPECT_FALSE(overlapsLaunches(gpu, 133));
  EXPECT_FALSE(overlapsLaunches(gpu, 230));
  EXPECT_TRUE(overlapsLaunches(gpu, 231));
  EXPECT_TRUE(overlapsLaunches(gpu, 264));
  EXPECT_TRUE(overlapsLaunches(gpu, 3 * 132));
  EXPECT_FALSE(overlapsLaunches(gpu, 3 * 132 + 1));
  gpu.overlaps = false;
  EXPECT_FALSE(overlapsLaunches(gpu, 1));
}

TEST(SplitsTest, SharedMemoryKeepsBlocksApart) {
  constexpr int64_t kFixed = 1024 + 16, kNeeded = 50 << 10;
  GpuShape gpu = getH100(kInnerqBase);
  gpu.sharedBytes = 228 << 10;
  for (int64_t blocks : {67, 132, 231, 256, 264, 347, 396}) {
    int64_t each = (blocks + 131) / 132, bytes = getEvenSharedBytes(gpu, blocks, kNeeded, kFixed) + kFixed;
    EXPECT_LE(each * bytes, gpu.sharedBytes) << blocks;
    EXPECT_GT((each + 1) * bytes, gpu.sharedBytes) << blocks;
    EXPECT_GE(bytes, kNeeded + kFixed) << blocks;
  }
  // Where half of the multiprocessors are left to the kernel before, and where blocks come in waves or do not fill one.
  EXPECT_EQ(getEvenSharedBytes(gpu, 66, kNeeded, kFixed), kNeeded);
  EXPECT_EQ(getEvenSharedBytes(gpu, 133, kNeeded, kFixed), kNeeded);
  EXPECT_EQ(getEvenSharedBytes(gpu, 397, kNeeded, kFixed), kNeeded);
  // What is needed may be more than that.
  EXPECT_EQ(getEvenSharedBytes(gpu, 396, 70 << 10, kFixed), 70 << 10);
  EXPECT_EQ(getEvenSharedBytes(gpu, 396, kNeeded, 100 << 10), kNeeded);
}

TEST(SplitsTest, StaysWithinWhatIsAllowed) {
  GpuStep step = makeStep(kInnerqBase, 1, 32768);
  EXPECT_EQ(chooseSplits(getH100(kInnerqBase), step, 1), 1);
  EXPECT_LE(chooseSplits(getH100(kInnerqBase), step, 5), 5);
  // Where whole items fill the GPU several times, splits only make the end even.
  EXPECT_LE(chooseSplits(getH100(kInnerqBase), makeStep(kInnerqBase, 128, 4096), 16), 8);
}

} // namespace
