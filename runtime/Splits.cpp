// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How long a step takes that is split so and so. The constants were measured on an H100, of kernels with stages of two
// blocks and of launches that overlapped in small grids alone; SplitsTest has what they were fitted to,
// tools/bench/results/cuda-*.md all of it.
#include "runtime/Splits.h"

#include "llvm/Support/MathExtras.h"

#include <algorithm>
#include <limits>

using namespace llvm;

bool kvcc::beginsBeside(const GpuShape &gpu, int64_t blocks) {
  return gpu.overlaps && 2 * blocks <= gpu.multiprocessors;
}

bool kvcc::overlapsLaunches(const GpuShape &gpu, int64_t blocks) {
  // Nearly all of what multiprocessors may hold, or one each: else blocks are kept from some that need not hold two.
  int64_t each = divideCeil(blocks, gpu.multiprocessors);
  return gpu.overlaps && each <= gpu.resident && (each <= 1 || 8 * blocks >= 7 * each * gpu.multiprocessors);
}

int64_t kvcc::getEvenSharedBytes(const GpuShape &gpu, int64_t blocks, int64_t needed, int64_t fixed) {
  if (!overlapsLaunches(gpu, blocks) || beginsBeside(gpu, blocks))
    return needed;
  int64_t each = divideCeil(blocks, gpu.multiprocessors);
  int64_t share = std::max<int64_t>(gpu.sharedBytes / (each + 1) + 1 - fixed, 0);
  return std::max(needed, int64_t(alignTo(share, 128)));
}

double kvcc::estimateSplitSeconds(const GpuShape &gpu, const GpuStep &step, int64_t splits) {
  // What a block of threads does besides its loop, and what each that shares its multiprocessor adds to that; a warp
  // for a block of tokens that has come ahead of time, or that it waits for; the merge, and what it takes for each
  // part.
  constexpr double kStart = 3.7e-6, kShared = 0.6e-6, kStaged = 0.62e-6, kDirect = 1e-6, kMerge = 1.3e-6,
                   kPart = 0.12e-6;
  // Of the launch, what is done while the kernel before ends.
  constexpr double kOverlapped = 0.8e-6;
  // Of the bandwidth, what one block of threads per multiprocessor has enough bytes on their way for, and what is
  // missed for multiprocessors without one.
  constexpr double kAloneStaged = 0.87, kAloneDirect = 0.95, kIdle = 0.3;

  int64_t blocksOfWarp = divideCeil(divideCeil(step.blocks, splits), step.warps);
  int64_t count = step.items * splits, each = divideCeil(count, gpu.multiprocessors);
  int64_t waves = divideCeil(each, gpu.resident);
  double start = kStart + kShared * double(std::min(each, gpu.resident));
  double loop = double(blocksOfWarp) * (step.staged ? kStaged : kDirect), alone = start + loop;
  double share = step.staged ? kAloneStaged : kAloneDirect; // of the bandwidth, that is reached
  double tail = 0, uneven = 1;
  if (waves > 1) {
    // Those of a multiprocessor that are in their loops read; the last ones end when others have long.
    share = std::min(1.0, share * double(gpu.resident) * loop / alone);
    tail = alone;
  } else if (each <= 1) {
    // A multiprocessor reads more where others read nothing.
    share *= 1 - kIdle * (1 - double(count) / double(gpu.multiprocessors));
  } else {
    share = 1;
    if (step.staged) // multiprocessors with more of them than others read no faster
      uneven = double(each * gpu.multiprocessors) / double(count);
  }
  double memory = step.bytes / gpu.bandwidth * uneven / share + tail;
  double seconds = std::max(double(waves) * alone, start + memory);
  if (splits > 1)
    seconds += kMerge + kPart * double(splits);
  return beginsBeside(gpu, count) ? seconds - kOverlapped : seconds;
}

int64_t kvcc::chooseSplits(const GpuShape &gpu, const GpuStep &step, int64_t most) {
  int64_t best = 1, blocks = std::max<int64_t>(step.blocks, 1);
  double least = std::numeric_limits<double>::infinity();
  // Of numbers that leave a split as many blocks, the least: the others have more to merge.
  for (int64_t splits = 1; splits <= most;) {
    if (double seconds = estimateSplitSeconds(gpu, step, splits); seconds < least) {
      least = seconds;
      best = splits;
    }
    int64_t each = divideCeil(blocks, splits);
    if (each == 1)
      break;
    splits = divideCeil(blocks, each - 1);
  }
  return best;
}
