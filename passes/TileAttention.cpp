// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-tile-attention: level 1 to level 2.
#include "passes/Passes.h"
#include "passes/TileBuilder.h"

#include <numbers>

using namespace mlir;
using namespace kvcc::kv;

namespace kvcc {
#define GEN_PASS_DEF_TILEATTENTIONPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

namespace {

/// A token with more than this part of all weight so far dominates its block.
constexpr float kDominatingShare = 0.125f;

/// The arguments of a tile function, by name, in the order of the kernel's ABI.
enum AttendArg {
  Query,
  Pages,
  Table,
  Slots,
  SlotIds,
  Lens,
  Out,
  Lse,
  TableStride,
  Batch,
  Queries,
  Splits,
  Tile,
  Split,
  Seq
};
enum MergeArg { Outs, Lses, MergedOut, MergedLse, Rows, Parts, Row };

/// Builds the tile function of one kv.attend.
class AttendBuilder {
public:
  AttendBuilder(AttendOp attend, const BlockTypes &blocks, ImplicitLocOpBuilder &b, ValueRange args)
      : attend(attend), cache(attend.getCache().getType()), schedule(*attend.getSchedule()), layout(cache, schedule),
        blocks(blocks), b(b), ix{b}, args(args), queryHeads(attend.getQueryHeads()), heads(schedule.getHeads()) {}

  void build() {
    Value firstHead = ix.mul(args[Tile], heads);
    kvHead = ix.div(args[Tile], queryHeads / cache.getKvHeads() / heads);
    // Queries of one sequence stand together.
    sequence = ix.div(args[Seq], args[Queries]);
    slot = getSlot(ix, layout, args[SlotIds], sequence, kvHead);
    computeRanges();

    state = TileInitStateOp::create(b, StateType::get(b.getContext(), heads, cache.getHeadDim()));
    Value row = ix.add(ix.mul(args[Seq], queryHeads), firstHead);
    Value query =
        TileLoadQueryOp::create(b, tileType(cache.getHeadDim()), args[Query], ix.mul(row, cache.getHeadDim()),
                                b.getF32FloatAttr(float(attend.getScale().convertToDouble() * std::numbers::log2e)));
    buildPageLoop(query);
    buildWindowLoop(query);

    Value outRow = ix.add(ix.mul(ix.add(ix.mul(args[Split], args[Batch]), args[Seq]), queryHeads), firstHead);
    TileStoreResultOp::create(b, state, args[Out], ix.mul(outRow, cache.getHeadDim()), args[Lse], outRow);
  }

private:
  VectorType tileType(int64_t columns, Type element = {}) {
    return VectorType::get({heads, columns}, element ? element : b.getF32Type());
  }

  /// Blocks of a sequence in the order they are split: quantized, sink, recent.
  void computeRanges() {
    WindowAttr window = cache.getWindow();
    Value all = ix.load(args[Lens], sequence);
    // What this query sees: all but the tokens of the queries after it.
    Value later = ix.sub(ix.sub(args[Queries], ix.constant(1)), ix.rem(args[Seq], args[Queries]));
    Value tokens = ix.monus(all, later);
    // Where tokens lie depends on all of them. Later tokens than a query's are quantized only if nothing is recent.
    quantizedTokens = getQuantizedTokens(ix, window, all);
    if (!window.getRecent())
      quantizedTokens = ix.min(quantizedTokens, ix.monus(tokens, ix.constant(window.getSink())));
    pageBlocks = ix.ceilDiv(quantizedTokens, kBlockTokens);
    sinkTokens = ix.min(tokens, ix.constant(window.getSink()));
    sinkBlocks = ix.ceilDiv(sinkTokens, kBlockTokens);
    recentTokens = ix.monus(ix.sub(tokens, sinkTokens), quantizedTokens);
    Value recentBlocks = ix.ceilDiv(recentTokens, kBlockTokens);
    Value total = ix.add(ix.add(pageBlocks, sinkBlocks), recentBlocks);
    Value share = ix.div(ix.sub(ix.add(total, args[Splits]), ix.constant(1)), args[Splits]);
    first = ix.min(ix.mul(args[Split], share), total);
    last = ix.min(ix.add(first, share), total);
  }

