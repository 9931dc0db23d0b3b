// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What is fuzzed: a function that must come back for any bytes, and inputs to start from.
#ifndef KVCC_TEST_FUZZ_FUZZTARGET_H
#define KVCC_TEST_FUZZ_FUZZTARGET_H

#include "mlir/IR/MLIRContext.h"
#include "llvm/ADT/StringRef.h"

#include <string>
#include <vector>

namespace kvcc::fuzz {

struct Target {
  const char *name;
  /// Returns for any bytes. What breaks a rule of the interface under test ends the process, by require().
  void (*run)(llvm::StringRef bytes);
  /// Small valid inputs and near misses, made from the files of the tests or written by the library itself.
  std::vector<std::string> (*getSeeds)();
};

extern const Target config, safetensors, assembly, layers, scheme, cacheEntry, snapshot, calls;

/// Aborts unless `holds`, so that a fuzzer keeps the input.
void require(bool holds, const char *rule);

/// A context with the dialects that the kv dialect refers to, on one thread. A new one now and then: a context never
/// frees what it has uniqued.
mlir::MLIRContext &getContext();

/// The files of a folder of test/ whose names end in `ending`, in the order of their names.
std::vector<std::string> readFiles(llvm::StringRef folder, llvm::StringRef ending);

} // namespace kvcc::fuzz

#endif
