// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv.tile.score and kv.tile.accumulate on a CPU. Both are products of a small operand (query, weights;
// heads x reduced) with a block (free x reduced): one implementation, two epilogues.
#include "codegen/cpu/CpuBuilder.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace kvcc::kv;
using namespace kvcc::cpu;

namespace {

/// Small operands whose rows have been multiplied by scales, and their products with zeros.
struct FoldPattern : OpConversionPattern<TileFoldOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(TileFoldOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    CpuBuilder b(op.getLoc(), rewriter);
    auto tile = cast<VectorType>(op.getTile().getType());
    int64_t heads = tile.getDimSize(0), columns = tile.getDimSize(1);
    int64_t freeGroups = op.getScales().getType().getFreeExtent();
    Value result = b.scratch({freeGroups * heads, columns}, b.getF32Type()), offsets;
    if (op.getOffsets())
      offsets = b.scratch({freeGroups * heads, 1}, b.getF32Type());
    b.loop(0, freeGroups, 1, [&](Value f) {
      for (int64_t h = 0; h < heads; ++h) {
        Value row = b.addIndex(b.mulIndex(f, heads), b.index(h));
        SmallVector<Value> sum = b.loop(0, columns / kLanes, b.f32Splat(0.0f), [&](Value i, ValueRange sums) {
          Value column = b.mulIndex(i, kLanes), at = b.addIndex(b.mulIndex(f, columns), column);
          Value numbers = b.loadF32(in.getTile(), {b.index(h), column});
          b.store(b.mul(numbers, b.loadF32(in.getScales(), at, op.getScales().getType().getElement())), result,
                  {row, column});
          return SmallVector<Value>{offsets ? b.fma(numbers, b.loadF32(in.getZeros(), at), sums[0]) : sums[0]};
        });
        if (offsets)
          memref::StoreOp::create(b, b.reduceAdd(sum[0]), offsets, ValueRange{row, b.index(0)});
      }
    });
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
  Value data, scales, zeros;                    // the block's elements, scales and zeros, in cache memory
  Value small, smallSums, smallScales, offsets; // [rows][reduced], the others [rows][groups]
  int64_t heads, group;                         // group: reduced elements that share a scale
  int64_t freeGroup;                            // free indices that share rows of a folded operand, else 0
  bool hybrid;
  Type scaleType;

  bool isE4m3() const { return isa<Float8E4M3FNType>(block.getElement()); }
  bool isE2m1() const { return isa<Float4E2M1FNType>(block.getElement()); }
};

/// Vectors of 64 codes whose products are unrolled: 32 reduced indices.
constexpr int64_t kUnrolledVectors = 8;

/// Lowers `heads` dot products of a free tile (16 free indices) with one block of codes.
class CodeProduct {
public:
  CodeProduct(CpuBuilder &b, const Product &p, Value tile)
      : b(b), p(p), tile(tile), bits(p.block.getElement().getIntOrFloatBitWidth()),
        integer(cast<MemRefType>(p.small.getType()).getElementType().isInteger(8)),
        twoBytes(cast<MemRefType>(p.small.getType()).getDimSize(1) == 2 * p.block.getReduceExtent()),
        // Byte products want one unsigned and one signed side. Operands of one byte are unsigned, so the
        // codes that multiply them are read as signed bytes: of 8 bits, only after subtracting 128.
        codesAreSigned(integer && !twoBytes), biased(codesAreSigned && bits == 8) {
    if (p.freeGroup)
      firstRow = b.mulIndex(arith::DivUIOp::create(b, b.mulIndex(tile, kLanes), b.index(p.freeGroup)), p.heads);
  }

