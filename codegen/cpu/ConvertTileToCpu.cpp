// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-convert-tile-to-cpu: one pattern per tile operation; Products.cpp has score and accumulate.
#include "codegen/cpu/ProductBuilder.h"
#include "passes/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>
#include <limits>
#include <numbers>

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;
using namespace kvcc::cpu;

namespace kvcc {
#define GEN_PASS_DEF_CONVERTTILETOCPUPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

namespace {

ArrayRef<int64_t> shapeOf(Value tile) { return cast<ShapedType>(tile.getType()).getShape(); }

/// Calls `body(row, column)` for every 16 columns of a matrix.
void forEachVector(CpuBuilder &b, ArrayRef<int64_t> shape, function_ref<void(Value, Value)> body) {
  b.loop(0, shape[0], 1, [&](Value row) { b.loop(0, shape[1], kLanes, [&](Value column) { body(row, column); }); });
}

struct LoadQueryPattern : OpConversionPattern<TileLoadQueryOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileLoadQueryOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    if (op.getQueries())
      return op.emitError("expected one query per work item for a cpu target, but got several");
    CpuBuilder b(op.getLoc(), rewriter);
    auto shape = shapeOf(op.getResult());
    Value result = b.scratch(shape, b.getF32Type());
    Value scale = b.f32Splat(op.getScale().convertToFloat());
    forEachVector(b, shape, [&](Value head, Value channel) {
      Value at = b.addIndex(b.addIndex(in.getOffset(), b.mulIndex(head, shape[1])), channel);
      b.store(b.mul(b.loadF32(in.getSource(), at), scale), result, {head, channel});
    });
    rewriter.replaceOp(op, result);
    return success();
  }
};

/// A vector of the cache, at a byte offset.
Value viewVector(CpuBuilder &b, Value bytes, Value offset, int64_t extent) {
  return memref::ViewOp::create(b, MemRefType::get({extent}, b.getF32Type()), bytes, offset, ValueRange());
}

struct ScaleChannelsPattern : OpConversionPattern<TileScaleChannelsOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileScaleChannelsOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    auto shape = shapeOf(op.getResult());
    Value result = b.scratch(shape, b.getF32Type());
    Value factors = viewVector(b, in.getFactors(), in.getOffset(), shape[1]);
    forEachVector(b, shape, [&](Value head, Value channel) {
      Value product = b.mul(b.loadF32(in.getTile(), {head, channel}), b.loadF32(factors, channel));
      b.store(product, result, {head, channel});
    });
    rewriter.replaceOp(op, result);
    return success();
  }
};

struct RotatePattern : OpConversionPattern<TileRotateOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileRotateOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    auto shape = shapeOf(op.getResult());
    Value result = b.scratch(shape, b.getF32Type());
    b.loop(0, shape[0], 1, [&](Value head) {
      b.loop(0, shape[1], kLanes,
             [&](Value channel) { b.store(b.loadF32(in.getTile(), {head, channel}), result, {head, channel}); });
      rotateRow(b, result, head, shape[1], int64_t(op.getSize()));
    });
    rewriter.replaceOp(op, result);
    return success();
  }
};

struct DotChannelsPattern : OpConversionPattern<TileDotChannelsOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileDotChannelsOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    auto shape = shapeOf(op.getTile());
    Value result = b.scratch({shape[0], 1}, b.getF32Type());
    Value vector = viewVector(b, in.getVector(), in.getOffset(), shape[1]);
    b.loop(0, shape[0], 1, [&](Value head) {
      Value sum = b.loop(0, shape[1] / kLanes, b.f32Splat(0.0f), [&](Value i, ValueRange sums) {
        Value channel = b.mulIndex(i, kLanes);
        return SmallVector<Value>{b.fma(b.loadF32(in.getTile(), {head, channel}), b.loadF32(vector, channel), sums[0])};
      })[0];
      sum = b.reduceAdd(sum);
      if (op.getScale())
        sum = arith::MulFOp::create(b, sum, arith::ConstantOp::create(b, op.getScaleAttr()));
      memref::StoreOp::create(b, sum, result, ValueRange{head, b.index(0)});
    });
    rewriter.replaceOp(op, result);
    return success();
  }
};

