// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Machines that kernels may run on, in the figures that a cost model needs: a table of GPUs, and the host.
#ifndef KVCC_PASSES_TARGETINFO_H
#define KVCC_PASSES_TARGETINFO_H

#include "dialect/Kv.h"

#include <string>

namespace kvcc {

/// What a machine can do at best. Nothing here is measured by this project.
struct TargetInfo {
  std::string name; ///< of a product: "h100-sxm"; "host" for the CPU of this machine
  std::string arch; ///< of #kv.target: "sm_90", "avx512_vnni", "generic"
  kv::TargetKind kind = kv::TargetKind::Cpu;
  int64_t units = 0;             ///< streaming multiprocessors, or cores
  double clockHz = 0;            ///< the highest clock that a GPU's driver reports (boost)
  double bandwidth = 0;          ///< of memory, bytes per second: a GPU's theoretical peak, a CPU's reads as measured
  int64_t memoryBytes = 0;       ///< as a GPU's driver reports it; 0 where unknown
  int64_t cacheBytes = 0;        ///< L2 of a GPU, last level of a CPU
  int64_t sharedBytes = 0;       ///< shared memory of a multiprocessor; 0 for a CPU
  double issuePerCycle = 0;      ///< instructions (of a warp, of a vector) that a unit starts per cycle
  double tensorFlopPerCycle = 0; ///< of a unit: dense f16 matrix products, f32 sums; 0 where unknown
  bool isDefault = false;        ///< whether this is the product that an architecture's name stands for
  std::string source;            ///< where the figures are published
};

/// Shared memory of each block of threads that a GPU takes for itself.
constexpr int64_t kReservedSharedBytes = 1024;

/// All GPUs, by architecture.
llvm::ArrayRef<TargetInfo> getGpuTargets();

/// A product ("h100-sxm"), or null.
const TargetInfo *findGpu(llvm::StringRef name);

/// The product that stands for an architecture ("sm_90", also "sm_90a"), or null.
const TargetInfo *getDefaultGpu(llvm::StringRef arch);

/// The host, from values that the caller knows or has measured: `cores` that run kernels, what they read together
/// from memory in bytes per second, and their clock. Two vector instructions start per cycle: x86 cores have two ports
/// for 512-bit arithmetic, or execute it in halves on four of 256 bits.
TargetInfo makeHostTarget(llvm::StringRef isa, int64_t cores, double clockHz, int64_t cacheBytes, double bandwidth);

} // namespace kvcc

#endif
