// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Into how many parts a GPU splits the tokens of a decode step.
#ifndef KVCC_RUNTIME_SPLITS_H
#define KVCC_RUNTIME_SPLITS_H

#include <cstdint>

namespace kvcc {

/// What blocks of threads share.
struct GpuShape {
  int64_t multiprocessors = 0;
  int64_t resident = 0;    ///< blocks of threads of the kernel that a multiprocessor holds
  double bandwidth = 0;    ///< bytes per second that loads get at best
  bool overlaps = false;   ///< a launch may begin while the kernel before it ends
  int64_t sharedBytes = 0; ///< shared memory of a multiprocessor
};

/// A step, as far as it matters how it is split.
struct GpuStep {
  int64_t items = 0, blocks = 0; ///< work items, and the most blocks of tokens that one has
  double bytes = 0;              ///< of all items
  int64_t warps = 0;             ///< of a block of threads
  bool staged = false;           ///< blocks of tokens come to shared memory ahead of time
};

/// Whether a launch of so many blocks of threads begins beside the kernel before it, to which it leaves half of the
/// multiprocessors.
bool beginsBeside(const GpuShape &gpu, int64_t blocks);
/// Whether a grid of so many blocks of threads should begin while the kernel before it ends: where all are resident at
/// a time and, with the memory of getEvenSharedBytes, lie evenly.
bool overlapsLaunches(const GpuShape &gpu, int64_t blocks);
/// Dynamic shared memory that a block of such a grid asks for, `needed` at least, beside the `fixed` bytes that it has
/// in any case: where multiprocessors become free one after the other, none is given more blocks than its share.
int64_t getEvenSharedBytes(const GpuShape &gpu, int64_t blocks, int64_t needed, int64_t fixed);
/// Seconds that the GPU works on a step, without the launch.
double estimateSplitSeconds(const GpuShape &gpu, const GpuStep &step, int64_t splits);
/// The number of splits from 1 to `most` with the least of those.
int64_t chooseSplits(const GpuShape &gpu, const GpuStep &step, int64_t most);

} // namespace kvcc

#endif
