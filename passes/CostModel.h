// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What one layer's decode step costs on a target: bytes as the layout has them, instructions as the lowerings emit
// them. Good for comparing formats, schedules and targets; a benchmark says what a step takes.
#ifndef KVCC_PASSES_COSTMODEL_H
#define KVCC_PASSES_COSTMODEL_H

#include "passes/TargetInfo.h"

namespace kvcc {

/// What limits a step: reading memory, starting instructions, those of a GPU's integer units among them, its tensor
/// cores, or what it costs to start at all.
enum class Bound { Memory, Issue, Logic, Tensor, Latency };

struct StepCost {
  /// Bytes of a quantized token: codes, scales and zeros of keys and values, all KV heads, padding of blocks included.
  double bytesPerToken = 0;
  /// Bytes of the cache that a step over the whole batch reads, whole blocks as kernels do: pages, sink and recent
  /// windows. (Query, output and the partial results of splits are negligible.)
  double bytes = 0;
  /// Instructions issued per element of the pages, for all query heads of its KV head: of a vector on a CPU, of a
  /// warp on a GPU (times 32: per lane).
  double instructionsPerElement = 0;
  double memorySeconds = 0, issueSeconds = 0;
  double logicSeconds = 0, tensorSeconds = 0; ///< of kernels for tensor cores, else 0
  double fixedSeconds = 0;
  double seconds = 0; ///< the largest of those before, plus fixedSeconds
  Bound bound = Bound::Latency;
};

/// One layer's decode step of `batch` sequences of `context` tokens each. `queryHeads` is a multiple of the cache's
/// kv_heads. Without a schedule, as kv-plan-schedule would plan; scales are where kv-place-scales places them.
///
/// More context is more time except where a flush turns window tokens into fewer quantized bytes.
StepCost estimateStep(kv::CacheType cache, int64_t queryHeads, kv::ScheduleAttr schedule, const TargetInfo &target,
                      int64_t context, int64_t batch = 1);

/// The attentions of a module and what they cost: `getAnalysis<CostAnalysis>()` in a pass over modules.
class CostAnalysis {
public:
  explicit CostAnalysis(mlir::Operation *op);

  /// In the order of the module.
  llvm::ArrayRef<kv::AttendOp> getAttends() const { return attends; }
  StepCost estimate(kv::AttendOp attend, const TargetInfo &target, int64_t context, int64_t batch) const;

private:
  llvm::SmallVector<kv::AttendOp> attends;
};

} // namespace kvcc

#endif
