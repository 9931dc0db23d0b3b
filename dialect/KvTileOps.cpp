// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Verifiers of the level 2 (tile) operations.
#include "dialect/Kv.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace kvcc::kv;

static bool hasShape(Type type, ArrayRef<int64_t> shape) { return cast<VectorType>(type).getShape() == shape; }

LogicalResult TileScaleChannelsOp::verify() {
  // scale_channels_c1
  if (getTile().getType() != getResult().getType())
    return emitOpError("expected a result of type ") << getTile().getType() << ", but got " << getResult().getType();
  return success();
}

LogicalResult TileDotChannelsOp::verify() {
  // dot_channels_c1
  int64_t shape[] = {cast<VectorType>(getTile().getType()).getDimSize(0), 1};
  if (!hasShape(getResult().getType(), shape))
    return emitOpError("expected a result of ") << shape[0] << "x1, but got " << getResult().getType();
  return success();
}

static bool isRotationOf(int64_t size, int64_t channels) {
  return size >= 16 && size <= 256 && llvm::isPowerOf2_64(uint64_t(size)) && channels % size == 0;
}

LogicalResult TileRotateOp::verify() {
  // rotate_c1
  if (getTile().getType() != getResult().getType())
    return emitOpError("expected a result of type ") << getTile().getType() << ", but got " << getResult().getType();
  // rotate_c2
  int64_t channels = cast<VectorType>(getTile().getType()).getDimSize(1);
  if (!isRotationOf(int64_t(getSize()), channels))
    return emitOpError("expected size a power of two from 16 to 256 that divides ")
           << channels << ", but got " << getSize();
  return success();
}

LogicalResult TileShiftStateOp::verify() {
  // shift_state_c1
  int64_t shape[] = {getState().getType().getHeads(), 1};
  if (!hasShape(getAmounts().getType(), shape))
    return emitOpError("expected amounts of ") << shape[0] << "x1, but got " << getAmounts().getType();
  return success();
}

static LogicalResult verifyRotation(Operation *op, int64_t size, int64_t channels) {
  if (!isRotationOf(size, channels))
    return op->emitOpError("expected size a power of two from 16 to 256 that divides ")
           << channels << ", but got " << size;
  return success();
}

template <typename Op> static LogicalResult verifyVectors(Op op) {
  if (bool(op.getMeans()) != bool(op.getMeansOffset()) || bool(op.getFactors()) != bool(op.getFactorsOffset()))
    return op.emitOpError("expected an offset exactly with each vector");
  return success();
}

LogicalResult TileRestoreOp::verify() {
  // restore_c1
  if (getSize() && failed(verifyRotation(*this, int64_t(*getSize()), getState().getType().getHeadDim())))
    return failure();
  // restore_c2
  return verifyVectors(*this);
}

/// Integers that a small operand may be rounded to.
static bool isSmallInteger(Type type) {
  return type.isSignlessInteger(8) || type.isUnsignedInteger(8) || type.isSignlessInteger(16);
}

static bool isHalf(Type type) { return type.isF16() || type.isBF16(); }

LogicalResult TilePrepareOp::verify() {
  auto tile = cast<VectorType>(getTile().getType()), values = cast<VectorType>(getValues().getType());
  Type element = values.getElementType(), from = tile.getElementType();
  bool rounded = isSmallInteger(element), halves = isHalf(element);
  // prepare_c1
  if (values.getShape() != tile.getShape() ||
      !(from.isF32() ? rounded || halves || element.isF32() : halves && from == element))
    return emitOpError("expected values of the shape of ")
           << tile << " of f32, i8, ui8, i16, f16 or bf16, but got " << values;
  // prepare_c2
  int64_t group = getGroup();
  if (group <= 0 || tile.getDimSize(1) % group)
    return emitOpError("expected a group that divides ") << tile.getDimSize(1) << ", but got " << group;
  int64_t shape[] = {tile.getDimSize(0), tile.getDimSize(1) / group};
  int64_t scaleShape[] = {shape[0], halves ? 1 : shape[1]};
  if (!hasShape(getSums().getType(), shape) || (getScales() && !hasShape(getScales().getType(), scaleShape)))
    return emitOpError("expected sums and scales of ") << shape[0] << "x" << shape[1];
  // prepare_c3
  bool needsScales = rounded || (from.isF32() && element.isF16()), mayHaveScales = from.isF32() && element.isBF16();
  if (needsScales != bool(getScales()) && !mayHaveScales)
    return emitOpError("expected scales exactly with values that are rounded, but got values ") << values;
  return success();
}