struct ShiftStatePattern : OpConversionPattern<TileShiftStateOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileShiftStateOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    StateColumns columns(op.getState().getType());
    b.loop(0, op.getState().getType().getHeads(), 1, [&](Value head) {
      Value at[] = {head, b.index(columns.max)};
      Value amount = memref::LoadOp::create(b, in.getAmounts(), ValueRange{head, b.index(0)});
      memref::StoreOp::create(b, b.add(memref::LoadOp::create(b, in.getState(), at), amount), in.getState(), at);
    });
    rewriter.eraseOp(op);
    return success();
  }
};

struct RestorePattern : OpConversionPattern<TileRestoreOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileRestoreOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    StateType type = op.getState().getType();
    StateColumns columns(type);
    Value means, factors;
    if (in.getMeans())
      means = viewVector(b, in.getMeans(), in.getMeansOffset(), type.getHeadDim());
    if (in.getFactors())
      factors = viewVector(b, in.getFactors(), in.getFactorsOffset(), type.getHeadDim());
    b.loop(0, type.getHeads(), 1, [&](Value head) {
      if (op.getSize())
        rotateRow(b, in.getState(), head, type.getHeadDim(), int64_t(*op.getSize()));
      if (!means && !factors)
        return;
      Value sum = b.splat(b.reduceAdd(b.loadF32(in.getState(), {head, b.index(columns.sum)})));
      b.loop(0, type.getHeadDim(), kLanes, [&](Value channel) {
        Value out = b.loadF32(in.getState(), {head, channel});
        if (means)
          out = b.fma(sum, b.loadF32(means, channel), out);
        if (factors)
          out = b.mul(out, b.loadF32(factors, channel));
        b.store(out, in.getState(), {head, channel});
      });
    });
    rewriter.eraseOp(op);
    return success();
  }
};

struct PreparePattern : OpConversionPattern<TilePrepareOp> {
  PreparePattern(const TypeConverter &converter, MLIRContext *context, const CpuLevel &level)
      : OpConversionPattern(converter, context), level(level) {}
  LogicalResult matchAndRewrite(TilePrepareOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    auto shape = shapeOf(op.getTile());
    int64_t group = op.getGroup(), groups = shape[1] / group;
    if (group % kLanes)
      return op.emitError() << "expected groups of a multiple of " << kLanes << " for a cpu target, but got " << group;
    Type element = cast<VectorType>(op.getValues().getType()).getElementType();
    if (!element.isInteger())
      return prepareFloats(op, in, element, rewriter);
    CpuBuilder b(op.getLoc(), rewriter);
    auto type = cast<MemRefType>(getTypeConverter()->convertType(op.getValues().getType()));
    Value sums = b.scratch({shape[0], groups}, b.getF32Type()), scales = b.scratch({shape[0], groups}, b.getF32Type()),
          values = b.scratch(shape, type.getElementType());
    // Groups of all rows are alike, and some of them are reduced together.
    int64_t count = shape[0] * groups, batch = CpuBuilder::getBatch(count);
    Rounding rounding(op, b, level);
    Value numbers = b.reshape(in.getTile(), {count, group}), integers = b.reshape(values, {count, group}),
          allSums = b.reshape(sums, {count}), allScales = b.reshape(scales, {count});
    Value factors = b.scratch({batch}, b.getF32Type()), partial = b.scratch({batch, kLanes}, b.getI32Type());
    auto load = [&](Value row, int64_t i) { return b.loadF32(numbers, {row, b.index(i)}); };
    b.loop(0, count, batch, [&](Value first) {
      auto largest = SmallVector<Value>(size_t(batch));
      for (auto [g, vector] : llvm::enumerate(largest))
        for (int64_t i = 0; i < group; i += kLanes) {
          Value magnitude = rounding.getMagnitude(load(b.addIndex(first, b.index(int64_t(g))), i));
          vector = vector ? b.max(vector, magnitude) : magnitude;
        }
      Value max = b.maxEach(largest);
      b.store(rounding.getFactor(max, batch), factors, b.index(0));
      Value stepOf = b.mul(max, b.f32Splat(1.0f / rounding.steps, batch));
      b.store(stepOf, allScales, first);
      b.loop(0, batch, 1, [&](Value g) {
        Value row = b.addIndex(first, g), sum, factor = b.loadSplat(factors, g);
        for (int64_t i = 0; i < group; i += 2 * kLanes) {
          SmallVector<Value> parts{load(row, i)};
          if (i + kLanes < group)
            parts.push_back(load(row, i + kLanes));
          rounding.store(parts, factor, integers, {row, b.index(i)});
          for (Value part : parts)
            sum = sum ? b.add(sum, part) : part;
        }
        b.store(sum, partial, {g, b.index(0)});
      });
      SmallVector<Value> parts;
      for (int64_t g = 0; g < batch; ++g)
        parts.push_back(vector::LoadOp::create(b, b.i32Vector(), partial, ValueRange{b.index(g), b.index(0)}));
      b.store(b.mul(rounding.toFloat(b.addEach(parts), group, batch), stepOf), allSums, first);
    });
    rewriter.replaceOp(op, {values, sums, scales});
    return success();
  }

private:
  const CpuLevel &level;

