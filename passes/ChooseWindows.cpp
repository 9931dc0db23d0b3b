// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-choose-windows: which tokens of each layer stay in full precision.
#include "passes/Passes.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/Remarks.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;

namespace kvcc {
#define GEN_PASS_DEF_CHOOSEWINDOWSPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

WindowAttr kvcc::getDefaultWindow(MLIRContext *context) { return WindowAttr::get(context, 32, 96, 32); }

bool kvcc::fitsWindows(LayerOp layer, WindowAttr window) {
  return layer.getWindowTokens() &&
         int64_t(*layer.getWindowTokens()) <= window.getSink() + window.getRecent() + window.getFlush();
}

namespace {
struct ChooseWindowsPass : kvcc::impl::ChooseWindowsPassBase<ChooseWindowsPass> {
  void runOnOperation() override {
    if (failed(kvcc::checkFacts(getOperation())))
      return signalPassFailure();
    MLIRContext *context = &getContext();
    getOperation().walk([&](LayerOp layer) {
      WindowAttr window = layer.getWindow().value_or(kvcc::getDefaultWindow(context));
      bool quantizes = (layer.getKey() && layer.getKey()->isQuantized()) ||
                       (layer.getValue() && layer.getValue()->isQuantized()) || !layer.getKey() || !layer.getValue();
      if (quantizes && kvcc::fitsWindows(layer, window)) {
        // Quantization would never see a token that counts.
        for (Role role : {Role::Key, Role::Value})
          layer.setQuant(role, QuantAttr::getPlain(*layer.getDtype()));
        layer.setWindowAttr(WindowAttr::get(context, 0, 0, 32));
        layer.removeOpenAttr();
        say(layer, "full precision: the layer sees " + std::to_string(*layer.getWindowTokens()) +
                       " tokens, no more than the windows keep");
        return;
      }
      if (layer.getWindow())
        return;
      if (!quantizes) {
        layer.setWindowAttr(WindowAttr::get(context, 0, 0, 32));
        return;
      }
      // A layer that forgets its first tokens has no use for sinks.
      bool forgets = bool(layer.getWindowTokens());
      layer.setWindowAttr(
          WindowAttr::get(context, forgets ? 0 : window.getSink(), window.getRecent(), window.getFlush()));
      say(layer, forgets ? "the last 96 tokens: recent tokens get most weight; the layer forgets its first tokens"
                         : "the first 32 tokens, which get weight from all later ones, and the last 96; 32 sinks "
                           "always help and cost little");
    });
  }

  static void say(LayerOp layer, const std::string &reason) {
    layer.addReason("windows", reason);
    remark::passed(layer.getLoc(), remark::RemarkOpts::name("windows").category("kv-choose-windows"))
        << "layer " << std::to_string(layer.getIndex()) << ": " << reason;
  }
};
} // namespace
