// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// LLVM dialect to object code, and object code into this process.
#ifndef KVCC_CODEGEN_CPU_JIT_H
#define KVCC_CODEGEN_CPU_JIT_H

#include "mlir/IR/BuiltinOps.h"
#include "passes/CpuLevel.h"
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

  /// Calls of instructions that this processor may lack are replaced by code that does the same, see Emulation.h.
  bool emulated = false;

  /// This process's processor with all its features.
  static Machine host();
  /// The lowest common denominator of the host's architecture.
  static Machine baseline();
  /// Any processor that has a level; the host for the level that needs nothing.
  static Machine of(const CpuLevel &level);
};

/// Whether this process can run kernels of a level.
bool hostHas(const CpuLevel &level);
/// The best level that it can run.
const CpuLevel &getHostLevel();

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
