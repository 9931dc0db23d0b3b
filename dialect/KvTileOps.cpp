// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Verifiers of the level 2 (tile) operations.
#include "dialect/Kv.h"

using namespace mlir;
using namespace kvcc::kv;

static bool hasShape(Type type, ArrayRef<int64_t> shape) {
  return cast<VectorType>(type).getShape() == shape;
}

LogicalResult TileScaleChannelsOp::verify() {
  // scale_channels_c1
  if (getTile().getType() != getResult().getType())
    return emitOpError("expected a result of type ") << getTile().getType() << ", but got "
                                                     << getResult().getType();
  return success();
}

LogicalResult TilePrepareOp::verify() {
  auto tile = cast<VectorType>(getTile().getType()), values = cast<VectorType>(getValues().getType());
  bool rounded = values.getElementType().isInteger();
  // prepare_c1
  if (values.getShape() != tile.getShape() || !(rounded || values.getElementType().isF32()))
    return emitOpError("expected values of the shape of ") << tile << " of f32, i8 or i16, but got " << values;
  // prepare_c2
  int64_t group = getGroup();
  if (group <= 0 || tile.getDimSize(1) % group)
    return emitOpError("expected a group that divides ") << tile.getDimSize(1) << ", but got " << group;
  int64_t shape[] = {tile.getDimSize(0), tile.getDimSize(1) / group};
  if (!hasShape(getSums().getType(), shape) ||
      (getScales() && !hasShape(getScales().getType(), shape)))
    return emitOpError("expected sums and scales of ") << shape[0] << "x" << shape[1];
  // prepare_c3
  if (rounded != bool(getScales()))
    return emitOpError("expected scales exactly with i8 or i16 values, but got values ") << values;
  // prepare_c4
  if (getIsUnsigned() && !values.getElementType().isInteger(8))
    return emitOpError("expected unsigned with i8 values only, but got values ") << values;
  return success();
}

/// Constraints that score and accumulate share: codes bring scales, a placement and the sums of the
/// small operand; an integer small operand brings its own scales.
static LogicalResult verifyProduct(Operation *op, VectorType small, BlockType block, bool hasScales,
                                   bool hasSums, bool hasSmallScales, Placement placement) {
  bool codes = block.isCodes();
  if (codes != hasScales || codes != hasSums || codes != (placement != Placement::None))
    return op->emitOpError("expected scales, sums and a placement exactly with codes, but got ")
           << block << " with placement " << stringifyPlacement(placement);
  if (small.getElementType().isInteger() != hasSmallScales)
    return op->emitOpError("expected scales of the small operand exactly if it is i8 or i16, but got ") << small;
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
  // score_c2, score_c3
  return verifyProduct(*this, query, keys, bool(getScales()), bool(getQuerySums()),
                       bool(getQueryScales()), getPlacement());
}

LogicalResult TileSoftmaxStepOp::verify() {
  // softmax_step_c1
  int64_t shape[] = {getState().getType().getHeads(), kBlockTokens};
  if (!hasShape(getLogits().getType(), shape) || !hasShape(getWeights().getType(), shape))
    return emitOpError("expected logits and weights of ") << shape[0] << "x32, but got "
                                                          << getLogits().getType();
  return success();
}

LogicalResult TileAccumulateOp::verify() {
  auto weights = cast<VectorType>(getWeights().getType());
  BlockType values = getValues().getType();
  StateType state = getState().getType();
  // accumulate_c1
  if (!hasShape(weights, {state.getHeads(), kBlockTokens}) ||
      values.isKey() || values.getTokens() != kBlockTokens ||
      values.getChannels() != state.getHeadDim())
    return emitOpError("expected weights Hx32 and values 32xD for ")
           << state << ", but got " << weights << " and " << values;
  // accumulate_c2, accumulate_c3
  return verifyProduct(*this, weights, values, bool(getScales()), bool(getWeightSums()),
                       bool(getWeightScales()), getPlacement());
}