  /// Numbers as they are, or rounded to bf16. Sums, where they are wanted, are of numbers as they are; scales are a
  /// constant.
  LogicalResult prepareFloats(TilePrepareOp op, OpAdaptor in, Type element, ConversionPatternRewriter &rewriter) const {
    auto shape = shapeOf(op.getTile());
    int64_t count = shape[0] * shape[1], group = op.getGroup(), groups = count / group;
    bool isBf16 = element.isBF16();
    bool isPossible =
        level.hasBf16Products && bool(op.getScales()) == bool(op.getFactor()) && count % (2 * kLanes) == 0;
    if (!element.isF32() && !(isBf16 && isPossible))
      return op.emitError() << "expected f32, or bf16 in pairs of vectors, scales with a factor, on a cpu level that "
                               "multiplies it, but got "
                            << op.getValues().getType() << " and " << level.name;
    ProductBuilder b(op, rewriter, level);
    Value numbers = b.reshape(in.getTile(), {count}), values = in.getTile();
    if (isBf16) {
      values = b.scratch(shape, b.getI16Type());
      Value words = b.reshape(values, {count});
      b.loop(0, count, 2 * kLanes, [&](Value at) {
        b.store(b.toBf16(b.loadF32(numbers, at), b.loadF32(numbers, b.addIndex(at, b.index(kLanes)))), words, at);
      });
    }
    Value sums = b.scratch({shape[0], groups / shape[0]}, b.getF32Type());
    if (!op.getSums().use_empty()) {
      Value allSums = b.reshape(sums, {groups});
      int64_t batch = CpuBuilder::getBatch(groups);
      b.loop(0, groups, batch, [&](Value first) {
        SmallVector<Value> parts(static_cast<size_t>(batch));
        for (auto [g, part] : llvm::enumerate(parts))
          for (int64_t i = 0; i < group; i += kLanes) {
            Value row = b.addIndex(first, b.index(int64_t(g)));
            Value vector = b.loadF32(numbers, b.addIndex(b.mulIndex(row, group), b.index(i)));
            part = part ? b.add(part, vector) : vector;
          }
        b.store(b.addEach(parts), allSums, first);
      });
    }
    SmallVector<Value> results{values, sums};
    if (op.getScales()) {
      results.push_back(b.scratch({shape[0], 1}, b.getF32Type()));
      for (int64_t row = 0; row < shape[0]; ++row)
        memref::StoreOp::create(b, b.f32(op.getFactor()->convertToFloat()), results.back(),
                                ValueRange{b.index(row), b.index(0)});
    }
    rewriter.replaceOp(op, results);
    return success();
  }

  /// How numbers become integers. A number plus kRoundingShift is rounded, and its integer is in the low bits of the
  /// sum.
  struct Rounding {
    Rounding(TilePrepareOp op, CpuBuilder &b, const CpuLevel &level) : b(b), level(level) {
      Type element = cast<VectorType>(op.getValues().getType()).getElementType();
      isUnsigned = element.isUnsignedInteger();
      isWord = element.isInteger(16);
      steps = isUnsigned ? 255.0f : isWord ? 32639.0f : 127.0f;
    }

