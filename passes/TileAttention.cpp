// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-tile-attention: level 1 to level 2.
#include "passes/Passes.h"
#include "passes/TileBuilder.h"

#include <cmath>
#include <numbers>

using namespace mlir;
using namespace kvcc::kv;

namespace kvcc {
#define GEN_PASS_DEF_TILEATTENTIONPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

namespace {

/// A token with more than this part of all weight so far dominates its block; half of it where weights have a sign,
/// which takes one of the bits of bytes.
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
  Sinks,
  Parts,
  Arrivals,
  TableStride,
  Batch,
  Queries,
  Splits,
  SplitBlocks,
  Tile, ///< of the query heads; first all of the first queries of the sequence
  Split,
  Seq
};
enum MergeArg { Outs, Lses, MergedOut, MergedLse, MergedRows, MergedParts, MergedRow };

/// Builds the tile function of one kv.attend.
class AttendBuilder {
public:
  AttendBuilder(AttendOp attend, const BlockTypes &blocks, ImplicitLocOpBuilder &b, ValueRange args)
      : attend(attend), cache(attend.getCache().getType()), schedule(*attend.getSchedule()), layout(cache, schedule),
        blocks(blocks), b(b), ix{b}, args(args.begin(), args.end()), queryHeads(attend.getQueryHeads()),
        heads(schedule.getHeads()), queries(schedule.getQueries()), rows(heads * queries),
        halves(schedule.getCompute() == Compute::F16), exponent(chooseExponent()) {}

  void build() {
    for (AttendArg arg : {Batch, Queries, Splits, SplitBlocks, Tile, Split, Seq})
      args[arg] = ix.bounded(args[arg], arg == Queries || arg == Splits ? 1 : 0);
    // Of some queries of a sequence, all tiles of heads, then those of the next queries.
    int64_t tiles = queryHeads / heads;
    Value tile = ix.rem(args[Tile], tiles), firstHead = ix.mul(tile, heads);
    kvHead = ix.div(tile, queryHeads / cache.getKvHeads() / heads);
    firstQuery = ix.mul(ix.div(args[Tile], tiles), queries);
    sequence = args[Seq];
    slot = getSlot(ix, layout, args[SlotIds], sequence, kvHead);
    computeRanges();

    state = TileInitStateOp::create(b, StateType::get(b.getContext(), rows, cache.getHeadDim()));
    Value row = ix.bounded(ix.add(ix.mul(sequence, args[Queries]), firstQuery));
    queryRow = ix.add(ix.mul(row, queryHeads), firstHead);
    warp = halves ? TileWarpOp::create(b, b.getIndexType()).getResult() : ix.constant(0);
    Value start = plus(ix.add(first, warp), firstPage), end = plus(ix.min(last, pageEnd), firstPage);
    // What the query is made of does not wait behind blocks of pages.
    Value query = loadQuery(/*scaled=*/!halves), pageQuery = keepsQuery() && !halves ? loadQuery(false) : query;
    if (int64_t factors = layout.keyVectors.factors; factors >= 0)
      pageQuery = TileScaleChannelsOp::create(b, query.getType(), pageQuery, args[Slots], ix.add(slot, factors));
    keyMeans = at(layout.keyVectors.means);
    if (schedule.getStages()) {
      startRing(start, end);
      prefetchLater();
    }
    buildPageLoop(pageQuery, start, end);
    buildWindowLoop(query);

    if (attend.getSinks()) {
      // Of all that share the heads, the first warp of the first split has them.
      Value isFirst = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, ix.add(args[Split], warp), ix.constant(0));
      ix.branch(isFirst, [&] {
        TileJoinSinksOp::create(b, state, args[Sinks], firstHead, uint64_t(exponent), uint64_t(heads));
      });
    }
    storeResult();
  }

private:
  /// Writes the result, or the part of it that this split has: the last of the splits to arrive merges all parts, in
  /// their order, so that who is last changes nothing.
  void storeResult() {
    Value isPart = arith::CmpIOp::create(b, arith::CmpIPredicate::ne, args[Splits], ix.constant(1));
    // Outputs [splits][rows][head_dim], then lses [splits][rows].
    Value allRows = ix.mul(args[Batch], queryHeads), lses = ix.mul(ix.mul(args[Splits], allRows), cache.getHeadDim());
    Value partRow = ix.add(ix.mul(args[Split], allRows), queryRow), outAt = ix.mul(queryRow, cache.getHeadDim());
    IntegerAttr headsOfQuery, stride;
    if (count) {
      headsOfQuery = b.getI64IntegerAttr(heads);
      stride = b.getI64IntegerAttr(queryHeads);
    }
    TileStoreResultOp::create(b, state, args[Out], outAt, args[Lse], queryRow, isPart, args[Parts],
                              ix.mul(partRow, cache.getHeadDim()), ix.add(lses, partRow), count,
                              b.getI64IntegerAttr(exponent), headsOfQuery, stride);
    ix.branch(isPart, [&] {
      Value ofSequence = ix.mul(ix.ceilDiv(args[Queries], queries), queryHeads / heads);
      Value item = ix.add(ix.mul(sequence, ofSequence), args[Tile]);
      ix.branch(TileArriveOp::create(b, b.getI1Type(), args[Arrivals], item, args[Splits]), [&] {
        TileMergeOp::create(b, args[Parts], outAt, args[Parts], ix.add(lses, queryRow), args[Splits], allRows,
                            args[Out], outAt, args[Lse], queryRow, count, b.getI64IntegerAttr(heads),
                            b.getI64IntegerAttr(cache.getHeadDim()), stride);
      });
    });
  }