static bool isScaleType(Type type) {
  return type.isF16() || type.isBF16() || isa<Float8E4M3FNType, Float8E8M0FNUType>(type);
}

LogicalResult TileIsDominatedOp::verify() {
  // is_dominated_c1
  if (!hasShape(getWeights().getType(), {getState().getType().getHeads(), kBlockTokens}))
    return emitOpError("expected weights of ")
           << getState().getType().getHeads() << "x" << kBlockTokens << ", but got " << getWeights().getType();
  return success();
}

/// Zero points are signed and as precise as the numbers: the types of eight bits are for scales alone.
static bool areZerosOf(BlockType zeros, BlockType scales) {
  return zeros == scales && (zeros.getElement().isF16() || zeros.getElement().isBF16());
}

LogicalResult TileFoldOp::verify() {
  auto tile = cast<VectorType>(getTile().getType());
  BlockType scales = getScales().getType();
  // fold_c1
  if (!isScaleType(scales.getElement()) || scales.getReduceExtent() != tile.getDimSize(1))
    return emitOpError("expected scales with ") << tile.getDimSize(1) << " reduced indices, but got " << scales;
  // fold_c2
  int64_t rows = scales.getFreeExtent() * tile.getDimSize(0);
  Type element = tile.getElementType();
  Type to = cast<VectorType>(getResult().getType()).getElementType();
  if (!(element.isF32() || isHalf(element)) || !(to == element || (element.isF32() && to.isBF16())) ||
      !hasShape(getResult().getType(), {rows, tile.getDimSize(1)}) ||
      (getOffsets() && !hasShape(getOffsets().getType(), {rows, 1})))
    return emitOpError("expected a result of ")
           << rows << "x" << tile.getDimSize(1) << " and offsets of " << rows << "x1";
  // fold_c3
  if (bool(getZeros()) != bool(getOffsets()) || (getZeros() && !areZerosOf(getZeros().getType(), scales)))
    return emitOpError("expected offsets exactly with zeros, and zeros of f16 or bf16 and the type ") << scales;
  return success();
}

namespace {
/// The operands of score and accumulate, which multiply a small operand (rows x reduced) with a block; all but
/// the first two may be null.
struct ProductOperands {
  Value small;
  BlockType block;
  TypedValue<BlockType> scales, zeros;
  Value sums, smallScales, offsets;
  Placement placement;
  bool hybrid;
};
} // namespace

/// Constraints (C2) to (C7) of score and accumulate.
static LogicalResult verifyProduct(Operation *op, const ProductOperands &p, int64_t heads) {
  auto small = cast<VectorType>(p.small.getType());
  bool codes = p.block.isCodes(), halves = isHalf(small.getElementType());
  // score_c2, accumulate_c2
  bool sums = bool(p.sums) ? codes : !codes || (halves && !p.zeros);
  if (codes != bool(p.scales) || !sums || codes != (p.placement != Placement::None))
    return op->emitOpError("expected scales, sums and a placement exactly with codes, but got ")
           << p.block << " with placement " << stringifyPlacement(p.placement);
  // score_c4, accumulate_c4
  Type element = small.getElementType();
  bool rounded = codes && isSmallInteger(element);
  if (!rounded && !halves && !element.isF32())
    return op->emitOpError("expected a small operand of f32, f16, bf16 or, times codes, i8, ui8 or i16, but got ")
           << small << " and " << p.block;
  // score_c3, accumulate_c3
  bool needsScales = rounded || (p.block.isKey() && element.isF16()),
       mayHaveScales = p.block.isKey() && element.isBF16();
  if (needsScales != bool(p.smallScales) && !mayHaveScales)
    return op->emitOpError("expected scales of the small operand exactly if it is of integers or a query of f16, "
                           "but got ")
           << small;
  if (halves && p.smallScales && !hasShape(p.smallScales.getType(), {heads, 1}))
    return op->emitOpError("expected scales of a query of halves of ")
           << heads << "x1, but got " << p.smallScales.getType();
  bool folded = p.placement == Placement::Operand;
  // score_c7, accumulate_c7
  if ((p.zeros && (folded || !p.scales || !areZerosOf(p.zeros.getType(), p.scales.getType()))) ||
      (p.hybrid && !p.zeros))
    return op->emitOpError(
        "expected zeros of f16 or bf16 and the type of scales, and hybrid only with zeros, not with operand");
  if (p.offsets && (!folded || !hasShape(p.offsets.getType(), {small.getDimSize(0), 1})))
    return op->emitOpError("expected offsets of ")
           << small.getDimSize(0) << "x1, with placement operand only, but got " << p.offsets.getType();
  // score_c6, accumulate_c6
  int64_t rows = folded && p.scales ? heads * p.scales.getType().getFreeExtent() : heads;
  if (small.getDimSize(0) != rows)
    return op->emitOpError("expected a small operand of ") << rows << " rows, but got " << small;
  if (!codes)
    return success();
  // score_c5, accumulate_c5
  BlockType scale = p.scales.getType();
  if (scale.getRole() != p.block.getRole() || !isScaleType(scale.getElement()) ||
      p.block.getTokens() % scale.getTokens() || p.block.getChannels() % scale.getChannels())
    return op->emitOpError("expected scales in the role of, and with extents that divide those of, ")
           << p.block << ", but got " << scale;
  if (p.placement != Placement::Element && (folded ? scale.getReduceExtent() != p.block.getReduceExtent()
                                                   : scale.getFreeExtent() != p.block.getFreeExtent()))
    return op->emitOpError("expected a scale for every ")
           << (folded ? "reduced" : "free") << " index of " << p.block << " with placement "
           << stringifyPlacement(p.placement) << ", but got " << scale;
  int64_t shape[] = {rows, folded ? 1 : scale.getReduceExtent()};
  for (Value perGroup : {p.sums, halves ? Value() : p.smallScales})
    if (perGroup && !hasShape(perGroup.getType(), shape))
      return op->emitOpError("expected sums and scales of the small operand of ")
             << shape[0] << "x" << shape[1] << ", but got " << perGroup.getType();
  return success();
}

