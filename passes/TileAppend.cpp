// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tile functions of kv.append.
#include "passes/Passes.h"
#include "passes/TileBuilder.h"

using namespace mlir;
using namespace kvcc::kv;

namespace {

/// The arguments of a tile function, by name, in the order of the kernel's ABI.
enum AppendArg {
  Keys,
  Values,
  Pages,
  Table,
  Slots,
  SlotIds,
  Lens,
  NewLens,
  Given,
  TableStride,
  SequenceStride,
  TokenStride,
  HeadStride,
  Gives,
  Phases,
  Parts,
  Part,
  Head, ///< or, where sides are work items of their own, twice the head, and one more for values
  Seq
};

class AppendBuilder {
public:
  AppendBuilder(AppendOp append, const BlockTypes &blocks, bool hasBoth, ImplicitLocOpBuilder &b, ValueRange args)
      : cache(append.getCache().getType()), window(cache.getWindow()), layout(cache, *append.getSchedule()),
        givenLayout(cache), blocks(blocks), hasBoth(hasBoth), b(b), ix{b}, args(args.begin(), args.end()) {}

  void build() {
    for (AppendArg arg : {Gives, Phases, Parts, Part, Head, Seq})
      args[arg] = ix.bounded(args[arg], arg == Parts ? 1 : 0);
    head = hasBoth ? args[Head] : ix.div(args[Head], kvcc::kAppendSides);
    tokens = ix.loadCount(args[Lens], args[Seq]);
    old = ix.monus(tokens, ix.loadCount(args[NewLens], args[Seq]));
    slot = getSlot(ix, layout, args[SlotIds], args[Seq], head);
    source = ix.add(ix.mul(args[Seq], args[SequenceStride]), ix.mul(head, args[HeadStride]));
    oldQuantized = getQuantizedTokens(ix, window, old);
    quantized = getQuantizedTokens(ix, window, tokens);

    Value isFirst = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, old, ix.constant(0));
    ix.branch(has(kvcc::kAppendBegins), [&] { ix.branch(isFirst, [&] { begin(); }); });
    tile = TileScratchOp::create(b, VectorType::get({kBlockTokens, cache.getHeadDim()}, b.getF32Type()));
    ix.branch(has(kvcc::kAppendQuantizes), [&] { quantize(); });
    ix.branch(has(kvcc::kAppendFillsWindows), [&] { fillWindows(); });
  }

private:
  /// Whether a phase is to be done.
  Value has(int64_t phase) {
    Value bit = ix.rem(ix.div(args[Phases], phase), 2);
    return arith::CmpIOp::create(b, arith::CmpIPredicate::ne, bit, ix.constant(0));
  }
  /// What is to be done for keys and for values, or for the one that the work item has.
  void forEachSide(function_ref<void(bool isKey)> body) {
    for (bool isKey : {true, false}) {
      if (hasBoth) {
        body(isKey);
        continue;
      }
      Value side = ix.rem(args[Head], kvcc::kAppendSides);
      Value isIt = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, side, ix.constant(isKey ? 0 : 1));
      ix.branch(isIt, [&] { body(isKey); });
    }
  }
  /// 1 if what the bit stands for is given, else 0.
  Value gives(int64_t what) { return ix.rem(ix.div(args[Gives], what), 2); }
  /// What must be added to `source` for a token; of an earlier token than the new ones, minus something.
  Value getRow(Value token) { return ix.add(source, ix.mul(ix.sub(token, old), args[TokenStride])); }
  Value clampRows(Value count) { return ix.max(ix.min(count, ix.constant(kBlockTokens)), ix.constant(0)); }
  const VectorLayout &getVectors(bool isKey) const { return isKey ? layout.keyVectors : layout.valueVectors; }
  QuantAttr getQuant(bool isKey) { return isKey ? cache.getKey() : cache.getValue(); }
  Value at(int64_t offset) { return offset < 0 ? Value() : ix.add(slot, offset); }

  /// Windows of zeros, and what transforms need to know.
  void begin() {
    forEachSide([&](bool isKey) {
      int64_t values = layout.window.value.data, bytes = isKey ? values : layout.window.bytes - values;
      Value windows = at(layout.sinkOffset + (isKey ? 0 : values));
      ix.loop(ix.constant(0), ix.constant(layout.sinkBlocks + layout.recentBlocks), ix.constant(1), [&](Value block) {
        TileClearOp::create(b, args[Slots], ix.add(windows, ix.mul(block, layout.window.bytes)), bytes);
      });
      auto [factors, means] = getVectors(isKey);
      if (factors < 0 && means < 0)
        return;
      Value given = ix.add(ix.mul(head, givenLayout.headExtent), isKey ? givenLayout.key : givenLayout.value);
      TileMeasureOp::create(b, args[isKey ? Keys : Values], source, args[TokenStride], tokens, args[Given], given,
                            gives(isKey ? kvcc::kGivesKeyMeans : kvcc::kGivesValueMeans), args[Slots], at(factors),
                            at(means), cache.getHeadDim(), getQuant(isKey));
    });
  }

  Value load(BlockType type, Value memory, Value offset) {
    return type ? TileLoadOp::create(b, type, memory, offset).getResult() : Value();
  }

  /// Blocks that have left the recent window, one after the other.
  void quantize() {
    bool oneByOne = window.getFlush() % kBlockTokens;
    // Each part has blocks that follow each other.
    Value first = ix.div(oldQuantized, kBlockTokens);
    Value count = ix.monus(ix.ceilDiv(quantized, kBlockTokens), first);
    Value share = ix.div(count, args[Parts]), rest = ix.rem(count, args[Parts]);
    auto bound = [&](Value part) { return ix.add(first, ix.add(ix.mul(part, share), ix.min(part, rest))); };
    ix.loop(bound(args[Part]), bound(ix.add(args[Part], 1)), ix.constant(1), [&](Value block) {
      Value token = ix.add(ix.mul(block, kBlockTokens), window.getSink());
      Value from = clampRows(ix.sub(old, token));
      Value to = clampRows(ix.sub(quantized, ix.mul(block, kBlockTokens)));
      Value page = getPageBlock(ix, layout, args[Table], ix.mul(args[Seq], args[TableStride]), head, block);
      Value ring = ix.add(ix.mul(ix.rem(block, layout.recentBlocks), layout.window.bytes), layout.recentOffset);
      Value end = ix.constant(kBlockTokens);
      if (oneByOne) {
        // A block that begins gets zeros after its tokens, and keeps those until there are more.
        Value begins = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, from, ix.constant(0));
        end = ix.select(begins, end, to);
      }
      forEachSide([&](bool isKey) {
        const SideTypes &types = isKey ? blocks.key : blocks.value;
        const SideLayout &windowSide = isKey ? layout.window.key : layout.window.value;
        Value waiting;
        if (!oneByOne)
          waiting = load(types.window, args[Slots], ix.add(ix.add(slot, ring), windowSide.data));
        bool oriented = gather(isKey, waiting, getRow(token), from, to, end);
        encode(isKey, page, oneByOne ? from : Value(), oneByOne ? end : Value(), oriented);
      });
    });
  }

  /// Brings the tokens of a block into the tile, and says whether it is oriented.
  bool gather(bool isKey, Value waiting, Value offset, Value from, Value to, Value end) {
    QuantAttr quant = getQuant(isKey);
    // Rotations and norms want rows.
    bool oriented = TileEncodeOp::hasTokenLanes(quant, isKey) && !quant.getTransform<HadamardAttr>() &&
                    !quant.getTransform<TokenNormAttr>();
    auto [factors, means] = getVectors(isKey);
    auto memory = [&](int64_t offset) { return offset < 0 ? Value() : args[Slots]; };
    TileGatherOp::create(b, tile, waiting, args[isKey ? Keys : Values], offset, args[TokenStride], from, to, end,
                         memory(means), at(means), memory(factors), at(factors), oriented);
    return oriented;
  }

  /// Writes the tile into a block of a page, or only rows `from` to `to`.
  void encode(bool isKey, Value page, Value from, Value to, bool oriented) {
    QuantAttr quant = getQuant(isKey);
    const SideTypes &types = isKey ? blocks.key : blocks.value;
    const SideLayout &side = isKey ? layout.page.key : layout.page.value;
    if (auto rotation = quant.getTransform<HadamardAttr>())
      TileRotateRowsOp::create(b, tile, from, to, uint64_t(rotation.getSize()));
    if (types.norms)
      TileNormalizeTokensOp::create(b, tile, load(types.norms, args[Pages], ix.add(page, side.norms)),
                                    from ? from : ix.constant(0), to ? to : ix.constant(kBlockTokens));
    auto in = [&](BlockType type, int64_t offset) { return load(type, args[Pages], ix.add(page, offset)); };
    Value weights, offset, givesWeights;
    if (quant.getFeedback()) {
      weights = args[Given];
      offset = ix.add(ix.mul(head, givenLayout.headExtent), givenLayout.weights);
      givesWeights = gives(kvcc::kGivesWeights);
    }
    TileEncodeOp::create(b, tile, in(types.data, side.data), in(types.scales, side.scales),
                         in(quant.hasZeros() ? types.scales : BlockType(), side.zeros), from, to, weights, offset,
                         givesWeights, quant, oriented);
  }

  /// New tokens that stay in full precision.
  void fillWindows() {
    Value sink = ix.constant(window.getSink());
    if (window.getSink())
      copy(ix.div(old, kBlockTokens), ix.ceilDiv(ix.min(tokens, sink), kBlockTokens), ix.constant(0), old,
           ix.min(tokens, sink), layout.sinkOffset, layout.sinkBlocks);
    if (layout.recentBlocks) {
      // Also tokens that are quantized already, but may be recent again when later ones are taken back.
      Value kept = getQuantizedTokens(ix, window, ix.monus(tokens, ix.constant(window.getRollback())));
      Value first = ix.max(ix.monus(old, sink), kept), last = ix.monus(tokens, sink);
      copy(ix.div(first, kBlockTokens), ix.ceilDiv(last, kBlockTokens), sink, first, last, layout.recentOffset,
           layout.recentBlocks);
    }
  }

  /// Copies tokens `from` to `to`, counted from token `base`, which lie in blocks `first` to `last` of a ring.
  void copy(Value first, Value last, Value base, Value from, Value to, int64_t offset, int64_t blocksOfRing) {
    // Parts take turns.
    ix.loop(ix.add(first, args[Part]), last, args[Parts], [&](Value block) {
      Value token = ix.mul(block, kBlockTokens);
      Value start = ix.add(ix.add(ix.mul(ix.rem(block, blocksOfRing), layout.window.bytes), slot), offset);
      forEachSide([&](bool isKey) {
        const SideLayout &side = isKey ? layout.window.key : layout.window.value;
        Value target = load(isKey ? blocks.key.window : blocks.value.window, args[Slots], ix.add(start, side.data));
        TileWriteRowsOp::create(b, args[isKey ? Keys : Values], getRow(ix.add(token, base)), args[TokenStride],
                                clampRows(ix.sub(from, token)), clampRows(ix.sub(to, token)), target);
      });
    });
  }

  CacheType cache;
  WindowAttr window;
  CacheLayout layout;
  GivenLayout givenLayout;
  const BlockTypes &blocks;
  bool hasBoth; ///< sides of a head in a work item
  ImplicitLocOpBuilder &b;
  IndexBuilder ix;
  SmallVector<Value> args;
  Value head, tokens, old, slot, source, oldQuantized, quantized, tile;
};

} // namespace

