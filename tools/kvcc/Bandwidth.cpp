// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Read bandwidth.
#include "tools/kvcc/Bandwidth.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <unistd.h>

using namespace kvcc;
using namespace kvcc::tool;

size_t tool::getLastLevelCacheBytes() {
  long bytes = sysconf(_SC_LEVEL4_CACHE_SIZE);
  if (bytes <= 0)
    bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (bytes <= 0)
    bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? size_t(bytes) : size_t(32) << 20;
}

ReadBandwidth::ReadBandwidth() : buffer(std::max<size_t>(8 * getLastLevelCacheBytes(), 256 << 20)) {
  std::memset(buffer.data(), 1, buffer.size());
}

double ReadBandwidth::measure(ThreadPool &pool, unsigned threads) {
  constexpr size_t kChunk = 1 << 20;
  std::atomic<uint64_t> sink{0};
  auto start = std::chrono::steady_clock::now();
  pool.run(int64_t(buffer.size() / kChunk), threads, [&](int64_t chunk) {
    // Eight independent sums of 16 bytes each: enough loads in flight.
    using Lanes = uint64_t __attribute__((vector_size(16)));
    Lanes sums[8] = {};
    auto *at = reinterpret_cast<const Lanes *>(buffer.data() + size_t(chunk) * kChunk);
    for (size_t i = 0; i < kChunk / sizeof(Lanes); i += 8)
      for (size_t lane = 0; lane < 8; ++lane)
        sums[lane] += at[i + lane];
    uint64_t total = 0;
    for (Lanes sum : sums)
      total += sum[0] + sum[1];
    sink.fetch_add(total, std::memory_order_relaxed);
  });
  std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return sink.load() ? double(buffer.size() / kChunk * kChunk) / seconds.count() / 1e9 : 0;
}
