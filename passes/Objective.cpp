// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the selection passes share: the objective, and what a choice costs.
#include "passes/CostModel.h"
#include "passes/Passes.h"

#include "dialect/Layout.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;

FailureOr<ObjectiveAttr> kvcc::getObjective(ModuleOp module) {
  if (auto objective = module->getAttrOfType<ObjectiveAttr>(kObjectiveAttrName))
    return objective;
  return module.emitError("expected attribute kv.objective on the module, such as #kv.objective<budget = 4>, but got "
                          "none");
}

LogicalResult kvcc::checkFacts(ModuleOp module) {
  WalkResult result = module.walk([](LayerOp layer) {
    if (layer.getDtype())
      return WalkResult::advance();
    layer.emitOpError("expected q_heads, kv_heads, head_dim and dtype to choose by, but got none");
    return WalkResult::interrupt();
  });
  return failure(result.wasInterrupted());
}

double kvcc::getOtherBytes(ModuleOp module, ObjectiveAttr objective) {
  double bytes = 0;
  WindowAttr window = getDefaultWindow(module.getContext());
  module.walk([&](LayerOp layer) {
    double perToken =
        2.0 * double(*layer.getKvHeads() * *layer.getHeadDim()) * double(layer.getDtype()->getIntOrFloatBitWidth()) / 8;
    int64_t held = layer.getHeldTokens(objective.getTokens());
    bool whole = fitsWindows(layer, window) || (layer.getKey() && layer.getValue());
    bytes += perToken * double(whole ? held : window.getSink() + window.getRecent() + window.getFlush());
  });
  return bytes;
}

double kvcc::estimateSeconds(LayerOp layer, QuantAttr key, QuantAttr value, TargetAttr target,
                             ObjectiveAttr objective) {
  TargetInfo host = makeHostTarget(target.getArch().str(), 2, 3e9, int64_t(32) << 20, 3e10);
  const TargetInfo *gpu = target.getKind() == TargetKind::Cuda ? getDefaultGpu(target.getArch()) : nullptr;
  auto silent = [&] { return mlir::emitError(layer.getLoc()); };
  auto cache =
      CacheType::getChecked(silent, layer.getContext(), int64_t(*layer.getKvHeads()), int64_t(*layer.getHeadDim()),
                            Type(*layer.getDtype()), key, value, getDefaultWindow(layer.getContext()));
  if (!cache)
    return 0;
  return estimateStep(cache, int64_t(*layer.getQHeads()), {}, gpu ? *gpu : host,
                      layer.getHeldTokens(objective.getTokens()), objective.getBatch())
      .seconds;
}
