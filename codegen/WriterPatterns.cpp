// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tile operations of writers, lowered once for all targets: one pattern per operation.
#include "codegen/GroupCodec.h"
#include "codegen/LaneBuilder.h"

#include "dialect/Fragments.h"
#include "dialect/Layout.h"
#include "dialect/Quantization.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;

namespace {

template <typename Op> struct WriterPattern : OpConversionPattern<Op> {
  WriterPattern(const TypeConverter &converter, MLIRContext *context, const MakeLaneBuilder &makeBuilder)
      : OpConversionPattern<Op>(converter, context), makeBuilder(makeBuilder) {}
  using Adaptor = typename Op::Adaptor;

  LogicalResult matchAndRewrite(Op op, Adaptor in, ConversionPatternRewriter &rewriter) const override {
    std::unique_ptr<LaneBuilder> b = makeBuilder(op.getLoc(), rewriter);
    lower(op, in, *b);
    rewriter.eraseOp(op);
    return success();
  }
  virtual void lower(Op op, Adaptor in, LaneBuilder &b) const = 0;

  MakeLaneBuilder makeBuilder;
};

int64_t columnsOf(Value tile) { return cast<VectorType>(tile.getType()).getDimSize(1); }

/// A vector of the cache, at a byte offset; null for none.
Value viewVector(LaneBuilder &b, Value bytes, Value offset, int64_t extent) {
  if (!bytes || !offset)
    return {};
  return memref::ViewOp::create(b, MemRefType::get({extent}, b.getF32Type()), bytes, offset, ValueRange());
}

/// Where numbers and scales lie in a block, for packings with tiles of one reduced index and for fragments.
struct OrderBuilder {
  Order order;
  int64_t freeTile, freeExtent, reduceExtent;