/// score_c8, accumulate_c8
template <typename Op> static LogicalResult verifyAhead(Op op) {
  if (bool(op.getAhead()) != bool(op.getAheadOffset()) || bool(op.getAhead()) != bool(op.getAheadBytes()))
    return op.emitOpError("expected memory ahead with an offset and bytes, or none of them");
  if (op.getAheadBytes() && int64_t(*op.getAheadBytes()) <= 0)
    return op.emitOpError("expected bytes ahead above 0, but got ") << int64_t(*op.getAheadBytes());
  return success();
}

LogicalResult TileScoreOp::verify() {
  auto query = cast<VectorType>(getQuery().getType());
  BlockType keys = getKeys().getType();
  // score_c1
  auto result = cast<VectorType>(getResult().getType());
  if (!keys.isKey() || keys.getTokens() != kBlockTokens || keys.getChannels() != query.getDimSize(1) ||
      result.getDimSize(1) != kBlockTokens)
    return emitOpError("expected query HxD, keys 32xD and a result Hx32, but got ")
           << query << ", " << keys << " and " << getResult().getType();
  if (failed(verifyAhead(*this)))
    return failure();
  return verifyProduct(*this,
                       {getQuery(), keys, getScales(), getZeros(), getQuerySums(), getQueryScales(), getOffsets(),
                        getPlacement(), getHybrid()},
                       result.getDimSize(0));
}

/// Of operations whose rows may be heads of several queries: `there` of `all` parts that say so.
template <typename Op> static LogicalResult verifyQueries(Op op, int there, int all, int64_t rows, int64_t heads) {
  if (there != 0 && there != all)
    return op.emitOpError("expected all that says what rows of several queries are, or none of it, but got ")
           << there << " of " << all;
  if (heads < 1 || rows % heads)
    return op.emitOpError("expected heads that divide the ") << rows << " rows, but got " << heads;
  return success();
}

LogicalResult TileLoadQueryOp::verify() {
  // load_query_c1
  int64_t rows = cast<VectorType>(getResult().getType()).getDimSize(0);
  return verifyQueries(*this, bool(getQueries()) + bool(getHeads()) + bool(getStride()), 3, rows,
                       int64_t(getHeads().value_or(rows)));
}

LogicalResult TileMaskOp::verify() {
  // mask_c1
  if (getTile().getType() != getResult().getType())
    return emitOpError("expected a result of type ") << getTile().getType() << ", but got " << getResult().getType();
  // mask_c2
  int64_t rows = cast<VectorType>(getTile().getType()).getDimSize(0);
  return verifyQueries(*this, bool(getEnd()) + bool(getLater()) + bool(getHeads()), 3, rows,
                       int64_t(getHeads().value_or(rows)));
}

LogicalResult TileJoinSinksOp::verify() {
  // join_sinks_c1
  return verifyQueries(*this, 0, 1, getState().getType().getHeads(), int64_t(getHeads()));
}