    Value getMagnitude(Value vector) { return isUnsigned ? vector : math::AbsFOp::create(b, vector).getResult(); }
    /// A group of zeros has the factor 0, not 255 / 0.
    Value getFactor(Value max, int64_t lanes) {
      Value isZero = arith::CmpFOp::create(b, arith::CmpFPredicate::OLT, max, b.f32Splat(1e-30f, lanes));
      return arith::SelectOp::create(b, isZero, b.f32Splat(0.0f, lanes),
                                     arith::DivFOp::create(b, b.f32Splat(steps, lanes), max));
    }
    /// Stores one or two neighbouring vectors times `factor`, and makes them what toFloat takes the sum of. Words are
    /// stored in fours as 0 2 1 3, in the order in which ProductBuilder::extractCodes gives the codes that they
    /// multiply, or as digits.
    void store(MutableArrayRef<Value> vectors, Value factor, Value memory, ValueRange at) {
      for (Value &vector : vectors)
        vector = arith::BitcastOp::create(b, b.i32Vector(), b.fma(vector, factor, b.f32Splat(getShift())));
      if (splits()) {
        b.store(splitWords(vectors), memory, at);
        return;
      }
      auto type = VectorType::get({kLanes}, b.getIntegerType(isWord ? 16 : 8));
      for (auto [i, vector] : llvm::enumerate(vectors)) {
        Value integers = arith::TruncIOp::create(b, type, vector);
        if (isWord) {
          SmallVector<int64_t> order;
          for (int64_t lane = 0; lane < kLanes; ++lane)
            order.push_back(lane / 4 * 4 + (lane % 4 == 1 ? 2 : lane % 4 == 2 ? 1 : lane % 4));
          integers = vector::ShuffleOp::create(b, integers, integers, order);
        }
        b.store(integers, memory, {at[0], b.addIndex(at[1], b.index(int64_t(i) * kLanes))});
      }
    }
    bool splits() const { return isWord && level.splitsWords(); }
    /// Where digits are wanted, n + 128 stands in the low bits: its second byte is the high digit, and its first one is
    /// the low digit but for the highest bit.
    float getShift() const { return kRoundingShift + (splits() ? 128.0f : 0.0f); }
    Value splitWords(ArrayRef<Value> vectors) {
      // The digits of four numbers, within the 128 bits that these are: eight bytes. Then those of all fours.
      constexpr int64_t kFours = kLanes / 4;
      auto bytes = VectorType::get({4 * kLanes}, b.getI8Type());
      auto quads = VectorType::get({2 * kFours}, b.getI64Type());
      SmallVector<int64_t> order;
      for (int64_t byte = 0; byte < 4 * kLanes; ++byte) {
        int64_t within = byte % 16;
        order.push_back(within < 8 ? byte - within + within % 4 * 4 + within / 4 : vector::ShuffleOp::kPoisonIndex);
      }
      SmallVector<Value> digits;
      for (Value vector : vectors) {
        Value low = vector::BitCastOp::create(b, bytes, arith::XOrIOp::create(b, vector, b.i32Splat(128)));
        digits.push_back(vector::BitCastOp::create(b, quads, vector::ShuffleOp::create(b, low, low, order)));
      }
      SmallVector<int64_t> lowHalves;
      for (int64_t i = 0; i < int64_t(vectors.size()) * kFours; ++i)
        lowHalves.push_back(2 * i);
      Value all = vector::ShuffleOp::create(b, digits.front(), digits.back(), lowHalves);
      return vector::BitCastOp::create(b, VectorType::get({int64_t(vectors.size()) * kLanes}, b.getIntegerType(16)),
                                       all);
    }
    /// The sums of the integers of `count` numbers, given those of what `store` returned.
    Value toFloat(Value sums, int64_t count, int64_t lanes) {
      auto above = int32_t(uint32_t(count) * llvm::bit_cast<uint32_t>(getShift()));
      return arith::SIToFPOp::create(b, b.f32Vector(lanes), arith::SubIOp::create(b, sums, b.i32Splat(above, lanes)));
    }

    CpuBuilder &b;
    const CpuLevel &level;
    bool isUnsigned, isWord;
    float steps;
  };
};

