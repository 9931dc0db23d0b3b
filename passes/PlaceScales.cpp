// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-place-scales: where each scale is multiplied in.
#include "passes/Passes.h"

#include "mlir/IR/Remarks.h"

using namespace mlir;
using namespace kvcc::kv;

namespace kvcc {
#define GEN_PASS_DEF_PLACESCALESPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

Placement kvcc::choosePlacement(QuantAttr quant, Role role, int64_t headDim) {
  if (!quant.isQuantized())
    return Placement::None;
  int64_t reduced = quant.getReducedExtent(role);
  // Values are reduced over all tokens, so their groups never cover the whole reduction.
  if (role == Role::Key && reduced == headDim)
    return Placement::Result;
  return reduced > 1 ? Placement::Accumulator : Placement::Operand;
}

/// The rule that decided, in words.
static std::string explain(QuantAttr quant, Role role, Placement placement) {
  std::string axis = role == Role::Key ? "channels" : "tokens";
  std::string extent = std::to_string(quant.getReducedExtent(role));
  switch (placement) {
  case Placement::Result:
    return "a group covers the whole reduction over " + axis + ", so its scale multiplies the finished sum";
  case Placement::Accumulator:
    return "a group spans " + extent + " of the reduced " + axis + ", so its scale multiplies their sum";
  case Placement::Operand:
    return "every reduced element has a scale of its own, which folds into the small operand";
  default:
    return "numbers are stored without scales";
  }
}

namespace {
struct PlaceScalesPass : kvcc::impl::PlaceScalesPassBase<PlaceScalesPass> {
  void runOnOperation() override {
    getOperation().walk([](AttendOp attend) {
      CacheType cache = attend.getCache().getType();
      auto place = [&](QuantAttr quant, Role role) {
        Placement placement = kvcc::choosePlacement(quant, role, cache.getHeadDim());
        remark::passed(attend.getLoc(), remark::RemarkOpts::name("scale-placement").category("kv-place-scales"))
            << stringifyRole(role) << " scales at " << stringifyPlacement(placement) << ": "
            << explain(quant, role, placement) << remark::metric("group_tokens", quant.getGroupTokens())
            << remark::metric("group_channels", quant.getGroupChannels());
        return PlacementAttr::get(attend.getContext(), placement);
      };
      if (!attend.getKeyScales())
        attend.setKeyScalesAttr(place(cache.getKey(), Role::Key));
      if (!attend.getValueScales())
        attend.setValueScalesAttr(place(cache.getValue(), Role::Value));
    });
  }
};
} // namespace