  float getScale() { return float(attend.getScale().convertToDouble() * std::numbers::log2e); }
  /// What multiplies the codes of a side, without tensor cores.
  Type getOperandType(Role role) {
    Placement placement = role == Role::Key ? *attend.getKeyScales() : *attend.getValueScales();
    return kvcc::getOperandType(cache, role, placement, schedule.getCompute());
  }
  /// Whether what multiplies the keys of pages is the query as it is, which stays so as halves of its type, and its
  /// scale multiplies the logits.
  bool keepsQuery() {
    return halves || (cache.getKey().isQuantized() && *attend.getKeyScales() != Placement::Operand &&
                      getOperandType(Role::Key).isBF16());
  }
  Value loadQuery(bool scaled) {
    VectorType type = tileType(cache.getHeadDim());
    Value at = ix.mul(queryRow, cache.getHeadDim());
    FloatAttr scale = b.getF32FloatAttr(scaled ? getScale() : 1);
    if (!count)
      return TileLoadQueryOp::create(b, type, args[Query], at, scale);
    return TileLoadQueryOp::create(b, type, args[Query], at, scale, count, b.getI64IntegerAttr(heads),
                                   b.getI64IntegerAttr(queryHeads * cache.getHeadDim()));
  }

  VectorType tileType(int64_t columns, Type element = {}) {
    return VectorType::get({rows, columns}, element ? element : b.getF32Type());
  }

  /// The first token that a query reaches, the last of `tokens`; null if that is always the first of all.
  Value getFirstReached(Value tokens) {
    switch (attend.getReach().value_or(Reach::Full)) {
    case Reach::Full:
      return {};
    case Reach::Sliding: {
      // Below zero, for masks to count queries back from.
      Value first = ix.sub(tokens, ix.constant(int64_t(*attend.getWindowTokens())));
      return count ? first : ix.max(first, ix.constant(0));
    }
    case Reach::Chunked:
      auto chunk = int64_t(*attend.getWindowTokens());
      return ix.mul(ix.div(ix.monus(tokens, ix.constant(1)), chunk), chunk);
    }
    llvm_unreachable("unknown reach");
  }

  /// Blocks of a sequence in the order they are split: quantized, sink, recent; of each those that the query reaches.
  void computeRanges() {
    WindowAttr window = cache.getWindow();
    Value all = ix.loadCount(args[Lens], sequence);
    // What this query sees, or the last of several: all but the tokens of the queries after it.
    Value queriesLeft = ix.monus(args[Queries], firstQuery), here = ix.constant(1);
    if (queries > 1) {
      here = count = ix.min(queriesLeft, ix.constant(queries));
      laterQueries = ix.sub(count, ix.constant(1));
    }
    tokens = ix.monus(all, ix.monus(queriesLeft, here));
    // Where tokens lie depends on all of them. Later tokens than a query's are quantized only if nothing is recent.
    quantizedTokens = getQuantizedTokens(ix, window, all);
    if (!window.getRecent())
      quantizedTokens = ix.min(quantizedTokens, ix.monus(tokens, ix.constant(window.getSink())));
    pageBlocks = ix.ceilDiv(quantizedTokens, kBlockTokens);
    sinkTokens = ix.min(tokens, ix.constant(window.getSink()));
    sinkBlocks = ix.ceilDiv(sinkTokens, kBlockTokens);
    recentTokens = ix.monus(ix.sub(tokens, sinkTokens), quantizedTokens);
    Value recentBlocks = ix.ceilDiv(recentTokens, kBlockTokens);
    pageEnd = pageBlocks;
    firstReached = getFirstReached(tokens);
    if (firstReached) {
      // Of several queries, the first reaches back the farthest.
      Value farthest = count ? ix.monus(firstReached, laterQueries) : firstReached;
      Value inPages = ix.monus(farthest, ix.constant(window.getSink()));
      firstPage = ix.min(ix.div(inPages, kBlockTokens), pageBlocks);
      firstSink = ix.min(ix.div(farthest, kBlockTokens), sinkBlocks);
      Value inRecent = ix.monus(farthest, ix.add(sinkTokens, quantizedTokens));
      firstRecent = ix.min(ix.div(inRecent, kBlockTokens), recentBlocks);
      pageEnd = ix.sub(pageBlocks, firstPage);
      sinkBlocks = ix.sub(sinkBlocks, firstSink);
      recentBlocks = ix.sub(recentBlocks, firstRecent);
    }
    Value total = ix.add(ix.add(pageEnd, sinkBlocks), recentBlocks);
    Value share = ix.div(ix.sub(ix.add(total, args[Splits]), ix.constant(1)), args[Splits]);
    // Or as many blocks as are asked for, whatever there are: how a sequence is split depends on nothing else then.
    Value isGiven = arith::CmpIOp::create(b, arith::CmpIPredicate::ne, args[SplitBlocks], ix.constant(0));
    share = ix.select(isGiven, args[SplitBlocks], share);
    first = ix.min(ix.mul(args[Split], share), total);
    last = ix.min(ix.add(first, share), total);
  }

