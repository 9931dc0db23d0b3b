// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Runs emitted CUDA text without a GPU: the host's C++ compiler builds it against the host prelude
// into a shared object, which is loaded and launched like a CUDA module.

#ifndef KVCC_RUNTIME_CUDAHOST_H
#define KVCC_RUNTIME_CUDAHOST_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace kvcc {

struct CudaHostOptions {
  /// A path or a name on PATH. Empty: $KVCC_HOST_CXX, then c++, g++, clang++, clang++-22.
  std::string compiler;
  /// Appended to the command line, e.g. sanitizers.
  std::vector<std::string> flags;
  /// Whether accesses to shared memory that no barrier orders are errors; also with KVCC_HOST_CHECK=races in the
  /// environment. Such objects are compiled faster and run slower.
  bool checksRaces = false;
  unsigned timeoutSeconds = 300;
};

class CudaHostModule {
public:
  /// compileToObject and loadObject. `source` is the emitted text alone; the prelude is added here.
  static llvm::Expected<std::unique_ptr<CudaHostModule>>
  compile(llvm::StringRef source, llvm::ArrayRef<std::string> kernelNames, const CudaHostOptions &options = {});

  /// The bytes of a shared object with one entry per kernel. They depend on the source, the names,
  /// the prelude and cacheIdentity(), and on nothing else (sanitizers and -g add the path of a
  /// temporary file). They use the instruction set of this machine.
  static llvm::Expected<std::unique_ptr<llvm::MemoryBuffer>>
  compileToObject(llvm::StringRef source, llvm::ArrayRef<std::string> kernelNames, const CudaHostOptions &options = {});

  /// Loads such bytes; fails when a kernel is missing.
  static llvm::Expected<std::unique_ptr<CudaHostModule>> loadObject(llvm::StringRef bytes,
                                                                    llvm::ArrayRef<std::string> kernelNames);

  /// What a cache key needs besides the source and the names: the compiler's version and flags and
  /// the text of the prelude. Starts the compiler once to ask for its version.
  static llvm::Expected<std::string> cacheIdentity(const CudaHostOptions &options = {});

  ~CudaHostModule();
  CudaHostModule(const CudaHostModule &) = delete;
  CudaHostModule &operator=(const CudaHostModule &) = delete;

  /// Runs the whole grid before it returns. args[i] points to the value of parameter i, as for
  /// cuLaunchKernel. `seed` decides the order of CTAs and threads and when asynchronous copies
  /// land; 0 is ascending order and at once. Equal seeds give equal results, bit for bit. Launches
  /// of one module take turns. A kernel that uses a collective wrongly is an error, and what it
  /// has written until then stays; one that never returns is not noticed.
  llvm::Error launch(llvm::StringRef kernel, std::array<uint32_t, 3> grid, uint32_t threads,
                     llvm::MutableArrayRef<void *> args, uint64_t seed, uint32_t sharedBytes = 0);

private:
  CudaHostModule() = default;

  void *handle = nullptr;
  llvm::StringMap<void *> entries;
  std::mutex mutex;
};

} // namespace kvcc

#endif // KVCC_RUNTIME_CUDAHOST_H