  /// The small operand of a product with codes, ready for the schedule's arithmetic.
  struct Prepared {
    Value values, sums, scales, offsets;
  };
  /// With integer arithmetic, rounds to `integer`.
  Prepared prepare(Value tile, int64_t group, Type integer) {
    auto type = cast<VectorType>(tile.getType());
    bool rounded = schedule.getCompute() != Compute::F32;
    auto perGroup = VectorType::get({type.getDimSize(0), type.getDimSize(1) / group}, b.getF32Type());
    VectorType values = rounded ? VectorType::get(type.getShape(), integer) : type;
    auto op = TilePrepareOp::create(b, values, perGroup, rounded ? perGroup : Type(), tile, b.getI64IntegerAttr(group));
    return {op.getValues(), op.getSums(), op.getScales(), {}};
  }

  /// A side of a page block, and where its scales go.
  struct Side {
    QuantAttr quant;
    Placement placement;
    Value data, scales, zeros, norms;
  };
  Side loadSide(Role role, Value at) {
    bool isKey = role == Role::Key;
    const SideLayout &page = isKey ? layout.page.key : layout.page.value;
    const SideTypes &types = isKey ? blocks.key : blocks.value;
    QuantAttr quant = isKey ? cache.getKey() : cache.getValue();
    auto load = [&](BlockType type, int64_t offset) { return loadBlock(type, args[Pages], ix.add(at, offset)); };
    return {quant,
            isKey ? *attend.getKeyScales() : *attend.getValueScales(),
            load(types.data, page.data),
            load(types.scales, page.scales),
            load(quant.hasZeros() ? types.scales : BlockType(), page.zeros),
            load(types.norms, page.norms)};
  }

  /// A tile whose columns are tokens, times the tokens' norms if the side has them.
  Value foldNorms(Value tile, const Side &side) {
    if (!side.norms)
      return tile;
    return TileFoldOp::create(b, tile.getType(), Type(), tile, side.norms, Value()).getResult();
  }

  /// A small operand folded with scales that every reduced index has of its own.
  struct Folded {
    Value tile, offsets;
  };
  Folded fold(Value tile, const Side &side) {
    auto type = cast<VectorType>(tile.getType());
    int64_t rows = type.getDimSize(0) * cast<BlockType>(side.scales.getType()).getFreeExtent();
    auto fold = TileFoldOp::create(b, VectorType::get({rows, type.getDimSize(1)}, b.getF32Type()),
                                   side.zeros ? VectorType::get({rows, 1}, b.getF32Type()) : Type(), tile, side.scales,
                                   side.zeros, side.zeros ? int64_t(1) << (side.quant.getBits() - 1) : 0);
    return {fold.getResult(), fold.getOffsets()};
  }

  /// What integer arithmetic rounds a small operand to. Eight bits are all for the magnitude where there is no sign.
  Type getInteger(Role role, Placement placement) {
    if (kvcc::roundsToWords(cache, role, placement, schedule.getCompute()))
      return b.getI16Type();
    bool isSigned = role == Role::Key || kvcc::hasSignedWeights(cache.getValue(), placement);
    return isSigned ? b.getI8Type() : b.getIntegerType(8, /*isSigned=*/false);
  }
  Type queryInteger() { return getInteger(Role::Key, *attend.getKeyScales()); }

