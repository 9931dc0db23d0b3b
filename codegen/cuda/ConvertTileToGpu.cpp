// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-convert-tile-to-gpu: one pattern per tile operation; Products.cpp has score and accumulate.
#include "codegen/cuda/GpuBuilder.h"
#include "passes/Passes.h"

#include "mlir/Dialect/EmitC/IR/EmitC.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>
#include <limits>
#include <numbers>

using namespace mlir;
using namespace kvcc::kv;
using namespace kvcc::cuda;

namespace kvcc {
#define GEN_PASS_DEF_CONVERTTILETOGPUPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

namespace {

ArrayRef<int64_t> shapeOf(Value tile) { return cast<ShapedType>(tile.getType()).getShape(); }

/// Calls `body(row, column)` for this lane's columns (lane, lane + 32, ...) of a matrix.
void forEachOwn(GpuBuilder &b, ArrayRef<int64_t> shape, function_ref<void(Value, Value)> body) {
  b.loop(b.index(0), shape[0], 1, false,
         [&](Value row) { b.loop(b.lane(), shape[1], kWarp, false, [&](Value column) { body(row, column); }); });
}

struct LoadQueryPattern : OpConversionPattern<TileLoadQueryOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileLoadQueryOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    if (op.getQueries())
      return op.emitError("expected one query per work item without compute f16, but got several");
    GpuBuilder b(op.getLoc(), rewriter);
    auto shape = shapeOf(op.getResult());
    Value result = b.shared(shape), scale = b.f32(op.getScale().convertToFloat());
    forEachOwn(b, shape, [&](Value head, Value channel) {
      Value at = b.add(b.add(in.getOffset(), b.mulIndex(head, shape[1])), channel);
      b.store(b.mul(b.loadF32(in.getSource(), at), scale), result, {head, channel});
    });
    b.barrier();
    rewriter.replaceOp(op, result);
    return success();
  }
};

/// A vector of the cache, at a byte offset.
Value viewVector(GpuBuilder &b, Value bytes, Value offset, int64_t extent) {
  return memref::ViewOp::create(b, MemRefType::get({extent}, b.getF32Type()), bytes, offset, ValueRange());
}

struct ScaleChannelsPattern : OpConversionPattern<TileScaleChannelsOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileScaleChannelsOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    auto shape = shapeOf(op.getResult());
    Value result = b.shared(shape);
    Value factors = viewVector(b, in.getFactors(), in.getOffset(), shape[1]);
    forEachOwn(b, shape, [&](Value head, Value channel) {
      b.store(b.mul(b.load(in.getTile(), {head, channel}), b.load(factors, channel)), result, {head, channel});
    });
    b.barrier();
    rewriter.replaceOp(op, result);
    return success();
  }
};

struct RotatePattern : OpConversionPattern<TileRotateOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileRotateOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    auto shape = shapeOf(op.getResult());
    Value result = b.shared(shape);
    forEachOwn(b, shape, [&](Value head, Value channel) {
      b.store(b.load(in.getTile(), {head, channel}), result, {head, channel});
    });
    b.barrier();
    rotateRows(b, result, shape, int64_t(op.getSize()), kWarp);
    rewriter.replaceOp(op, result);
    return success();
  }
};

struct DotChannelsPattern : OpConversionPattern<TileDotChannelsOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileDotChannelsOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    auto shape = shapeOf(op.getTile());
    Value result = b.shared({shape[0], 1}), lane = b.lane();
    Value vector = viewVector(b, in.getVector(), in.getOffset(), shape[1]);
    for (int64_t h = 0; h < shape[0]; ++h) {
      Value sum = b.loop(0, shape[1] / kWarp, b.f32(0.0f), [&](Value i, ValueRange sums) {
        Value channel = b.add(b.mulIndex(i, kWarp), lane);
        Value number = b.load(in.getTile(), {b.index(h), channel});
        return SmallVector<Value>{b.fma(number, b.load(vector, channel), sums[0])};
      })[0];
      // Every lane has the sum, and stores the same.
      sum = b.reduce(sum, [&](Value x, Value y) { return b.add(x, y); });
      if (op.getScale())
        sum = b.mul(sum, b.f32(op.getScale()->convertToFloat()));
      b.store(sum, result, {b.index(h), b.index(0)});
    }
    b.barrier();
    rewriter.replaceOp(op, result);
    return success();
  }
};

