// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-plan-schedule: how a target computes attention.
#include "passes/Passes.h"

#include "mlir/IR/Remarks.h"

using namespace mlir;
using namespace kvcc::kv;

namespace kvcc {
#define GEN_PASS_DEF_PLANSCHEDULEPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

FailureOr<TargetAttr> kvcc::getTarget(ModuleOp module) {
  if (auto target = module->getAttrOfType<TargetAttr>(kTargetAttrName))
    return target;
  return module.emitError("expected attribute kv.target on the module, such as #kv.target<cpu, \"generic\">"
                          " or #kv.target<cuda, \"sm_90\">, but got none");
}

/// The largest number of heads up to `limit` that divides the group evenly, so that no tile is partial.
static int64_t chooseHeads(int64_t group, int64_t limit) {
  for (int64_t heads = std::min(group, limit); heads > 1; --heads)
    if (group % heads == 0)
      return heads;
  return 1;
}

/// Codes that no product of integers takes.
static bool hasFloatBytes(CacheType cache) {
  return llvm::any_of(ArrayRef{cache.getKey(), cache.getValue()},
                      [](QuantAttr quant) { return isa<Float8E4M3FNType>(quant.getElement()); });
}

ScheduleAttr kvcc::planSchedule(function_ref<InFlightDiagnostic()> emitError, CacheType cache, int64_t queryHeads,
                                TargetKind kind, bool allowsRounding, int64_t page) {
  MLIRContext *context = cache.getContext();
  bool cpu = kind == TargetKind::Cpu;
  // A CPU keeps one int32 accumulator per head beside an unpacked code vector. A GPU lane keeps
  // heads * head_dim / 32 outputs in registers, of which 32 leave room for the rest; with more than four
  // heads ptxas spills the partial sums.
  int64_t limit = cpu ? 8 : 4;
  Compute arithmetic = cpu && allowsRounding && !hasFloatBytes(cache) ? Compute::Int8 : Compute::F32;
  // CPU: four codes along the reduction make one 32-bit lane of a dot product, sixteen free indices a
  // vector. GPU: a lane owns a free index and reads its 32 codes as words beside its neighbours'.
  auto packing = [&](int64_t freeTile, int64_t reduceTile, int64_t lanes) {
    return PackingAttr::get(context, freeTile, reduceTile, lanes);
  };
  PackingAttr codes = cpu ? packing(16, 4, 1) : packing(32, 32, 32);
  PackingAttr floats = cpu ? packing(16, 1, 1) : packing(32, 1, 1);
  return ScheduleAttr::getChecked(emitError, context, chooseHeads(queryHeads / cache.getKvHeads(), limit),
                                  page ? page : 128, arithmetic, codes, codes, floats);
}

namespace {
struct PlanSchedulePass : kvcc::impl::PlanSchedulePassBase<PlanSchedulePass> {
  using PlanSchedulePassBase::PlanSchedulePassBase;

  void runOnOperation() override {
    FailureOr<TargetAttr> target = kvcc::getTarget(getOperation());
    if (failed(target))
      return signalPassFailure();
    if (compute != "auto" && compute != "f32" && compute != "int8") {
      getOperation().emitError() << "expected compute auto, f32 or int8, but got " << compute;
      return signalPassFailure();
    }
    if (compute == "int8" && target->getKind() == TargetKind::Cuda) {
      getOperation().emitError() << "expected compute auto or f32 for a cuda target, but got int8";
      return signalPassFailure();
    }
    bool allowsRounding = compute == "int8" || (compute == "auto" && kvcc::hasByteProducts(target->getArch()));
    WalkResult result = getOperation().walk([&](AttendOp attend) {
      if (attend.getSchedule())
        return WalkResult::advance();
      if (compute == "int8" && hasFloatBytes(attend.getCache().getType())) {
        attend.emitError() << "expected compute auto or f32 with elements of f8E4M3FN, but got int8";
        return WalkResult::interrupt();
      }
      auto query = cast<RankedTensorType>(attend.getQuery().getType());
      ScheduleAttr schedule = kvcc::planSchedule([&] { return attend.emitError(); }, attend.getCache().getType(),
                                                 query.getDimSize(1), target->getKind(), allowsRounding, page);
      if (!schedule)
        return WalkResult::interrupt();
      attend.setScheduleAttr(schedule);
      remark::passed(attend.getLoc(), remark::RemarkOpts::name("schedule").category("kv-plan-schedule"))
          << std::to_string(schedule.getHeads())
          << " query heads share each pass over the codes (the largest divisor of the group that leaves "
             "registers for the rest), pages of "
          << std::to_string(schedule.getPage()) << " tokens, "
          << (schedule.getCompute() == Compute::Int8 ? "int8 products: dot product instructions take bytes"
                                                     : "f32 products: nothing is rounded");
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      signalPassFailure();
  }
};
} // namespace
