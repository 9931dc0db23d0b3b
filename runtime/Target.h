// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a user may name as a target, and what that means for code generation and execution.
#ifndef KVCC_RUNTIME_TARGET_H
#define KVCC_RUNTIME_TARGET_H

#include "codegen/cpu/Jit.h"
#include "dialect/Kv.h"
#include "llvm/Support/Error.h"

#include <string>

namespace kvcc {

/// Where kernels run: threads of this process, emitted CUDA on the host's CPU, or a GPU.
enum class Executor { Cpu, CudaHost, CudaDevice };

struct Target {
  std::string name; ///< as the user may write it: "cpu:avx2", "cuda-host", "cuda:sm_90"
  kv::TargetKind kind = kv::TargetKind::Cpu;
  Executor executor = Executor::Cpu;
  std::string arch;     ///< of #kv.target: "generic", "avx2", "sm_90"
  cpu::Machine machine; ///< for Executor::Cpu
  bool isHost = false;  ///< "cpu": this very machine, so that what was tuned here holds

  kv::TargetAttr getAttr(mlir::MLIRContext &context) const;
};

/// Understands
/// - `cpu` (the best level that this host has, compiled for this host), `cpu:generic` (portable vector code, compiled
/// for
///   this host), `cpu:` and another level of getCpuLevels (compiled for any processor that has it);
/// - `cpu-emulated:` and a level: its code, with the instructions that a host may lack written out, for tests;
/// - `cuda:sm_75` and newer; `cuda` is the architecture of the first GPU of this machine;
/// - `cuda-host`: the CUDA text, compiled by the host's C++ compiler and run on the CPU, for tests.
/// Whether NVRTC knows an architecture is found out when it compiles.
llvm::Expected<Target> parseTarget(llvm::StringRef text);

/// 90 of "sm_90", "sm_90a" or "sm_90f"; 0 of what is none of these.
unsigned getComputeCapability(llvm::StringRef arch);

} // namespace kvcc

#endif
