// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv.tile.score and kv.tile.accumulate on a CPU. Both are products of a small operand (query, weights;
// heads x reduced) with a block (free x reduced): one implementation, two epilogues.
#include "codegen/cpu/CpuBuilder.h"

using namespace mlir;
using namespace kvcc::kv;
using namespace kvcc::cpu;

namespace {

/// The operands of a product after type conversion.
struct Product {
  BlockType block;
  Value data, scales;                  // the block's elements and scales, in cache memory
  Value small, smallSums, smallScales; // [heads][reduced], [heads][groups], [heads][groups]
  int64_t heads, group;                // group: reduced elements that share a scale
};

/// Lowers `heads` dot products of a free tile (16 free indices) with one block of codes.
class CodeProduct {
public:
  CodeProduct(CpuBuilder &b, const Product &p)
      : b(b), p(p), bits(p.block.getElement().getIntOrFloatBitWidth()),
        integer(cast<MemRefType>(p.small.getType()).getElementType().isInteger(8)),
        twoBytes(cast<MemRefType>(p.small.getType()).getDimSize(1) == 2 * p.block.getReduceExtent()),
        // Byte products want one unsigned and one signed side. Weights are unsigned, so the codes that
        // multiply them are read as signed bytes: of 8 bits, only after subtracting 128.
        codesAreSigned(!p.block.isKey()), biased(codesAreSigned && bits == 8) {}

  /// The sums over `group` of free tile `tile`, times the scales, added to `sums` (f32, one per head).
  SmallVector<Value> run(Value tile, Value group, ValueRange sums) {
    int64_t perGroup = p.group / 4, tilesInRow = p.block.getReduceExtent() / 4;
    Value firstTile = b.addIndex(b.mulIndex(tile, tilesInRow), b.mulIndex(group, perGroup));
    Value byte = b.mulIndex(firstTile, 8 * bits), element = b.mulIndex(group, p.group);

    // Of a small operand of two bytes, the sums with the high bytes follow those with the low ones.
    SmallVector<Value> acc;
    for (int64_t h = 0; h < p.heads; ++h)
      acc.push_back(initial(h, group));
    if (twoBytes)
      acc.append(size_t(p.heads), b.i32Splat(0));
    for (int64_t v = 0; v < perGroup; ++v) {
      Value codes = b.unpackCodes(p.data, b.addIndex(byte, b.index(v * 8 * bits)), bits);
      if (biased)
        codes = arith::XOrIOp::create(
            b, codes, arith::ConstantOp::create(b, DenseElementsAttr::get(b.byteVector(), int8_t(-128))));
      multiply(codes, b.addIndex(element, b.index(4 * v)), acc);
    }
    // Scales lie as [free tile][group][16].
    int64_t groups = p.block.getReduceExtent() / p.group;
    Value scaleAt = b.mulIndex(b.addIndex(b.mulIndex(tile, groups), group), kLanes);
    Value scales = b.loadF32(p.scales, scaleAt);
    SmallVector<Value> result;
    for (int64_t h = 0; h < p.heads; ++h) {
      Value sum = acc[h];
      if (twoBytes)
        sum = b.add(sum, arith::ShLIOp::create(b, acc[p.heads + h], b.i32Splat(8)));
      if (integer) {
        sum = arith::SIToFPOp::create(b, b.f32Vector(), sum);
        sum = b.mul(sum, b.loadSplat(p.smallScales, {b.index(h), group}));
      }
      result.push_back(b.fma(sum, scales, sums[h]));
    }
    return result;
  }

private:
  /// The accumulator of a head before its products: what the zero codes would add, negated.
  Value initial(int64_t head, Value group) {
    int32_t zero = biased ? 0 : int32_t(1) << (bits - 1);
    Value sum = memref::LoadOp::create(b, p.smallSums, ValueRange{b.index(head), group});
    if (integer)
      return b.splat(b.mul(arith::FPToSIOp::create(b, b.getI32Type(), sum), b.i32(-zero)));
    return b.splat(b.mul(sum, b.f32(float(-zero))));
  }

  void multiply(Value codes, Value element, SmallVector<Value> &acc) {
    if (integer) {
      for (auto [i, sum] : llvm::enumerate(acc)) {
        int64_t head = int64_t(i) % p.heads, byte = int64_t(i) / p.heads;
        Value at = b.addIndex(element, b.index(byte * p.block.getReduceExtent()));
        Value small = b.loadFourBytes(p.small, {b.index(head), at});
        sum = codesAreSigned ? b.dotBytes(sum, small, codes) : b.dotBytes(sum, codes, small);
      }
      return;
    }
    for (unsigned e = 0; e < 4; ++e) {
      Value lanes = b.codeLanes(codes, e, biased);
      lanes = arith::SIToFPOp::create(b, b.f32Vector(), lanes);
      Value at = b.addIndex(element, b.index(e));
      for (int64_t h = 0; h < p.heads; ++h)
        acc[h] = b.fma(lanes, b.loadSplat(p.small, {b.index(h), at}), acc[h]);
    }
  }

