// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The table of GPUs.
#include "passes/TargetInfo.h"

#include "llvm/ADT/STLExtras.h"

using namespace llvm;
using namespace kvcc;

// Products and rates. Multiprocessors, clock, memory and L2 are what the driver reports on the product
// (cudaDeviceProp), shared memory is the compute capability's (CUDA C++ Programming Guide).
static constexpr StringLiteral kTuring =
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/tesla-t4/t4-tensor-core-datasheet-951643.pdf";
static constexpr StringLiteral kA100 =
    "https://images.nvidia.com/aem-dam/en-zz/Solutions/data-center/nvidia-ampere-architecture-whitepaper.pdf";
static constexpr StringLiteral kA100Large = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
                                            "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf";
static constexpr StringLiteral kA10 =
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a10/pdf/a10-datasheet.pdf";
static constexpr StringLiteral kGa102 =
    "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf";
static constexpr StringLiteral kAda =
    "https://images.nvidia.com/aem-dam/Solutions/Data-Center/l4/nvidia-ada-gpu-architecture-whitepaper-v2.1.pdf";
static constexpr StringLiteral kL40s = "https://www.nvidia.com/en-us/data-center/l40s/";
static constexpr StringLiteral kHopper = "https://resources.nvidia.com/en-us-tensor-core/gtc22-whitepaper-hopper";
static constexpr StringLiteral kH200 = "https://www.nvidia.com/en-us/data-center/h200/";
static constexpr StringLiteral kB200 = "https://www.nvidia.com/en-us/data-center/hgx/";
static constexpr StringLiteral kRtxBlackwell =
    "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf";
static constexpr StringLiteral kRtxPro =
    "https://www.nvidia.com/en-us/products/workstations/professional-desktop-gpus/rtx-pro-6000/";
static constexpr StringLiteral kSpark = "https://docs.nvidia.com/dgx/dgx-spark/hardware.html";

/// Rates: 4 warp schedulers in every multiprocessor since Volta. A tensor core's rate follows from the published
/// FLOP/s, the multiprocessors and the clock that goes with them; GeForce halves it for f32 sums.
static TargetInfo gpu(StringRef name, StringRef arch, int64_t multiprocessors, double megahertz, double gigabytes,
                      int64_t memoryBytes, int64_t cacheBytes, int64_t sharedKilobytes, double tensorFlop,
                      StringRef source, bool isDefault = false) {
  TargetInfo info;
  info.name = name;
  info.arch = arch;
  info.kind = kv::TargetKind::Cuda;
  info.units = multiprocessors;
  info.clockHz = megahertz * 1e6;
  info.bandwidth = gigabytes * 1e9;
  info.memoryBytes = memoryBytes;
  info.cacheBytes = cacheBytes;
  info.sharedBytes = sharedKilobytes << 10;
  info.issuePerCycle = 4;
  info.tensorFlopPerCycle = tensorFlop;
  info.isDefault = isDefault;
  info.source = source;
  return info;
}

ArrayRef<TargetInfo> kvcc::getGpuTargets() {
  constexpr bool kDefault = true;
  constexpr int64_t kMega = 1 << 20;
  static const TargetInfo kTargets[] = {
      // name, arch, SMs, MHz, GB/s, memory, L2, shared KB/SM, tensor FLOP/cycle/SM, source
      gpu("t4", "sm_75", 40, 1590, 320, 15843721216, 4 * kMega, 64, 1024, kTuring, kDefault),
      gpu("a100-40gb", "sm_80", 108, 1410, 1555, 42405855232, 40 * kMega, 164, 2048, kA100),
      gpu("a100-80gb", "sm_80", 108, 1410, 2039, 85100068864, 40 * kMega, 164, 2048, kA100Large, kDefault),
      gpu("a10", "sm_86", 72, 1695, 600, 24000000000, 6 * kMega, 100, 1024, kA10, kDefault),
      gpu("a40", "sm_86", 84, 1740, 696, 47608692736, 6 * kMega, 100, 1024, kGa102),
      gpu("rtx3090", "sm_86", 82, 1695, 936, 25447170048, 6 * kMega, 100, 512, kGa102),
      gpu("l4", "sm_89", 58, 2040, 300, 23612293120, 48 * kMega, 100, 1024, kAda),
      gpu("l40s", "sm_89", 142, 2520, 864, 47576711168, 96 * kMega, 100, 1024, kL40s, kDefault),
      gpu("rtx4090", "sm_89", 128, 2520, 1008, 25250627584, 72 * kMega, 100, 512, kAda),
      // Hopper and B200 lower their clock under tensor core load: 1620 (PCIe), 1830 and 1835 MHz go with the FLOP/s.
      gpu("h100-pcie", "sm_90", 114, 1755, 2039, 84942979072, 50 * kMega, 228, 4096, kHopper),
      gpu("h100-sxm", "sm_90", 132, 1980, 3352, 84942979072, 50 * kMega, 228, 4096, kHopper, kDefault),
      gpu("h200", "sm_90", 132, 1980, 4800, 151397597184, 50 * kMega, 228, 4096, kH200),
      gpu("b200", "sm_100", 148, 1965, 7672, 191514411008, 132644864, 228, 8192, kB200, kDefault),
      gpu("rtx5090", "sm_120", 170, 2407, 1792, 33660534784, 96 * kMega, 100, 512, kRtxBlackwell, kDefault),
      gpu("rtx-pro-6000", "sm_120", 188, 2617, 1792, 97887 * kMega, 128 * kMega, 100, 1024, kRtxPro),
      // Its matrix rate is published for fp4 with sparsity only.
      gpu("gb10", "sm_121", 48, 2418, 273, 122570 * kMega, 24 * kMega, 100, 0, kSpark, kDefault),
  };
  return kTargets;
}

const TargetInfo *kvcc::findGpu(StringRef name) {
  ArrayRef<TargetInfo> all = getGpuTargets();
  const TargetInfo *found = find_if(all, [&](const TargetInfo &info) { return info.name == name; });
  return found == all.end() ? nullptr : found;
}

const TargetInfo *kvcc::getDefaultGpu(StringRef arch) {
  // The suffixes of specific and family features.
  if (arch.ends_with("a") || arch.ends_with("f"))
    arch = arch.drop_back();
  ArrayRef<TargetInfo> all = getGpuTargets();
  const TargetInfo *found = find_if(all, [&](const TargetInfo &info) { return info.isDefault && info.arch == arch; });
  return found == all.end() ? nullptr : found;
}

TargetInfo kvcc::makeHostTarget(StringRef isa, int64_t cores, double clockHz, int64_t cacheBytes, double bandwidth) {
  TargetInfo info;
  info.name = "host";
  info.arch = isa;
  info.units = cores;
  info.clockHz = clockHz;
  info.bandwidth = bandwidth;
  info.cacheBytes = cacheBytes;
  info.issuePerCycle = 2;
  info.source = "the caller";
  return info;
}
