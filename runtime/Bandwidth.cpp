// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Read bandwidth, and what else the cost model needs to know of the host.
#include "runtime/Bandwidth.h"

#include "llvm/Support/MemoryBuffer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <unistd.h>

using namespace kvcc;

size_t kvcc::getLastLevelCacheBytes() {
  long bytes = sysconf(_SC_LEVEL4_CACHE_SIZE);
  if (bytes <= 0)
    bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (bytes <= 0)
    bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? size_t(bytes) : size_t(32) << 20;
}

size_t kvcc::getColdBytes() {
  return std::clamp<size_t>(2 * getLastLevelCacheBytes(), size_t(256) << 20, size_t(1) << 30);
}

ReadBandwidth::ReadBandwidth() : buffer(getColdBytes()) { std::memset(buffer.data(), 1, buffer.size()); }

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

/// The fastest clock that the system knows of, in Hz; 2.5e9 if it knows none.
static double getClock() {
  for (const char *path : {"/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "/proc/cpuinfo"}) {
    auto file = llvm::MemoryBuffer::getFileAsStream(path);
    if (!file)
      continue;
    llvm::StringRef text = (*file)->getBuffer();
    double number, unit = 1e3; // kHz
    if (text.contains("cpu MHz")) {
      text = text.split("cpu MHz").second.split(':').second.split('\n').first;
      unit = 1e6;
    }
    if (!text.trim().getAsDouble(number) && number > 0)
      return number * unit;
  }
  return 2.5e9;
}

std::optional<TargetInfo> kvcc::describeTarget(const Target &target, KernelCache &cache) {
  if (target.kind == kv::TargetKind::Cuda) {
    const TargetInfo *gpu = getDefaultGpu(target.arch);
    return gpu ? std::optional(*gpu) : std::nullopt;
  }
  ThreadPool pool;
  std::string cores = std::to_string(pool.size());
  CacheKey key = CacheKey::create(
      {"bandwidth", "read bandwidth of " + cores + " threads, bytes per second", "1", {}, target.machine.cpu});
  double bandwidth = 0;
  if (auto known = cache.lookup(key); !known || known->getBuffer().getAsDouble(bandwidth) || !(bandwidth > 0)) {
    ReadBandwidth buffer;
    for (int round = 0; round < 3; ++round)
      bandwidth = std::max(bandwidth, buffer.measure(pool, 0) * 1e9);
    cache.publish(key, std::to_string(bandwidth), "read bandwidth of this host");
  }
  return makeHostTarget(target.arch, pool.size(), getClock(), int64_t(getLastLevelCacheBytes()), bandwidth);
}
