// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A compiled plan, loaded and ready to run.
#ifndef KVCC_RUNTIME_PROGRAM_H
#define KVCC_RUNTIME_PROGRAM_H

#include "runtime/Compiler.h"
#include "runtime/ThreadPool.h"

namespace kvcc {

/// One decode step of one layer. Memory is the host's for Executor::Cpu and CudaHost and the device's for
/// CudaDevice; shapes are row-major and dense.
struct AttendCall {
  const void *query = nullptr;      ///< [batch, q_heads, head_dim] of the cache's dtype
  const void *pages = nullptr;      ///< pool of CacheLayout::pageBytes each
  const int32_t *table = nullptr;   ///< [batch, tableStride]: pages of each sequence
  const void *slots = nullptr;      ///< pool of CacheLayout::slotBytes each
  const int32_t *slotIds = nullptr; ///< [batch]
  const int32_t *lens = nullptr;    ///< [batch]: tokens of each sequence, 0 allowed
  float *out = nullptr;             ///< [batch, q_heads, head_dim]
  float *lse = nullptr;             ///< [batch, q_heads], natural logarithm
  void *workspace = nullptr;        ///< Program::getWorkspaceBytes(batch, splits)
  int64_t tableStride = 0, batch = 0, splits = 1;
  unsigned threads = 0;   ///< of the pool, for Executor::Cpu; 0: all
  void *stream = nullptr; ///< for Executor::CudaDevice
  uint64_t seed = 0;      ///< of the order of execution, for Executor::CudaHost
};

/// An argument of a kernel: a pointer or an index.
struct KernelArg {
  uint64_t value;
  KernelArg(const void *pointer) : value(reinterpret_cast<uintptr_t>(pointer)) {}
  KernelArg(int64_t index) : value(uint64_t(index)) {}
};

/// Runs the two kernels of a module over a grid of work items.
class Backend {
public:
  virtual ~Backend() = default;
  /// attend(arguments..., x, y, z) and merge(arguments..., x) for every item of the grid.
  virtual llvm::Error attend(llvm::ArrayRef<KernelArg> args, std::array<int64_t, 3> grid, const AttendCall &call) = 0;
  virtual llvm::Error merge(llvm::ArrayRef<KernelArg> args, int64_t rows, const AttendCall &call) = 0;
  /// Work items that keep the machine busy.
  virtual int64_t getParallelism(unsigned threads) const = 0;
};

llvm::Expected<std::unique_ptr<Backend>> loadCpuBackend(llvm::StringRef object, ThreadPool &pool);
llvm::Expected<std::unique_ptr<Backend>> loadCudaHostBackend(llvm::StringRef object);
llvm::Expected<std::unique_ptr<Backend>> loadCudaBackend(llvm::StringRef image, const Target &target);

/// Immutable once loaded; attend may be called from several threads at once.
class Program {
public:
  /// Compiles (or finds in the cache) and loads. `pool` outlives the program.
  static llvm::Expected<std::unique_ptr<Program>> load(Compiler &compiler, Plan plan, ThreadPool &pool);

  const Plan &getPlan() const { return plan; }
  const kv::CacheLayout &getLayout() const { return layout; }
  bool wasCached() const { return cached; }
  const std::string &getNote() const { return note; }

  /// Pages that a sequence of `tokens` tokens occupies.
  int64_t getPages(int64_t tokens) const;
  /// Into how many parts to split the tokens of each sequence.
  int64_t chooseSplits(int64_t batch, int64_t maxTokens, unsigned threads) const;
  size_t getWorkspaceBytes(int64_t batch, int64_t splits) const;

  /// Trusts its arguments; see kvcc.h for the checks.
  llvm::Error attend(const AttendCall &call) const;

private:
  Program(Plan plan, std::unique_ptr<Backend> backend);
  Plan plan;
  kv::CacheLayout layout;
  std::unique_ptr<Backend> backend;
  bool cached = false;
  std::string note;
};

} // namespace kvcc

#endif