  OrderBuilder(BlockType block)
      : order(block.getPacking().getOrder()), freeTile(block.getPacking().getFreeTile()),
        freeExtent(block.getFreeExtent()), reduceExtent(block.getReduceExtent()) {}
  /// Of the lanes from free index `free` on, which share a free tile.
  Value at(LaneBuilder &b, Value free, Value reduce) const {
    if (order != Order::Tiles)
      return atFragment(b, free, reduce);
    if (freeTile == 1)
      return b.addIndex(b.mulIndex(free, reduceExtent), reduce);
    Value tile = b.mulIndex(b.divIndex(free, freeTile), freeTile * reduceExtent);
    return b.addIndex(b.addIndex(tile, b.mulIndex(reduce, freeTile)), b.remIndex(free, freeTile));
  }
  /// Whether lanes that are tokens are neighbours in memory, not those that are channels: free indices of tiles,
  /// reduced ones of fragments.
  bool lanesAreTokens(bool isKey) const { return isKey == (order == Order::Tiles); }
  Value at(LaneBuilder &b, bool isKey, Value token, Value channel) const {
    return isKey ? at(b, token, channel) : at(b, channel, token);
  }

private:
  /// As kv::ElementOrder, of one lane.
  Value atFragment(LaneBuilder &b, Value free, Value reduce) const {
    Value inTile = b.remIndex(free, 16), inStep = b.remIndex(reduce, 16);
    Value u = b.addIndex(b.mulIndex(b.divIndex(free, 16), 2), b.remIndex(free, 2)), gid = b.divIndex(inTile, 2);
    if (order == Order::FragmentRows)
      return b.addIndex(b.mulIndex(b.addIndex(b.mulIndex(gid, freeExtent / 8), u), reduceExtent), reduce);
    Value n = b.addIndex(b.mulIndex(b.divIndex(reduce, 16), 2), b.remIndex(reduce, 2));
    Value tig = b.divIndex(inStep, 4), e = b.divIndex(b.remIndex(reduce, 4), 2);
    if (order == Order::FragmentColumns)
      return b.addIndex(b.addIndex(b.mulIndex(free, reduceExtent), b.mulIndex(tig, reduceExtent / 4)),
                        b.addIndex(b.mulIndex(n, 2), e));
    // Numbers of 16 bits: chunks of 4 * 2^k pairs n have 4 * 2^k rows' worth of words, one row's after the other.
    FragmentOrder fragments(freeExtent, reduceExtent, 16);
    Value row = b.remIndex(u, 4), word;
    for (int64_t first = 0; first < reduceExtent / 8;) {
      FragmentOrder::Chunk chunk = fragments.getChunk(first);
      int64_t lines = chunk.getLines();
      Value line = b.addIndex(b.remIndex(row, lines), first / 4);
      Value position =
          b.addIndex(b.mulIndex(b.divIndex(row, lines), chunk.extent), arith::SubIOp::create(b, n, b.index(first)));
      Value inUnit = b.addIndex(b.mulIndex(line, 16), position);
      Value isLater = arith::CmpIOp::create(b, arith::CmpIPredicate::uge, n, b.index(first));
      word = word ? b.select(isLater, inUnit, word) : inUnit;
      first += chunk.extent;
    }
    word = b.addIndex(b.mulIndex(b.divIndex(u, 4), fragments.getLinesPerUnit() * 16), word);
    Value lane = b.addIndex(b.mulIndex(gid, 4), tig);
    Value at = b.addIndex(b.mulIndex(b.divIndex(word, 4), 128), b.addIndex(b.mulIndex(lane, 4), b.remIndex(word, 4)));
    return b.addIndex(b.mulIndex(at, 2), e);
  }
};

struct ScratchPattern : OpConversionPattern<TileScratchOp> {
  ScratchPattern(const TypeConverter &converter, MLIRContext *context, const MakeLaneBuilder &makeBuilder)
      : OpConversionPattern(converter, context), makeBuilder(makeBuilder) {}
  LogicalResult matchAndRewrite(TileScratchOp op, OpAdaptor, ConversionPatternRewriter &rewriter) const override {
    std::unique_ptr<LaneBuilder> b = makeBuilder(op.getLoc(), rewriter);
    rewriter.replaceOp(op, b->makeTile(cast<VectorType>(op.getTile().getType()).getShape()));
    return success();
  }
  MakeLaneBuilder makeBuilder;
};

struct GatherPattern : WriterPattern<TileGatherOp> {
  using WriterPattern::WriterPattern;
  void lower(TileGatherOp op, OpAdaptor in, LaneBuilder &b) const override {
    int64_t columns = columnsOf(op.getTile());
    Value factors = viewVector(b, in.getFactors(), in.getFactorsOffset(), columns);
    Value means = viewVector(b, in.getMeans(), in.getMeansOffset(), columns);
    Value inverses = factors ? b.scratch({columns}, b.getF32Type()) : Value();
    if (factors) {
      b.forLanes(columns, [&](Value channel) {
        b.storeLanes(b.div(b.f32(1), b.loadLanes(factors, channel)), inverses, channel);
      });
      b.barrier();
    }
    auto transformed = [&](Value number, Value channel) {
      if (factors)
        number = b.mul(number, b.loadLanes(inverses, channel));
      return means ? b.sub(number, b.loadLanes(means, channel)) : number;
    };
    if (in.getBlock()) {
      Value any = arith::CmpIOp::create(b, arith::CmpIPredicate::ne, in.getFrom(), b.index(0));
      b.branch(any, [&] {
        loadWindow(op, in, b, columns);
        if (factors || means)
          b.loopAbreast(b.index(0), in.getFrom(), [&](Value row) {
            b.forLanes(columns, [&](Value channel) {
              b.storeLanes(transformed(b.loadLanes(in.getTile(), {row, channel}), channel), in.getTile(),
                           {row, channel});
            });
          });
      });
    }
    // The rows that follow these are those of the next block.
    Value ahead = b.mulIndex(in.getStride(), kBlockTokens);
    auto load = [&](Value row, Value channel) {
      Value start = b.addIndex(in.getOffset(), arith::MulIOp::create(b, row, in.getStride()));
      Value at = b.addIndex(start, channel), raw = b.loadLanes(in.getSource(), at);
      b.prefetch(in.getSource(), b.addIndex(at, ahead));
      return transformed(b.decodeNumber(raw, op.getSource().getType().getElementType()), channel);
    };
    Rows rows{in.getFrom(), in.getTo()}, held = in.getBlock() ? Rows() : Rows{rows.from, in.getEnd()};
    if (op.getOriented())
      b.fillOriented(in.getTile(), rows, in.getEnd(), load, held);
    else
      b.fillRows(in.getTile(), rows, in.getEnd(), load, held);
    b.barrier();
  }

private:
  /// All rows of a block of a window; those from `from` on are overwritten after that.
  static void loadWindow(TileGatherOp op, OpAdaptor in, LaneBuilder &b, int64_t columns) {
    BlockType block = op.getBlock().getType();
    OrderBuilder order(block);
    auto load = [&](Value token, Value channel) {
      return b.decodeNumber(b.loadLanes(in.getBlock(), order.at(b, block.isKey(), token, channel)), block.getElement());
    };
    if (order.lanesAreTokens(block.isKey()))
      b.forLaneParts(kBlockTokens, {}, columns, [&](Value token, Value channel) {
        b.storeColumn(load(token, channel), in.getTile(), channel, token);
      });
    else
      b.loopAbreast(b.index(0), in.getFrom(), [&](Value token) {
        b.forLanes(columns, [&](Value channel) { b.storeLanes(load(token, channel), in.getTile(), {token, channel}); });
      });
    b.barrier();
  }
};

struct RotateRowsPattern : WriterPattern<TileRotateRowsOp> {
  using WriterPattern::WriterPattern;
  void lower(TileRotateRowsOp op, OpAdaptor in, LaneBuilder &b) const override {
    b.rotateRows(in.getTile(), int64_t(op.getSize()), {in.getFrom(), in.getTo()});
  }
};

/// 1 in the lanes that are among `rows`; null if all are.
Value isAmong(LaneBuilder &b, const Rows &rows, Value firstLane) {
  if (!rows.from)
    return {};
  Value lanes = b.laneIndices(firstLane);
  auto compare = [&](arith::CmpIPredicate predicate, Value bound) {
    return arith::CmpIOp::create(b, predicate, lanes, b.i32(bound));
  };
  return arith::AndIOp::create(b, compare(arith::CmpIPredicate::sge, rows.from),
                               compare(arith::CmpIPredicate::slt, rows.to));
}

struct NormalizeTokensPattern : WriterPattern<TileNormalizeTokensOp> {
  using WriterPattern::WriterPattern;
  void lower(TileNormalizeTokensOp op, OpAdaptor in, LaneBuilder &b) const override {
    int64_t columns = columnsOf(op.getTile());
    Type type = op.getNorms().getType().getElement();
    Value factors = b.scratch({1, kBlockTokens}, b.getF32Type()), zero = b.index(0);
    Rows rows{in.getFrom(), in.getTo()};
    b.orient(in.getTile(), rows);
    b.forLanesAmong(kBlockTokens, rows, [&](Value token) {
      Value squares = b.loop(zero, b.index(columns), b.f32(0), [&](Value channel, ValueRange sums) {
        Value number = b.loadColumn(in.getTile(), channel, token);
        return SmallVector<Value>{b.fma(number, number, sums[0])};
      })[0];
      Value rms = b.sqrt(b.div(squares, b.f32(float(columns)))), largest = b.f32(getLargestScale(type));
      rms = b.select(b.less(rms, largest), rms, largest);
      Value factor = b.decodeNumber(b.encodeNumber(rms, type, /*up=*/false), type);
      // Zero, of a token or of what is left of it, is divided by 1.
      Value isZero = arith::OrIOp::create(b, arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, rms, b.f32(0)),
                                          arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, factor, b.f32(0)));
      factor = b.select(isZero, b.f32(1), factor);
      b.storeLanes(factor, factors, {zero, token});
      b.storeLanes(b.encodeNumber(factor, type, /*up=*/false), in.getNorms(), token, isAmong(b, rows, token));
    });
    b.barrier();
    b.orientBack(in.getTile(), rows);
    b.loopAbreast(rows.from, rows.to, [&](Value row) {
      Value factor = b.splat(memref::LoadOp::create(b, factors, ValueRange{zero, row}));
      b.forLanes(columns, [&](Value channel) {
        b.storeLanes(b.div(b.loadLanes(in.getTile(), {row, channel}), factor), in.getTile(), {row, channel});
      });
    });
    b.barrier();
  }
};

