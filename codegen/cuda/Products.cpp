// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv.tile.score and kv.tile.accumulate on a GPU. Both are products of a small operand in workgroup memory
// (heads x reduced) with a block (free x reduced); a lane computes one free index of each tile of 32.
#include "codegen/cuda/GpuBuilder.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace kvcc::kv;
using namespace kvcc::cuda;

namespace {

/// Small operands whose rows have been multiplied by scales, and their products with zeros.
struct FoldPattern : OpConversionPattern<TileFoldOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileFoldOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    if (!cast<VectorType>(op.getResult().getType()).getElementType().isF32())
      return op.emitError() << "expected compute f32 for a cuda target, but got a result " << op.getResult().getType();
    GpuBuilder b(op.getLoc(), rewriter);
    auto tile = cast<VectorType>(op.getTile().getType());
    int64_t heads = tile.getDimSize(0), columns = tile.getDimSize(1);
    int64_t freeGroups = op.getScales().getType().getFreeExtent();
    Value result = b.shared({freeGroups * heads, columns}), offsets, lane = b.lane();
    if (op.getOffsets())
      offsets = b.shared({freeGroups * heads, 1});
    b.loop(b.index(0), freeGroups, 1, /*unroll=*/false, [&](Value f) {
      for (int64_t h = 0; h < heads; ++h) {
        Value row = b.addIndex(b.mulIndex(f, heads), h);
        SmallVector<Value> sum = b.loop(0, columns / kWarp, b.f32(0.0f), [&](Value i, ValueRange sums) {
          Value column = b.add(b.mulIndex(i, kWarp), lane), at = b.add(b.mulIndex(f, columns), column);
          Value number = b.load(in.getTile(), {b.index(h), column});
          Value scale = b.loadF32(in.getScales(), at, op.getScales().getType().getElement());
          Value folded = b.mul(number, scale);
          b.store(folded, result, {row, column});
          if (!offsets)
            return SmallVector<Value>(sums);
          Value moved = b.fma(folded, b.f32(float(op.getMiddle())), sums[0]);
          return SmallVector<Value>{b.fma(number, b.loadF32(in.getZeros(), at), moved)};
        });
        if (offsets)
          b.store(b.reduce(sum[0], [&](Value x, Value y) { return b.add(x, y); }), offsets, {row, b.index(0)});
      }
    });
    b.barrier();
    SmallVector<Value> results{result};
    if (offsets)
      results.push_back(offsets);
    rewriter.replaceOp(op, results);
    return success();
  }
};

/// The operands of a product after type conversion.
struct Product {
  BlockType block;
  Value data, scales, zeros;       // the block's elements, scales and zeros, in cache memory
  Value small, smallSums, offsets; // [rows][reduced], [rows][groups], [rows][1], in workgroup memory
  int64_t heads, group;            // group: reduced elements that share a scale
  int64_t freeGroup;               // free indices that share rows of a folded operand, else 0
  bool hybrid;
  Type scaleType;

  bool isE4m3() const { return isa<Float8E4M3FNType>(block.getElement()); }
  bool isE2m1() const { return isa<Float4E2M1FNType>(block.getElement()); }
};

/// The part of a product that one lane computes: a free index of tile `tile`.
class CodeProduct {
public:
  CodeProduct(GpuBuilder &b, const Product &p, Value tile)
      : b(b), p(p), tile(tile), bits(p.block.getElement().getIntOrFloatBitWidth()), lane(b.lane()) {
    if (p.freeGroup) {
      Value free = b.add(b.mulIndex(tile, kWarp), lane);
      firstRow = b.mulIndex(arith::DivUIOp::create(b, free, b.index(p.freeGroup)), p.heads);
    }
  }