  /// The sums over `group`, times the scales, added to `sums` (f32, one per head). Floating-point codes count in
  /// units of their own, see `unit`.
  SmallVector<Value> run(Value group, ValueRange sums) {
    int64_t perGroup = p.group / 4, tilesInRow = p.block.getReduceExtent() / 4;
    Value firstTile = b.addIndex(b.mulIndex(tile, tilesInRow), b.mulIndex(group, perGroup));
    Value byte = b.mulIndex(firstTile, 8 * bits), element = b.mulIndex(group, p.group);

    // Of a small operand of two bytes, the sums with the high bytes follow those with the low ones.
    SmallVector<Value> acc;
    for (int64_t h = 0; h < p.heads; ++h)
      acc.push_back(initial(h, group));
    if (twoBytes)
      acc.append(size_t(p.heads), b.i32Splat(0));
    // Groups of 32 are unrolled, longer ones loop over as many codes.
    int64_t vectors = std::min<int64_t>(perGroup, kUnrolledVectors);
    auto multiplyVectors = [&](Value first, SmallVector<Value> &sums) {
      for (int64_t v = 0; v < vectors; ++v) {
        Value vector = b.addIndex(first, b.index(v));
        multiply(loadCodes(b.addIndex(byte, b.mulIndex(vector, 8 * bits))), b.addIndex(element, b.mulIndex(vector, 4)),
                 sums);
      }
    };
    if (vectors == perGroup)
      multiplyVectors(b.index(0), acc);
    else
      acc = b.loop(0, perGroup / vectors, acc, [&](Value i, ValueRange sums) {
        SmallVector<Value> next(sums);
        multiplyVectors(b.mulIndex(i, vectors), next);
        return next;
      });
    GroupScales scales = p.freeGroup ? GroupScales() : loadScales(group);
    SmallVector<Value> result;
    for (int64_t h = 0; h < p.heads; ++h) {
      Value sum = acc[h];
      if (twoBytes)
        sum = b.add(sum, arith::ShLIOp::create(b, acc[p.heads + h], b.i32Splat(8)));
      if (integer)
        sum = b.mul(arith::SIToFPOp::create(b, b.f32Vector(), sum), b.loadSplat(p.smallScales, {row(h), group}));
      if (!scales.scale && unit() != 1)
        sum = b.mul(sum, b.f32Splat(unit()));
      sum = scales.scale ? b.fma(sum, scales.scale, sums[h]) : b.add(sum, sums[h]);
      if (scales.zero) {
        Value small = b.loadSplat(p.smallSums, {row(h), group});
        if (integer)
          small = b.mul(small, b.loadSplat(p.smallScales, {row(h), group}));
        sum = b.fma(scales.zero, small, sum);
      }
      if (p.offsets)
        sum = b.add(sum, b.loadSplat(p.offsets, {row(h), b.index(0)}));
      result.push_back(sum);
    }
    return result;
  }

private:
  Value row(int64_t head) { return firstRow ? b.addIndex(firstRow, b.index(head)) : b.index(head); }
  /// Whether codes count from 0 rather than from their zero code.
  bool hasZeros() const { return p.zeros || p.offsets; }
  float zeroCode() const { return p.isE4m3() ? 0 : p.isE2m1() ? 12 : float(int64_t(1) << (bits - 1)); }
  /// What a decoded code counts in.
  float unit() const { return p.isE4m3() ? kE4m3Scale : p.isE2m1() ? 0.5f : 1; }

  /// What multiplies a group's sum of codes, and what multiplies the sum of the small operand.
  struct GroupScales {
    Value scale, zero;
  };
  GroupScales loadScales(Value group) {
    // Scales and zeros lie as [free tile][group][16].
    int64_t groups = p.block.getReduceExtent() / p.group;
    Value at = b.mulIndex(b.addIndex(b.mulIndex(tile, groups), group), kLanes);
    GroupScales scales{b.loadF32(p.scales, at, p.scaleType), {}};
    if (unit() != 1)
      scales.scale = b.mul(scales.scale, b.f32Splat(unit()));
    if (!p.zeros)
      return scales;
    scales.zero = b.loadF32(p.zeros, at);
    if (!p.hybrid)
      return scales;
    // The sign bit marks a group with a zero point; the others are symmetric. (-0.0 is marked too.)
    Value bits = arith::BitcastOp::create(b, b.i32Vector(), scales.scale);
    Value marked = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, bits, b.i32Splat(0));
    scales.scale = math::AbsFOp::create(b, scales.scale);
    scales.zero = arith::SelectOp::create(b, marked, scales.zero, b.mul(scales.scale, b.f32Splat(-zeroCode())));
    return scales;
  }

  /// The accumulator of a head before its products: what the zero codes would add, negated.
  Value initial(int64_t head, Value group) {
    float zero = (biased ? 128.0f : 0.0f) - (hasZeros() ? 0.0f : zeroCode());
    if (zero == 0)
      return integer ? b.i32Splat(0) : b.f32Splat(0.0f);
    Value sum = b.mul(memref::LoadOp::create(b, p.smallSums, ValueRange{row(head), group}), b.f32(zero));
    return b.splat(integer ? arith::FPToSIOp::create(b, b.getI32Type(), sum).getResult() : sum);
  }

  /// 64 codes from a byte on, decoded to bytes but for f8E4M3FN.
  Value loadCodes(Value byte) {
    Value codes = b.unpackCodes(p.data, byte, bits);
    if (p.isE2m1())
      codes = b.decodeE2m1(codes);
    if (biased)
      codes = arith::XOrIOp::create(b, codes,
                                    arith::ConstantOp::create(b, DenseElementsAttr::get(b.byteVector(), int8_t(-128))));
    return codes;
  }