/// The codes of a block before they are packed, and how. They stand as bits in a writer's tile, where numbers have
/// been, or as bytes in memory of their own, [reduced][free].
class CodeMatrix {
public:
  /// `inTile`: in a tile, whose rows are tokens.
  CodeMatrix(LaneBuilder &b, BlockType block, Value tile, bool inTile)
      : b(b), block(block), bits(block.getElement().getIntOrFloatBitWidth()),
        freeTile(block.getPacking().getFreeTile()), reduceTile(block.getPacking().getReduceTile()),
        lanes(std::max<int64_t>(block.getPacking().getLanes() / freeTile, 1)), width(reduceTile / lanes),
        fragments(block.getPacking().getOrder() == Order::Fragments), tile(tile) {
    if (!inTile)
      bytes = b.scratchMatrix({block.getReduceExtent(), block.getFreeExtent()}, b.getI8Type());
  }

  bool isInTile() const { return !bytes; }
  /// Whether the codes of a tile are words of one lane.
  bool hasTiles() const { return !fragments; }
  /// Into the bytes, codes (i32) of lanes that are free indices, or reduced ones.
  void storeByte(Value code, bool lanesAreFree, Value lane, Value other) {
    Value byte = arith::TruncIOp::create(b, b.typed(b.getI8Type()), code);
    if (lanesAreFree)
      b.storeLanes(byte, bytes, {other, lane});
    else
      b.storeColumn(byte, bytes, other, lane);
  }
  /// The codes stand in the tile, which may be oriented: brings them where lanes that are free indices find them.
  void settle(bool isOriented, const Rows &rows) {
    if (block.isKey() && !isOriented)
      b.orient(tile, rows);
    if (!block.isKey() && isOriented)
      b.orientBack(tile, rows);
  }

  /// Writes the codes of these rows, which are tokens, into a block; with row 0, nothing that the block holds counts.
  void pack(Value data, const Rows &rows) {
    if (fragments) {
      if (rows.from)
        b.branch(isInside(rows), [&] { keepFragments(data, rows); });
      return packFragments(data);
    }
    auto packTiles = [&](const Rows &among) {
      b.forLanesAmong(block.getFreeExtent(), among, [&](Value free) {
        b.loop(b.index(0), b.index(block.getReduceExtent() / reduceTile), [&](Value tile) {
          Value first = b.mulIndex(tile, reduceTile);
          packTile(
              data, getFirstWord(free, tile), [&](Value r) { return load(free, b.addIndex(first, r)); },
              isAmong(b, among, free));
        });
      });
    };
    if (block.isKey()) // tokens have words of their own
      return packTiles(rows);
    if (!rows.from)
      return packTiles({});
    b.branch(isInside(rows), [&] { insert(data, rows); }, [&] { packTiles({}); });
  }

  /// Writes the codes of one tile, from a word on; `code(r)` is that of a reduced index of the tile, and may have other
  /// bits as GroupCodec::encode gives them. `mask`: of lanes.
  void packTile(Value data, Value firstWord, function_ref<Value(Value r)> code, Value mask = {}) {
    // What does not belong to a word is above it, and goes once, or is above 32 bits (widths are powers of two).
    bool goesOnce = width < GroupCodec::kFirstOtherBit;
    // The words of one lane of each free index; those of its other lanes stand beside them in the same 32 bits.
    auto packLane = [&](Value lane) {
      SmallVector<Value> words;
      words.resize(size_t(bits));
      for (int64_t c = 0; c < width; ++c) {
        Value number = code(b.addIndex(lane, c * lanes));
        if (!goesOnce)
          number = b.bitAnd(number, int32_t((1 << bits) - 1));
        int64_t word = c * bits / width, shift = c * bits % width, low = std::min(bits, width - shift);
        auto put = [&](int64_t into, Value part) {
          Value &all = words[size_t(into)];
          all = all ? b.bitOr(all, part) : part;
        };
        // What a code has beyond the word belongs to the next one, too.
        put(word, b.shiftLeft(number, shift));
        if (low < bits)
          put(word + 1, b.shiftRight(number, low));
      }
      if (goesOnce)
        for (Value &word : words)
          word = b.bitAnd(word, int32_t((1 << width) - 1));
      return words;
    };
    SmallVector<Value> words;
    if (lanes == 1)
      words = packLane(b.index(0));
    else // a loop: unrolled, it would take most of the time that the kernel compiles
      words = b.loop(b.index(0), b.index(lanes), SmallVector<Value>(size_t(bits), b.i32(0)),
                     [&](Value lane, ValueRange before) {
                       SmallVector<Value> after = packLane(lane);
                       for (auto [all, word] : llvm::zip_equal(before, after))
                         word = b.bitOr(all, b.shiftLeft(word, getShift(lane)));
                       return after;
                     });
    for (int64_t word = 0; word < bits; ++word)
      b.storeWords(words[size_t(word)], data, b.addIndex(firstWord, word * freeTile), mask);
  }

