// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How fast this machine reads memory, measured beside the kernels that are compared with it.
#ifndef KVCC_TOOLS_KVCC_BANDWIDTH_H
#define KVCC_TOOLS_KVCC_BANDWIDTH_H

#include "runtime/HostCache.h"

namespace kvcc::tool {

/// Bytes of the last-level cache, 32 MiB if the system does not say.
size_t getLastLevelCacheBytes();

class ReadBandwidth {
public:
  /// A buffer that no cache holds.
  ReadBandwidth();
  /// Reads the buffer once on `threads` threads: GB/s.
  double measure(ThreadPool &pool, unsigned threads);

private:
  AlignedBytes buffer;
};

} // namespace kvcc::tool

#endif
