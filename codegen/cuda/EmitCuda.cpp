// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Prints an EmitC module as CUDA C++.
#include "codegen/cuda/EmitCuda.h"

#include "mlir/Target/Cpp/CppEmitter.h"

llvm::Expected<std::string> kvcc::emitCuda(mlir::ModuleOp module) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  if (mlir::failed(mlir::emitc::translateToCpp(module, stream)))
    return llvm::createStringError("cannot print the kernels as CUDA C++");
  return text;
}