/// Products ask for blocks line by line as they go. Before that a line of every 4 KiB is enough, so that addresses in
/// the processor's pages have been translated by then.
struct PrefetchPattern : OpConversionPattern<TilePrefetchOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TilePrefetchOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    constexpr int64_t kProcessorPage = 4096;
    CpuBuilder b(op.getLoc(), rewriter);
    for (int64_t at = 0; at < int64_t(op.getBytes()); at += kProcessorPage)
      b.prefetch(in.getSource(), b.addIndex(in.getOffset(), b.index(at)));
    rewriter.eraseOp(op);
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
      return op.emitError("expected one query per work item for a cpu target, but got several");
    CpuBuilder b(op.getLoc(), rewriter);
    SmallVector<int32_t> numbers;
    for (int32_t i = 0; i < kLanes; ++i)
      numbers.push_back(i);
    Value lanes = arith::ConstantOp::create(b, DenseElementsAttr::get(b.i32Vector(), ArrayRef(numbers)));
    // In 32 bits, from the first token of the block on.
    auto relative = [&](Value x) {
      return x ? arith::IndexCastOp::create(b, b.getI32Type(), arith::SubIOp::create(b, x, in.getFirst())).getResult()
               : Value();
    };
    Value valid = relative(in.getValid()), from = relative(in.getFrom());
    if (valid || from)
      forEachVector(b, shapeOf(op.getTile()), [&](Value head, Value token) {
        Value first = arith::IndexCastOp::create(b, b.getI32Type(), token);
        Value tokens = b.add(lanes, b.splat(first)), isThere;
        if (valid)
          isThere = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, tokens, b.splat(valid));
        if (from) {
          Value isReached = arith::CmpIOp::create(b, arith::CmpIPredicate::sge, tokens, b.splat(from));
          isThere = isThere ? arith::AndIOp::create(b, isThere, isReached).getResult() : isReached;
        }
        Value logits = b.loadF32(in.getTile(), {head, token});
        b.store(arith::SelectOp::create(b, isThere, logits, b.f32Splat(kMaskedLogit)), in.getTile(), {head, token});
      });
    rewriter.replaceOp(op, in.getTile());
    return success();
  }
};

struct SoftcapPattern : OpConversionPattern<TileSoftcapOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileSoftcapOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    float cap = op.getCap().convertToFloat();
    forEachVector(b, shapeOf(op.getTile()), [&](Value head, Value token) {
      Value x = b.loadF32(in.getTile(), {head, token});
      if (in.getAmounts())
        x = b.add(x, b.loadSplat(in.getAmounts(), {head, b.index(0)}));
      // tanh |y| = (1 - e) / (1 + e) with e = exp(-2 |y|).
      Value magnitude = math::AbsFOp::create(b, x), one = b.f32Splat(1);
      Value e = b.exp2(b.mul(magnitude, b.f32Splat(-2 * float(std::numbers::log2e) / cap)));
      Value tanh = arith::DivFOp::create(b, arith::SubFOp::create(b, one, e), b.add(one, e));
      b.store(math::CopySignOp::create(b, b.mul(tanh, b.f32Splat(cap)), x), in.getTile(), {head, token});
    });
    rewriter.replaceOp(op, in.getTile());
    return success();
  }
};

struct InitStatePattern : OpConversionPattern<TileInitStateOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileInitStateOp op, OpAdaptor, ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    StateType state = op.getState().getType();
    StateColumns columns(state);
    int64_t shape[] = {state.getHeads(), columns.total};
    Value buffer = b.scratch(shape, b.getF32Type());
    forEachVector(b, shape, [&](Value head, Value column) { b.store(b.f32Splat(0.0f), buffer, {head, column}); });
    b.loop(0, state.getHeads(), 1, [&](Value head) {
      memref::StoreOp::create(b, b.f32(kMaskedLogit), buffer, ValueRange{head, b.index(columns.max)});
    });
    rewriter.replaceOp(op, buffer);
    return success();
  }
};

/// Multiplies the outputs and the sum of a head by `factor` (a vector).
void rescale(CpuBuilder &b, Value state, Value head, int64_t columns, Value factor) {
  b.loop(0, columns, kLanes,
         [&](Value column) { b.store(b.mul(b.loadF32(state, {head, column}), factor), state, {head, column}); });
}

