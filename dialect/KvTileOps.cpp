// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Verifiers of the level 2 (tile) operations.
#include "dialect/Kv.h"

using namespace mlir;
using namespace kvcc::kv;

static bool hasShape(Type type, ArrayRef<int64_t> shape) { return cast<VectorType>(type).getShape() == shape; }

LogicalResult TileScaleChannelsOp::verify() {
  // scale_channels_c1
  if (getTile().getType() != getResult().getType())
    return emitOpError("expected a result of type ") << getTile().getType() << ", but got " << getResult().getType();
  return success();
}

LogicalResult TilePrepareOp::verify() {
  auto tile = cast<VectorType>(getTile().getType()), values = cast<VectorType>(getValues().getType());
  Type element = values.getElementType();
  bool rounded = element.isSignlessInteger(8) || element.isSignlessInteger(16);
  // prepare_c1
  if (values.getShape() != tile.getShape() || !(rounded || element.isF32()))
    return emitOpError("expected values of the shape of ") << tile << " of f32, i8 or i16, but got " << values;
  // prepare_c2
  int64_t group = getGroup();
  if (group <= 0 || tile.getDimSize(1) % group)
    return emitOpError("expected a group that divides ") << tile.getDimSize(1) << ", but got " << group;
  int64_t shape[] = {tile.getDimSize(0), tile.getDimSize(1) / group};
  if (!hasShape(getSums().getType(), shape) || (getScales() && !hasShape(getScales().getType(), shape)))
    return emitOpError("expected sums and scales of ") << shape[0] << "x" << shape[1];
  // prepare_c3
  if (rounded != bool(getScales()))
    return emitOpError("expected scales exactly with i8 or i16 values, but got values ") << values;
  // prepare_c4
  if (getIsUnsigned() && !element.isInteger(8))
    return emitOpError("expected unsigned with i8 values only, but got values ") << values;
  return success();
}

/// Constraints (C2) to (C6) of score and accumulate, which multiply a small operand (heads x reduced) with
/// a block: `sums` and `smallScales` come with the small operand, `scales` with the block; all may be null.
static LogicalResult verifyProduct(Operation *op, Value smallOperand, BlockType block, TypedValue<BlockType> scales,
                                   Value sums, Value smallScales, Placement placement,
                                   ArrayRef<unsigned> integerWidths) {
  auto small = cast<VectorType>(smallOperand.getType());
  bool codes = block.isCodes();
  // score_c2, accumulate_c2
  if (codes != bool(scales) || codes != bool(sums) || codes != (placement != Placement::None))
    return op->emitOpError("expected scales, sums and a placement exactly with codes, but got ")
           << block << " with placement " << stringifyPlacement(placement);
  // score_c4, accumulate_c4
  Type element = small.getElementType();
  bool rounded = codes && llvm::any_of(integerWidths, [&](unsigned width) { return element.isSignlessInteger(width); });
  if (!rounded && !element.isF32()) {
    InFlightDiagnostic error = op->emitOpError("expected a small operand of f32 or, times codes, ");
    llvm::interleave(integerWidths, error, [&](unsigned width) { error << "i" << width; }, " or ");
    return error << ", but got " << small << " and " << block;
  }
  // score_c3, accumulate_c3
  if (rounded != bool(smallScales))
    return op->emitOpError("expected scales of the small operand exactly if it is of integers, but got ") << small;
  if (!codes)
    return success();
  // score_c5, accumulate_c5
  BlockType scale = scales.getType();
  if (scale.getRole() != block.getRole() || !scale.getElement().isF16() || block.getTokens() % scale.getTokens() ||
      block.getChannels() % scale.getChannels())
    return op->emitOpError("expected scales of f16 in the role of, and with extents that divide those of, ")
           << block << ", but got " << scale;
  // score_c6, accumulate_c6
  int64_t shape[] = {small.getDimSize(0), scale.getReduceExtent()};
  for (Value perGroup : {sums, smallScales})
    if (perGroup && !hasShape(perGroup.getType(), shape))
      return op->emitOpError("expected sums and scales of the small operand of ")
             << shape[0] << "x" << shape[1] << ", but got " << perGroup.getType();
  return success();
}

LogicalResult TileScoreOp::verify() {
  auto query = cast<VectorType>(getQuery().getType());
  BlockType keys = getKeys().getType();
  // score_c1
  if (!keys.isKey() || keys.getTokens() != kBlockTokens || keys.getChannels() != query.getDimSize(1) ||
      !hasShape(getResult().getType(), {query.getDimSize(0), kBlockTokens}))
    return emitOpError("expected query HxD, keys 32xD and a result Hx32, but got ")
           << query << ", " << keys << " and " << getResult().getType();
  return verifyProduct(*this, getQuery(), keys, getScales(), getQuerySums(), getQueryScales(), getPlacement(), {8, 16});
}

LogicalResult TileMaskOp::verify() {
  // mask_c1
  if (getTile().getType() != getResult().getType())
    return emitOpError("expected a result of type ") << getTile().getType() << ", but got " << getResult().getType();
  return success();
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
  if (!hasShape(weights, {state.getHeads(), kBlockTokens}) || values.isKey() || values.getTokens() != kBlockTokens ||
      values.getChannels() != state.getHeadDim())
    return emitOpError("expected weights Hx32 and values 32xD for ")
           << state << ", but got " << weights << " and " << values;
  return verifyProduct(*this, getWeights(), values, getScales(), getWeightSums(), getWeightScales(), getPlacement(),
                       {8});
}
