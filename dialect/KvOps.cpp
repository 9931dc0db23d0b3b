// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Verifiers of the level 1 operations.
#include "dialect/Kv.h"

#include <cmath>

using namespace mlir;
using namespace kvcc::kv;

LogicalResult AttendOp::verify() {
  auto query = cast<RankedTensorType>(getQuery().getType());
  CacheType cache = getCache().getType();
  // attend_c1
  if (query.getRank() != 3 || query.isDynamicDim(1) || query.isDynamicDim(2))
    return emitOpError("expected query [batch, q_heads, head_dim] with static heads, but got ") << query;
  // attend_c2
  if (query.getDimSize(1) < 1 || query.getDimSize(1) % cache.getKvHeads())
    return emitOpError("expected query heads a multiple of kv_heads = ")
           << cache.getKvHeads() << ", but got " << query.getDimSize(1);
  // attend_c3
  if (query.getDimSize(2) != cache.getHeadDim())
    return emitOpError("expected query head_dim ") << cache.getHeadDim() << ", but got " << query.getDimSize(2);
  // attend_c4
  if (getOut().getType().getShape() != query.getShape())
    return emitOpError("expected out of the shape of ") << query << ", but got " << getOut().getType();
  // attend_c5
  if (getLse().getType().getShape() != query.getShape().drop_back())
    return emitOpError("expected lse of shape [batch, q_heads], but got ") << getLse().getType();
  // attend_c6
  double scale = getScale().convertToDouble();
  if (!(scale > 0) || !std::isfinite(scale))
    return emitOpError("expected a positive finite scale, but got ") << scale;
  // attend_c7
  int64_t group = query.getDimSize(1) / cache.getKvHeads();
  if (getSchedule() && group % getSchedule()->getHeads())
    return emitOpError("expected schedule heads that divide the group of ")
           << group << " query heads, but got " << getSchedule()->getHeads();
  return success();
}

LogicalResult AppendOp::verify() {
  auto key = cast<RankedTensorType>(getKey().getType());
  CacheType cache = getCache().getType();
  // append_c1
  if (key.getRank() != 4 || key != getValue().getType())
    return emitOpError("expected key and value [batch, kv_heads, tokens, head_dim] of one type, but got ")
           << key << " and " << getValue().getType();
  // append_c2
  if (key.getDimSize(1) != cache.getKvHeads() || key.getDimSize(3) != cache.getHeadDim())
    return emitOpError("expected kv_heads = ")
           << cache.getKvHeads() << " and head_dim = " << cache.getHeadDim() << ", but got " << key;
  // append_c3
  if (getResult().getType() != cache)
    return emitOpError("expected the result to have the type of the cache, but got ") << getResult().getType();
  return success();
}

LogicalResult MergeOp::verify() {
  auto outs = getOuts().getType(), lses = getLses().getType();
  // merge_c1
  if (outs.getRank() != 4 || lses.getShape() != outs.getShape().drop_back())
    return emitOpError("expected outs [parts, batch, q_heads, head_dim] and lses [parts, batch, q_heads],"
                       " but got ")
           << outs << " and " << lses;
  // merge_c2
  if (getOut().getType().getShape() != outs.getShape().drop_front() ||
      getLse().getType().getShape() != lses.getShape().drop_front())
    return emitOpError("expected out and lse without the leading dimension, but got ")
           << getOut().getType() << " and " << getLse().getType();
  return success();
}