  /// Adds what was skipped, if anything can be.
  Value plus(Value block, Value skipped) { return skipped ? ix.add(block, skipped) : block; }

  /// The small operand of a product with codes, ready for the schedule's arithmetic.
  struct Prepared {
    Value values, sums, scales, offsets;
  };
  /// As `element`, without tensor cores. bf16 multiplies what codes stand for, whose sums only zero points need, and
  /// has scales if `isQuery` says so, since the query's is missing.
  Prepared prepare(Value tile, int64_t group, Type element, bool hasZeros, bool isQuery = false) {
    auto type = cast<VectorType>(tile.getType());
    assert(!halves && "expected integers, bf16 or f32");
    auto perGroup = VectorType::get({type.getDimSize(0), type.getDimSize(1) / group}, b.getF32Type());
    bool isMissing = isQuery && element.isBF16();
    Type scales = element.isInteger() ? perGroup
                  : isMissing         ? VectorType::get({type.getDimSize(0), 1}, b.getF32Type())
                                      : Type();
    auto op = TilePrepareOp::create(b, VectorType::get(type.getShape(), element), perGroup, scales, tile,
                                    b.getI64IntegerAttr(group), TypeAttr(),
                                    isMissing ? b.getF32FloatAttr(getScale()) : FloatAttr());
    return {op.getValues(), element.isBF16() && !hasZeros ? Value() : op.getSums(), op.getScales(), {}};
  }
  /// A small operand folded with scales that every reduced index has of its own.
  struct Folded {
    Value tile, offsets;
  };
  /// The same as `element`, which bf16 is already.
  Prepared prepareFolded(Folded folded, Type element) {
    if (element.isBF16())
      return {folded.tile, {}, {}, folded.offsets};
    int64_t columns = cast<VectorType>(folded.tile.getType()).getDimSize(1);
    Prepared small = prepare(folded.tile, columns, element, /*hasZeros=*/false);
    small.offsets = folded.offsets;
    return small;
  }

  /// The same as halves, for a block of `element`. Of a query, its scale goes into the scales.
  Prepared prepareHalves(Value tile, int64_t group, Type element) {
    auto type = cast<VectorType>(tile.getType());
    bool isQuery = type.getElementType().isF32();
    auto f32Type = [&](int64_t columns) { return VectorType::get({type.getDimSize(0), columns}, b.getF32Type()); };
    auto op = TilePrepareOp::create(b, VectorType::get(type.getShape(), getHalf(element)),
                                    f32Type(type.getDimSize(1) / group), isQuery ? f32Type(1) : Type(), tile,
                                    b.getI64IntegerAttr(group), TypeAttr::get(element),
                                    isQuery ? b.getF32FloatAttr(getScale()) : FloatAttr());
    return {op.getValues(), op.getSums(), op.getScales(), {}};
  }
  /// What multiplies a block of `element` on tensor cores.
  Type getHalf(Type element) { return element.isBF16() ? element : b.getF16Type(); }
  /// Whether the sums of what multiplies codes are needed: codes do not count from zero.
  static bool needsSums(QuantAttr quant, Placement placement) {
    return isa<IntegerType>(quant.getElement()) && !(placement == Placement::Operand && quant.hasZeros());
  }