  /// The first word of the tile of a free and a reduced index.
  Value getFirstWord(Value free, Value tile) {
    int64_t tiles = block.getReduceExtent() / reduceTile;
    Value number = b.addIndex(b.mulIndex(b.divIndex(free, freeTile), tiles), tile);
    return b.addIndex(b.mulIndex(number, bits * freeTile), b.remIndex(free, freeTile));
  }
  int64_t getReduceTile() const { return reduceTile; }

private:
  Value isInside(const Rows &rows) { return arith::CmpIOp::create(b, arith::CmpIPredicate::ne, rows.from, b.index(0)); }

  /// Writes the codes of rows, which are reduced indices, between others that stay.
  void insert(Value data, const Rows &rows) {
    int32_t mask = (1 << bits) - 1;
    b.loop(rows.from, rows.to, [&](Value row) {
      Value inTile = b.remIndex(row, reduceTile), bit = b.mulIndex(b.divIndex(inTile, lanes), bits);
      Value word = b.divIndex(bit, width), shift = b.remIndex(bit, width);
      Value laneShift = getShift(b.remIndex(inTile, lanes)), inWord = b.i32(shift);
      b.forLanes(block.getFreeExtent(), [&](Value free) {
        Value code = b.bitAnd(load(free, row), mask);
        Value first = b.addIndex(getFirstWord(free, b.divIndex(row, reduceTile)), b.mulIndex(word, freeTile));
        // Bits of a lane's word, shifted to where they are: the others stay.
        auto put = [&](Value at, Value part, Value field) {
          if (width < 32) {
            part = b.bitAnd(part, (1 << width) - 1);
            field = b.bitAnd(field, (1 << width) - 1);
          }
          Value others = b.shiftLeft(field, laneShift);
          others = arith::XOrIOp::create(b, others, b.i32(-1));
          others = arith::AndIOp::create(b, b.loadWords(data, at), others);
          b.storeWords(b.bitOr(others, b.shiftLeft(part, laneShift)), data, at);
        };
        put(first, b.shiftLeft(code, inWord), b.shiftLeft(b.i32(mask), inWord));
        if (width % bits == 0)
          return;
        Value low = arith::SubIOp::create(b, b.index(width), shift);
        b.branch(arith::CmpIOp::create(b, arith::CmpIPredicate::ult, low, b.index(bits)), [&] {
          put(b.addIndex(first, freeTile), b.shiftRight(code, b.i32(low)), b.shiftRight(b.i32(mask), b.i32(low)));
        });
      });
    });
  }

  /// A line of a lane's words: where its first word is, and the elements of its 16 pairs.
  struct Line {
    int64_t chunk, first; ///< indices n that it has, and the first of them
    Value row, gid, tig;  ///< of its first pair
    Value firstWord, lane;
  };
  void forEachLine(function_ref<void(const Line &)> body) {
    FragmentOrder order(block.getFreeExtent(), block.getReduceExtent(), unsigned(bits));
    for (int64_t first = 0; first < block.getReduceExtent() / 8;) {
      FragmentOrder::Chunk chunk = order.getChunk(first);
      int64_t lines = chunk.getLines();
      b.forLaneParts(32, {}, block.getFreeExtent() / 32 * lines, [&](Value lane, Value part) {
        Value gid = b.divIndex(lane, 4), tig = b.remIndex(lane, 4);
        Value unit = b.divIndex(part, lines), row = b.remIndex(part, lines);
        Value line = b.addIndex(b.addIndex(b.mulIndex(unit, order.getLinesPerUnit()), row), first / 4);
        body({chunk.extent, first, b.addIndex(b.mulIndex(unit, 4), row), gid, tig, b.mulIndex(line, bits), lane});
      });
      first += chunk.extent;
    }
  }
  /// Calls `body(free, reduce, pieces, e)` for the codes of a line.
  void forEachCode(const Line &line, function_ref<void(Value, Value, ArrayRef<CodePiece>, int64_t)> body) {
    for (int64_t u = 0; u < 16 / line.chunk; ++u) // rows, in steps of as many lines as the chunk has
      for (int64_t n = 0; n < line.chunk; ++n)
        for (int64_t e = 0; e < 2; ++e) {
          int64_t rows = u * (line.chunk / 4), pair = line.first + n;
          Value row = b.addIndex(line.row, rows);
          Value free =
              b.addIndex(b.addIndex(b.mulIndex(b.divIndex(row, 2), 16), b.remIndex(row, 2)), b.mulIndex(line.gid, 2));
          Value reduce = b.addIndex(b.mulIndex(line.tig, 4), getReduceIndex(pair, 0, e));
          body(free, reduce, getCodePieces(unsigned(bits), getLinePosition(unsigned(bits), line.chunk, rows, n)), e);
        }
  }
  /// Word `word` of a line, in words from the start of the block, as FragmentOrder::getWord.
  Value getWord(const Line &line, int64_t word) {
    int64_t words = block.getFreeExtent() * block.getReduceExtent() * bits / 32 / 32, fours = words / 4 * 4;
    Value x = b.addIndex(line.firstWord, word);
    Value at = b.addIndex(b.mulIndex(b.divIndex(x, 4), 128), b.addIndex(b.mulIndex(line.lane, 4), b.remIndex(x, 4)));
    auto from = [&](int64_t first, Value other) {
      Value isThere = arith::CmpIOp::create(b, arith::CmpIPredicate::uge, x, b.index(first));
      at = b.select(isThere, other, at);
    };
    if (words % 4 >= 2)
      from(fours, b.addIndex(b.addIndex(b.mulIndex(line.lane, 2), x), fours * 31));
    if (words % 2)
      from(words - 1, b.addIndex(line.lane, (words - 1) * 32));
    return at;
  }