struct SoftmaxStepPattern : OpConversionPattern<TileSoftmaxStepOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileSoftmaxStepOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    StateColumns columns(op.getState().getType());
    Value state = in.getState(), tile = in.getLogits();
    int64_t heads = op.getState().getType().getHeads(), tokens = shapeOf(tile)[1];
    int64_t together = getHeadsTogether(heads, 8);
    b.loop(0, heads, together, [&](Value first) {
      auto forEachHead = [&](function_ref<void(Value)> body) {
        for (int64_t h = 0; h < together; ++h)
          body(b.addIndex(first, b.index(h)));
      };
      auto largestOf = [&](Value head) {
        Value largest;
        for (int64_t column = 0; column < tokens; column += kLanes) {
          Value logits = b.loadF32(tile, {head, b.index(column)});
          largest = largest ? b.max(largest, logits) : logits;
        }
        return largest;
      };
      // Maxima grow in few blocks. Where none does, weights need not wait for a maximum over lanes.
      Value grows;
      forEachHead([&](Value head) {
        Value over = arith::CmpFOp::create(b, arith::CmpFPredicate::OGT, largestOf(head),
                                           b.loadSplat(state, {head, b.index(columns.max)}));
        grows = grows ? arith::OrIOp::create(b, grows, over).getResult() : over;
      });
      grows = vector::ReductionOp::create(b, vector::CombiningKind::OR, grows);
      auto branch = scf::IfOp::create(b, grows, /*withElseRegion=*/false);
      {
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(branch.thenBlock());
        b.loop(0, together, 1, [&](Value h) {
          Value head = b.addIndex(first, h), maxAt[] = {head, b.index(columns.max)};
          // In this order a number that is none does not become the maximum.
          Value old = memref::LoadOp::create(b, state, maxAt), max = b.max(b.reduceMax(largestOf(head)), old);
          rescale(b, state, head, columns.max, b.exp2(b.splat(arith::SubFOp::create(b, old, max))));
          memref::StoreOp::create(b, max, state, maxAt);
        });
      }
      forEachHead([&](Value head) {
        Value max = b.loadSplat(state, {head, b.index(columns.max)}), sumAt[] = {head, b.index(columns.sum)}, sum;
        for (int64_t column = 0; column < tokens; column += kLanes) {
          Value at[] = {head, b.index(column)};
          Value weights = b.exp2(arith::SubFOp::create(b, b.loadF32(tile, at), max));
          b.store(weights, tile, at);
          sum = sum ? b.add(sum, weights) : weights;
        }
        b.store(b.add(b.loadF32(state, sumAt), sum), state, sumAt);
      });
    });
    rewriter.replaceOp(op, tile);
    return success();
  }
};

struct IsDominatedPattern : OpConversionPattern<TileIsDominatedOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileIsDominatedOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    StateColumns columns(op.getState().getType());
    auto shape = shapeOf(op.getWeights());
    int64_t batch = CpuBuilder::getBatch(shape[0]);
    Value share = b.f32Splat(op.getShare().convertToFloat(), batch), result;
    for (int64_t first = 0; first < shape[0]; first += batch) {
      SmallVector<Value> sums;
      auto largest = SmallVector<Value>(size_t(batch));
      for (auto [i, vector] : llvm::enumerate(largest)) {
        Value row = b.index(first + int64_t(i));
        for (int64_t column = 0; column < shape[1]; column += kLanes) {
          Value weights = b.loadF32(in.getWeights(), {row, b.index(column)});
          vector = vector ? b.max(vector, weights) : weights;
        }
        sums.push_back(b.loadF32(in.getState(), {row, b.index(columns.sum)}));
      }
      Value limit = b.mul(b.addEach(sums), share);
      Value over = arith::CmpFOp::create(b, arith::CmpFPredicate::OGT, b.maxEach(largest), limit);
      result = result ? arith::OrIOp::create(b, result, over).getResult() : over;
    }
    rewriter.replaceOp(op, vector::ReductionOp::create(b, vector::CombiningKind::OR, result));
    return success();
  }
};

struct JoinSinksPattern : OpConversionPattern<TileJoinSinksOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileJoinSinksOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    StateType type = op.getState().getType();
    StateColumns columns(type);
    Value state = in.getState();
    b.loop(0, type.getHeads(), 1, [&](Value head) {
      Value maxAt[] = {head, b.index(columns.max)}, sumAt[] = {head, b.index(columns.sum)};
      Value logit = memref::LoadOp::create(b, in.getSinks(), ValueRange{b.addIndex(in.getOffset(), head)});
      Value old = memref::LoadOp::create(b, state, maxAt), part = b.mul(logit, b.f32(float(std::numbers::log2e)));
      Value max = b.max(old, part);
      rescale(b, state, head, columns.max, b.exp2(b.splat(arith::SubFOp::create(b, old, max))));
      Value power = b.add(arith::SubFOp::create(b, part, max), b.f32(float(int64_t(op.getExponent()))));
      // Lanes of the sum, which are added up in the end, get a share each.
      Value weight = b.exp2(b.splat(power));
      b.store(b.fma(weight, b.f32Splat(1.0f / kLanes), b.loadF32(state, sumAt)), state, sumAt);
      memref::StoreOp::create(b, max, state, maxAt);
    });
    rewriter.eraseOp(op);
    return success();
  }
};

