// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How fast this machine reads memory, measured beside the kernels that are compared with it.
#ifndef KVCC_RUNTIME_BANDWIDTH_H
#define KVCC_RUNTIME_BANDWIDTH_H

#include "passes/TargetInfo.h"
#include "runtime/HostCache.h"
#include "runtime/KernelCache.h"

namespace kvcc {

/// Bytes of the last-level cache, 32 MiB if the system does not say.
size_t getLastLevelCacheBytes();
/// Bytes that push everything else out of the caches when they are read. At most 1 GiB: of the hundreds of megabytes
/// that large servers report, a process gets a share.
size_t getColdBytes();

class ReadBandwidth {
public:
  /// A buffer that no cache holds.
  ReadBandwidth();
  /// Reads the buffer once on `threads` threads: GB/s.
  double measure(ThreadPool &pool, unsigned threads);

private:
  AlignedBytes buffer;
};

/// What the cost model needs to know of a target: of a GPU the entry of the table (nothing for an architecture that it
/// lacks), of the host's CPU its cores, clock and caches, and its bandwidth, measured once and kept in `cache`.
std::optional<TargetInfo> describeTarget(const Target &target, KernelCache &cache);

} // namespace kvcc

#endif