  /// Adds the values of a block of pages. Where integer arithmetic has the weights in bytes, it takes words for a block
  /// with a token that has much of all weight: its value is often next to nothing, and the others of the block would be
  /// rounded to its measure.
  void accumulate(Value allWeights, const Side &values) {
    Value weights = foldNorms(allWeights, values);
    QuantAttr quant = values.quant;
    Folded folded{weights, {}};
    int64_t group = quant.getGroupTokens();
    if (values.placement == Placement::Operand) {
      folded = fold(weights, values);
      group = kBlockTokens;
    }
    auto accumulateAs = [&](Type integer) {
      Prepared small{folded.tile, {}, {}, {}};
      if (quant.isQuantized())
        small = prepare(folded.tile, group, integer);
      TileAccumulateOp::create(b, state, small.values, values.data, values.scales, getZeros(values), small.sums,
                               small.scales, folded.offsets, attend.getValueScalesAttr(), isHybrid(values));
    };
    Type integer = getInteger(Role::Value, values.placement);
    if (!quant.isQuantized() || schedule.getCompute() == Compute::F32 || integer.isInteger(16))
      return accumulateAs(integer);
    Value isDominated = TileIsDominatedOp::create(b, b.getI1Type(), state, allWeights, APFloat(kDominatingShare));
    auto branch = scf::IfOp::create(b, isDominated, /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(branch.thenBlock());
    accumulateAs(b.getI16Type());
    b.setInsertionPointToStart(branch.elseBlock());
    accumulateAs(integer);
  }

  UnitAttr isHybrid(const Side &side) { return side.quant.getMap() == Map::Hybrid ? b.getUnitAttr() : UnitAttr(); }
  /// Zeros that have not been folded.
  Value getZeros(const Side &side) { return side.placement == Placement::Operand ? Value() : side.zeros; }

  /// A block at a byte offset, or null for no block.
  Value loadBlock(BlockType type, Value source, Value offset) {
    return type ? TileLoadOp::create(b, type, source, offset).getResult() : Value();
  }

  /// Undoes, in what the quantized tokens have given, what their transforms left to be undone. `logits` is what is
  /// missing in each head's logits, or null.
  void restore(Value logits) {
    if (logits)
      TileShiftStateOp::create(b, state, logits);
    QuantAttr value = cache.getValue();
    auto rotation = value.getTransform<HadamardAttr>();
    auto vector = [&](int64_t offset) { return offset < 0 ? Value() : args[Slots]; };
    auto at = [&](int64_t offset) { return offset < 0 ? Value() : ix.add(slot, offset); };
    auto [factors, means] = layout.valueVectors;
    if (rotation || factors >= 0 || means >= 0)
      TileRestoreOp::create(b, state, vector(means), at(means), vector(factors), at(factors),
                            rotation ? b.getI64IntegerAttr(rotation.getSize()) : IntegerAttr());
  }

  /// One block of quantized tokens after the other.
  void buildPageLoop(Value query) {
    QuantAttr key = cache.getKey();
    auto [factors, means] = layout.keyVectors;
    Value centre;
    if (factors >= 0)
      query = TileScaleChannelsOp::create(b, query.getType(), query, args[Slots], ix.add(slot, factors));
    if (means >= 0)
      centre = TileDotChannelsOp::create(b, tileType(1), query, args[Slots], ix.add(slot, means));
    if (auto rotation = key.getTransform<HadamardAttr>())
      query = TileRotateOp::create(b, query.getType(), query, rotation.getSize());
    bool folds = *attend.getKeyScales() == Placement::Operand;
    Prepared prepared{query, {}, {}, {}};
    if (key.isQuantized() && !folds)
      prepared = prepare(query, key.getGroupChannels(), queryInteger());

    loop(first, ix.min(last, pageBlocks), [&](Value block) {
      Value at = getPageBlock(ix, layout, args[Table], ix.mul(sequence, args[TableStride]), kvHead, block);
      Side keys = loadSide(Role::Key, at);
      Prepared small = prepared;
      if (folds) {
        Folded folded = fold(query, keys);
        small = prepare(folded.tile, cache.getHeadDim(), queryInteger());
        small.offsets = folded.offsets;
      }
      Value logits =
          TileScoreOp::create(b, tileType(kBlockTokens), small.values, keys.data, keys.scales, getZeros(keys),
                              small.sums, small.scales, small.offsets, attend.getKeyScalesAttr(), isHybrid(keys));
      logits = foldNorms(logits, keys);
      // Blocks are partial only where nothing is recent: tokens are quantized one by one, or later than the query's.
      if (!cache.getWindow().getRecent())
        logits = TileMaskOp::create(b, logits.getType(), logits, ix.sub(quantizedTokens, ix.mul(block, kBlockTokens)));
      Value weights = TileSoftmaxStepOp::create(b, logits.getType(), state, logits);
      Side values = loadSide(Role::Value, at);
      accumulate(weights, values);
    });
    restore(centre);
  }

  /// One block of full-precision tokens after the other; the last of each window may be partial.
  void buildWindowLoop(Value query) {
    if (!layout.sinkBlocks && !layout.recentBlocks)
      return;
    auto none = PlacementAttr::get(b.getContext(), Placement::None);
    loop(ix.monus(first, pageBlocks), ix.monus(last, pageBlocks), [&](Value block) {
      Value isSink = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, block, sinkBlocks);
      Value recent = ix.sub(block, sinkBlocks);
      Value ring = ix.rem(ix.add(pageBlocks, recent), std::max<int64_t>(layout.recentBlocks, 1));
      Value sinkAt = ix.add(ix.mul(block, layout.window.bytes), layout.sinkOffset);
      Value recentAt = ix.add(ix.mul(ring, layout.window.bytes), layout.recentOffset);
      Value at = ix.add(slot, arith::SelectOp::create(b, isSink, sinkAt, recentAt));
      Value valid = arith::SelectOp::create(b, isSink, ix.sub(sinkTokens, ix.mul(block, kBlockTokens)),
                                            ix.sub(recentTokens, ix.mul(recent, kBlockTokens)));
      Value keys = loadBlock(blocks.key.window, args[Slots], ix.add(at, layout.window.key.data));
      Value logits = TileScoreOp::create(b, tileType(kBlockTokens), query, keys, Value(), Value(), Value(), Value(),
                                         Value(), none, UnitAttr());
      logits = TileMaskOp::create(b, logits.getType(), logits, valid);
      Value weights = TileSoftmaxStepOp::create(b, logits.getType(), state, logits);
      Value values = loadBlock(blocks.value.window, args[Slots], ix.add(at, layout.window.value.data));
      TileAccumulateOp::create(b, state, weights, values, Value(), Value(), Value(), Value(), Value(), none,
                               UnitAttr());
    });
  }