struct ShiftStatePattern : OpConversionPattern<TileShiftStateOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileShiftStateOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    StateColumns columns(op.getState().getType());
    for (int64_t h = 0; h < op.getState().getType().getHeads(); ++h) {
      Value at[] = {b.index(h), b.index(columns.max)};
      Value amount = b.load(in.getAmounts(), {b.index(h), b.index(0)});
      b.store(b.add(b.load(in.getState(), at), amount), in.getState(), at);
    }
    rewriter.eraseOp(op);
    return success();
  }
};

struct RestorePattern : OpConversionPattern<TileRestoreOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileRestoreOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    StateType type = op.getState().getType();
    StateColumns columns(type);
    Value lane = b.lane(), means, factors, rotated;
    if (in.getMeans())
      means = viewVector(b, in.getMeans(), in.getMeansOffset(), type.getHeadDim());
    if (in.getFactors())
      factors = viewVector(b, in.getFactors(), in.getFactorsOffset(), type.getHeadDim());
    // Calls `body(head, index in the state, channel)` for the outputs of this lane.
    auto forEachOutput = [&](function_ref<void(Value, ArrayRef<Value>, Value)> body) {
      for (int64_t h = 0; h < type.getHeads(); ++h)
        for (int64_t i = 0; i < columns.channels; ++i)
          body(b.index(h), {b.index(h), b.index(i)}, b.addIndex(lane, i * kWarp));
    };
    if (op.getSize()) {
      int64_t shape[] = {type.getHeads(), type.getHeadDim()};
      rotated = b.shared(shape);
      forEachOutput([&](Value head, ArrayRef<Value> at, Value channel) {
        b.store(b.load(in.getState(), at), rotated, {head, channel});
      });
      b.barrier();
      rotateRows(b, rotated, shape, int64_t(*op.getSize()), kWarp);
    }
    SmallVector<Value> sums;
    for (int64_t h = 0; means && h < type.getHeads(); ++h)
      sums.push_back(b.reduce(b.load(in.getState(), {b.index(h), b.index(columns.sum)}),
                              [&](Value x, Value y) { return b.add(x, y); }));
    int64_t seen = 0;
    forEachOutput([&](Value head, ArrayRef<Value> at, Value channel) {
      Value out = rotated ? b.load(rotated, {head, channel}) : b.load(in.getState(), at);
      if (means)
        out = b.fma(sums[size_t(seen++ / columns.channels)], b.load(means, channel), out);
      if (factors)
        out = b.mul(out, b.load(factors, channel));
      b.store(out, in.getState(), at);
    });
    rewriter.eraseOp(op);
    return success();
  }
};

struct PreparePattern : OpConversionPattern<TilePrepareOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TilePrepareOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    if (!cast<VectorType>(op.getValues().getType()).getElementType().isF32())
      return op.emitError() << "expected compute f32 for a cuda target, but got values " << op.getValues().getType();
    GpuBuilder b(op.getLoc(), rewriter);
    auto shape = shapeOf(op.getTile());
    int64_t group = op.getGroup(), groups = shape[1] / group;
    Value sums = b.shared({shape[0], groups});
    // A lane per (head, group).
    b.loop(b.lane(), shape[0] * groups, kWarp, false, [&](Value pair) {
      Value head = arith::DivUIOp::create(b, pair, b.index(groups));
      Value g = arith::RemUIOp::create(b, pair, b.index(groups));
      Value first = b.mulIndex(g, group);
      Value sum = b.loop(0, group, b.f32(0.0f), [&](Value i, ValueRange acc) {
        return SmallVector<Value>{b.add(acc[0], b.load(in.getTile(), {head, b.add(first, i)}))};
      })[0];
      b.store(sum, sums, {head, g});
    });
    b.barrier();
    rewriter.replaceOp(op, {in.getTile(), sums});
    return success();
  }
};