  void multiply(Value codes, Value element, SmallVector<Value> &acc) {
    if (integer) {
      for (auto [i, sum] : llvm::enumerate(acc)) {
        int64_t head = int64_t(i) % p.heads, byte = int64_t(i) / p.heads;
        Value at = b.addIndex(element, b.index(byte * p.block.getReduceExtent()));
        Value small = b.loadFourBytes(p.small, {row(head), at});
        sum = codesAreSigned ? b.dotBytes(sum, small, codes) : b.dotBytes(sum, codes, small);
      }
      return;
    }
    for (unsigned e = 0; e < 4; ++e) {
      Value lanes = b.codeLanes(codes, e, biased);
      lanes = p.isE4m3() ? b.decodeE4m3(lanes) : arith::SIToFPOp::create(b, b.f32Vector(), lanes).getResult();
      Value at = b.addIndex(element, b.index(e));
      for (int64_t h = 0; h < p.heads; ++h)
        acc[h] = b.fma(lanes, b.loadSplat(p.small, {row(h), at}), acc[h]);
    }
  }

  CpuBuilder &b;
  const Product &p;
  Value tile, firstRow;
  unsigned bits;
  bool integer, twoBytes, codesAreSigned, biased;
};

/// The product of free tile `tile` (16 free indices), all heads.
SmallVector<Value> codeProduct(CpuBuilder &b, const Product &p, Value tile) {
  CodeProduct product(b, p, tile);
  SmallVector<Value> zeros(p.heads, b.f32Splat(0.0f));
  int64_t groups = p.block.getReduceExtent() / p.group;
  if (groups == 1)
    return product.run(b.index(0), zeros);
  return b.loop(0, groups, zeros, [&](Value group, ValueRange sums) { return product.run(group, sums); });
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
LogicalResult checkProduct(Operation *op, Placement placement, TypedValue<BlockType> scales, BlockType block) {
  if (placement == Placement::Element)
    return op->emitError("expected scales placed at accumulator, result or operand for a cpu target, but got element");
  // The free indices of a vector share the rows of a folded operand.
  int64_t freeGroup =
      placement == Placement::Operand ? block.getFreeExtent() / scales.getType().getFreeExtent() : kLanes;
  if (freeGroup % kLanes)
    return op->emitError() << "expected scales at operand that a multiple of " << kLanes
                           << " free indices share for a cpu target, but got " << freeGroup;
  PackingAttr packing = block.getPacking();
  int64_t reduceTile = block.isCodes() ? 4 : 1;
  if (packing.getFreeTile() != kLanes || packing.getReduceTile() != reduceTile || packing.getLanes() != 1)
    return op->emitError() << "expected packing <16x" << reduceTile << "> for a cpu target, but got " << packing;
  Type element = cast<VectorType>(op->getOperand(isa<TileScoreOp>(op) ? 0 : 1).getType()).getElementType();
  if (isa<Float8E4M3FNType>(block.getElement()) && !element.isF32())
    return op->emitError() << "expected compute f32 with codes of f8E4M3FN, but got " << element;
  return success();
}

/// The product of an operation, whose small operand, sums and scales have names of their own.
template <typename Op, typename Adaptor>
Product makeProduct(Op op, Adaptor in, BlockType block, Value data, Value small, Value sums, Value smallScales,
                    int64_t heads) {
  Product product{block,
                  data,
                  in.getScales(),
                  in.getZeros(),
                  small,
                  sums,
                  smallScales,
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
  return product;
}

struct ScorePattern : OpConversionPattern<TileScoreOp> {
  ScorePattern(const TypeConverter &converter, MLIRContext *context, Isa isa)
      : OpConversionPattern(converter, context), isa(isa) {}

  LogicalResult matchAndRewrite(TileScoreOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    BlockType keys = op.getKeys().getType();
    if (failed(checkProduct(op, op.getPlacement(), op.getScales(), keys)))
      return failure();
    CpuBuilder b(op.getLoc(), rewriter, isa);
    auto shape = cast<VectorType>(op.getResult().getType()).getShape();
    Product product =
        makeProduct(op, in, keys, in.getKeys(), in.getQuery(), in.getQuerySums(), in.getQueryScales(), shape[0]);
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
    if (failed(checkProduct(op, op.getPlacement(), op.getScales(), values)))
      return failure();
    CpuBuilder b(op.getLoc(), rewriter, isa);
    int64_t heads = op.getState().getType().getHeads();
    Product product =
        makeProduct(op, in, values, in.getValues(), in.getWeights(), in.getWeightSums(), in.getWeightScales(), heads);
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
  patterns.add<FoldPattern>(converter, patterns.getContext());
  patterns.add<ScorePattern, AccumulatePattern>(converter, patterns.getContext(), isa);
}