  void loop(Value from, Value to, function_ref<void(Value)> body) { ix.loop(from, to, ix.constant(1), body); }

  AttendOp attend;
  CacheType cache;
  ScheduleAttr schedule;
  CacheLayout layout;
  BlockTypes blocks;
  ImplicitLocOpBuilder &b;
  IndexBuilder ix;
  ValueRange args;
  int64_t queryHeads, heads;
  Value kvHead, sequence, slot, state;
  Value quantizedTokens, pageBlocks, sinkTokens, sinkBlocks, recentTokens, first, last;
};

void buildMerge(MergeOp merge, ImplicitLocOpBuilder &b, ValueRange args) {
  IndexBuilder ix{b};
  int64_t headDim = merge.getOut().getType().getShape().back();
  Value state = TileInitStateOp::create(b, StateType::get(b.getContext(), 1, headDim));
  ix.loop(ix.constant(0), args[Parts], ix.constant(1), [&](Value part) {
    Value row = ix.add(ix.mul(part, args[Rows]), args[Row]);
    TileMergeStepOp::create(b, state, args[Outs], ix.mul(row, headDim), args[Lses], row);
  });
  TileStoreResultOp::create(b, state, args[MergedOut], ix.mul(args[Row], headDim), args[MergedLse], args[Row]);
}

LogicalResult tileAttend(func::FuncOp func, AttendOp attend) {
  if (!attend.getSchedule() || !attend.getKeyScales() || !attend.getValueScales())
    return attend.emitOpError("expected schedule, key_scales and value_scales (run kv-place-scales and "
                              "kv-plan-schedule first), but got none");
  for (Placement placement : {*attend.getKeyScales(), *attend.getValueScales()})
    if (placement == Placement::Element)
      return attend.emitOpError("expected scales placed at none, accumulator, result or operand, but got element");
  FailureOr<BlockTypes> blocks = chooseBlockTypes(attend, attend.getCache().getType(), *attend.getSchedule());
  if (failed(blocks))
    return failure();
  Builder builder(func.getContext());
  auto memory = [](Type element) -> Type { return MemRefType::get({ShapedType::kDynamic}, element); };
  Type query = cast<RankedTensorType>(attend.getQuery().getType()).getElementType();
  Type bytes = memory(builder.getI8Type()), words = memory(builder.getI32Type()), floats = memory(builder.getF32Type()),
       index = builder.getIndexType();
  func::FuncOp tiled = replaceFunction(func,
                                       {memory(query), bytes, words, bytes, words, words, floats, floats, index, index,
                                        index, index, index, index, index},
                                       3);
  if (int64_t accumulators = attend.getSchedule()->getAccumulators())
    tiled->setAttr(kvcc::kAccumulatorsAttrName, builder.getI64IntegerAttr(accumulators));
  ImplicitLocOpBuilder b = ImplicitLocOpBuilder::atBlockEnd(attend.getLoc(), &tiled.front());
  AttendBuilder(attend, *blocks, b, tiled.getArguments()).build();
  func::ReturnOp::create(b);
  return success();
}

LogicalResult tileMerge(func::FuncOp func, MergeOp merge) {
  // What a cache may have.
  int64_t headDim = merge.getOut().getType().getShape().back();
  if (ShapedType::isDynamic(headDim) || headDim < 32 || headDim > 256 || headDim % 32)
    return merge.emitOpError("expected a static head_dim, a multiple of 32 from 32 to 256, but got ")
           << merge.getOut().getType();
  Builder builder(func.getContext());
  Type floats = MemRefType::get({ShapedType::kDynamic}, builder.getF32Type()), index = builder.getIndexType();
  func::FuncOp tiled = replaceFunction(func, {floats, floats, floats, floats, index, index, index}, 1);
  ImplicitLocOpBuilder b = ImplicitLocOpBuilder::atBlockEnd(merge.getLoc(), &tiled.front());
  buildMerge(merge, b, tiled.getArguments());
  func::ReturnOp::create(b);
  return success();
}

struct TileAttentionPass : kvcc::impl::TileAttentionPassBase<TileAttentionPass> {
  void runOnOperation() override {
    for (auto func : llvm::make_early_inc_range(getOperation().getOps<func::FuncOp>())) {
      if (func.isExternal() || func->hasAttr(kvcc::kItemArgsAttrName))
        continue;
      // A kernel is one operation and the return of its results.
      Operation &op = func.front().front();
      bool alone = op.getNextNode() && isa<func::ReturnOp>(op.getNextNode()) &&
                   llvm::equal(op.getNextNode()->getOperands(), op.getResults());
      LogicalResult result = failure();
      if (auto attend = dyn_cast<AttendOp>(op); attend && alone)
        result = tileAttend(func, attend);
      else if (auto append = dyn_cast<AppendOp>(op); append && alone)
        result = tileAppend(func, append);
      else if (auto merge = dyn_cast<MergeOp>(op); merge && alone)
        result = tileMerge(func, merge);
      else
        func.emitError() << "expected a function of one kv.attend, kv.append or kv.merge and the return of its "
                            "results, but got "
                         << op.getName();
      if (failed(result))
        return signalPassFailure();
      func.erase();
    }
  }
};
} // namespace