struct LoadPattern : OpConversionPattern<TileLoadOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileLoadOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    auto type = cast<MemRefType>(getTypeConverter()->convertType(op.getResult().getType()));
    rewriter.replaceOpWithNewOp<memref::ViewOp>(op, type, in.getSource(), in.getOffset(), ValueRange());
    return success();
  }
};

struct MaskPattern : OpConversionPattern<TileMaskOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileMaskOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    if (op.getEnd())
      return op.emitError("expected one query per work item without compute f16, but got several");
    GpuBuilder b(op.getLoc(), rewriter);
    Value lane = b.lane(), token = b.add(in.getFirst(), lane), isThere;
    if (in.getValid())
      isThere = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, token, in.getValid());
    if (in.getFrom()) {
      Value isReached = arith::CmpIOp::create(b, arith::CmpIPredicate::sge, token, in.getFrom());
      isThere = isThere ? arith::AndIOp::create(b, isThere, isReached).getResult() : isReached;
    }
    for (int64_t h = 0; isThere && h < shapeOf(op.getTile())[0]; ++h) {
      Value at[] = {b.index(h), lane};
      Value logit = b.load(in.getTile(), at);
      b.store(arith::SelectOp::create(b, isThere, logit, b.f32(kMaskedLogit)), in.getTile(), at);
    }
    rewriter.replaceOp(op, in.getTile());
    return success();
  }
};

struct SoftcapPattern : OpConversionPattern<TileSoftcapOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileSoftcapOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    Value lane = b.lane();
    for (int64_t h = 0; h < shapeOf(op.getTile())[0]; ++h) {
      Value at[] = {b.index(h), lane}, logit = b.load(in.getTile(), at);
      if (in.getAmounts())
        logit = b.add(logit, b.load(in.getAmounts(), {b.index(h), b.index(0)}));
      b.store(b.bound(logit, op.getCap().convertToFloat()), in.getTile(), at);
    }
    rewriter.replaceOp(op, in.getTile());
    return success();
  }
};

struct InitStatePattern : OpConversionPattern<TileInitStateOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileInitStateOp op, OpAdaptor, ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    StateType state = op.getState().getType();
    StateColumns columns(state);
    Value buffer = b.registers({state.getHeads(), columns.total});
    for (int64_t h = 0; h < state.getHeads(); ++h)
      for (int64_t i = 0; i < columns.total; ++i)
        b.store(b.f32(i == columns.max ? kMaskedLogit : 0.0f), buffer, {b.index(h), b.index(i)});
    rewriter.replaceOp(op, buffer);
    return success();
  }
};

/// Takes the maximum of a head to at least `candidate` and rescales what was summed under the old one.
Value raiseMax(GpuBuilder &b, Value state, Value head, const StateColumns &columns, Value candidate) {
  Value maxAt[] = {head, b.index(columns.max)};
  Value old = b.load(state, maxAt), max = b.max(old, candidate);
  Value factor = math::Exp2Op::create(b, arith::SubFOp::create(b, old, max));
  for (int64_t i = 0; i <= columns.sum; ++i) {
    Value at[] = {head, b.index(i)};
    b.store(b.mul(b.load(state, at), factor), state, at);
  }
  b.store(max, state, maxAt);
  return max;
}

/// Warps without a ring have others to switch to while they wait.
struct PrefetchPattern : OpConversionPattern<TilePrefetchOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TilePrefetchOp op, OpAdaptor, ConversionPatternRewriter &rewriter) const override {
    rewriter.eraseOp(op);
    return success();
  }
};

struct SoftmaxStepPattern : OpConversionPattern<TileSoftmaxStepOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileSoftmaxStepOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    StateColumns columns(op.getState().getType());
    Value lane = b.lane();
    for (int64_t h = 0; h < op.getState().getType().getHeads(); ++h) {
      Value head = b.index(h), at[] = {head, lane}, sumAt[] = {head, b.index(columns.sum)};
      Value logit = b.load(in.getLogits(), at);
      Value largest = b.reduce(logit, [&](Value x, Value y) { return b.max(x, y); });
      Value max = raiseMax(b, in.getState(), head, columns, largest);
      Value weight = math::Exp2Op::create(b, arith::SubFOp::create(b, logit, max));
      b.store(weight, in.getLogits(), at);
      b.store(b.add(b.load(in.getState(), sumAt), weight), in.getState(), sumAt);
    }
    b.barrier();
    rewriter.replaceOp(op, in.getLogits());
    return success();
  }
};

