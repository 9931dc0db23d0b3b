// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A compiled plan, loaded and ready to run.
#ifndef KVCC_RUNTIME_PROGRAM_H
#define KVCC_RUNTIME_PROGRAM_H

#include "runtime/Compiler.h"
#include "runtime/Splits.h"
#include "runtime/ThreadPool.h"

namespace kvcc {

/// How the kernels of a call are run.
struct LaunchOptions {
  unsigned threads = 0;   ///< of the pool, for Executor::Cpu; 0: all
  void *stream = nullptr; ///< for Executor::CudaDevice
  uint64_t seed = 0;      ///< of the order of execution, for Executor::CudaHost
};

/// One decode step of one layer. Memory is the host's for Executor::Cpu and CudaHost and the device's for
/// CudaDevice; shapes are row-major and dense.
struct AttendCall : LaunchOptions {
  const void *query = nullptr;      ///< [batch, queries, q_heads, head_dim] of the cache's dtype
  const void *pages = nullptr;      ///< pool of CacheLayout::pageBytes each
  const int32_t *table = nullptr;   ///< [batch, tableStride]: pages of each sequence
  const void *slots = nullptr;      ///< pool of CacheLayout::slotBytes each
  const int32_t *slotIds = nullptr; ///< [batch]
  const int32_t *lens = nullptr;    ///< [batch]: tokens of each sequence, 0 allowed
  void *out = nullptr;              ///< [batch, queries, q_heads, head_dim], f32 or as AttentionShape::roundsOut says
  float *lse = nullptr;             ///< [batch, queries, q_heads], natural logarithm
  const float *sinks = nullptr;     ///< [q_heads], of a shape with sink logits
  /// Program::getWorkspaceBytes(batch * queries, splits). For Executor::CudaDevice, the first kCounterBytes are zero
  /// when it is first used, and again after each call.
  void *workspace = nullptr;
  int64_t tableStride = 0, batch = 0, splits = 1;
  int64_t splitBlocks = 0; ///< of 32 tokens, that each split has; 0: a share of those of its sequence
  int64_t queries = 1; ///< of the last tokens of each sequence; query i sees all but the last queries - 1 - i tokens
};

/// New tokens of one layer, with the same memory.
struct AppendCall : LaunchOptions {
  const void *keys = nullptr, *values = nullptr; ///< of the cache's dtype, by the strides below
  void *pages = nullptr;
  const int32_t *table = nullptr;
  void *slots = nullptr;
  const int32_t *slotIds = nullptr;
  const int32_t *lens = nullptr;    ///< [batch]: tokens of each sequence after the call
  const int32_t *newLens = nullptr; ///< [batch]: tokens that it gets, at most as many
  const float *given = nullptr;     ///< kv::GivenLayout, or null
  int64_t gives = 0;                ///< bits kGivesKeyMeans, kGivesValueMeans, kGivesWeights
  int64_t tableStride = 0, batch = 0, maxNew = 0;
  int64_t sequenceStride = 0, tokenStride = 0, headStride = 0; ///< of keys and of values, in elements
};

/// Splits of a work item count themselves in the first bytes of the workspace, whatever the shape: calls of several
/// programs may share it.
constexpr int64_t kMaxSplitItems = 4096, kCounterBytes = kMaxSplitItems * int64_t(sizeof(int32_t));
/// Of the workspace: parts are loaded 16 bytes at a time.
constexpr uintptr_t kWorkspaceAlignment = 16;

/// An argument of a kernel: a pointer or an index.
struct KernelArg {
  uint64_t value;
  KernelArg(const void *pointer) : value(reinterpret_cast<uintptr_t>(pointer)) {}
  KernelArg(int64_t index) : value(uint64_t(index)) {}
};

enum class Kernel { Attend, Append, Merge };

/// Runs the kernels of a module over grids of work items, whose indices are a kernel's last arguments.
class Backend {
public:
  using Grid = std::array<int64_t, 3>;
  virtual ~Backend() = default;
  virtual llvm::Error launch(Kernel kernel, llvm::ArrayRef<KernelArg> args, Grid grid,
                             const LaunchOptions &options) = 0;
  /// Work items that keep the machine busy.
  virtual int64_t getParallelism(unsigned threads) const = 0;
  /// What decides how tokens are split on a GPU.
  virtual std::optional<GpuShape> getGpu() const { return std::nullopt; }
  /// Numbers where kernels can read them.
  virtual llvm::Expected<std::shared_ptr<const float>> upload(llvm::ArrayRef<float> numbers) const;
  /// Between memory of the kernels and the host's, done on return; and within memory of the kernels, in the order of
  /// the stream.
  virtual llvm::Error read(void *host, const void *memory, size_t bytes, void *stream) const;
  virtual llvm::Error write(void *memory, const void *host, size_t bytes, void *stream) const;
  virtual llvm::Error copy(void *target, const void *source, size_t bytes, void *stream) const;
};

llvm::Expected<std::unique_ptr<Backend>> loadCpuBackend(llvm::StringRef object, ThreadPool &pool);
/// Blocks of attention kernels; those of the others have no dynamic shared memory.
struct CudaBlock {
  unsigned threads = 0, sharedBytes = 0;
};
llvm::Expected<std::unique_ptr<Backend>> loadCudaHostBackend(llvm::StringRef object, CudaBlock attend);
llvm::Expected<std::unique_ptr<Backend>> loadCudaBackend(llvm::StringRef image, const Plan &plan, CudaBlock attend);

/// Immutable once loaded; attend may be called from several threads at once.
class Program {
public:
  /// Compiles (or finds in the cache) and loads. `pool` outlives the program.
  static llvm::Expected<std::unique_ptr<Program>> load(Compiler &compiler, Plan plan, ThreadPool &pool);

