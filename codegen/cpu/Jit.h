// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// LLVM dialect to object code, and object code into this process.
#ifndef KVCC_CODEGEN_CPU_JIT_H
#define KVCC_CODEGEN_CPU_JIT_H

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"

#include <memory>
#include <string>

namespace llvm::orc {
class LLJIT;
}

namespace kvcc::cpu {

/// A processor that code is generated for, as LLVM names it.
struct Machine {
  std::string triple, cpu, features;

  /// This process's processor with all its features.
  static Machine host();
  /// The lowest common denominator of the host's architecture.
  static Machine baseline();
  /// x86-64 with AVX-512 F, BW, DQ, VL, VBMI and VNNI, whatever the host has.
  static Machine avx512Vnni();
};

/// Whether this process can run #kv.target<cpu, "avx512_vnni">.
bool hostHasAvx512Vnni();

enum class CodeFormat { LlvmIr, Assembly, Object };

/// Optimizes and compiles a module in the LLVM dialect.
llvm::Expected<std::unique_ptr<llvm::MemoryBuffer>> compileModule(mlir::ModuleOp module, const Machine &machine,
                                                                  CodeFormat format);

/// An object loaded into this process by ORC; its code lives as long as this does. Thread-safe after load.
class LoadedObject {
public:
  static llvm::Expected<std::unique_ptr<LoadedObject>> load(std::unique_ptr<llvm::MemoryBuffer> object);
  ~LoadedObject();
  llvm::Expected<void *> lookup(llvm::StringRef symbol);

private:
  explicit LoadedObject(std::unique_ptr<llvm::orc::LLJIT> jit);
  std::unique_ptr<llvm::orc::LLJIT> jit;
};

} // namespace kvcc::cpu

#endif
