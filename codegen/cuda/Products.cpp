// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv.tile.score and kv.tile.accumulate on a GPU. Both are products of a small operand in workgroup memory
// (heads x reduced) with a block (free x reduced); a lane computes one free index of each tile of 32.
#include "codegen/cuda/GpuBuilder.h"

using namespace mlir;
using namespace kvcc::kv;
using namespace kvcc::cuda;

namespace {

/// The operands of a product after type conversion.
struct Product {
  BlockType block;
  Value data, scales;     // the block's elements and scales, in cache memory
  Value small, smallSums; // [heads][reduced], [heads][groups], in workgroup memory
  int64_t heads, group;   // group: reduced elements that share a scale
};

/// Per head, the sum over one group of codes times the scale, added to `sums`.
SmallVector<Value> addGroup(GpuBuilder &b, const Product &p, Value tile, Value group, ValueRange sums) {
  unsigned bits = p.block.getElement().getIntOrFloatBitWidth();
  int64_t units = p.group / kWarp, unitsInRow = p.block.getReduceExtent() / kWarp;
  Value firstUnit = b.add(b.mulIndex(tile, unitsInRow), b.mulIndex(group, units));
  Value zero = b.f32(-float(int64_t(1) << (bits - 1)));

  SmallVector<Value> acc;
  for (int64_t h = 0; h < p.heads; ++h)
    acc.push_back(b.mul(b.load(p.smallSums, {b.index(h), group}), zero));
  for (int64_t u = 0; u < units; ++u) {
    Value first = b.add(b.mulIndex(b.addIndex(firstUnit, u), bits * kWarp), b.lane());
    Value element = b.addIndex(b.mulIndex(group, p.group), u * kWarp);
    for (auto [i, code] : llvm::enumerate(b.unpackCodes(p.data, first, bits))) {
      Value number = arith::UIToFPOp::create(b, b.getF32Type(), code);
      Value at = b.addIndex(element, int64_t(i));
      for (int64_t h = 0; h < p.heads; ++h)
        acc[h] = b.fma(number, b.load(p.small, {b.index(h), at}), acc[h]);
    }
  }
  // Scales lie as [free tile][group][32].
  int64_t groups = p.block.getReduceExtent() / p.group;
  Value scaleAt = b.add(b.mulIndex(b.add(b.mulIndex(tile, groups), group), kWarp), b.lane());
  Value scale = b.loadF32(p.scales, scaleAt);
  SmallVector<Value> result;
  for (int64_t h = 0; h < p.heads; ++h)
    result.push_back(b.fma(acc[h], scale, sums[h]));
  return result;
}

/// Per head, the product with this lane's free index of tile `tile`.
SmallVector<Value> computeProduct(GpuBuilder &b, const Product &p, Value tile) {
  SmallVector<Value> zeros(p.heads, b.f32(0.0f));
  if (p.block.isCodes()) {
    int64_t groups = p.block.getReduceExtent() / p.group;
    if (groups == 1)
      return addGroup(b, p, tile, b.index(0), zeros);
    return b.loop(0, groups, zeros, [&](Value group, ValueRange sums) { return addGroup(b, p, tile, group, sums); });
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

/// Refuses what these lowerings do not implement.
LogicalResult checkProduct(Operation *op, Placement placement, BlockType block, int64_t group, Type small) {
  if (placement == Placement::Operand || placement == Placement::Element)
    return op->emitError() << "expected scales placed at accumulator or result for a cuda target, but got "
                           << stringifyPlacement(placement);
  PackingAttr packing = block.getPacking();
  int64_t reduceTile = block.isCodes() ? kWarp : 1, lanes = block.isCodes() ? kWarp : 1;
  if (packing.getFreeTile() != kWarp || packing.getReduceTile() != reduceTile || packing.getLanes() != lanes)
    return op->emitError() << "expected packing <32x" << reduceTile << ", lanes = " << lanes
                           << "> for a cuda target, but got " << packing;
  if (block.isCodes() && group % kWarp)
    return op->emitError() << "expected groups of a multiple of 32 along the reduction for a cuda target, "
                              "but got "
                           << group;
  if (!cast<VectorType>(small).getElementType().isF32())
    return op->emitError() << "expected compute f32 for a cuda target, but got " << small;
  return success();
}

int64_t groupOf(TypedValue<BlockType> scales, BlockType block) {
  if (!scales)
    return block.getReduceExtent();
  return block.getReduceExtent() / scales.getType().getReduceExtent();
}

struct ScorePattern : OpConversionPattern<TileScoreOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileScoreOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    BlockType keys = op.getKeys().getType();
    int64_t group = groupOf(op.getScales(), keys);
    if (failed(checkProduct(op, op.getPlacement(), keys, group, op.getQuery().getType())))
      return failure();
    GpuBuilder b(op.getLoc(), rewriter);
    auto shape = cast<VectorType>(op.getResult().getType()).getShape();
    Product product{keys, in.getKeys(), in.getScales(), in.getQuery(), in.getQuerySums(), shape[0], group};
    Value result = b.shared(shape), lane = b.lane();
    for (auto [h, logit] : llvm::enumerate(computeProduct(b, product, b.index(0))))
      b.store(logit, result, {b.index(int64_t(h)), lane});
    rewriter.replaceOp(op, result);
    return success();
  }
};

struct AccumulatePattern : OpConversionPattern<TileAccumulateOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileAccumulateOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    BlockType values = op.getValues().getType();
    int64_t group = groupOf(op.getScales(), values);
    if (failed(checkProduct(op, op.getPlacement(), values, group, op.getWeights().getType())))
      return failure();
    GpuBuilder b(op.getLoc(), rewriter);
    StateType state = op.getState().getType();
    Product product{values,           in.getValues(), in.getScales(), in.getWeights(), in.getWeightSums(),
                    state.getHeads(), group};
    b.loop(b.index(0), StateColumns(state).channels, 1, /*unroll=*/true, [&](Value tile) {
      for (auto [h, sum] : llvm::enumerate(computeProduct(b, product, tile))) {
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
  patterns.add<ScorePattern, AccumulatePattern>(converter, patterns.getContext());
}