struct JoinSinksPattern : OpConversionPattern<TileJoinSinksOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileJoinSinksOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    StateType type = op.getState().getType();
    StateColumns columns(type);
    for (int64_t h = 0; h < type.getHeads(); ++h) {
      Value head = b.index(h), sumAt[] = {head, b.index(columns.sum)};
      Value part = b.mul(b.load(in.getSinks(), b.addIndex(in.getOffset(), h)), b.f32(float(std::numbers::log2e)));
      Value power = arith::SubFOp::create(b, part, raiseMax(b, in.getState(), head, columns, part));
      // The lanes' sums are added up in the end: each gets its share.
      Value weight = math::Exp2Op::create(b, b.add(power, b.f32(float(int64_t(op.getExponent())))));
      b.store(b.fma(weight, b.f32(1.0f / kWarp), b.load(in.getState(), sumAt)), in.getState(), sumAt);
    }
    rewriter.eraseOp(op);
    return success();
  }
};

struct MergePattern : OpConversionPattern<TileMergeOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileMergeOp op, OpAdaptor, ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    // Whose memory it is may begin at any number.
    b.mergeParts(op, b.lane(), kWarp, [&](Value memory, Value at) { return b.loadFour(memory, at); });
    rewriter.eraseOp(op);
    return success();
  }
};

struct ArrivePattern : OpConversionPattern<TileArriveOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileArriveOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    rewriter.replaceOp(op, GpuBuilder(op.getLoc(), rewriter).arrive(in.getCounters(), in.getAt(), in.getCount()));
    return success();
  }
};

struct StoreResultPattern : OpConversionPattern<TileStoreResultOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileStoreResultOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    StateType type = op.getState().getType();
    StateColumns columns(type);
    ResultWriter writer(b, op);
    Value lane = b.lane(), isFirst = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, lane, b.index(0));
    for (int64_t h = 0; h < type.getHeads(); ++h) {
      Value head = b.index(h);
      Value sum =
          b.reduce(b.load(in.getState(), {head, b.index(columns.sum)}), [&](Value x, Value y) { return b.add(x, y); });
      Value max = b.load(in.getState(), {head, b.index(columns.max)});
      auto [inverse, lse] = b.finish(sum, b.getLse(max, sum));
      for (int64_t i = 0; i < columns.channels; ++i)
        writer.storeOut(b.mul(b.load(in.getState(), {head, b.index(i)}), inverse), head, b.addIndex(lane, i * kWarp));
      auto branch = scf::IfOp::create(b, isFirst, /*withElseRegion=*/false);
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(branch.thenBlock());
      writer.storeLse(lse, head);
    }
    rewriter.eraseOp(op);
    return success();
  }
};

/// Tiles are buffers in workgroup memory; a block is a view of its words (codes) or numbers; a state is a
/// buffer in private memory with the columns of StateColumns.
void populateTypes(TypeConverter &converter) {
  converter.addConversion([](Type type) { return type; });
  converter.addConversion([](VectorType type) -> Type {
    if (type.getRank() == 2 && type.getDimSize(0) == kBlockTokens) // columns of a tile are read, too
      return getMatrixType(type.getShape(), type.getElementType());
    return getSharedType(type.getShape(), type.getElementType());
  });
  converter.addConversion([](StateType type) -> Type {
    return getPrivateType({type.getHeads(), StateColumns(type).total}, Float32Type::get(type.getContext()));
  });
  converter.addConversion([](BlockType type) -> Type {
    if (type.isCodes())
      return MemRefType::get({type.getBytes() / 4}, IntegerType::get(type.getContext(), 32));
    // Scales of eight bits are decoded by what loads them.
    Type element = type.getElement();
    if (element.getIntOrFloatBitWidth() == 8)
      element = IntegerType::get(type.getContext(), 8);
    return MemRefType::get({type.getTokens() * type.getChannels()}, element);
  });
}