  /// A side of a page block, and where its scales go.
  struct Side {
    QuantAttr quant;
    Placement placement;
    Value data, scales, zeros, norms;
  };
  Side loadSide(Role role, Value memory, Value at) {
    bool isKey = role == Role::Key;
    const SideLayout &page = isKey ? layout.page.key : layout.page.value;
    const SideTypes &types = isKey ? blocks.key : blocks.value;
    QuantAttr quant = isKey ? cache.getKey() : cache.getValue();
    auto load = [&](BlockType type, int64_t offset) { return loadBlock(type, memory, ix.add(at, offset)); };
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

  /// `element` is what multiplies the codes: halves at once, or f32 that are rounded later.
  Folded fold(Value tile, const Side &side, Type element) {
    auto type = cast<VectorType>(tile.getType());
    int64_t rows = type.getDimSize(0) * cast<BlockType>(side.scales.getType()).getFreeExtent();
    // Halves take codes as they are, from zero.
    int64_t middle = side.zeros && !halves ? int64_t(1) << (side.quant.getBits() - 1) : 0;
    auto fold = TileFoldOp::create(
        b, VectorType::get({rows, type.getDimSize(1)}, halves || element.isBF16() ? element : b.getF32Type()),
        side.zeros ? VectorType::get({rows, 1}, b.getF32Type()) : Type(), tile, side.scales, side.zeros, middle);
    return {fold.getResult(), fold.getOffsets()};
  }

  /// Adds the values of a block of pages. Where the weights are bytes, it takes words for a block with a token that has
  /// much of all weight: its value is often next to nothing, and the others of the block would be rounded to its
  /// measure.
  void accumulate(Value allWeights, const Side &values) {
    if (halves)
      return accumulateHalves(allWeights, values);
    Value weights = foldNorms(allWeights, values);
    QuantAttr quant = values.quant;
    bool folds = values.placement == Placement::Operand;
    Type element = getOperandType(Role::Value);
    Folded folded = folds ? fold(weights, values, element) : Folded{};
    Ahead next = getAhead(Role::Value);
    auto accumulateAs = [&](Type element) {
      Prepared small = folds                 ? prepareFolded(folded, element)
                       : quant.isQuantized() ? prepare(weights, quant.getGroupTokens(), element, quant.hasZeros())
                                             : Prepared{weights, {}, {}, {}};
      TileAccumulateOp::create(b, state, small.values, values.data, values.scales, getZeros(values), small.sums,
                               small.scales, small.offsets, attend.getValueScalesAttr(), isHybrid(values), next.memory,
                               next.offset, next.bytes);
    };
    if (!quant.isQuantized() || !element.isInteger(8))
      return accumulateAs(element);
    float share = element.isUnsignedInteger() ? kDominatingShare : kDominatingShare / 2;
    Value isDominated = TileIsDominatedOp::create(b, b.getI1Type(), state, allWeights, APFloat(share));
    auto branch = scf::IfOp::create(b, isDominated, /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(branch.thenBlock());
    accumulateAs(b.getI16Type());
    b.setInsertionPointToStart(branch.elseBlock());
    accumulateAs(element);
  }

  void accumulateHalves(Value weights, const Side &values) {
    weights = foldNorms(weights, values);
    Prepared small{weights, {}, {}, {}};
    if (values.quant.isQuantized()) {
      bool folds = values.placement == Placement::Operand;
      Value offsets;
      if (folds) {
        // Bits of codes are in the weights before scales are, and zeros multiply the weights alone.
        small = prepareHalves(weights, kBlockTokens, values.quant.getElement());
        Folded folded = fold(small.values, values, getHalf(values.quant.getElement()));
        offsets = folded.offsets;
        small = {folded.tile, {}, {}, {}};
      }
      if (!folds || needsSums(values.quant, values.placement))
        small = prepareHalves(small.values, folds ? kBlockTokens : values.quant.getGroupTokens(),
                              values.quant.getElement());
      small.offsets = offsets;
    }
    bool sums = values.quant.isQuantized() && needsSums(values.quant, values.placement);
    TileAccumulateOp::create(b, state, small.values, values.data, values.scales, getZeros(values),
                             sums ? small.sums : Value(), Value(), small.offsets, attend.getValueScalesAttr(),
                             isHybrid(values), Value(), Value(), IntegerAttr());
  }

  /// What is asked for early, as operands of a product: the bytes `from` to `to` of a block at `at`.
  struct Ahead {
    Value memory, offset;
    IntegerAttr bytes;
  };
  Ahead getAhead(Value memory, Value at, int64_t from, int64_t to) {
    return {memory, ix.add(at, from), b.getI64IntegerAttr(to - from)};
  }
  /// Of a side of the block of pages that is asked for.
  Ahead getAhead(Role role) {
    if (!schedule.getAhead())
      return {};
    int64_t values = layout.page.value.data;
    return role == Role::Key ? getAhead(args[Pages], ahead, 0, values)
                             : getAhead(args[Pages], ahead, values, layout.page.bytes);
  }
  /// The block `by` blocks after `block`, of those before `end`.
  Value getLater(Value block, int64_t by, Value end) { return ix.min(ix.add(block, by), ix.sub(end, ix.constant(1))); }

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
    auto [factors, means] = layout.valueVectors;
    if (rotation || factors >= 0 || means >= 0)
      TileRestoreOp::create(b, state, vector(means), at(means), vector(factors), at(factors),
                            rotation ? b.getI64IntegerAttr(rotation.getSize()) : IntegerAttr());
  }

  /// One block of quantized tokens after the other.
  void buildPageLoop(Value query, Value start, Value end) {
    QuantAttr key = cache.getKey();
    Value centre;
    if (keyMeans) // of a query that may lack its scale
      centre = TileDotChannelsOp::create(b, tileType(1), query, args[Slots], keyMeans,
                                         keepsQuery() ? b.getF32FloatAttr(getScale()) : FloatAttr());
    if (auto rotation = key.getTransform<HadamardAttr>())
      query = TileRotateOp::create(b, query.getType(), query, rotation.getSize());
    bool folds = *attend.getKeyScales() == Placement::Operand;
    Prepared prepared{query, {}, {}, {}};
    if (halves)
      prepared = prepareHalves(query, key.isQuantized() && !folds ? key.getGroupChannels() : cache.getHeadDim(),
                               key.getElement());
    else if (key.isQuantized() && !folds)
      prepared = prepare(query, key.getGroupChannels(), getOperandType(Role::Key), key.hasZeros(), /*isQuery=*/true);

    if (attend.getSoftcap())
      missing = std::exchange(centre, Value()); // no more than a shift, but for what bounds logits
    if (schedule.getStages())
      buildStagedLoop([&](Value block, Value memory, Value at) { buildPageBlock(block, memory, at, query, prepared); });
    else
      loop(start, end, [&](Value block) {
        if (schedule.getAhead()) {
          ahead = getBlockAt(getLater(block, schedule.getAhead(), end));
          // Addresses take long to translate as well, and that must not hold up what is asked for.
          Value later = getBlockAt(getLater(block, schedule.getAhead() + 1, end));
          TilePrefetchOp::create(b, args[Pages], later, uint64_t(layout.page.bytes));
        }
        buildPageBlock(block, args[Pages], getBlockAt(block), query, prepared);
      });
    if (halves && kvcc::getUnitExponent(cache.getValue().getElement()))
      TileScaleStateOp::create(
          b, state, b.getF32FloatAttr(float(std::exp2(kvcc::getUnitExponent(cache.getValue().getElement())))));
    restore(centre);
  }

  Value getBlockAt(Value block) {
    return getPageBlock(ix, layout, args[Table], ix.mul(sequence, args[TableStride]), kvHead, block);
  }

  /// An offset of the sequence's slot, null for none.
  Value at(int64_t offset) { return offset < 0 ? Value() : ix.add(slot, offset); }
  Value number(int64_t value) { return arith::ConstantOp::create(b, b.getI32IntegerAttr(int32_t(value))); }
  Value toIndex(Value word) { return arith::IndexCastUIOp::create(b, b.getIndexType(), word); }
  Value compare(arith::CmpIPredicate predicate, Value x, Value y) { return arith::CmpIOp::create(b, predicate, x, y); }

  /// Makes the ring of this warp and fills it, all stages but one, before anything else is waited for. Blocks, and
  /// offsets in its memory, are counted in 32 bits: half the instructions.
  void startRing(Value start, Value end) {
    int64_t stages = schedule.getStages(), bytes = layout.page.bytes, step = schedule.getWarps();
    Type memoryType = MemRefType::get({ShapedType::kDynamic}, b.getI8Type()), i32 = b.getI32Type();
    ring.memory = TileRingOp::create(b, memoryType, b.getI64IntegerAttr(stages), b.getI64IntegerAttr(bytes));
    ring.first = arith::IndexCastOp::create(b, i32, start);
    ring.last = arith::IndexCastOp::create(b, i32, end);
    // What blocks have in common. A warp's blocks all have the same place in their pages where warps take whole pages.
    ring.samePlace = step % layout.blocksPerPage == 0;
    Value head = ix.mul(kvHead, layout.pageHeadBytes);
    if (ring.samePlace)
      head = ix.add(head, ix.mul(ix.rem(start, layout.blocksPerPage), layout.page.bytes));
    Value row = ix.mul(sequence, args[TableStride]);
    ring.table = TileAdvanceOp::create(b, args[Table].getType(), args[Table], row);
    ring.pages = TileAdvanceOp::create(b, args[Pages].getType(), args[Pages], head);
    auto stage = [&](int64_t i) { return arith::AddIOp::create(b, ring.first, number(i * step)).getResult(); };
    auto isThere = [&](Value block) { return compare(arith::CmpIPredicate::slt, block, ring.last); };
    // Where there are no blocks, there may be no table.
    auto branch = scf::IfOp::create(b, i32, isThere(ring.first), /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(branch.thenBlock());
    // Pages are looked up together, not one after the other's copies.
    SmallVector<Value> entries;
    for (int64_t i = 0; i < stages; ++i)
      entries.push_back(loadEntry(stage(i)));
    for (int64_t i = 0; i + 1 < stages; ++i) {
      ix.branch(isThere(stage(i)), [&] { fetch(stage(i), number(i * bytes), entries[size_t(i)]); });
      TileCommitOp::create(b); // a group even where nothing is left to copy: await counts groups
    }
    scf::YieldOp::create(b, entries.back());
    b.setInsertionPointToStart(branch.elseBlock());
    scf::YieldOp::create(b, number(0));
    ring.entry = branch.getResult(0);
  }

  /// Asks for what this warp loads when its pages are done with.
  void prefetchLater() {
    for (int64_t offset : {layout.valueVectors.factors, layout.valueVectors.means})
      if (offset >= 0)
        TilePrefetchOp::create(b, args[Slots], at(offset), uint64_t(cache.getHeadDim()) * sizeof(float));
    if (!hasWindows())
      return;
    // Not by getWindowRange: what it gives would be kept through the loop over pages, in registers that are not there.
    loop(ix.add(ix.max(first, pageEnd), warp), last, [&](Value block) {
      TilePrefetchOp::create(b, args[Slots], getWindowBlock(ix.sub(block, pageEnd)).at, uint64_t(layout.window.bytes));
    });
  }

  /// The page of a block, or of the last one that this warp may have.
  Value loadEntry(Value block) {
    Value there = arith::MinSIOp::create(b, block, arith::SubIOp::create(b, ring.last, number(1)));
    return memref::LoadOp::create(b, ring.table,
                                  toIndex(arith::DivUIOp::create(b, there, number(layout.blocksPerPage))));
  }

  /// Starts to copy a block of the page that `entry` is.
  void fetch(Value block, Value at, Value entry) {
    Value from = ix.mul(arith::IndexCastOp::create(b, b.getIndexType(), entry), layout.pageBytes);
    if (!ring.samePlace)
      from =
          ix.add(from, toIndex(arith::MulIOp::create(b, arith::RemUIOp::create(b, block, number(layout.blocksPerPage)),
                                                     number(layout.page.bytes))));
    TileFetchOp::create(b, ring.pages, from, ring.memory, toIndex(at), b.getI64IntegerAttr(layout.page.bytes));
  }

  /// A loop over the blocks of this warp, which come to its ring some iterations before they are needed.
  void buildStagedLoop(function_ref<void(Value block, Value memory, Value at)> body) {
    int64_t stages = schedule.getStages(), bytes = layout.page.bytes, step = schedule.getWarps();
    auto op = scf::ForOp::create(b, ring.first, ring.last, number(step),
                                 ValueRange{number(0), number((stages - 1) * bytes), ring.entry});
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(op.getBody());
    Value block = op.getInductionVar(), at = op.getRegionIterArg(0), free = op.getRegionIterArg(1),
          entry = op.getRegionIterArg(2);
    TileAwaitOp::create(b, b.getI64IntegerAttr(std::max<int64_t>(stages - 2, 0)));
    // What was computed last is done with: its memory takes the block that is needed last. Its page has been looked up
    // an iteration ago.
    Value ahead = arith::AddIOp::create(b, block, number((stages - 1) * step));
    ix.branch(compare(arith::CmpIPredicate::slt, ahead, ring.last), [&] { fetch(ahead, free, entry); });
    TileCommitOp::create(b);
    entry = loadEntry(arith::AddIOp::create(b, block, number(stages * step)));
    if (stages == 1)
      TileAwaitOp::create(b, b.getI64IntegerAttr(0));
    body(toIndex(block), ring.memory, toIndex(at));
    Value isLast = compare(arith::CmpIPredicate::eq, at, number((stages - 1) * bytes));
    Value next = arith::SelectOp::create(b, isLast, number(0), arith::AddIOp::create(b, at, number(bytes)));
    scf::YieldOp::create(b, ValueRange{next, at, entry});
  }

  /// A block of quantized tokens.
  void buildPageBlock(Value block, Value memory, Value at, Value query, const Prepared &prepared) {
    QuantAttr key = cache.getKey();
    Side keys = loadSide(Role::Key, memory, at);
    Prepared small = prepared;
    if (keys.placement == Placement::Operand) {
      Type element = halves ? getHalf(key.getElement()) : getOperandType(Role::Key);
      Folded folded = fold(halves ? prepared.values : query, keys, element);
      if (!halves)
        small = prepareFolded(folded, element);
      else if (needsSums(key, keys.placement))
        small = prepareHalves(folded.tile, cache.getHeadDim(), key.getElement());
      else
        small.sums = {};
      small.values = halves ? folded.tile : small.values;
      small.scales = halves ? prepared.scales : small.scales;
      small.offsets = folded.offsets;
    }
    if (halves && !(key.isQuantized() && needsSums(key, keys.placement)))
      small.sums = {};
    Ahead next = getAhead(Role::Key);
    Value logits = TileScoreOp::create(b, tileType(kBlockTokens), small.values, keys.data, keys.scales, getZeros(keys),
                                       small.sums, small.scales, small.offsets, attend.getKeyScalesAttr(),
                                       isHybrid(keys), next.memory, next.offset, next.bytes);
    logits = softcap(foldNorms(logits, keys), missing);
    // Blocks end early only where nothing is recent: tokens are quantized one by one, or later than the query's.
    bool endsEarly = !cache.getWindow().getRecent();
    if (endsEarly || firstReached) {
      int64_t sink = cache.getWindow().getSink();
      logits =
          mask(logits, ix.add(ix.mul(block, kBlockTokens), sink), endsEarly ? ix.add(quantizedTokens, sink) : Value());
    }
    Value weights = softmaxStep(logits, cache.getValue().getElement());
    accumulate(weights, loadSide(Role::Value, memory, at));
  }

  /// Logits, bounded if the model bounds them. `amounts` is what they lack, per head, or null.
  Value softcap(Value logits, Value amounts) {
    if (!attend.getSoftcap())
      return logits;
    auto cap = float(attend.getSoftcap()->convertToDouble() * std::numbers::log2e);
    return TileSoftcapOp::create(b, logits.getType(), logits, amounts, b.getF32FloatAttr(cap));
  }

  /// Logits of a block that begins with token `first` of the sequence and ends before token `valid`, or is whole,
  /// without those that a query does not see.
  Value mask(Value logits, Value first, Value valid) {
    return TileMaskOp::create(b, logits.getType(), logits, first, valid, firstReached, count ? tokens : Value(),
                              laterQueries, count ? b.getI64IntegerAttr(heads) : IntegerAttr());
  }

  /// Weights of a block, for values of `element`.
  Value softmaxStep(Value logits, Type element) {
    return TileSoftmaxStepOp::create(b, tileType(kBlockTokens, halves ? getHalf(element) : Type()), state, logits,
                                     exponent);
  }

  bool hasWindows() const { return layout.sinkBlocks || layout.recentBlocks; }
  /// The blocks of windows that this warp takes, in steps of warps.
  std::pair<Value, Value> getWindowRange() { return {ix.add(ix.monus(first, pageEnd), warp), ix.monus(last, pageEnd)}; }
  /// A block of the windows: which of the sinks or of the recent ones it is, and where it begins.
  struct WindowBlock {
    Value isSink, sink, recent, at;
  };
  WindowBlock getWindowBlock(Value block) {
    Value isSink = compare(arith::CmpIPredicate::slt, block, sinkBlocks);
    Value sink = plus(block, firstSink), recent = plus(ix.sub(block, sinkBlocks), firstRecent);
    Value ring = ix.rem(ix.add(pageBlocks, recent), std::max<int64_t>(layout.recentBlocks, 1));
    Value sinkAt = ix.add(ix.mul(sink, layout.window.bytes), layout.sinkOffset);
    Value recentAt = ix.add(ix.mul(ring, layout.window.bytes), layout.recentOffset);
    return {isSink, sink, recent, ix.add(slot, ix.select(isSink, sinkAt, recentAt))};
  }

  /// One block of full-precision tokens after the other; the last of each window may be partial.
  void buildWindowLoop(Value query) {
    if (!hasWindows())
      return;
    auto none = PlacementAttr::get(b.getContext(), Placement::None);
    Value queryScales;
    if (halves) {
      Prepared prepared = prepareHalves(query, cache.getHeadDim(), cache.getDtype());
      query = prepared.values;
      queryScales = prepared.scales;
    }
    auto [start, end] = getWindowRange();
    loop(start, end, [&](Value block) {
      auto [isSink, sink, recent, at] = getWindowBlock(block);
      Value recentStart = ix.add(sinkTokens, quantizedTokens);
      Value first = ix.select(isSink, ix.mul(sink, kBlockTokens), ix.add(recentStart, ix.mul(recent, kBlockTokens)));
      Value valid = ix.select(isSink, sinkTokens, ix.add(recentStart, recentTokens));
      Ahead nextKeys, nextValues;
      if (schedule.getAhead()) {
        Value next = getWindowBlock(getLater(block, 1, end)).at; // two ahead, half of the few would be left out
        nextKeys = getAhead(args[Slots], next, 0, layout.window.value.data);
        nextValues = getAhead(args[Slots], next, layout.window.value.data, layout.window.bytes);
      }
      Value keys = loadBlock(blocks.key.window, args[Slots], ix.add(at, layout.window.key.data));
      Value logits = TileScoreOp::create(b, tileType(kBlockTokens), query, keys, Value(), Value(), Value(), queryScales,
                                         Value(), none, UnitAttr(), nextKeys.memory, nextKeys.offset, nextKeys.bytes);
      logits = softcap(logits, Value());
      logits = mask(logits, first, valid);
      Value weights = softmaxStep(logits, cache.getDtype());
      Value values = loadBlock(blocks.value.window, args[Slots], ix.add(at, layout.window.value.data));
      TileAccumulateOp::create(b, state, weights, values, Value(), Value(), Value(), Value(), Value(), none, UnitAttr(),
                               nextValues.memory, nextValues.offset, nextValues.bytes);
    });
  }

  void loop(Value from, Value to, function_ref<void(Value)> body) {
    ix.loop(from, to, ix.constant(schedule.getWarps()), body);
  }

  /// Weights are 2^exponent of what they are, so that small ones are halves too: as large as leaves room for what folds
  /// into them.
  int64_t chooseExponent() {
    if (!halves)
      return 0;
    QuantAttr value = cache.getValue();
    bool folds = *attend.getValueScales() == Placement::Operand;
    // Scales of f8E4M3FN fill the range of their type, up to 448; others may be as large as halves.
    if (folds && isa<Float8E4M3FNType>(value.getScale()))
      return 3;
    return folds || value.getTransform<TokenNormAttr>() ? -1 : 10;
  }

  AttendOp attend;
  CacheType cache;
  ScheduleAttr schedule;
  CacheLayout layout;
  BlockTypes blocks;
  ImplicitLocOpBuilder &b;
  IndexBuilder ix;
  SmallVector<Value> args;
  int64_t queryHeads, heads;
  int64_t queries, rows; ///< of a work item; rows are queries x heads
  bool halves;           ///< products on tensor cores, by several warps
  int64_t exponent;
  Value queryRow, warp, kvHead, sequence, slot, state;
  Value missing;    ///< in the logits of quantized tokens, per head; null where nothing is, or where it is added later
  Value firstQuery; ///< of the sequence's that the work item has
  /// Where several queries share a work item: how many there are, and how many after the first; else null.
  Value count, laterQueries;
  Value keyMeans; ///< where they are; null without them
  Value tokens, quantizedTokens, pageBlocks, sinkTokens, sinkBlocks, recentTokens, first, last;
  Value pageEnd; ///< blocks of pages that the query reaches
  Value ahead;   ///< where the block of pages begins that is asked for early
  /// Where blocks of pages come to, counted from the first and to the last of this warp.
  struct {
    Value memory, first, last, table, pages;
    Value entry; ///< the page of the first stage that is fetched in the loop
    bool samePlace;
  } ring;
  /// Where the query, or the last of several, reaches some tokens only: the first of them, and the blocks of each kind
  /// before; null where it reaches all.
  Value firstReached, firstPage, firstSink, firstRecent;
};

void buildMerge(MergeOp merge, ImplicitLocOpBuilder &b, ValueRange args) {
  int64_t headDim = merge.getOut().getType().getShape().back();
  Value row = args[MergedRow], at = IndexBuilder{b}.mul(row, headDim);
  TileMergeOp::create(b, args[Outs], at, args[Lses], row, args[MergedParts], args[MergedRows], args[MergedOut], at,
                      args[MergedLse], row, /*queries=*/Value(), b.getI64IntegerAttr(1), b.getI64IntegerAttr(headDim),
                      IntegerAttr());
}

LogicalResult tileAttend(func::FuncOp func, AttendOp attend) {
  if (!attend.getSchedule() || !attend.getKeyScales() || !attend.getValueScales())
    return attend.emitOpError("expected schedule, key_scales and value_scales (run kv-place-scales and "
                              "kv-plan-schedule first), but got none");
  for (Placement placement : {*attend.getKeyScales(), *attend.getValueScales()})
    if (placement == Placement::Element)
      return attend.emitOpError("expected scales placed at none, accumulator, result or operand, but got element");
  if (attend.getSchedule()->getQueries() > 1 && attend.getReach().value_or(Reach::Full) == Reach::Chunked)
    return attend.emitOpError("expected a schedule of one query per work item with reach chunked, but got ")
           << attend.getSchedule()->getQueries();
  FailureOr<BlockTypes> blocks =
      chooseBlockTypes([&] { return attend.emitOpError(); }, attend.getCache().getType(), *attend.getSchedule());
  if (failed(blocks))
    return failure();
  Builder builder(func.getContext());
  auto memory = [](Type element) -> Type { return MemRefType::get({ShapedType::kDynamic}, element); };
  Type query = cast<RankedTensorType>(attend.getQuery().getType()).getElementType();
  Type out = cast<RankedTensorType>(attend.getOut().getType()).getElementType();
  Type bytes = memory(builder.getI8Type()), words = memory(builder.getI32Type()), floats = memory(builder.getF32Type()),
       index = builder.getIndexType();
  func::FuncOp tiled = replaceFunction(func,
                                       {memory(query), bytes, words, bytes, words, words, memory(out), floats, floats,
                                        floats, words, index, index, index, index, index, index, index, index},
                                       3);
  if (int64_t accumulators = attend.getSchedule()->getAccumulators())
    tiled->setAttr(kvcc::kAccumulatorsAttrName, builder.getI64IntegerAttr(accumulators));
  if (attend.getSchedule()->getCompute() == Compute::F16)
    tiled->setAttr(kvcc::kWarpsAttrName, builder.getI64IntegerAttr(attend.getSchedule()->getWarps()));
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
