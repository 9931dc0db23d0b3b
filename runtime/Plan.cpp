// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Builds level 1 modules and runs the pipelines over them, with MLIR diagnostics turned into errors.
#include "runtime/Plan.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/Remarks.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "runtime/Compiler.h"
#include "runtime/Diagnostics.h"

using namespace llvm;
using namespace kvcc;
using mlir::MLIRContext;
using mlir::ModuleOp;
using mlir::OwningOpRef;

namespace {

/// Keeps the remarks of the deciding passes as lines of text.
class RemarkCollector : public mlir::remark::detail::MLIRRemarkStreamerBase {
public:
  explicit RemarkCollector(std::vector<std::string> &lines) : lines(lines) {}
  void streamOptimizationRemark(const mlir::remark::detail::Remark &remark) override {
    // The text comes in pieces called "Remark"; the others are numbers for machines.
    std::string &line = lines.emplace_back();
    for (const auto &arg : remark.getArgs())
      if (arg.key == "Remark")
        line += arg.val;
  }

private:
  std::vector<std::string> &lines;
};

Error runPipeline(ModuleOp module, kv::TargetKind kind, Level level, const ScheduleOptions &options) {
  Diagnostics diagnostics(*module.getContext());
  mlir::PassManager manager(module.getContext());
  manager.enableVerifier(false); // a tenth of the time; the tests of the passes verify
  buildPipeline(manager, kind, level, options);
  return succeeded(manager.run(module)) ? Error::success() : diagnostics.takeError();
}

/// Calls `run` and keeps the remarks of the deciding passes.
Error collectRemarks(MLIRContext &context, std::vector<std::string> &remarks, function_ref<Error()> run) {
  mlir::remark::RemarkCategories categories;
  categories.passed = "kv-.*";
  if (failed(mlir::remark::enableOptimizationRemarks(context, std::make_unique<RemarkCollector>(remarks),
                                                     std::make_unique<mlir::remark::RemarkEmittingPolicyAll>(),
                                                     categories)))
    return createStringError("cannot collect remarks");
  Error error = run();
  context.setRemarkEngine(nullptr);
  return error;
}

/// func @name(arguments) that returns the results of the one operation that `create` makes.
template <typename Create>
void addFunction(mlir::OpBuilder &b, StringRef name, ArrayRef<mlir::Type> arguments, ArrayRef<mlir::Type> results,
                 Create create) {
  mlir::OpBuilder::InsertionGuard guard(b);
  auto func = mlir::func::FuncOp::create(b, b.getUnknownLoc(), name, b.getFunctionType(arguments, results));
  b.setInsertionPointToStart(func.addEntryBlock());
  mlir::Operation *op = create(func.getArguments());
  mlir::func::ReturnOp::create(b, b.getUnknownLoc(), op->getResults());
}

} // namespace

AttentionShape AttentionShape::of(const LayerConfig &layer) {
  return {layer.qHeads,
          layer.kvHeads,
          layer.headDim,
          layer.scale,
          layer.softcap,
          layer.kind == LayerKind::Sliding   ? kv::Reach::Sliding
          : layer.kind == LayerKind::Chunked ? kv::Reach::Chunked
                                             : kv::Reach::Full,
          layer.window,
          layer.attentionSinks};
}

int64_t AttentionShape::getFirstReached(int64_t tokens) const {
  switch (reach) {
  case kv::Reach::Full:
    return 0;
  case kv::Reach::Sliding:
    return std::max<int64_t>(tokens - windowTokens, 0);
  case kv::Reach::Chunked:
    return std::max<int64_t>(tokens - 1, 0) / windowTokens * windowTokens;
  }
  llvm_unreachable("unknown reach");
}

std::unique_ptr<MLIRContext> kvcc::createContext() {
  mlir::DialectRegistry registry;
  registerAll(registry);
  auto context = std::make_unique<MLIRContext>(registry, MLIRContext::Threading::DISABLED);
  context->loadDialect<kv::KvDialect, mlir::func::FuncDialect>();
  return context;
}

std::string kvcc::printModule(ModuleOp module) {
  std::string text;
  raw_string_ostream stream(text);
  module.print(stream);
  stream << '\n';
  return text;
}

std::string Plan::print() const { return printModule(module.get()); }

