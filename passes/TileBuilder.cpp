// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Building blocks of tile functions.
#include "passes/TileBuilder.h"

#include "passes/Passes.h"

using namespace mlir;
using namespace kvcc::kv;

func::FuncOp kvcc::kv::replaceFunction(func::FuncOp old, ArrayRef<Type> arguments, int64_t itemArgs) {
  OpBuilder builder(old);
  auto type = builder.getFunctionType(arguments, {});
  auto created = func::FuncOp::create(builder, old.getLoc(), old.getName(), type);
  created.setVisibility(old.getVisibility());
  created->setDiscardableAttrs(old->getDiscardableAttrDictionary());
  created->setAttr(kvcc::kItemArgsAttrName, builder.getI64IntegerAttr(itemArgs));
  created.addEntryBlock();
  return created;
}

FailureOr<BlockTypes> kvcc::kv::chooseBlockTypes(function_ref<InFlightDiagnostic()> emitError, CacheType cache,
                                                 ScheduleAttr schedule) {
  bool fits = true;
  auto block = [&](Role role, int64_t tokens, int64_t channels, Type element, PackingAttr packing) {
    // One error is enough.
    BlockType type;
    if (fits)
      type = BlockType::getChecked(emitError, cache.getContext(), role, tokens, channels, element, packing);
    fits = bool(type);
    return type;
  };
  auto elements = [&](Role role, Type element, PackingAttr packing) {
    return block(role, kBlockTokens, cache.getHeadDim(), element, packing);
  };
  auto side = [&](Role role, QuantAttr quant, PackingAttr codes) {
    SideTypes types;
    types.data = elements(role, quant.getElement(), quant.isQuantized() ? codes : schedule.getFloats());
    if (quant.isQuantized())
      types.scales = block(role, kBlockTokens / quant.getGroupTokens(), cache.getHeadDim() / quant.getGroupChannels(),
                           quant.getScale(), getScalePackingAttr(quant, role, codes));
    // One number per token, which a product along the tokens reduces.
    if (auto norm = quant.getTransform<TokenNormAttr>())
      types.norms = block(Role::Value, kBlockTokens, 1, norm.getType(), PackingAttr::get(quant.getContext(), 1, 1, 1));
    types.window = elements(role, cache.getDtype(), schedule.getFloats());
    return types;
  };
  BlockTypes types{side(Role::Key, cache.getKey(), schedule.getKey()),
                   side(Role::Value, cache.getValue(), schedule.getValue())};
  if (!fits)
    return failure();
  return types;
}

Value kvcc::kv::getQuantizedTokens(IndexBuilder &ix, WindowAttr window, Value tokens) {
  Value outside = ix.monus(tokens, ix.constant(window.getSink() + window.getRecent()));
  return ix.mul(ix.div(outside, window.getFlush()), window.getFlush());
}

Value kvcc::kv::getSlot(IndexBuilder &ix, const CacheLayout &layout, Value slotIds, Value sequence, Value kvHead) {
  return ix.add(ix.mul(ix.load(slotIds, sequence), layout.slotBytes), ix.mul(kvHead, layout.slotHeadBytes));
}

Value kvcc::kv::getPageBlock(IndexBuilder &ix, const CacheLayout &layout, Value table, Value row, Value kvHead,
                             Value block) {
  Value page = ix.load(table, ix.add(row, ix.div(block, layout.blocksPerPage)));
  Value start = ix.mul(page, layout.pageBytes);
  Value head = ix.mul(kvHead, layout.pageHeadBytes);
  return ix.add(start, ix.add(head, ix.mul(ix.rem(block, layout.blocksPerPage), layout.page.bytes)));
}