  /// Per head, the sums over groups `step` covers (a unit of 32 codes, or a group if that is more), times their
  /// scales, added to `sums`.
  SmallVector<Value> run(Value step, ValueRange sums) {
    SmallVector<Value> result(sums);
    if (p.group > kWarp) {
      int64_t units = p.group / kWarp;
      SmallVector<Value> acc = b.loop(0, units, initial(step), [&](Value u, ValueRange acc) {
        SmallVector<Value> next(acc);
        forEachCode(b.add(b.mulIndex(step, units), u),
                    [&](int64_t i, Value code, Value element) { multiply(code, element, next); });
        return next;
      });
      finish(step, acc, result);
      return result;
    }
    SmallVector<Value> acc;
    forEachCode(step, [&](int64_t i, Value code, Value element) {
      Value group = b.addIndex(b.mulIndex(step, kWarp / p.group), i / p.group);
      if (i % p.group == 0)
        acc = initial(group);
      multiply(code, element, acc);
      if (i % p.group == p.group - 1)
        finish(group, acc, result);
    });
    return result;
  }

private:
  /// Calls `body(index in the unit, code, reduced index)` for the 32 codes of a unit.
  void forEachCode(Value unit, function_ref<void(int64_t, Value, Value)> body) {
    int64_t unitsInRow = p.block.getReduceExtent() / kWarp;
    Value first = b.add(b.mulIndex(b.add(b.mulIndex(tile, unitsInRow), unit), bits * kWarp), lane);
    Value element = b.mulIndex(unit, kWarp);
    for (auto [i, code] : llvm::enumerate(b.unpackCodes(p.data, first, bits)))
      body(int64_t(i), code, b.addIndex(element, int64_t(i)));
  }

  void multiply(Value code, Value element, SmallVector<Value> &acc) {
    if (p.isE2m1())
      code = b.decodeE2m1(code);
    Value number = p.isE4m3() ? b.decodeE4m3(code) : arith::UIToFPOp::create(b, b.getF32Type(), code).getResult();
    for (int64_t h = 0; h < p.heads; ++h)
      acc[h] = b.fma(number, b.load(p.small, {row(h), element}), acc[h]);
  }

  Value row(int64_t head) { return firstRow ? b.addIndex(firstRow, head) : b.index(head); }
  float zeroCode() const { return p.isE4m3() ? 0 : p.isE2m1() ? 12 : float(int64_t(1) << (bits - 1)); }
  /// What a decoded code counts in.
  float unit() const { return p.isE2m1() ? 0.5f : 1; }

  /// The accumulators before their products: what the zero codes would add, negated.
  SmallVector<Value> initial(Value group) {
    SmallVector<Value> acc;
    for (int64_t h = 0; h < p.heads; ++h)
      acc.push_back(p.zeros ? b.f32(0.0f) // codes count from 0
                            : b.mul(b.load(p.smallSums, {row(h), group}), b.f32(-zeroCode())));
    return acc;
  }

  void finish(Value group, ArrayRef<Value> acc, SmallVector<Value> &sums) {
    if (p.freeGroup) {
      for (int64_t h = 0; h < p.heads; ++h) {
        sums[h] = unit() == 1 ? b.add(acc[h], sums[h]) : b.fma(acc[h], b.f32(unit()), sums[h]);
        if (p.offsets)
          sums[h] = b.add(sums[h], b.load(p.offsets, {row(h), b.index(0)}));
      }
      return;
    }
    // Scales and zeros lie as [free tile][group][32].
    int64_t groups = p.block.getReduceExtent() / p.group;
    Value at = b.add(b.mulIndex(b.add(b.mulIndex(tile, groups), group), kWarp), lane);
    Value scale = b.loadF32(p.scales, at, p.scaleType), zero;
    if (unit() != 1)
      scale = b.mul(scale, b.f32(unit()));
    if (p.zeros)
      zero = b.loadF32(p.zeros, at);
    if (p.hybrid) {
      // The sign bit marks a group with a zero point; the others are symmetric. (-0.0 is marked too.)
      Value marked = arith::CmpIOp::create(b, arith::CmpIPredicate::slt,
                                           arith::BitcastOp::create(b, b.getI32Type(), scale), b.i32(0));
      scale = math::AbsFOp::create(b, scale);
      zero = arith::SelectOp::create(b, marked, zero, b.mul(scale, b.f32(-zeroCode())));
    }
    for (int64_t h = 0; h < p.heads; ++h) {
      sums[h] = b.fma(acc[h], scale, sums[h]);
      if (zero)
        sums[h] = b.fma(zero, b.load(p.smallSums, {row(h), group}), sums[h]);
    }
  }

  GpuBuilder &b;
  const Product &p;
  Value tile, firstRow;
  unsigned bits;
  Value lane;
};

