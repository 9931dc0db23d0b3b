// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-choose-modes: map, transforms and writer of each layer, for the bytes that its layout takes.
#include "passes/Candidates.h"
#include "passes/Passes.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/Remarks.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;

namespace kvcc {
#define GEN_PASS_DEF_CHOOSEMODESPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

/// "sym_signed, center, hadamard, feedback"
static std::string describe(QuantAttr quant) {
  std::string text = stringifyMap(quant.getMap()).str();
  for (Attribute transform : quant.getTransforms()) {
    std::string printed;
    llvm::raw_string_ostream(printed) << transform;
    text += ", " + printed.substr(StringRef("#kv.").size());
  }
  if (quant.getSearch())
    text += ", search";
  if (quant.getFeedback())
    text += ", feedback";
  return text;
}

namespace {
struct ChooseModesPass : kvcc::impl::ChooseModesPassBase<ChooseModesPass> {
  void runOnOperation() override {
    if (failed(kvcc::checkFacts(getOperation())))
      return signalPassFailure();
    // Layers of equal layout and shape share their modes, and so their kernels.
    using Group = std::tuple<Attribute, int64_t, int64_t, int64_t>;
    for (Role role : {Role::Key, Role::Value}) {
      llvm::MapVector<Group, SmallVector<LayerOp>> groups;
      int64_t layers = 0;
      getOperation().walk([&](LayerOp layer) {
        ++layers;
        if (layer.isOpen(role) && layer.getQuant(role).isQuantized())
          groups[{getLayout(layer.getQuant(role)), *layer.getQHeads(), *layer.getKvHeads(), *layer.getHeadDim()}]
              .push_back(layer);
      });
      for (auto &[group, members] : groups)
        choose(role, std::get<0>(group), members, layers);
    }
    getOperation().walk([](LayerOp layer) { layer.removeOpenAttr(); });
  }

  void choose(Role role, Attribute layout, ArrayRef<LayerOp> members, int64_t layers) {
    // The damage of each candidate of this layout, summed over the layers that have it.
    struct Sum {
      double damage = 0;
      size_t layers = 0;
    };
    llvm::MapVector<Attribute, Sum> sums;
    for (LayerOp layer : members)
      for (const Candidate &candidate : getCandidates(layer, role, layers))
        if (getLayout(candidate.quant) == layout) {
          Sum &sum = sums[candidate.quant];
          sum.damage += candidate.damage;
          ++sum.layers;
        }
    Attribute best, second;
    for (auto &[quant, sum] : sums) {
      if (sum.layers != members.size())
        continue;
      if (!best || sum.damage < sums[best].damage) {
        second = best;
        best = quant;
      } else if (!second || sum.damage < sums[second].damage) {
        second = quant;
      }
    }
    if (!best) // a layout from elsewhere: nothing is known about it
      return;
    auto chosen = cast<QuantAttr>(best);
    bool measured = bool(LayerOp(members.front()).getMeasured());
    std::string reason = stringifyRole(role).str() + "s " + describe(chosen) + ": ";
    reason +=
        measured
            ? llvm::formatv("measured damage {0:e2} over {1} layers", sums[best].damage, members.size()).str()
            : std::string(role == Role::Key ? "a prior: rotation and centring are free per cached element and won in "
                                              "every measurement"
                                            : "a prior: rotation makes one scale per token enough");
    if (second)
      reason +=
          llvm::formatv("; the runner-up, {0}, has {1:e2}", describe(cast<QuantAttr>(second)), sums[second].damage);
    for (LayerOp layer : members) {
      layer.setQuant(role, chosen);
      layer.addReason(role == Role::Key ? "key modes" : "value modes", reason);
      remark::passed(layer.getLoc(), remark::RemarkOpts::name("modes").category("kv-choose-modes"))
          << "layer " << std::to_string(layer.getIndex()) << ": " << reason;
    }
  }
};
} // namespace
