// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// From a plan to machine code, through the kernel cache.
#ifndef KVCC_RUNTIME_COMPILER_H
#define KVCC_RUNTIME_COMPILER_H

#include "runtime/KernelCache.h"
#include "runtime/ModelSchemes.h"
#include "runtime/Nvrtc.h"
#include "runtime/Plan.h"

#include <mutex>

namespace kvcc {

/// What a plan can be turned into. The first three are IR text at the levels of the dialect.
enum class Emit { Kv, Tile, Target, Llvm, Assembly, Object, Cuda, Ptx, Cubin, HostObject };

/// The name of a form on a command line, and back.
llvm::StringRef stringify(Emit emit);
/// Fails for a name that is none, or whose form the target's kind does not have; lists those it has.
llvm::Expected<Emit> parseEmit(llvm::StringRef name, const Target &target);

struct Artifact {
  std::shared_ptr<const llvm::MemoryBuffer> bytes;
  bool cached = false;     ///< found in the kernel cache, nothing was compiled
  double milliseconds = 0; ///< for compiling or for reading the cache
  std::string note;        ///< for the user: a fallback that was taken; empty if none
};

/// An MLIR context, a kernel cache and, once it is needed, NVRTC. Thread-safe: calls take turns.
class Compiler {
public:
  explicit Compiler(CacheOptions options = {});

  mlir::MLIRContext &getContext() { return *context; }
  KernelCache &getCache() { return cache; }

  /// chooseSchemes under the lock. What it returns belongs to this compiler's context.
  llvm::Expected<ModelSchemes> chooseSchemes(const ModelConfig &model, llvm::StringRef dtype, const Target &target,
                                             llvm::StringRef scheme);
  /// makePlan under the lock.
  llvm::Expected<Plan> plan(const AttentionShape &shape, llvm::StringRef dtype, const Scheme &scheme,
                            const Target &target, const ScheduleOptions &options = {});
  /// The same for a scheme as parseScheme reads it.
  llvm::Expected<Plan> plan(const AttentionShape &shape, llvm::StringRef dtype, llvm::StringRef scheme,
                            const Target &target, const ScheduleOptions &options = {});
  /// Compiles unless the cache has it. Objects, CUDA text, cubins and PTX are cached; the other forms are
  /// for people and are not.
  llvm::Expected<Artifact> emit(const Plan &plan, Emit form);
  /// The form that the plan's executor loads: Object, HostObject or Cubin.
  static Emit getExecutableForm(const Plan &plan);

  /// Keeps `options` in the cache as the best schedule for what `plan` says apart from its schedule. Plans for this
  /// machine (target `cpu`) take it from then on, unless options say otherwise.
  void storeTuned(const Plan &plan, const ScheduleOptions &options);

private:
  llvm::Expected<Plan> planTuned(const AttentionShape &shape, llvm::StringRef dtype, const Scheme &scheme,
                                 const Target &target, const ScheduleOptions &options);
  using Produce = llvm::function_ref<llvm::Expected<std::unique_ptr<llvm::MemoryBuffer>>()>;
  llvm::Expected<Artifact> throughCache(const Plan &plan, const KernelInputs &inputs, Produce produce);
  llvm::Expected<Artifact> emitLocked(const Plan &plan, Emit form);
  llvm::Expected<std::shared_ptr<Nvrtc>> getNvrtc();

  std::mutex mutex;
  std::unique_ptr<mlir::MLIRContext> context;
  KernelCache cache;
  std::shared_ptr<Nvrtc> nvrtc;
};

/// Names of the kernels in every module.
constexpr llvm::StringLiteral kAttendName = "attend", kAppendName = "append", kMergeName = "merge";

} // namespace kvcc

#endif