/// Per head, the product with this lane's free index of tile `tile`.
SmallVector<Value> computeProduct(GpuBuilder &b, const Product &p, Value tile) {
  SmallVector<Value> zeros(p.heads, b.f32(0.0f));
  if (p.block.isCodes()) {
    CodeProduct product(b, p, tile);
    int64_t steps = p.block.getReduceExtent() / std::max(p.group, kWarp);
    if (steps == 1)
      return product.run(b.index(0), zeros);
    return b.loop(0, steps, zeros, [&](Value step, ValueRange sums) { return product.run(step, sums); });
  }
  int64_t extent = p.block.getReduceExtent();
  return b.loop(0, extent, zeros, [&](Value r, ValueRange acc) {
    Value at = b.add(b.mulIndex(b.add(b.mulIndex(tile, extent), r), kWarp), b.lane());
    Value number = b.loadF32(p.data, at);
    SmallVector<Value> next;
    for (int64_t h = 0; h < p.heads; ++h)
      next.push_back(b.fma(number, b.load(p.small, {b.index(h), r}), acc[h]));
    return next;
  });
}

/// The product of an operation, whose small operand and sums have names of their own; fails for what these
/// lowerings do not implement.
template <typename Op, typename Adaptor>
FailureOr<Product> makeProduct(Op op, Adaptor in, BlockType block, Value data, Value small, Type smallType, Value sums,
                               int64_t heads) {
  if (op.getPlacement() == Placement::Element)
    return op->emitError("expected scales placed at accumulator, result or operand for a cuda target, but got element");
  PackingAttr packing = block.getPacking();
  int64_t reduceTile = block.isCodes() ? kWarp : 1, lanes = block.isCodes() ? kWarp : 1;
  if (packing.getFreeTile() != kWarp || packing.getReduceTile() != reduceTile || packing.getLanes() != lanes)
    return op->emitError() << "expected packing <32x" << reduceTile << ", lanes = " << lanes
                           << "> for a cuda target, but got " << packing;
  if (!cast<VectorType>(smallType).getElementType().isF32())
    return op->emitError() << "expected compute f32 for a cuda target, but got " << smallType;
  Product product{block,
                  data,
                  in.getScales(),
                  in.getZeros(),
                  small,
                  sums,
                  in.getOffsets(),
                  heads,
                  block.getReduceExtent(),
                  0,
                  op.getHybrid(),
                  {}};
  if (op.getScales())
    product.scaleType = op.getScales().getType().getElement();
  if (op.getPlacement() == Placement::Operand)
    product.freeGroup = block.getFreeExtent() / op.getScales().getType().getFreeExtent();
  else if (op.getScales())
    product.group /= op.getScales().getType().getReduceExtent();
  if (product.group % kWarp && kWarp % product.group)
    return op->emitError() << "expected groups along the reduction that divide 32 or are a multiple of it for a cuda "
                              "target, but got "
                           << product.group;
  return product;
}

struct ScorePattern : OpConversionPattern<TileScoreOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileScoreOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    auto shape = cast<VectorType>(op.getResult().getType()).getShape();
    FailureOr<Product> product = makeProduct(op, in, op.getKeys().getType(), in.getKeys(), in.getQuery(),
                                             op.getQuery().getType(), in.getQuerySums(), shape[0]);
    if (failed(product))
      return failure();
    Value result = b.shared(shape), lane = b.lane();
    for (auto [h, logit] : llvm::enumerate(computeProduct(b, *product, b.index(0))))
      b.store(logit, result, {b.index(int64_t(h)), lane});
    rewriter.replaceOp(op, result);
    return success();
  }
};

struct AccumulatePattern : OpConversionPattern<TileAccumulateOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileAccumulateOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    GpuBuilder b(op.getLoc(), rewriter);
    StateType state = op.getState().getType();
    FailureOr<Product> product = makeProduct(op, in, op.getValues().getType(), in.getValues(), in.getWeights(),
                                             op.getWeights().getType(), in.getWeightSums(), state.getHeads());
    if (failed(product))
      return failure();
    b.loop(b.index(0), StateColumns(state).channels, 1, /*unroll=*/true, [&](Value tile) {
      for (auto [h, sum] : llvm::enumerate(computeProduct(b, *product, tile))) {
        Value at[] = {b.index(int64_t(h)), tile};
        b.store(b.add(b.load(in.getState(), at), sum), in.getState(), at);
      }
      // The next block's logits overwrite the weights that other lanes may still be reading. And without it
      // ptxas would load all weights into registers once for all unrolled tiles, and spill.
      b.barrier();
    });
    rewriter.eraseOp(op);
    return success();
  }
};

} // namespace

void kvcc::cuda::populateProductPatterns(RewritePatternSet &patterns, const TypeConverter &converter) {
  patterns.add<FoldPattern, ScorePattern, AccumulatePattern>(converter, patterns.getContext());
}
