// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The passes and the functions below them that others may reuse.
#ifndef KVCC_PASSES_PASSES_H
#define KVCC_PASSES_PASSES_H

#include "dialect/Kv.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"
#include "passes/CpuLevel.h"

namespace mlir {
class OpPassManager;
class DialectRegistry;
namespace LLVM {
class LLVMDialect;
}
namespace emitc {
class EmitCDialect;
}
namespace gpu {
class GPUDialect;
}
namespace math {
class MathDialect;
}
namespace vector {
class VectorDialect;
}
} // namespace mlir

namespace kvcc {

#define GEN_PASS_DECL
#include "passes/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "passes/Passes.h.inc"

/// Where the scale of a group of `quant` is multiplied in (see kv-place-scales).
kv::Placement choosePlacement(kv::QuantAttr quant, kv::Role role, int64_t headDim);

/// The largest number up to `limit` that divides `heads` evenly, so that none are left over.
int64_t getHeadsTogether(int64_t heads, int64_t limit);

/// Whether the query that codes multiply has channels of much the same size, so that bytes are enough for it: a
/// rotation sees to that. Scales of channels that fold into it would undo it, and zero points multiply what bytes lack.
bool hasLevelQuery(kv::CacheType cache);
/// Codes of so few bits are so far from their numbers that what eight bits of a query lack cannot be told from it.
constexpr unsigned kHidingBits = 3;
/// What a CPU rounds what multiplies the codes of a side to: f32, bf16, words, or bytes, which are unsigned where there
/// is no sign. With integers a query becomes words unless bytes are asked for, as its error grows with the logits;
/// weights become words where the error of bytes would show beside that of the codes, else bytes. With bf16, a query of
/// bf16 that nothing is done to stays what it is, and one whose codes hide it is rounded; weights are rounded where
/// scales fold into them, since each row of integers would have a scale of its own, and where they would be words. The
/// rest is as with words.
mlir::Type getOperandType(kv::CacheType cache, kv::Role role, kv::Placement placement, kv::Compute compute);

/// Products of halves count codes in powers of two: a code is 2^-n of its number as a half, of f16 subnormals where
/// codes are integers. Numbers as they are have n = 0.
int64_t getUnitExponent(mlir::Type element);
/// Tiles of the query that tensor-core kernels have in shared memory: as it is, for the windows, and as pages take it
/// if keys are transformed.
int64_t getQueryTiles(kv::CacheType cache);
/// The length of a row in which warps merge their outputs, and what a warp has of shared memory, for a ring of blocks
/// and, when that is done with, `rows` of those.
int64_t getMergePitch(int64_t headDim);
int64_t getWarpBytes(int64_t ring, int64_t rows, int64_t headDim);
/// Shared memory behind that of the warps: constant operands of the loop.
constexpr int64_t kConstantBytes = 64;
/// Dynamic shared memory of an attention kernel, 0 where compute is not f16.
int64_t getSharedBytes(kv::CacheType cache, kv::ScheduleAttr schedule);

/// What a user may decide of a schedule; 0 and "auto" let the pass choose.
struct ScheduleOptions {
  std::string compute = "auto"; ///< "auto", "f32", "f16", "bf16", "int16" or "int8"
  int64_t page = 0;
  int64_t heads = 0, accumulators = 0;
  int64_t warps = 0, stages = -1; ///< -1: chooses
  int64_t pageBytes = 0;          ///< of every layer, so that one pool serves all; at least what the largest needs
  bool tuned = true;              ///< of a host: take what `kvcc tune` has found, where the user says nothing else
  int64_t queries = 0;            ///< of a step, that share a pass on tensor cores where they fit; any number is right
  bool oneQuery = false;          ///< of a pass, whatever `queries` says
  int64_t ahead = -1;             ///< blocks, -1: chooses
};

/// The schedule that kv-plan-schedule would write for `queryHeads` heads over a cache, or null after an error.
kv::ScheduleAttr planSchedule(llvm::function_ref<mlir::InFlightDiagnostic()> emitError, kv::CacheType cache,
                              int64_t queryHeads, kv::TargetKind kind, llvm::StringRef arch,
                              const ScheduleOptions &options = {});

/// The objective of a module, or an error at the module.
mlir::FailureOr<kv::ObjectiveAttr> getObjective(mlir::ModuleOp module);
/// Fails, with an error there, if a kv.layer of a module lacks the facts that choices rest on.
mlir::LogicalResult checkFacts(mlir::ModuleOp module);
/// The windows that a layer gets unless it says otherwise: sink 32, recent 96, flush 32.
kv::WindowAttr getDefaultWindow(mlir::MLIRContext *context);
/// Whether a layer sees no more tokens than its windows keep in full precision.
bool fitsWindows(kv::LayerOp layer, kv::WindowAttr window);
/// Bytes for one sequence of what kv-choose-layout does not choose: windows, and layers that are decided (taken as
/// unquantized).
double getOtherBytes(mlir::ModuleOp module, kv::ObjectiveAttr objective);
/// The predicted time of a step of one layer, on the default GPU of an architecture or a host of two cores.
double estimateSeconds(kv::LayerOp layer, kv::QuantAttr key, kv::QuantAttr value, kv::TargetAttr target,
                       kv::ObjectiveAttr objective);
/// The estimated KL that is accepted if nobody says anything.
constexpr double kAcceptedKl = 5e-3;

/// The target of a module, or an error at the module naming what is missing.
mlir::FailureOr<kv::TargetAttr> getTarget(mlir::ModuleOp module);

/// Discardable attributes that passes agree on.
constexpr llvm::StringLiteral kTargetAttrName = "kv.target";
constexpr llvm::StringLiteral kObjectiveAttrName = "kv.objective";
/// What a call of the append kernel does, bits of its argument `phases`: begins sequences (measures, clears windows),
/// quantizes what leaves the recent windows, copies new tokens into the windows. All at once only if `parts` is 1.
constexpr int64_t kAppendBegins = 1, kAppendQuantizes = 2, kAppendFillsWindows = 4, kAppendAll = 7;
/// On a GPU keys and values of a head are work items of their own.
constexpr int64_t kAppendSides = 2;
/// What its argument `given` holds besides the factors of #kv.diag<given>, bits of its argument `gives`.
constexpr int64_t kGivesKeyMeans = 1, kGivesValueMeans = 2, kGivesWeights = 4;

/// On a tile function: how many trailing index arguments name the work item.
constexpr llvm::StringLiteral kItemArgsAttrName = "kv.item_args";
/// On a tile function for a CPU: the schedule's accumulators, if it names them.
constexpr llvm::StringLiteral kAccumulatorsAttrName = "kv.accumulators";
/// On a GPU function: threads of a block.
constexpr llvm::StringLiteral kThreadsAttrName = "kv.threads";
/// Those of a writer.
constexpr int64_t kWriterThreads = 128;
/// Warps that share a work item, on tile functions that are lowered to fragments.
constexpr llvm::StringLiteral kWarpsAttrName = "kv.warps";
/// Blocks of threads that share a multiprocessor, which bounds the registers; on kernels that say so.
constexpr llvm::StringLiteral kBlocksAttrName = "kv.blocks";
/// On a loop that the device compiler unrolls: all of it, if its body indexes registers, or so many iterations.
constexpr llvm::StringLiteral kUnrollAttrName = "kv.unroll";

/// The levels that a module passes through.
enum class Level { Plan, Tile, Target, Out };
/// Adds the passes from the level of `kv.attend` to `level` for the target kind. The only place where the
/// order of passes is written. `Plan` is level 1 with every decision written down; decisions that are there
/// already stay. `Out` is the LLVM dialect for a CPU and EmitC for CUDA.
void buildPipeline(mlir::OpPassManager &manager, kv::TargetKind kind, Level level, const ScheduleOptions &options);
/// Adds the passes that choose how the layers of a module (`kv.layer`) are stored.
void buildSelectionPipeline(mlir::OpPassManager &manager);
void registerPipelines();

/// Everything that any tool or test of kvcc needs: dialects, interfaces, translations.
void registerAll(mlir::DialectRegistry &registry);

} // namespace kvcc

#endif