/// Turns the trailing arguments that name the work item into block ids x, y, z.
LogicalResult takeItemFromGrid(func::FuncOp func) {
  auto attr = func->getAttrOfType<IntegerAttr>(kvcc::kItemArgsAttrName);
  if (!attr || attr.getInt() < 1 || attr.getInt() > 3)
    return func.emitError("expected kv.item_args from 1 to 3, but got ")
           << (attr ? std::to_string(attr.getInt()) : "none");
  auto count = unsigned(attr.getInt());
  ArrayRef<Type> types = func.getArgumentTypes();
  if (func.isExternal() || types.size() < count || !llvm::all_of(types.take_back(count), llvm::IsaPred<IndexType>))
    return func.emitError("expected a body with ")
           << count << " trailing index arguments, but got " << func.getFunctionType()
           << (func.isExternal() ? " without a body" : "");
  OpBuilder b(func.getContext());
  b.setInsertionPointToStart(&func.front());
  unsigned first = func.getNumArguments() - count;
  for (unsigned i = first; i < func.getNumArguments(); ++i) {
    auto id = gpu::BlockIdOp::create(b, func.getLoc(), gpu::Dimension(i - first));
    func.getArgument(i).replaceAllUsesWith(id);
  }
  func->removeAttr(kvcc::kItemArgsAttrName);
  auto warps = func->getAttrOfType<IntegerAttr>(kvcc::kWarpsAttrName);
  bool writes = func.walk([](TileScratchOp) { return WalkResult::interrupt(); }).wasInterrupted();
  int64_t threads = warps ? warps.getInt() * kWarp : writes ? kvcc::kWriterThreads : kWarp;
  func->setAttr(kvcc::kThreadsAttrName, b.getI64IntegerAttr(threads));
  // Writers wait for memory in turns: as many of them on a multiprocessor as 96 registers of a thread allow, with which
  // next to nothing spills.
  constexpr int64_t kWriterBlocks = 5;
  if (writes)
    func->setAttr(kvcc::kBlocksAttrName, b.getI64IntegerAttr(kWriterBlocks));
  GpuBuilder builder(func.getLoc(), b);
  builder.call("kv_grid_wait", {}, {});
  builder.call("kv_grid_launch", {}, {});
  return func.eraseArguments(llvm::BitVector(func.getNumArguments()).set(first, func.getNumArguments()));
}

struct ConvertTileToGpuPass : kvcc::impl::ConvertTileToGpuPassBase<ConvertTileToGpuPass> {
  void runOnOperation() override {
    FailureOr<TargetAttr> target = kvcc::getTarget(getOperation());
    if (failed(target))
      return signalPassFailure();
    if (target->getKind() != TargetKind::Cuda) {
      getOperation().emitError() << "expected a cuda target, but got " << *target;
      return signalPassFailure();
    }
    for (auto func : getOperation().getOps<func::FuncOp>()) {
      if (failed(takeItemFromGrid(func)))
        return signalPassFailure();
      auto warps = func->getAttrOfType<IntegerAttr>(kvcc::kWarpsAttrName);
      if (warps && failed(lowerFragments(func, warps.getInt(), target->getArch())))
        return signalPassFailure();
      func->removeAttr(kvcc::kWarpsAttrName);
    }
    TypeConverter converter;
    populateTypes(converter);
    RewritePatternSet patterns(&getContext());
    patterns
        .add<LoadQueryPattern, ScaleChannelsPattern, DotChannelsPattern, RotatePattern, ShiftStatePattern,
             RestorePattern, PreparePattern, PrefetchPattern, LoadPattern, MaskPattern, SoftcapPattern,
             InitStatePattern, SoftmaxStepPattern, JoinSinksPattern, MergePattern, ArrivePattern, StoreResultPattern>(
            converter, &getContext());
    populateProductPatterns(patterns, converter);
    populateWriterPatterns(patterns, converter, getLaneBuilder());
    ConversionTarget legality(getContext());
    legality.addIllegalDialect<KvDialect>();
    legality.markUnknownOpDynamicallyLegal([](Operation *) { return true; });
    if (failed(applyPartialConversion(getOperation(), legality, std::move(patterns))))
      return signalPassFailure();
  }
};

} // namespace
