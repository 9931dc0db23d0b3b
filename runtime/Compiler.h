// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// From a plan to machine code, through the kernel cache.
#ifndef KVCC_RUNTIME_COMPILER_H
#define KVCC_RUNTIME_COMPILER_H

#include "runtime/CacheBundle.h"
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
  /// What a cache must hold so that another process finds all of this. Empty for forms that are not cached.
  std::vector<CacheRecord> records;
};

/// An MLIR context, a kernel cache and, once it is needed, NVRTC. Thread-safe: planning takes turns, compiling does
/// not.
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
  ///
  /// Bundles (see CacheBundle.h) bring kernels of which this machine cannot know the key: a cubin has that of the NVRTC
  /// that made it, an object for target `cpu` that of the very processor. They carry a second entry for each, a
  /// stand-in, whose key lacks what differs and whose content is the key to look up. Only bundles do: what was compiled
  /// here for another target never changes what target `cpu` gets. The kernel's own key comes first, then the stand-in,
  /// then the compiler.
  llvm::Expected<Artifact> emit(const Plan &plan, Emit form);
  /// What the executors of `plans` load, compiled side by side on up to `threads` threads. `done` is called after each,
  /// one call at a time, in the order in which they end.
  llvm::Expected<std::vector<Artifact>>
  emitExecutables(llvm::ArrayRef<const Plan *> plans, unsigned threads,
                  llvm::function_ref<void(size_t, const Artifact &)> done = nullptr);
  /// The form that the plan's executor loads: Object, HostObject or Cubin.
  static Emit getExecutableForm(const Plan &plan);

  /// Keeps `options` in the cache as the best schedule for what `plan` says apart from its schedule. Plans for this
  /// machine (target `cpu`) take it from then on, unless options say otherwise.
  void storeTuned(const Plan &plan, const ScheduleOptions &options);

private:
  struct Request;
  using Produce = llvm::function_ref<llvm::Expected<std::unique_ptr<llvm::MemoryBuffer>>()>;
  llvm::Expected<Plan> planTuned(const AttentionShape &shape, llvm::StringRef dtype, const Scheme &scheme,
                                 const Target &target, const ScheduleOptions &options);
  llvm::Expected<Artifact> throughCache(const Plan &plan, const Request &request, Produce produce);
  llvm::Expected<Artifact> emitText(const Plan &plan, llvm::StringRef text, Emit form);
  llvm::Expected<Artifact> emitNvrtc(const Plan &plan, llvm::StringRef text, Emit form);
  llvm::Expected<std::shared_ptr<Nvrtc>> getNvrtc();

  std::mutex mutex; // guards the context
  std::unique_ptr<mlir::MLIRContext> context;
  KernelCache cache;
  std::mutex nvrtcMutex;
  std::shared_ptr<Nvrtc> nvrtc;
};

/// Everything that turns a plan into code, apart from the plan: the compiler's own sources and LLVM's version. A
/// changed pass never finds what the old one made.
std::string getCompilerIdentity();

/// Calls body(0) .. body(items - 1) on up to `threads` threads and waits for all of them: for work of milliseconds and
/// more. Of several errors the one of the first item is returned. The threads are new ones, with stacks that a compiler
/// can use, and live as long as the call.
llvm::Error runSideBySide(size_t items, unsigned threads, llvm::function_ref<llvm::Error(size_t)> body);

/// Names of the kernels in every module.
constexpr llvm::StringLiteral kAttendName = "attend", kAppendName = "append", kMergeName = "merge";
/// What a GPU's driver and profilers call one of them, by what it was compiled for: of innerq-small
/// "kvcc_attend_k_i3_sym_1x32_v_i2_sym_32x1_d128_g4", g being the query heads of a KV head.
std::string getGpuName(const Plan &plan, llvm::StringRef kernel);

} // namespace kvcc

#endif