  void packFragments(Value data) {
    forEachLine([&](const Line &line) {
      SmallVector<Value> words;
      words.resize(size_t(bits));
      forEachCode(line, [&](Value free, Value reduce, ArrayRef<CodePiece> pieces, int64_t e) {
        Value code = load(free, reduce);
        for (const CodePiece &piece : pieces) {
          Value part = b.bitAnd(code, ((1 << piece.count) - 1) << piece.from);
          int64_t shift = piece.bit + 16 * e - piece.from;
          part = shift < 0 ? b.shiftRight(part, -shift) : b.shiftLeft(part, shift);
          Value &word = words[size_t(piece.word)];
          word = word ? b.bitOr(word, part) : part;
        }
      });
      for (int64_t word = 0; word < bits; ++word)
        b.storeWords(words[size_t(word)], data, getWord(line, word));
    });
  }

  /// Takes from a block what the tile does not have: the codes of other rows.
  void keepFragments(Value data, const Rows &rows) {
    forEachLine([&](const Line &line) {
      SmallVector<Value> words;
      for (int64_t word = 0; word < bits; ++word)
        words.push_back(b.loadWords(data, getWord(line, word)));
      forEachCode(line, [&](Value free, Value reduce, ArrayRef<CodePiece> pieces, int64_t e) {
        Value row = block.isKey() ? free : reduce;
        Value isOther = arith::OrIOp::create(b, arith::CmpIOp::create(b, arith::CmpIPredicate::ult, row, rows.from),
                                             arith::CmpIOp::create(b, arith::CmpIPredicate::uge, row, rows.to));
        b.branch(isOther, [&] {
          Value code;
          for (const CodePiece &piece : pieces) {
            int64_t shift = piece.bit + 16 * e - piece.from;
            Value part = words[size_t(piece.word)];
            part = shift < 0 ? b.shiftLeft(part, -shift) : b.shiftRight(part, shift);
            part = b.bitAnd(part, ((1 << piece.count) - 1) << piece.from);
            code = code ? b.bitOr(code, part) : part;
          }
          store(code, free, reduce);
        });
      });
    });
    b.barrier();
  }

  /// Where the word of a lane begins in 32 bits.
  Value getShift(Value lane) { return b.i32(b.mulIndex(lane, width)); }
  Value load(Value free, Value reduce) {
    if (!isInTile())
      return arith::ExtUIOp::create(b, b.i32Type(), b.loadLanes(bytes, {reduce, free}));
    return b.bitsOf(block.isKey() ? b.loadColumn(tile, reduce, free) : b.loadLanes(tile, {reduce, free}));
  }
  void store(Value code, Value free, Value reduce) {
    if (!isInTile())
      storeByte(code, /*lanesAreFree=*/true, free, reduce);
    else if (block.isKey())
      b.storeOriented(b.numberOf(code), tile, reduce, free);
    else
      b.storeLanes(b.numberOf(code), tile, {reduce, free});
  }

  LaneBuilder &b;
  BlockType block;
  int64_t bits, freeTile, reduceTile, lanes, width;
  bool fragments;
  Value tile, bytes;
};

struct EncodePattern : WriterPattern<TileEncodeOp> {
  using WriterPattern::WriterPattern;
  void lower(TileEncodeOp op, OpAdaptor in, LaneBuilder &b) const override {
    if (op.getQuant().isQuantized())
      encodeCodes(op, in, b);
    else
      encodeNumbers(op, in, b);
    b.barrier();
  }

private:
  static void encodeNumbers(TileEncodeOp op, OpAdaptor in, LaneBuilder &b) {
    int64_t columns = columnsOf(op.getTile());
    BlockType block = op.getData().getType();
    OrderBuilder order(block);
    Type type = block.getElement();
    // What the type cannot hold becomes its largest number.
    auto saturate = [&](Value number) {
      if (type.isF32())
        return number;
      float largest = getLargestScale(type);
      number = b.select(b.less(b.f32(largest), number), b.f32(largest), number);
      return b.select(b.less(number, b.f32(-largest)), b.f32(-largest), number);
    };
    Rows rows{in.getFrom(), in.getTo()};
    if (order.lanesAreTokens(block.isKey())) {
      if (!op.getOriented())
        b.orient(in.getTile(), rows);
      b.forLaneParts(kBlockTokens, rows, columns, [&](Value token, Value channel) {
        Value number = b.encodeNumber(saturate(b.loadColumn(in.getTile(), channel, token)), type);
        b.storeLanes(number, in.getData(), order.at(b, block.isKey(), token, channel), isAmong(b, rows, token));
      });
      return;
    }
    b.loopAbreast(rows.from ? rows.from : b.index(0), rows.to ? rows.to : b.index(kBlockTokens), [&](Value token) {
      b.forLanes(columns, [&](Value channel) {
        b.storeLanes(b.encodeNumber(saturate(b.loadLanes(in.getTile(), {token, channel})), type), in.getData(),
                     order.at(b, block.isKey(), token, channel));
      });
    });
  }

  static void feedBack(TileEncodeOp op, OpAdaptor in, LaneBuilder &b, GroupCodec &codec, CodeMatrix &codes);