  CpuBuilder &b;
  const Product &p;
  unsigned bits;
  bool integer, twoBytes, codesAreSigned, biased;
};

/// The product of free tile `tile` (16 free indices), all heads.
SmallVector<Value> codeProduct(CpuBuilder &b, const Product &p, Value tile) {
  CodeProduct product(b, p);
  SmallVector<Value> zeros(p.heads, b.f32Splat(0.0f));
  int64_t groups = p.block.getReduceExtent() / p.group;
  if (groups == 1)
    return product.run(tile, b.index(0), zeros);
  return b.loop(0, groups, zeros, [&](Value group, ValueRange sums) { return product.run(tile, group, sums); });
}

/// The same for numbers, two free tiles at a time so that a single head has two chains of additions.
SmallVector<Value> floatProduct(CpuBuilder &b, const Product &p, Value tile) {
  SmallVector<Value> zeros(2 * p.heads, b.f32Splat(0.0f));
  int64_t extent = p.block.getReduceExtent();
  Value base = b.mulIndex(tile, extent);
  return b.loop(0, extent, zeros, [&](Value r, ValueRange acc) {
    SmallVector<Value> next;
    Value at = b.mulIndex(b.addIndex(base, r), kLanes);
    Value blocks[] = {b.loadF32(p.data, at), b.loadF32(p.data, b.addIndex(at, b.index(extent * kLanes)))};
    for (int64_t i = 0; i < 2; ++i)
      for (int64_t h = 0; h < p.heads; ++h)
        next.push_back(b.fma(blocks[i], b.loadSplat(p.small, {b.index(h), r}), acc[i * p.heads + h]));
    return next;
  });
}

/// Calls `emit(first free index of 16, per-head sums)` for every free tile of the block.
void forEachFreeTile(CpuBuilder &b, const Product &p, function_ref<void(Value, ValueRange)> emit) {
  bool codes = p.block.isCodes();
  int64_t tiles = p.block.getFreeExtent() / kLanes, step = codes ? 1 : 2;
  b.loop(0, tiles, step, [&](Value tile) {
    SmallVector<Value> sums = codes ? codeProduct(b, p, tile) : floatProduct(b, p, tile);
    for (int64_t i = 0; i < step; ++i)
      emit(b.mulIndex(b.addIndex(tile, b.index(i)), kLanes), ArrayRef(sums).slice(i * p.heads, p.heads));
  });
}

/// Refuses what these lowerings do not implement.
LogicalResult checkProduct(Operation *op, Placement placement, BlockType block) {
  if (placement == Placement::Operand || placement == Placement::Element)
    return op->emitError() << "expected scales placed at accumulator or result for a cpu target, but got "
                           << stringifyPlacement(placement);
  PackingAttr packing = block.getPacking();
  int64_t reduceTile = block.isCodes() ? 4 : 1;
  if (packing.getFreeTile() != kLanes || packing.getReduceTile() != reduceTile || packing.getLanes() != 1)
    return op->emitError() << "expected packing <16x" << reduceTile << "> for a cpu target, but got " << packing;
  return success();
}

int64_t groupOf(TypedValue<BlockType> scales, BlockType block) {
  if (!scales)
    return block.getReduceExtent();
  return block.getReduceExtent() / scales.getType().getReduceExtent();
}

struct ScorePattern : OpConversionPattern<TileScoreOp> {
  ScorePattern(const TypeConverter &converter, MLIRContext *context, Isa isa)
      : OpConversionPattern(converter, context), isa(isa) {}

  LogicalResult matchAndRewrite(TileScoreOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    BlockType keys = op.getKeys().getType();
    if (failed(checkProduct(op, op.getPlacement(), keys)))
      return failure();
    CpuBuilder b(op.getLoc(), rewriter, isa);
    auto shape = cast<VectorType>(op.getResult().getType()).getShape();
    Product product{keys,
                    in.getKeys(),
                    in.getScales(),
                    in.getQuery(),
                    in.getQuerySums(),
                    in.getQueryScales(),
                    shape[0],
                    groupOf(op.getScales(), keys)};
    Value result = b.scratch(shape, b.getF32Type());
    forEachFreeTile(b, product, [&](Value first, ValueRange sums) {
      for (int64_t h = 0; h < shape[0]; ++h)
        b.store(sums[h], result, {b.index(h), first});
    });
    rewriter.replaceOp(op, result);
    return success();
  }
  Isa isa;
};

struct AccumulatePattern : OpConversionPattern<TileAccumulateOp> {
  AccumulatePattern(const TypeConverter &converter, MLIRContext *context, Isa isa)
      : OpConversionPattern(converter, context), isa(isa) {}

  LogicalResult matchAndRewrite(TileAccumulateOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    BlockType values = op.getValues().getType();
    if (failed(checkProduct(op, op.getPlacement(), values)))
      return failure();
    CpuBuilder b(op.getLoc(), rewriter, isa);
    int64_t heads = op.getState().getType().getHeads();
    Product product{values,
                    in.getValues(),
                    in.getScales(),
                    in.getWeights(),
                    in.getWeightSums(),
                    in.getWeightScales(),
                    heads,
                    groupOf(op.getScales(), values)};
    forEachFreeTile(b, product, [&](Value first, ValueRange sums) {
      for (int64_t h = 0; h < heads; ++h) {
        Value at[] = {b.index(h), first};
        b.store(b.add(b.loadF32(in.getState(), at), sums[h]), in.getState(), at);
      }
    });
    rewriter.eraseOp(op);
    return success();
  }
  Isa isa;
};

} // namespace

void kvcc::cpu::populateProductPatterns(RewritePatternSet &patterns, const TypeConverter &converter, Isa isa) {
  patterns.add<ScorePattern, AccumulatePattern>(converter, patterns.getContext(), isa);
}