LogicalResult TileSoftcapOp::verify() {
  auto type = cast<VectorType>(getTile().getType());
  // softcap_c1
  if (type != getResult().getType())
    return emitOpError("expected a result of type ") << type << ", but got " << getResult().getType();
  // softcap_c2
  if (!(getCap().convertToDouble() > 0) || !getCap().isFinite())
    return emitOpError("expected a positive finite cap, but got ") << getCap().convertToDouble();
  // softcap_c3
  int64_t shape[] = {type.getDimSize(0), 1};
  if (getAmounts() && !hasShape(getAmounts().getType(), shape))
    return emitOpError("expected amounts of ") << shape[0] << "x1, but got " << getAmounts().getType();
  return success();
}

LogicalResult TileStoreResultOp::verify() {
  // store_result_c1
  int there = bool(getIsPart()) + bool(getParts()) + bool(getPartOffset()) + bool(getPartLseOffset());
  if (there != 0 && there != 4)
    return emitOpError("expected a condition, memory and two offsets of parts, or none of them, but got ") << there;
  // store_result_c2
  int64_t rows = getState().getType().getHeads();
  return verifyQueries(*this, bool(getQueries()) + bool(getHeads()) + bool(getStride()), 3, rows,
                       int64_t(getHeads().value_or(rows)));
}

LogicalResult TileMergeOp::verify() {
  // merge_c1
  if (int64_t(getHeads()) < 1 || int64_t(getHeadDim()) < 1 || int64_t(getHeadDim()) % 32)
    return emitOpError("expected positive heads and a head_dim of a multiple of 32, but got ")
           << int64_t(getHeads()) << " x " << int64_t(getHeadDim());
  // merge_c2
  return verifyQueries(*this, bool(getQueries()) + bool(getStride()), 2, 1, 1);
}

LogicalResult TileSoftmaxStepOp::verify() {
  // softmax_step_c1
  int64_t shape[] = {getState().getType().getHeads(), kBlockTokens};
  for (Type type : {getLogits().getType(), getWeights().getType()})
    if (!hasShape(type, shape))
      return emitOpError("expected logits and weights of ") << shape[0] << "x32, but got " << type;
  return success();
}

LogicalResult TileAccumulateOp::verify() {
  auto weights = cast<VectorType>(getWeights().getType());
  BlockType values = getValues().getType();
  StateType state = getState().getType();
  // accumulate_c1
  if (weights.getDimSize(1) != kBlockTokens || values.isKey() || values.getTokens() != kBlockTokens ||
      values.getChannels() != state.getHeadDim())
    return emitOpError("expected weights Hx32 and values 32xD for ")
           << state << ", but got " << weights << " and " << values;
  if (failed(verifyAhead(*this)))
    return failure();
  return verifyProduct(*this,
                       {getWeights(), values, getScales(), getZeros(), getWeightSums(), getWeightScales(), getOffsets(),
                        getPlacement(), getHybrid()},
                       state.getHeads());
}

LogicalResult TileAdvanceOp::verify() {
  // advance_c1
  if (getMemory().getType() != getResult().getType())
    return emitOpError("expected a result of type ") << getMemory().getType() << ", but got " << getResult().getType();
  return success();
}

LogicalResult TileRingOp::verify() {
  // ring_c1
  if (int64_t(getStages()) <= 0 || int64_t(getBytes()) <= 0 || getBytes() % 16)
    return emitOpError("expected positive stages and bytes a positive multiple of 16, but got ")
           << int64_t(getStages()) << " and " << int64_t(getBytes());
  return success();
}

LogicalResult TileFetchOp::verify() {
  // fetch_c1
  if (int64_t(getBytes()) <= 0 || getBytes() % 16)
    return emitOpError("expected bytes a positive multiple of 16, but got ") << int64_t(getBytes());
  return success();
}

LogicalResult TileAwaitOp::verify() {
  // await_c1
  if (int64_t(getPending()) < 0)
    return emitOpError("expected pending not negative, but got ") << int64_t(getPending());
  return success();
}

LogicalResult TilePrefetchOp::verify() {
  // prefetch_c1
  if (auto bytes = int64_t(getBytes()); bytes <= 0 || bytes % 16)
    return emitOpError("expected bytes a positive multiple of 16, but got ") << bytes;
  return success();
}

LogicalResult TileScratchOp::verify() {
  // scratch_c1
  if (cast<VectorType>(getTile().getType()).getDimSize(0) != kBlockTokens)
    return emitOpError("expected a tile of ") << kBlockTokens << " rows, but got " << getTile().getType();
  return success();
}