  const Plan &getPlan() const { return plan; }
  const kv::CacheLayout &getLayout() const { return *plan.layout; }
  /// The packings of the schedule, as text.
  struct Packings {
    std::string key, value, floats;
  };
  const Packings &getPackings() const { return packings; }
  bool wasCached() const { return cached; }
  const std::string &getNote() const { return note; }

  /// Pages that a sequence of `tokens` tokens occupies.
  int64_t getPages(int64_t tokens) const;
  /// Pages at the beginning of a sequence that no query at this length or a greater one reads.
  int64_t getExpiredPages(int64_t tokens) const;
  /// Into how many parts to split the tokens of `batch` sequences, for `queries` of each.
  int64_t chooseSplits(int64_t batch, int64_t queries, int64_t maxTokens, unsigned threads) const;
  /// The splits that sequences of up to `maxTokens` need for `splitBlocks` blocks each.
  int64_t getSplits(int64_t splitBlocks, int64_t maxTokens) const;
  /// At least that, however `rows` queries are those of sequences.
  int64_t getMostSplits(int64_t rows, int64_t maxTokens, unsigned threads) const;
  size_t getWorkspaceBytes(int64_t rows, int64_t splits) const;

  /// Trusts its arguments; see kvcc.h for the checks.
  llvm::Error attend(const AttendCall &call) const;
  llvm::Error append(const AppendCall &call) const;
  /// Merges `parts` results over disjoint tokens, [parts, rows, head_dim] and [parts, rows], into one. Where the
  /// kernels run.
  llvm::Error merge(const float *outs, const float *lses, int64_t parts, int64_t rows, float *out, float *lse,
                    const LaunchOptions &options) const;
  const Backend &getBackend() const { return *backend; }

private:
  llvm::Error attendSome(const AttendCall &call) const;
  /// The most blocks that a query of up to so many tokens reaches.
  int64_t getReachedBlocks(int64_t maxTokens) const;
  /// Work items of a sequence that is not split, `queries` of which attend.
  int64_t getTiles(int64_t queries) const;
  int64_t limitSplits(int64_t items, int64_t maxTokens, unsigned threads) const;
  Program(Plan plan, std::unique_ptr<Backend> backend);
  /// Whether a step is too short for several threads, and whether an append has more to do than copy a few tokens; of
  /// calls on the CPU, whose lengths can be read.
  bool isShort(const AttendCall &call) const;
  bool quantizes(const AppendCall &call) const;
  Plan plan;
  Packings packings;
  std::unique_ptr<Backend> backend;
  bool cached = false;
  std::string note;
};

} // namespace kvcc

#endif
