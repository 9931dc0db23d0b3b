// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Prints an EmitC module as CUDA C++.
#ifndef KVCC_CODEGEN_CUDA_EMITCUDA_H
#define KVCC_CODEGEN_CUDA_EMITCUDA_H

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/Error.h"
#include <string>

namespace kvcc {

/// The kernels of a module that kv-convert-gpu-to-emitc has converted, without the prelude: what both the
/// device and the host compiler are given, after their prelude. The same module gives the same bytes.
llvm::Expected<std::string> emitCuda(mlir::ModuleOp module);

} // namespace kvcc

#endif