/// Whether a block holds the elements of a tile.
static bool holds(BlockType block, Type tile) { return hasShape(tile, {block.getTokens(), block.getChannels()}); }

LogicalResult TileGatherOp::verify() {
  // gather_c1
  if (getBlock() && (getBlock().getType().isCodes() || !holds(getBlock().getType(), getTile().getType())))
    return emitOpError("expected a block of numbers for ")
           << getTile().getType() << ", but got " << getBlock().getType();
  // gather_c2
  return verifyVectors(*this);
}

/// Of operations on all rows of a tile, or on those between two bounds.
template <typename Op> static LogicalResult verifyRows(Op op) {
  if (bool(op.getFrom()) != bool(op.getTo()))
    return op.emitOpError("expected both bounds of rows, or none");
  return success();
}

LogicalResult TileRotateRowsOp::verify() {
  // rotate_rows_c1
  if (failed(verifyRotation(*this, int64_t(getSize()), cast<VectorType>(getTile().getType()).getDimSize(1))))
    return failure();
  // rotate_rows_c2
  return verifyRows(*this);
}

LogicalResult TileNormalizeTokensOp::verify() {
  // normalize_tokens_c1
  BlockType norms = getNorms().getType();
  if (norms.getTokens() != kBlockTokens || norms.getChannels() != 1 ||
      !(norms.getElement().isF16() || isa<Float8E8M0FNUType>(norms.getElement())))
    return emitOpError("expected norms of 32x1 of f16 or f8E8M0FNU, but got ") << norms;
  return success();
}

LogicalResult TileEncodeOp::verify() {
  QuantAttr quant = getQuant();
  BlockType data = getData().getType();
  // encode_c1
  if (!holds(data, getTile().getType()) || data.getElement() != quant.getElement())
    return emitOpError("expected a block of ")
           << quant.getElement() << " for " << getTile().getType() << ", but got " << data;
  // encode_c2
  if (bool(getScales()) != quant.isQuantized() || bool(getZeros()) != quant.hasZeros())
    return emitOpError("expected scales and zeros exactly if the format has them, but got ") << quant;
  if (getScales()) {
    BlockType scales = getScales().getType();
    if (scales.getElement() != quant.getScale() || scales.getTokens() * quant.getGroupTokens() != data.getTokens() ||
        scales.getChannels() * quant.getGroupChannels() != data.getChannels() ||
        (getZeros() && getZeros().getType() != scales))
      return emitOpError("expected a scale (and zero) of ")
             << quant.getScale() << " for each group of " << quant.getGroupTokens() << "x" << quant.getGroupChannels()
             << ", but got " << scales;
  }
  // encode_c3
  if (failed(verifyRows(*this)))
    return failure();
  if (getFrom() && quant.isQuantized() && quant.getGroupTokens() != 1)
    return emitOpError("expected groups of one token with rows, but got ") << quant.getGroupTokens();
  // encode_c4
  for (bool isThere : {bool(getWeights()), bool(getWeightsOffset()), bool(getGivesWeights())})
    if (isThere != quant.getFeedback())
      return emitOpError("expected weights exactly with feedback, but got ") << quant;
  // encode_c5
  if (getOriented() && !hasTokenLanes())
    return emitOpError(
               "expected an oriented tile only for groups of one token, or keys that are not quantized, but got ")
           << quant;
  return success();
}

LogicalResult TileWriteRowsOp::verify() {
  // write_rows_c1
  BlockType block = getBlock().getType();
  if (block.getTokens() != kBlockTokens || block.getElement() != getSource().getType().getElementType())
    return emitOpError("expected a block of 32 tokens of ")
           << getSource().getType().getElementType() << ", but got " << block;
  return success();
}

LogicalResult TileClearOp::verify() {
  // clear_c1
  if (int64_t(getBytes()) <= 0 || getBytes() % 64)
    return emitOpError("expected bytes a positive multiple of 64, but got ") << int64_t(getBytes());
  return success();
}

LogicalResult TileMeasureOp::verify() {
  // measure_c1
  bool factors = bool(getQuant().getDiag()), means = bool(getQuant().getTransform<CenterAttr>());
  if (factors != bool(getFactorsOffset()) || means != bool(getMeansOffset()) || !(factors || means))
    return emitOpError("expected offsets exactly for the factors and means of the format, but got ") << getQuant();
  // measure_c2
  if (int64_t(getChannels()) <= 0 || getChannels() % 32)
    return emitOpError("expected channels a multiple of 32, but got ") << int64_t(getChannels());
  return success();
}
