// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A decided kernel: the level 1 module of one attention layer with every choice written into it.
#ifndef KVCC_RUNTIME_PLAN_H
#define KVCC_RUNTIME_PLAN_H

#include "dialect/Layout.h"
#include "mlir/IR/OwningOpRef.h"
#include "passes/Passes.h"
#include "runtime/ModelConfig.h"
#include "runtime/Scheme.h"
#include "runtime/Target.h"

#include <optional>
#include <vector>

namespace kvcc {

/// What a kernel computes, apart from how its cache is stored; see kv.attend.
struct AttentionShape {
  int64_t qHeads = 0, kvHeads = 0, headDim = 0;
  double scale = 0;   ///< of q.k
  double softcap = 0; ///< 0: none
  kv::Reach reach = kv::Reach::Full;
  int64_t windowTokens = 0; ///< of a reach that is not full
  bool sinkLogits = false;
  bool roundsOut = false; ///< to the dtype of the query; else results are f32

  static AttentionShape of(const LayerConfig &layer);
  bool operator==(const AttentionShape &) const = default;
  /// The first token that a query reaches, the last of `tokens`.
  int64_t getFirstReached(int64_t tokens) const;
};

struct Plan {
  mlir::OwningOpRef<mlir::ModuleOp> module; ///< @attend and @merge; level 1
  AttentionShape shape;
  Target target;
  std::string scheme; ///< its name
  kv::CacheType cache;
  kv::ScheduleAttr schedule;
  std::optional<kv::CacheLayout> layout; ///< of the cache and the schedule
  kv::Placement keyPlacement, valuePlacement;
  std::vector<std::string> remarks; ///< why each choice was made, a line each

  /// The module as text: the same plan gives the same bytes.
  std::string print() const;
};

/// Dialects, passes and interfaces of kvcc, in a context that uses no threads of its own.
std::unique_ptr<mlir::MLIRContext> createContext();

/// `dtype` ("f16", "bf16", "f32") is that of the query and of the tokens in the windows. Errors are those of
/// the dialect's verifiers and the deciding passes.
llvm::Expected<Plan> makePlan(mlir::MLIRContext &context, const AttentionShape &shape, llvm::StringRef dtype,
                              const Scheme &scheme, const Target &target, const ScheduleOptions &options = {});

/// Runs the passes that choose how the layers of a module (kv.layer) are stored.
llvm::Error runSelection(mlir::ModuleOp module, std::vector<std::string> &remarks);

/// A module in a context that belongs to it alone.
struct LoweredModule {
  std::unique_ptr<mlir::MLIRContext> context; // before what lives in it
  mlir::OwningOpRef<mlir::ModuleOp> module;
};

/// What Plan::print() wrote, lowered to `level`. Any number of threads may lower at once, and nothing that a process
/// compiled before has a say in the result.
llvm::Expected<LoweredModule> lowerPlan(llvm::StringRef text, kv::TargetKind kind, Level level);

std::string printModule(mlir::ModuleOp module);

} // namespace kvcc

#endif
