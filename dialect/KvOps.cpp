// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Verifiers of the level 1 operations.
#include "dialect/Kv.h"

#include "mlir/IR/Builders.h"

#include <cmath>

using namespace mlir;
using namespace kvcc::kv;

/// Of kv.layer and kv.attend.
template <typename Op> static LogicalResult verifyReach(Op op) {
  bool full = op.getReach().value_or(Reach::Full) == Reach::Full;
  if (full == bool(op.getWindowTokens()) || (op.getWindowTokens() && int64_t(*op.getWindowTokens()) < 1))
    return op.emitOpError("expected positive window_tokens exactly with reach sliding or chunked, but got ")
           << (op.getWindowTokens() ? int64_t(*op.getWindowTokens()) : 0);
  return success();
}

LogicalResult LayerOp::verify() {
  // layer_c1
  if (int64_t(getIndex()) < 0)
    return emitOpError("expected an index of at least 0, but got ") << int64_t(getIndex());
  // layer_c2
  int facts = bool(getQHeads()) + bool(getKvHeads()) + bool(getHeadDim()) + bool(getDtype());
  if (facts != 0 && facts != 4)
    return emitOpError("expected q_heads, kv_heads, head_dim and dtype, or none of them, but got ")
           << facts << " of them";
  // layer_c3
  auto qHeads = int64_t(getQHeads().value_or(1)), kvHeads = int64_t(getKvHeads().value_or(1));
  if (kvHeads < 1 || qHeads < 1 || qHeads % kvHeads)
    return emitOpError("expected q_heads a multiple of kv_heads = ") << kvHeads << ", but got " << qHeads;
  // layer_c4
  auto isCache = [&](QuantAttr key, QuantAttr value, WindowAttr window) {
    return bool(CacheType::getChecked([&] { return emitOpError(); }, getContext(), int64_t(*getKvHeads()),
                                      int64_t(*getHeadDim()), Type(*getDtype()), key, value, window));
  };
  auto plain = QuantAttr::getPlain(Float16Type::get(getContext()));
  if (facts && !isCache(plain, plain, WindowAttr::get(getContext(), 0, 0, kBlockTokens)))
    return failure();
  if (facts && getKey() && getValue() && getWindow() && !isCache(*getKey(), *getValue(), *getWindow()))
    return failure();
  // layer_c5
  if (failed(verifyReach(*this)))
    return failure();
  // layer_c6
  if (getMeasured() && !llvm::all_of(*getMeasured(), llvm::IsaPred<MeasuredAttr>))
    return emitOpError("expected measured to be a list of #kv.measured, but got ") << *getMeasured();
  if (getOpen())
    for (StringRef side : getOpen()->getAsValueRange<StringAttr>()) {
      if (side != "key" && side != "value")
        return emitOpError("expected open \"key\" or \"value\", but got ") << side;
      if (!getQuant(side == "key" ? Role::Key : Role::Value))
        return emitOpError("expected a format of the open ") << side << ", but got none";
    }
  return success();
}

int64_t LayerOp::getHeldTokens(int64_t context) {
  return getWindowTokens() ? std::min<int64_t>(context, int64_t(*getWindowTokens())) : context;
}

CacheType LayerOp::getCacheType() {
  return CacheType::get(getContext(), int64_t(*getKvHeads()), int64_t(*getHeadDim()), *getDtype(), *getKey(),
                        *getValue(), *getWindow());
}

bool LayerOp::isOpen(Role role) {
  return getOpen() && llvm::is_contained(getOpen()->getAsValueRange<StringAttr>(), stringifyRole(role));
}

QuantAttr LayerOp::getQuant(Role role) { return (role == Role::Key ? getKey() : getValue()).value_or(QuantAttr()); }

void LayerOp::setQuant(Role role, QuantAttr quant) {
  if (role == Role::Key)
    setKeyAttr(quant);
  else
    setValueAttr(quant);
}

void LayerOp::addReason(StringRef pass, const Twine &reason) {
  Builder b(getContext());
  NamedAttrList reasons;
  if (getReasons())
    reasons.append(*getReasons());
  reasons.set(pass, b.getStringAttr(reason));
  setReasonsAttr(reasons.getDictionary(getContext()));
}

LogicalResult AttendOp::verify() {
  auto query = cast<RankedTensorType>(getQuery().getType());
  CacheType cache = getCache().getType();
  // attend_c1
  if ((query.getRank() != 3 && query.getRank() != 4) ||
      llvm::any_of(query.getShape().take_back(2), ShapedType::isDynamic))
    return emitOpError("expected query [batch, q_heads, head_dim] or [batch, queries, q_heads, head_dim] with static "
                       "heads, but got ")
           << query;
  // attend_c2
  int64_t heads = getQueryHeads();
  if (heads < 1 || heads % cache.getKvHeads())
    return emitOpError("expected query heads a multiple of kv_heads = ") << cache.getKvHeads() << ", but got " << heads;
  // attend_c3
  if (query.getShape().back() != cache.getHeadDim())
    return emitOpError("expected query head_dim ") << cache.getHeadDim() << ", but got " << query.getShape().back();
  // attend_c4
  if (getOut().getType().getShape() != query.getShape())
    return emitOpError("expected out of the shape of ") << query << ", but got " << getOut().getType();
  Type element = cast<RankedTensorType>(getOut().getType()).getElementType();
  if (!element.isF32() && element != query.getElementType())
    return emitOpError("expected out of f32 or of the query's ")
           << query.getElementType() << ", but got " << getOut().getType();
  // attend_c5
  if (getLse().getType().getShape() != query.getShape().drop_back())
    return emitOpError("expected lse of the shape of the query without head_dim, but got ") << getLse().getType();
  // attend_c6
  double scale = getScale().convertToDouble();
  if (!(scale > 0) || !std::isfinite(scale))
    return emitOpError("expected a positive finite scale, but got ") << scale;
  // attend_c7
  int64_t group = heads / cache.getKvHeads();
  if (getSchedule() && group % getSchedule()->getHeads())
    return emitOpError("expected schedule heads that divide the group of ")
           << group << " query heads, but got " << getSchedule()->getHeads();
  // attend_c8
  if (getSoftcap() && (!(getSoftcap()->convertToDouble() > 0) || !getSoftcap()->isFinite()))
    return emitOpError("expected a positive finite softcap, but got ") << getSoftcap()->convertToDouble();
  // attend_c9
  if (failed(verifyReach(*this)))
    return failure();
  // attend_c10
  if (getSinks() && getSinks().getType().getShape() != ArrayRef(heads))
    return emitOpError("expected sinks [") << heads << "], but got " << getSinks().getType();
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
  // append_c4
  if (key.getElementType() != cache.getDtype())
    return emitOpError("expected elements of the cache's dtype ") << cache.getDtype() << ", but got " << key;
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