  static void encodeCodes(TileEncodeOp op, OpAdaptor in, LaneBuilder &b) {
    QuantAttr quant = op.getQuant();
    BlockType block = op.getData().getType();
    OrderBuilder scaleOrder(op.getScales().getType());
    // Lanes are what a group does not span, so that each has a group of its own.
    bool lanesAreTokens = op.hasTokenLanes(), lanesAreFree = lanesAreTokens == block.isKey();
    int64_t columns = columnsOf(op.getTile()), size = quant.getGroupSize();
    int64_t laneExtent = lanesAreTokens ? kBlockTokens : columns, others = lanesAreTokens ? columns : kBlockTokens;
    // Errors that are fed back take the place of numbers, so that codes need another one.
    CodeMatrix codes(b, block, in.getTile(), /*inTile=*/!quant.getFeedback());
    Rows rows{in.getFrom(), in.getTo()};
    Value numbers = in.getTile();
    if (lanesAreTokens && !op.getOriented())
      b.orient(numbers, rows);
    GroupCodec codec(b, quant);
    auto load = [&](Value lane, Value other) {
      return lanesAreTokens ? b.loadColumn(numbers, other, lane) : b.loadLanes(numbers, {other, lane});
    };
    auto storeCode = [&](Value code, Value lane, Value other) {
      if (!codes.isInTile())
        codes.storeByte(code, lanesAreFree, lane, other);
      else if (lanesAreTokens)
        b.storeOriented(b.numberOf(code), numbers, other, lane);
      else
        b.storeLanes(b.numberOf(code), numbers, {other, lane});
    };
    // Calls `body` with the parameters of each group, which are stored, and the number of an index in it.
    auto forEachGroup = [&](auto body) {
      b.forLaneParts(laneExtent, rows, others / size, [&](Value lane, Value group) {
        Value mask = isAmong(b, rows, lane), first = b.mulIndex(group, size);
        auto number = [&](Value i) { return load(lane, b.addIndex(first, i)); };
        GroupCodec::Parameters parameters = codec.choose(size, number);
        Value at = lanesAreFree ? scaleOrder.at(b, lane, group) : scaleOrder.at(b, group, lane);
        b.storeLanes(b.encodeNumber(parameters.scale, quant.getScale()), in.getScales(), at, mask);
        if (parameters.zero)
          b.storeLanes(b.encodeNumber(parameters.zero, quant.getScale()), in.getZeros(), at, mask);
        body(lane, group, parameters, number);
      });
    };
    auto encodeLanes = [&](auto encodeGroup) {
      forEachGroup([&](Value lane, Value group, const GroupCodec::Parameters &parameters, auto number) {
        Value inverse = codec.getInverse(parameters);
        encodeGroup(lane, group, [&](Value i) { return codec.encode(number(i), parameters, inverse); });
      });
    };
    int64_t tile = codes.getReduceTile();
    if (codes.hasTiles() && lanesAreFree && !in.getGivesWeights() && size % tile == 0) {
      // Straight into the words: no code is stored on the way. Tokens have words of their own.
      encodeLanes([&](Value lane, Value group, auto code) {
        b.loop(b.index(0), b.index(size / tile), [&](Value i) {
          Value word = codes.getFirstWord(lane, b.addIndex(b.mulIndex(group, size / tile), i));
          codes.packTile(
              in.getData(), word, [&](Value r) { return code(b.addIndex(b.mulIndex(i, tile), r)); },
              isAmong(b, rows, lane));
        });
      });
      return;
    }
    if (b.getWidth() == 1 && rows.from && lanesAreTokens && codes.isInTile()) {
      // Few rows have few groups: the threads share their numbers.
      SmallVector<Value> known; // scales, inverses of them, zeros
      auto keep = [&](size_t i, Value number, Value lane, Value group) {
        if (i == known.size())
          known.push_back(b.scratchMatrix({others / size, laneExtent}, b.getF32Type()));
        b.storeLanes(number, known[i], {group, lane});
      };
      forEachGroup([&](Value lane, Value group, const GroupCodec::Parameters &parameters, auto) {
        keep(0, parameters.scale, lane, group);
        keep(1, codec.getInverse(parameters), lane, group);
        if (parameters.zero)
          keep(2, parameters.zero, lane, group);
      });
      b.barrier();
      b.loopAbreast(rows.from, rows.to, [&](Value token) {
        b.forLanes(columns, [&](Value channel) {
          Value at[] = {b.divIndex(channel, size), token};
          GroupCodec::Parameters parameters{b.loadLanes(known[0], at),
                                            known.size() > 2 ? b.loadLanes(known[2], at) : Value()};
          storeCode(codec.encode(load(token, channel), parameters, b.loadLanes(known[1], at)), token, channel);
        });
      });
    } else {
      encodeLanes([&](Value lane, Value group, auto code) {
        auto encodeGroup = [&] {
          b.loopAbreast(b.index(0), b.index(size),
                        [&](Value i) { storeCode(code(i), lane, b.addIndex(b.mulIndex(group, size), i)); });
        };
        if (!in.getGivesWeights())
          return encodeGroup();
        Value none = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, in.getGivesWeights(), b.index(0));
        b.branch(none, encodeGroup);
      });
    }
    b.barrier();
    if (codes.isInTile())
      codes.settle(lanesAreTokens, rows);
    if (Value gives = in.getGivesWeights())
      b.branch(arith::CmpIOp::create(b, arith::CmpIPredicate::ne, gives, b.index(0)), [&] {
        if (!lanesAreTokens)
          b.orient(numbers);
        feedBack(op, in, b, codec, codes);
        b.barrier();
      });
    codes.pack(in.getData(), rows);
  }
};