/// Parts one after the other, so that how they are rounded does not depend on the target's vectors.
struct MergePattern : OpConversionPattern<TileMergeOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileMergeOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    auto headDim = int64_t(op.getHeadDim());
    b.loop(0, int64_t(op.getHeads()), 1, [&](Value head) {
      auto lseOf = [&](Value part) {
        Value at = b.addIndex(b.addIndex(in.getLseOffset(), head), arith::MulIOp::create(b, part, in.getRows()));
        return memref::LoadOp::create(b, in.getLses(), ValueRange{at}).getResult();
      };
      auto forEachPart = [&](ValueRange initial, function_ref<SmallVector<Value>(Value, ValueRange)> body) {
        auto loop = scf::ForOp::create(b, b.index(0), in.getCount(), b.index(1), initial);
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(loop.getBody());
        scf::YieldOp::create(b, body(loop.getInductionVar(), loop.getRegionIterArgs()));
        return loop.getResults();
      };
      Value max = forEachPart(b.f32(kMaskedLogit), [&](Value part, ValueRange before) {
        return SmallVector<Value>{b.max(before[0], lseOf(part))};
      })[0];
      Value base = b.addIndex(in.getPartOffset(), b.mulIndex(head, headDim));
      Value to = b.addIndex(in.getOutOffset(), b.mulIndex(head, headDim));
      // One part alone stays as it is, to the last bit.
      auto weightOf = [&](Value part) {
        return b.exp2(b.splat(b.mul(arith::SubFOp::create(b, lseOf(part), max), b.f32(float(std::numbers::log2e)))));
      };
      Value sum = forEachPart(b.f32Splat(0.0f), [&](Value part, ValueRange before) {
        return SmallVector<Value>{b.add(before[0], weightOf(part))};
      })[0];
      Value total = vector::ExtractOp::create(b, sum, ArrayRef<int64_t>{0});
      Value natural = b.mul(math::Log2Op::create(b, total), b.f32(float(std::numbers::ln2)));
      auto [inverse, lse] = finish(b, total, b.add(max, natural));
      b.loop(0, headDim, kLanes, [&](Value channel) {
        Value out = forEachPart(b.f32Splat(0.0f), [&](Value part, ValueRange before) {
          Value at =
              b.addIndex(b.addIndex(base, channel), b.mulIndex(arith::MulIOp::create(b, part, in.getRows()), headDim));
          return SmallVector<Value>{b.fma(b.loadF32(in.getParts(), at), weightOf(part), before[0])};
        })[0];
        b.storeF32(b.mul(out, b.splat(inverse)), in.getOut(), b.addIndex(to, channel));
      });
      memref::StoreOp::create(b, lse, in.getLse(), ValueRange{b.addIndex(in.getOutLseOffset(), head)});
    });
    rewriter.eraseOp(op);
    return success();
  }

  /// What outputs are multiplied by, and the lse; 0 and -inf where the sum of weights is 0.
  static std::pair<Value, Value> finish(CpuBuilder &b, Value sum, Value lse) {
    Value seen = arith::CmpFOp::create(b, arith::CmpFPredicate::OGT, sum, b.f32(0.0f));
    Value inverse = arith::SelectOp::create(b, seen, arith::DivFOp::create(b, b.f32(1.0f), sum), b.f32(0.0f));
    return {inverse, arith::SelectOp::create(b, seen, lse, b.f32(-std::numeric_limits<float>::infinity()))};
  }
};

struct ArrivePattern : OpConversionPattern<TileArriveOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileArriveOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    auto number = [&](int32_t value) { return arith::ConstantOp::create(b, b.getI32IntegerAttr(value)).getResult(); };
    Value before = memref::AtomicRMWOp::create(b, arith::AtomicRMWKind::addi, number(1), in.getCounters(), in.getAt());
    Value others = arith::SubIOp::create(b, arith::IndexCastOp::create(b, b.getI32Type(), in.getCount()), number(1));
    Value isLast = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, before, others);
    auto branch = scf::IfOp::create(b, isLast, /*withElseRegion=*/false);
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(branch.thenBlock());
      memref::StoreOp::create(b, number(0), in.getCounters(), in.getAt());
    }
    rewriter.replaceOp(op, isLast);
    return success();
  }
};