Expected<Plan> kvcc::makePlan(MLIRContext &context, const AttentionShape &shape, StringRef dtype, const Scheme &scheme,
                              const Target &target, const ScheduleOptions &options) {
  mlir::OpBuilder b(&context);
  mlir::Type element = dtype == "f16"    ? b.getF16Type()
                       : dtype == "bf16" ? mlir::Type(b.getBF16Type())
                       : dtype == "f32"  ? mlir::Type(b.getF32Type())
                                         : mlir::Type();
  if (!element)
    return createStringError("expected dtype f16, bf16 or f32, but got '" + dtype.str() + "'");

  Plan plan;
  plan.shape = shape;
  plan.target = target;
  plan.scheme = scheme.name;
  Diagnostics diagnostics(context);
  plan.cache = kv::CacheType::getChecked([&] { return mlir::emitError(b.getUnknownLoc()); }, &context, shape.kvHeads,
                                         shape.headDim, element, scheme.key, scheme.value, scheme.window);
  if (!plan.cache)
    return diagnostics.takeError();

  plan.module = ModuleOp::create(b.getUnknownLoc());
  plan.module.get()->setAttr(kTargetAttrName, target.getAttr(context));
  b.setInsertionPointToEnd(plan.module->getBody());
  const int64_t any = mlir::ShapedType::kDynamic;
  auto tensor = [&](ArrayRef<int64_t> extents, mlir::Type type) -> mlir::Type {
    return mlir::RankedTensorType::get(extents, type);
  };
  mlir::Type f32 = b.getF32Type(),
             out = tensor({any, any, shape.qHeads, shape.headDim}, shape.roundsOut ? element : f32),
             lse = tensor({any, any, shape.qHeads}, f32);
  SmallVector<mlir::Type> attendArgs{tensor({any, any, shape.qHeads, shape.headDim}, element), plan.cache};
  if (shape.sinkLogits)
    attendArgs.push_back(tensor(shape.qHeads, f32));
  addFunction(b, kAttendName, attendArgs, {out, lse}, [&](mlir::ValueRange args) {
    bool isFull = shape.reach == kv::Reach::Full;
    return kv::AttendOp::create(
        b, b.getUnknownLoc(), out, lse, args[0], args[1], shape.sinkLogits ? args[2] : mlir::Value(),
        b.getF64FloatAttr(shape.scale), shape.softcap != 0 ? b.getF64FloatAttr(shape.softcap) : mlir::FloatAttr(),
        isFull ? kv::ReachAttr() : kv::ReachAttr::get(&context, shape.reach),
        isFull ? mlir::IntegerAttr() : b.getI64IntegerAttr(shape.windowTokens), nullptr, nullptr, nullptr);
  });
  mlir::Type tokens = tensor({any, shape.kvHeads, any, shape.headDim}, element);
  addFunction(b, kAppendName, {tokens, tokens, plan.cache}, {plan.cache}, [&](mlir::ValueRange args) {
    return kv::AppendOp::create(b, b.getUnknownLoc(), plan.cache, args[0], args[1], args[2], nullptr);
  });
  out = tensor({any, shape.qHeads, shape.headDim}, f32);
  lse = tensor({any, shape.qHeads}, f32);
  addFunction(
      b, kMergeName, {tensor({any, any, shape.qHeads, shape.headDim}, f32), tensor({any, any, shape.qHeads}, f32)},
      {out, lse},
      [&](mlir::ValueRange args) { return kv::MergeOp::create(b, b.getUnknownLoc(), out, lse, args[0], args[1]); });
  if (failed(mlir::verify(plan.module.get())))
    return diagnostics.takeError();

  if (Error error = collectRemarks(context, plan.remarks,
                                   [&] { return runPipeline(plan.module.get(), target.kind, Level::Plan, options); }))
    return std::move(error);

  plan.module->walk([&](kv::AttendOp attend) {
    plan.schedule = *attend.getSchedule();
    plan.keyPlacement = *attend.getKeyScales();
    plan.valuePlacement = *attend.getValueScales();
  });
  plan.layout.emplace(plan.cache, plan.schedule);
  return plan;
}

Error kvcc::runSelection(ModuleOp module, std::vector<std::string> &remarks) {
  Diagnostics diagnostics(*module.getContext());
  return collectRemarks(*module.getContext(), remarks, [&]() -> Error {
    mlir::PassManager manager(module.getContext());
    buildSelectionPipeline(manager);
    return succeeded(manager.run(module)) ? Error::success() : diagnostics.takeError();
  });
}

Expected<LoweredModule> kvcc::lowerPlan(StringRef text, kv::TargetKind kind, Level level) {
  LoweredModule lowered;
  lowered.context = createContext();
  Diagnostics diagnostics(*lowered.context);
  // A plan has been verified when it was made.
  mlir::ParserConfig config(lowered.context.get(), /*verifyAfterParse=*/false);
  lowered.module = mlir::parseSourceString<ModuleOp>(text, config);
  if (!lowered.module)
    return diagnostics.takeError();
  if (Error error = runPipeline(lowered.module.get(), kind, level, {}))
    return std::move(error);
  return lowered;
}