/// Codes whose rounding errors go into the channels to come; lanes are tokens of an oriented tile.
void EncodePattern::feedBack(TileEncodeOp op, OpAdaptor in, LaneBuilder &b, GroupCodec &codec, CodeMatrix &codes) {
  QuantAttr quant = op.getQuant();
  OrderBuilder scaleOrder(op.getScales().getType());
  int64_t columns = columnsOf(op.getTile());
  bool isKey = op.getData().getType().isKey();
  Value tile = in.getTile();
  b.forLanesAmong(kBlockTokens, {in.getFrom(), in.getTo()}, [&](Value token) {
    b.loop(b.index(0), b.index(columns), [&](Value channel) {
      Value group = b.divIndex(channel, quant.getGroupChannels());
      auto load = [&](Value memory) {
        if (!memory)
          return Value();
        // A group of one token for each lane, or one that spans the lanes.
        Value tokens = b.divIndex(token, quant.getGroupTokens());
        Value at = isKey ? scaleOrder.at(b, tokens, group) : scaleOrder.at(b, group, tokens);
        Value raw = quant.getGroupTokens() == 1
                        ? b.loadLanes(memory, at)
                        : b.splat(memref::LoadOp::create(b, memory, ValueRange{at}).getResult());
        return b.decodeNumber(raw, quant.getScale());
      };
      GroupCodec::Parameters parameters{load(in.getScales()), load(in.getZeros())};
      Value number = b.loadColumn(tile, channel, token);
      Value row = b.addIndex(in.getWeightsOffset(), b.mulIndex(channel, columns));
      Value target = b.loop(b.index(0), channel, number, [&](Value earlier, ValueRange sum) {
        Value weight = b.splat(memref::LoadOp::create(b, in.getWeights(), ValueRange{b.addIndex(row, earlier)}));
        return SmallVector<Value>{b.add(sum[0], b.mul(b.loadColumn(tile, earlier, token), weight))};
      })[0];
      Value code = codec.encode(target, parameters, codec.getInverse(parameters));
      codes.storeByte(code, /*lanesAreFree=*/isKey, token, channel);
      // The number has been seen: its place holds its error from here on.
      b.storeOriented(b.sub(number, codec.decode(code, parameters)), tile, channel, token);
    });
  });
}

struct WriteRowsPattern : WriterPattern<TileWriteRowsOp> {
  using WriterPattern::WriterPattern;
  void lower(TileWriteRowsOp op, OpAdaptor in, LaneBuilder &b) const override {
    BlockType block = op.getBlock().getType();
    OrderBuilder order(block);
    b.loopAbreast(in.getFrom(), in.getTo(), [&](Value row) {
      Value start = b.addIndex(in.getOffset(), arith::MulIOp::create(b, row, in.getStride()));
      if (block.isKey()) // channels are far from each other
        b.forEach(block.getChannels(), [&](Value channel) {
          Value number = memref::LoadOp::create(b, in.getSource(), ValueRange{b.addIndex(start, channel)});
          memref::StoreOp::create(b, number, in.getBlock(), ValueRange{order.at(b, row, channel)});
        });
      else
        b.forLanes(block.getChannels(), [&](Value channel) {
          b.storeLanes(b.loadLanes(in.getSource(), b.addIndex(start, channel)), in.getBlock(),
                       order.at(b, channel, row));
        });
    });
    b.barrier();
  }
};

struct ClearPattern : WriterPattern<TileClearOp> {
  using WriterPattern::WriterPattern;
  void lower(TileClearOp op, OpAdaptor in, LaneBuilder &b) const override {
    // 128 bytes are a number for each of 32 lanes.
    auto clear = [&](Value offset, int64_t bytes) {
      Value memory = viewVector(b, in.getMemory(), offset, bytes / 4);
      b.forLanes(bytes / 4, [&](Value at) { b.storeLanes(b.f32(0), memory, at); });
    };
    auto bytes = int64_t(op.getBytes());
    if (bytes >= 128)
      clear(in.getOffset(), bytes / 128 * 128);
    if (bytes % 128) // again, together with what is left
      clear(bytes >= 128 ? b.addIndex(in.getOffset(), bytes - 128) : in.getOffset(), bytes >= 128 ? 128 : 64);
    b.barrier();
  }
};

struct MeasurePattern : WriterPattern<TileMeasureOp> {
  using WriterPattern::WriterPattern;
  void lower(TileMeasureOp op, OpAdaptor in, LaneBuilder &b) const override {
    auto channels = int64_t(op.getChannels());
    QuantAttr quant = op.getQuant();
    DiagAttr diag = quant.getDiag();
    Value zero = b.index(0), sum = b.index(Sum);
    Value sums = b.scratch({3, channels}, b.getF32Type()); // by Statistic
    accumulate(op, in, b, sums);
    b.barrier();
    Value rows = arith::IndexCastOp::create(b, b.getI32Type(), in.getRows());
    Value hasRows = arith::CmpIOp::create(b, arith::CmpIPredicate::ne, in.getRows(), zero);
    auto count = [&](Value integer) { return b.splat(arith::SIToFPOp::create(b, b.getF32Type(), integer)); };
    Value factors = viewVector(b, in.getMemory(), in.getFactorsOffset(), channels);
    Value means = viewVector(b, in.getMemory(), in.getMeansOffset(), channels);
    b.forLanes(channels, [&](Value channel) {
      Value factor;
      if (diag) {
        factor =
            computeFactor(diag, quant, in, b, sums, channel, channels, count(b.select(hasRows, rows, scalar(b, 1))));
        factor = b.select(b.less(b.f32(0), factor), factor, b.f32(1));
        b.storeLanes(factor, factors, channel);
      }
      if (!means)
        return;
      Value mean = b.div(b.loadLanes(sums, {sum, channel}), count(b.select(hasRows, rows, scalar(b, 1))));
      // A choice between loads: a null pointer is given where nothing is.
      Value gives = arith::CmpIOp::create(b, arith::CmpIPredicate::ne, in.getGivesMeans(), zero);
      b.storeLanes(mean, sums, {sum, channel});
      b.branch(gives, [&] {
        Value at = b.addIndex(b.addIndex(in.getGivenOffset(), channels), channel);
        b.storeLanes(b.loadLanes(in.getGiven(), at), sums, {sum, channel});
      });
      mean = b.loadLanes(sums, {sum, channel});
      // Means are of what the diagonal leaves.
      if (factor)
        mean = b.div(mean, factor);
      Value isThere = b.less(b.f32(0.5f), count(rows));
      b.storeLanes(b.select(isThere, mean, b.f32(0)), means, channel);
    });
    b.barrier();
  }

private:
  static Value scalar(LaneBuilder &b, int32_t value) {
    return arith::ConstantOp::create(b, b.getI32IntegerAttr(value));
  }