struct StoreResultPattern : OpConversionPattern<TileStoreResultOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileStoreResultOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    StateType type = op.getState().getType();
    StateColumns columns(type);
    b.loop(0, type.getHeads(), 1, [&](Value head) {
      Value sum = b.reduceAdd(b.loadF32(in.getState(), {head, b.index(columns.sum)}));
      Value max = memref::LoadOp::create(b, in.getState(), ValueRange{head, b.index(columns.max)});
      Value binary = b.add(max, math::Log2Op::create(b, sum));
      auto [inverse, lse] = MergePattern::finish(b, sum, b.mul(binary, b.f32(float(std::numbers::ln2))));
      auto store = [&, inverse = inverse, lse = lse](Value out, Value outOffset, Value lses, Value lseOffset) {
        Value base = b.addIndex(outOffset, b.mulIndex(head, type.getHeadDim()));
        b.loop(0, type.getHeadDim(), kLanes, [&](Value channel) {
          Value number = b.mul(b.loadF32(in.getState(), {head, channel}), b.splat(inverse));
          b.storeF32(number, out, b.addIndex(base, channel));
        });
        memref::StoreOp::create(b, lse, lses, ValueRange{b.addIndex(lseOffset, head)});
      };
      if (!in.getIsPart())
        return store(in.getOut(), in.getOutOffset(), in.getLse(), in.getLseOffset());
      auto branch = scf::IfOp::create(b, in.getIsPart(), /*withElseRegion=*/true);
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(branch.thenBlock());
      store(in.getParts(), in.getPartOffset(), in.getParts(), in.getPartLseOffset());
      b.setInsertionPointToStart(branch.elseBlock());
      store(in.getOut(), in.getOutOffset(), in.getLse(), in.getLseOffset());
    });
    rewriter.eraseOp(op);
    return success();
  }
};

/// Tiles are buffers of their shape; a block is a view of its bytes or numbers; a state is a buffer with the columns of
/// StateColumns.
void populateTypes(TypeConverter &converter) {
  converter.addConversion([](Type type) { return type; });
  converter.addConversion([](VectorType type) -> Type {
    if (type.getRank() != 2)
      return type;
    Type element = type.getElementType();
    if (element.isUnsignedInteger() || element.isBF16())
      element = IntegerType::get(type.getContext(), element.getIntOrFloatBitWidth());
    return MemRefType::get(type.getShape(), element);
  });
  converter.addConversion([](BlockType type) -> Type {
    if (type.isCodes())
      return MemRefType::get({type.getBytes()}, IntegerType::get(type.getContext(), 8));
    // Scales of eight bits are decoded by what loads them.
    Type element = type.getElement();
    if (element.getIntOrFloatBitWidth() == 8)
      element = IntegerType::get(type.getContext(), 8);
    return MemRefType::get({type.getTokens() * type.getChannels()}, element);
  });
  converter.addConversion([](StateType type) -> Type {
    return MemRefType::get({type.getHeads(), StateColumns(type).total}, Float32Type::get(type.getContext()));
  });
}

struct ConvertTileToCpuPass : kvcc::impl::ConvertTileToCpuPassBase<ConvertTileToCpuPass> {
  void runOnOperation() override {
    FailureOr<TargetAttr> target = kvcc::getTarget(getOperation());
    if (failed(target))
      return signalPassFailure();
    const CpuLevel *level = findCpuLevel(target->getArch());
    if (target->getKind() != TargetKind::Cpu || !level) {
      getOperation().emitError() << "expected kv.target #kv.target<cpu, LEVEL> with a level of " << getCpuLevelNames()
                                 << ", but got " << *target;
      return signalPassFailure();
    }
    TypeConverter converter;
    populateTypes(converter);
    RewritePatternSet patterns(&getContext());
    patterns
        .add<LoadQueryPattern, ScaleChannelsPattern, DotChannelsPattern, RotatePattern, ShiftStatePattern,
             RestorePattern, PrefetchPattern, LoadPattern, MaskPattern, SoftcapPattern, InitStatePattern,
             SoftmaxStepPattern, IsDominatedPattern, JoinSinksPattern, MergePattern, ArrivePattern, StoreResultPattern>(
            converter, &getContext());
    patterns.add<PreparePattern>(converter, &getContext(), *level);
    populateProductPatterns(patterns, converter, *level);
    populateWriterPatterns(patterns, converter, getLaneBuilder());
    ConversionTarget legality(getContext());
    legality.addIllegalDialect<KvDialect>();
    legality.markUnknownOpDynamicallyLegal([](Operation *) { return true; });
    if (failed(applyPartialConversion(getOperation(), legality, std::move(patterns))))
      return signalPassFailure();
    // The C interface takes pointers to memref descriptors: the ABI that the runtime calls.
    for (auto func : getOperation().getOps<func::FuncOp>())
      func->setAttr("llvm.emit_c_interface", UnitAttr::get(&getContext()));
  }
};

} // namespace