LogicalResult kvcc::kv::tileAppend(func::FuncOp func, AppendOp append) {
  if (!append.getSchedule())
    return append.emitOpError("expected a schedule (run kv-plan-schedule first), but got none");
  CacheType cache = append.getCache().getType();
  FailureOr<BlockTypes> blocks = chooseBlockTypes([&] { return append.emitOpError(); }, cache, *append.getSchedule());
  if (failed(blocks))
    return failure();
  Builder builder(func.getContext());
  auto memory = [](Type element) -> Type { return MemRefType::get({ShapedType::kDynamic}, element); };
  Type numbers = memory(cache.getDtype()), bytes = memory(builder.getI8Type()), words = memory(builder.getI32Type()),
       floats = memory(builder.getF32Type());
  SmallVector<Type> types{numbers, numbers, bytes, words, bytes, words, words, words, floats};
  types.append(10, builder.getIndexType());
  func::FuncOp tiled = replaceFunction(func, types, 3);
  ImplicitLocOpBuilder b = ImplicitLocOpBuilder::atBlockEnd(append.getLoc(), &tiled.front());
  // Both sides wait for memory, on a GPU at the same time.
  auto target = func->getParentOfType<ModuleOp>()->getAttrOfType<TargetAttr>(kvcc::kTargetAttrName);
  bool hasBoth = !target || target.getKind() == TargetKind::Cpu;
  AppendBuilder(append, *blocks, hasBoth, b, tiled.getArguments()).build();
  func::ReturnOp::create(b);
  return success();
}