  /// The largest magnitude of a channel, the sum of its squares, its sum.
  enum Statistic { Maximum, Squares, Sum };
  static SmallVector<Statistic> getStatistics(QuantAttr quant) {
    SmallVector<Statistic> wanted;
    if (DiagAttr diag = quant.getDiag(); diag && diag.getStat() != DiagStat::Given)
      wanted.push_back(diag.getStat() == DiagStat::Rms ? Squares : Maximum);
    if (quant.getTransform<CenterAttr>())
      wanted.push_back(Sum);
    return wanted;
  }

  /// Statistics of all channels over all rows, which are read once, a block of them after the other.
  static void accumulate(TileMeasureOp op, OpAdaptor in, LaneBuilder &b, Value sums) {
    auto channels = int64_t(op.getChannels());
    SmallVector<Statistic> wanted = getStatistics(op.getQuant());
    if (wanted.empty())
      return;
    SmallVector<Value> nothing(wanted.size(), b.f32(0));
    b.forLanes(channels, [&](Value channel) {
      for (Statistic statistic : wanted)
        b.storeLanes(b.f32(0), sums, {b.index(statistic), channel});
    });
    int64_t rowsAbreast = b.getRowsAbreast();
    Value blocks = b.divIndex(b.addIndex(in.getRows(), kBlockTokens - 1), kBlockTokens);
    Value ahead = b.mulIndex(in.getStride(), kBlockTokens);
    b.loop(b.index(0), blocks, [&](Value block) {
      Value first = b.mulIndex(block, kBlockTokens);
      Value end = arith::MinSIOp::create(b, b.addIndex(first, kBlockTokens), in.getRows());
      Value last = rowsAbreast > 1 ? arith::SubIOp::create(b, end, b.index(1)).getResult() : Value();
      b.forLanes(channels, [&](Value channel) {
        auto load = [&](Value row) {
          Value start = b.addIndex(in.getOffset(), arith::MulIOp::create(b, row, in.getStride()));
          Value at = b.addIndex(start, channel);
          Value number = b.decodeNumber(b.loadLanes(in.getSource(), at), op.getSource().getType().getElementType());
          b.prefetch(in.getSource(), b.addIndex(at, ahead));
          return number;
        };
        auto step = [&](Value row, ValueRange before) {
          // Loads of several rows are on their way together. What is not there counts as zero, which changes nothing.
          SmallVector<Value> numbers{load(row)};
          for (int64_t i = 1; i < rowsAbreast; ++i) {
            Value next = b.addIndex(row, i);
            Value number = load(arith::MinUIOp::create(b, next, last));
            Value isThere = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, next, end);
            numbers.push_back(b.select(isThere, number, b.f32(0)));
          }
          SmallVector<Value> sums(before);
          for (Value number : numbers)
            for (auto [statistic, sum] : llvm::zip_equal(wanted, sums))
              sum = statistic == Maximum   ? larger(b, sum, b.abs(number))
                    : statistic == Squares ? b.fma(number, number, sum)
                                           : b.add(sum, number);
          return sums;
        };
        auto part = b.loop(first, end, nothing, step, rowsAbreast);
        for (auto [statistic, sum] : llvm::zip_equal(wanted, part)) {
          Value at = b.index(statistic), total = b.loadLanes(sums, {at, channel});
          b.storeLanes(statistic == Maximum ? larger(b, total, sum) : b.add(total, sum), sums, {at, channel});
        }
      });
    });
  }
  static Value larger(LaneBuilder &b, Value x, Value y) { return b.select(b.less(x, y), y, x); }

  static Value computeFactor(DiagAttr diag, QuantAttr quant, OpAdaptor in, LaneBuilder &b, Value sums, Value channel,
                             int64_t channels, Value rows) {
    Value zero = b.index(Maximum), squaresRow = b.index(Squares), other;
    if (diag.getTied()) {
      Value half = b.index(channels / 2);
      Value isLower = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, channel, half);
      other = arith::SelectOp::create(b, isLower, b.addIndex(channel, half), arith::SubIOp::create(b, channel, half));
    }
    switch (diag.getStat()) {
    case DiagStat::Given:
      return b.loadLanes(in.getGiven(), b.addIndex(in.getGivenOffset(), channel));
    case DiagStat::SqrtMax: {
      Value max = b.loadLanes(sums, {zero, channel});
      if (other) {
        Value paired = b.loadLanes(sums, {zero, other});
        max = larger(b, max, paired);
      }
      return b.sqrt(max);
    }
    case DiagStat::Rms: {
      Value squares = b.loadLanes(sums, {squaresRow, channel});
      if (other)
        squares = b.mul(b.add(squares, b.loadLanes(sums, {squaresRow, other})), b.f32(0.5f));
      Value rms = b.sqrt(b.div(squares, rows));
      auto strength = float(diag.getStrength().convertToDouble());
      return strength == 1 ? rms : b.pow(rms, b.f32(strength));
    }
    case DiagStat::Tensor: {
      Value max = b.loop(zero, b.index(channels), b.f32(0), [&](Value c, ValueRange before) {
        Value paired = b.splat(memref::LoadOp::create(b, sums, ValueRange{zero, c}));
        return SmallVector<Value>{larger(b, before[0], paired)};
      })[0];
      return b.div(max, b.f32(float(getLargest(quant))));
    }
    }
    llvm_unreachable("unknown statistic");
  }
};

} // namespace

void kvcc::populateWriterPatterns(RewritePatternSet &patterns, const TypeConverter &converter,
                                  const MakeLaneBuilder &makeBuilder) {
  patterns.add<ScratchPattern, GatherPattern, RotateRowsPattern, NormalizeTokensPattern, EncodePattern,
               WriteRowsPattern, ClearPattern, MeasurePattern>(converter, patterns.getContext(), makeBuilder);
}
