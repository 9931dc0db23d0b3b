// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv.tile.score and kv.tile.accumulate on a CPU. Both are products of a small operand (query, weights;
// heads x reduced) with a block (free x reduced): one implementation, two epilogues.
#include "codegen/cpu/ProductBuilder.h"

#include "dialect/SmallFloat.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;
using namespace kvcc::cpu;

namespace {

/// Small operands whose rows have been multiplied by scales, and their products with zeros.
struct FoldPattern : OpConversionPattern<TileFoldOp> {
  FoldPattern(const TypeConverter &converter, MLIRContext *context, const CpuLevel &level)
      : OpConversionPattern(converter, context), level(level) {}
  LogicalResult matchAndRewrite(TileFoldOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    ProductBuilder b(op, rewriter, level);
    auto tile = cast<VectorType>(op.getTile().getType());
    int64_t heads = tile.getDimSize(0), columns = tile.getDimSize(1);
    int64_t freeGroups = op.getScales().getType().getFreeExtent();
    bool isBf16 = cast<VectorType>(op.getResult().getType()).getElementType().isBF16();
    if (!tile.getElementType().isF32() || (isBf16 && !level.hasBf16Products))
      return op.emitError()
             << "expected a tile of f32, and a result of bf16 only on a cpu level that multiplies it, but "
                "got "
             << tile << " on " << level.name;
    Value result = b.scratch({freeGroups * heads, columns}, isBf16 ? Type(b.getI16Type()) : b.getF32Type()), offsets;
    if (op.getOffsets())
      offsets = b.scratch({freeGroups * heads, 1}, b.getF32Type());
    b.loop(0, freeGroups, 1, [&](Value f) {
      Value firstRow = b.mulIndex(f, heads);
      SmallVector<Value> none(size_t(offsets ? heads : 0), b.f32Splat(0.0f));
      int64_t together = isBf16 ? 2 : 1; // two vectors are rounded to one
      SmallVector<Value> all = b.loop(0, columns / (together * kLanes), none, [&](Value i, ValueRange before) {
        SmallVector<Value> sums(before), scales, middles;
        Value first = b.mulIndex(i, together * kLanes), inScales = b.addIndex(b.mulIndex(f, columns), first);
        for (int64_t part = 0; part < together; ++part) {
          Value at = b.addIndex(inScales, b.index(part * kLanes));
          scales.push_back(b.loadF32(in.getScales(), at, op.getScales().getType().getElement()));
          if (offsets) // what the middle code stands for
            middles.push_back(b.fma(scales.back(), b.f32Splat(float(op.getMiddle())), b.loadF32(in.getZeros(), at)));
        }
        for (int64_t h = 0; h < heads; ++h) {
          SmallVector<Value> products;
          for (int64_t part = 0; part < together; ++part) {
            Value numbers = b.loadF32(in.getTile(), {b.index(h), b.addIndex(first, b.index(part * kLanes))});
            products.push_back(b.mul(numbers, scales[size_t(part)]));
            if (offsets)
              sums[size_t(h)] = b.fma(numbers, middles[size_t(part)], sums[size_t(h)]);
          }
          b.store(isBf16 ? b.toBf16(products[0], products[1]) : products[0], result,
                  {b.addIndex(firstRow, b.index(h)), first});
        }
        return sums;
      });
      int64_t batch = CpuBuilder::getBatch(heads);
      for (int64_t h = 0; h < int64_t(all.size()); h += batch) {
        Value sums = b.addEach(ArrayRef(all).slice(size_t(h), size_t(batch)));
        b.store(sums, b.reshape(offsets, {freeGroups * heads}), b.addIndex(firstRow, b.index(h)));
      }
    });
    SmallVector<Value> results{result};
    if (offsets)
      results.push_back(offsets);
    rewriter.replaceOp(op, results);
    return success();
  }
  const CpuLevel &level;
};

/// The operands of a product after type conversion.
struct Product {
  BlockType block;
  Value data, scales, zeros; // the block's elements, scales and zeros, in cache memory
  // [rows][reduced], of f8E4M3FN in pairs; the others [rows][groups], scales of bf16 [rows][1].
  Value small, smallSums, smallScales, offsets;
  int64_t heads, group;               // group: reduced elements that share a scale
  int64_t freeGroup;                  // free indices that share rows of a folded operand, else 0
  bool hybrid, smallIsSigned, isBf16; // isBf16: what is multiplied
  Type scaleType;
  Value ahead;        // memory that is needed soon, or null
  int64_t aheadBytes; // of it

  unsigned getSmallBits() const { return cast<MemRefType>(small.getType()).getElementType().getIntOrFloatBitWidth(); }
  bool isE4m3() const { return isa<Float8E4M3FNType>(block.getElement()); }
  bool isE2m1() const { return isa<Float4E2M1FNType>(block.getElement()); }
  /// Whether codes are decoded in pairs of f32: see CodeProduct::multiplyPairs.
  bool isInPairs() const { return isE4m3() && !isBf16; }
};

/// Where a vector of free indices stands: in which packing tile, from which index in it on.
struct FreeVector {
  Value tile, within;
};

/// Asks for what a product is to have ahead, line by line: as many lines in each of `steps` steps of all its units, so
/// that it may ask for some behind the last one.
class Prefetcher {
public:
  Prefetcher(ProductBuilder &b, const Product &p, int64_t steps)
      : b(b), memory(p.ahead), lines(p.ahead ? int64_t(llvm::divideCeil(p.aheadBytes, steps * kLine)) : 0) {}

  /// In part `part` of `parts` of a step.
  void ask(Value step, int64_t part, int64_t parts) {
    for (int64_t line = part * lines / parts; line < (part + 1) * lines / parts; ++line)
      b.prefetch(memory, b.addIndex(b.mulIndex(step, lines * kLine), b.index(line * kLine)));
  }

private:
  static constexpr int64_t kLine = 64;
  ProductBuilder &b;
  Value memory;
  int64_t lines; // of a step
};

/// A product's vectors of free indices that are computed together: a small operand that has been loaded multiplies
/// all of them, and their sums stay in registers.
class Unit {
public:
  Unit(ProductBuilder &b, const Product &p)
      : b(b), width(b.getWidth()), digits(p.getSmallBits() == 16 && b.splitsWords() && !p.isBf16 ? 2 : 1),
        sums(p.isInPairs() || p.isBf16 ? 2 : digits), vectors(b.getUnitVectors(sums * p.heads)) {
    // Those of a unit share rows of a folded operand, and no unit is partial.
    while ((p.freeGroup ? p.freeGroup : p.block.getFreeExtent()) / width % vectors)
      vectors /= 2;
    // Groups do not wait for each other.
    int64_t open = !p.isInPairs() && (p.isBf16 || p.group > kReduceTile) ? b.getOpenSums() : 0;
    while (sums < kLaneCodes && sums * vectors * p.heads < open)
      sums *= 2;
  }

  int64_t getVectors() const { return vectors; }
  /// Of a number of the small operand, each of which has a sum of its own.
  int64_t getDigits() const { return digits; }
  /// Vectors of sums of a vector and a head, which products are added to by turns. They begin with that of the low
  /// digit, or of the first of a pair; every second one is of the other.
  int64_t getSums() const { return sums; }
  /// Calls `body` with the first vector of every unit of a block.
  void forEach(int64_t freeExtent, function_ref<void(FreeVector)> body) const {
    int64_t extent = vectors * width, step = std::max<int64_t>(extent / kLanes, 1);
    b.loop(0, freeExtent / kLanes, step, [&](Value tile) {
      if (extent >= kLanes)
        body({tile, b.index(0)});
      else
        b.loop(0, kLanes, extent, [&](Value within) { body({tile, within}); });
    });
  }
  FreeVector get(FreeVector first, int64_t vector) const {
    return {b.addIndex(first.tile, b.index(vector * width / kLanes)),
            b.addIndex(first.within, b.index(vector * width % kLanes))};
  }
  Value getFreeIndex(FreeVector at) const { return b.addIndex(b.mulIndex(at.tile, kLanes), at.within); }
  /// The units of a block, and which of them begins at a vector.
  int64_t getCount(int64_t freeExtent) const { return freeExtent / (vectors * width); }
  Value getNumber(FreeVector first) const {
    return arith::DivUIOp::create(b, getFreeIndex(first), b.index(vectors * width));
  }

private:
  ProductBuilder &b;
  int64_t width, digits, sums, vectors;
};

/// What products are added to, by vector and head. Loaded when it is asked for.
using InitialSums = function_ref<Value(int64_t vector, int64_t head)>;

SmallVector<Value> getAll(InitialSums sums, const Unit &unit, int64_t heads) {
  SmallVector<Value> all;
  for (int64_t v = 0; v < unit.getVectors(); ++v)
    for (int64_t h = 0; h < heads; ++h)
      all.push_back(sums(v, h));
  return all;
}

/// Sum `i` of the `count` that each turn has, of all turns, or of every `step`th from turn `first` on.
Value addTurns(ProductBuilder &b, ValueRange sums, size_t count, size_t i, size_t first = 0, size_t step = 1) {
  Value sum = sums[first * count + i];
  for (size_t at = (first + step) * count + i; at < sums.size(); at += step * count)
    sum = b.add(sum, sums[at]);
  return sum;
}

/// Lowers the products of a unit with one block of codes, for all heads. Sums are listed turn by turn, those of one
/// vector by vector, the heads of a vector together.
class CodeProduct {
public:
  CodeProduct(ProductBuilder &b, const Product &p, const Unit &unit, FreeVector first)
      : b(b), p(p), unit(unit), first(first), bits(p.block.getElement().getIntOrFloatBitWidth()),
        smallBits(p.getSmallBits()), digits(unit.getDigits()), codeBits(smallBits / unsigned(digits)),
        // Byte products take codes of up to 7 bits as signed or unsigned as they are, of 8 bits after subtracting 128.
        biased(codeBits == 8 && bits == 8 && !b.hasNarrowSums() && b.wantsSignedCodes(p.smallIsSigned)),
        tiles(p.block.getReduceExtent() / kReduceTile), ahead(b, p, unit.getCount(p.block.getFreeExtent()) * tiles),
        firstStep(b.mulIndex(unit.getNumber(first), tiles)) {
    if (p.freeGroup)
      firstRow = b.mulIndex(arith::DivUIOp::create(b, unit.getFreeIndex(first), b.index(p.freeGroup)), p.heads);
  }

  /// What `initial` gives and the products are added up to.
  SmallVector<Value> run(InitialSums initial) {
    // The groups that one iteration has.
    int64_t groups = std::max<int64_t>(kReduceTile / p.group, 1),
            perGroup = std::max<int64_t>(p.group / kReduceTile, 1);
    int64_t codes = kLaneCodes / groups;
    auto finishAll = [&](Value i, InitialSums before) {
      SmallVector<Value> sums;
      for (int64_t g = 0; g < groups; ++g) {
        SmallVector<Value> products = loop(perGroup, zeroSums(), [&](Value tile, ValueRange partial) {
          return multiply(b.addIndex(b.mulIndex(i, perGroup), tile), g * codes, (g + 1) * codes, partial);
        });
        auto last = [&, last = sums](int64_t v, int64_t h) { return last[size_t(v * p.heads + h)]; };
        sums = finish(b.addIndex(b.mulIndex(i, groups), b.index(g)), g ? InitialSums(last) : before, products);
      }
      return sums;
    };
    // Sums are loaded late if that is possible: until then they would take registers.
    if (tiles == perGroup)
      return finishAll(b.index(0), initial);
    return b.loop(0, tiles / perGroup, getAll(initial, unit, p.heads), [&](Value i, ValueRange before) {
      return finishAll(i, [&](int64_t v, int64_t h) { return before[size_t(v * p.heads + h)]; });
    });
  }

private:
  SmallVector<Value> loop(int64_t count, ValueRange initial, function_ref<SmallVector<Value>(Value, ValueRange)> body) {
    return count == 1 ? body(b.index(0), initial) : b.loop(0, count, initial, body);
  }
  Value row(int64_t head) { return firstRow ? b.addIndex(firstRow, b.index(head)) : b.index(head); }
  /// Of sums, and what is multiplied, in elements of 32 bits or as bf16.
  bool isFloat() const { return smallBits == 32 || p.isBf16; }
  size_t countSums() const { return size_t(unit.getVectors() * p.heads); } // of a turn
  SmallVector<Value> zeroSums() {
    Value zero = isFloat() ? b.f32Splat(0.0f, b.getWidth()) : b.i32Splat(0, b.getWidth());
    return SmallVector<Value>(size_t(unit.getSums()) * countSums(), zero);
  }

  /// What a decoded code counts in.
  float getStep() const { return p.isBf16 ? 1 : p.isE4m3() ? kE4m3Scale : p.isE2m1() ? 0.5f : 1; }
  /// What must be added to a decoded code: zero points count from code 0, all else from the middle. What bf16 looks up
  /// is the number.
  float getShift() const {
    if (p.isBf16)
      return 0;
    float zeroCode = p.isE4m3() ? 0 : p.isE2m1() ? 12 : float(int64_t(1) << (bits - 1));
    return (biased ? 128.0f : 0.0f) - (p.zeros ? 0.0f : zeroCode);
  }

  bool hasCommonShift() const { return !p.zeros && !p.freeGroup && getShift() != 0; }

  /// Adds the products with codes `from` to `to` of each lane of a reduction tile.
  SmallVector<Value> multiply(Value tile, int64_t from, int64_t to, ValueRange before) {
    SmallVector<Value> sums(before);
    SmallVector<SmallVector<Value, 8>> words(size_t(unit.getVectors()), SmallVector<Value, 8>(bits));
    auto word = [&](int64_t v, unsigned k) {
      Value &loaded = words[size_t(v)][k];
      if (!loaded) {
        FreeVector at = unit.get(first, v);
        Value tileInBlock = b.addIndex(b.mulIndex(at.tile, p.block.getReduceExtent() / kReduceTile), tile);
        Value start = b.addIndex(b.mulIndex(tileInBlock, kTileLanes * bits), b.index(kTileLanes * k));
        loaded = b.loadBytes(p.data, b.addIndex(start, b.mulIndex(at.within, 4)));
      }
      return loaded;
    };
    if (smallBits == 8 && b.hasNarrowSums()) {
      multiplyNarrow(word, tile, from, to, sums);
      return sums;
    }
    if (p.isInPairs()) {
      multiplyPairs(word, tile, from, to, sums);
      return sums;
    }
    for (int64_t code = from; code < to; ++code) {
      ahead.ask(b.addIndex(firstStep, tile), code, kLaneCodes);
      SmallVector<Value> codes;
      for (unsigned part = 0; part < smallBits / 8; ++part) {
        if (part < codeBits / 8) { // both digits multiply the same codes
          codes.clear();
          for (int64_t v = 0; v < unit.getVectors(); ++v)
            codes.push_back(decode([&](unsigned k) { return word(v, k); }, unsigned(code), part));
        }
        size_t first = size_t((code * smallBits / 8 + part) % unit.getSums()) * countSums();
        for (int64_t h = 0; h < p.heads; ++h) {
          Value small = loadSmall(h, tile, code, part);
          for (int64_t v = 0; v < unit.getVectors(); ++v) {
            Value &sum = sums[first + size_t(v * p.heads + h)];
            sum = p.isBf16         ? b.dotBf16(sum, codes[size_t(v)], small)
                  : isFloat()      ? b.fma(codes[size_t(v)], small, sum)
                  : codeBits == 16 ? b.dotWords(sum, codes[size_t(v)], small)
                                   : b.dotBytes(sum, codes[size_t(v)], small, p.smallIsSigned);
          }
        }
      }
    }
    return sums;
  }

  /// The same of bytes, with sums of 16 bits for as many products as they can hold. Codes that leave no room for one
  /// are two digits of four bits.
  void multiplyNarrow(function_ref<Value(int64_t, unsigned)> word, Value tile, int64_t from, int64_t to,
                      SmallVector<Value> &sums) {
    int64_t largest = p.isE2m1() ? 24 : (int64_t(1) << bits) - 1, smallest = p.smallIsSigned ? 128 : 255;
    int64_t digits = 2 * largest * smallest > INT16_MAX ? 2 : 1;
    int64_t room = INT16_MAX / (2 * (digits == 2 ? 15 : largest) * smallest);
    for (int64_t digit = 0; digit < digits; ++digit)
      for (int64_t start = from; start < to; start += room) {
        SmallVector<Value> narrow(sums.size());
        for (int64_t code = start; code < std::min(start + room, to); ++code) {
          if (digit == 0)
            ahead.ask(b.addIndex(firstStep, tile), code, kLaneCodes);
          SmallVector<Value> codes;
          for (int64_t v = 0; v < unit.getVectors(); ++v) {
            Value all = decode([&](unsigned k) { return word(v, k); }, unsigned(code), 0);
            codes.push_back(digits == 1 ? all
                                        : b.extractCodes([&](unsigned) { return all; }, 4, unsigned(digit), 8, 0));
          }
          for (int64_t h = 0; h < p.heads; ++h) {
            Value small = loadSmall(h, tile, code, 0);
            for (int64_t v = 0; v < unit.getVectors(); ++v) {
              Value &sum = narrow[size_t(v * p.heads + h)];
              Value product = b.multiplyPairs(codes[size_t(v)], small, p.smallIsSigned);
              sum = sum ? b.add(sum, product) : product;
            }
          }
        }
        for (auto [sum, part] : llvm::zip_equal(sums, narrow))
          sum = b.add(sum, b.widen(part, digit ? 16 : 1));
      }
  }

  /// The same of f8E4M3FN: f32 for pairs of reduced indices, so that a vector of codes has sums in two vectors, one
  /// after the other.
  void multiplyPairs(function_ref<Value(int64_t, unsigned)> word, Value tile, int64_t from, int64_t to,
                     SmallVector<Value> &sums) {
    for (int64_t code = from; code < to; ++code) {
      ahead.ask(b.addIndex(firstStep, tile), code, kLaneCodes);
      for (unsigned parity = 0; parity < 2; ++parity) {
        SmallVector<std::array<Value, 2>> numbers;
        for (int64_t v = 0; v < unit.getVectors(); ++v)
          numbers.push_back(b.decodeE4m3Pairs(word(v, unsigned(code)), parity));
        for (int64_t h = 0; h < p.heads; ++h) {
          Value column = b.addIndex(b.mulIndex(tile, kReduceTile), b.index(4 * code + 2 * parity));
          Value small = b.loadPairs(p.small, {row(h), column});
          for (int64_t v = 0; v < unit.getVectors(); ++v)
            for (size_t half = 0; half < 2; ++half) {
              Value &sum = sums[2 * size_t(v * p.heads + h) + half];
              sum = b.fma(numbers[size_t(v)][half], small, sum);
            }
        }
      }
    }
  }

  /// Codes of one vector as elements as wide as the small operand's.
  Value decode(function_ref<Value(unsigned)> word, unsigned code, unsigned part) {
    if (p.isBf16)
      return lookUp(word, code, part);
    if (p.isE2m1()) {
      // In bytes, and then as if they had been stored so.
      Value bytes = b.decodeE2m1(b.extractCodes(word, bits, code, 8, 0));
      Value codes = b.extractCodes([&](unsigned) { return bytes; }, 8, 0, codeBits, part);
      return isFloat() ? arith::SIToFPOp::create(b, b.f32Vector(b.getWidth()), codes).getResult() : codes;
    }
    Value codes = b.extractCodes(word, bits, code, codeBits, part);
    if (biased)
      codes = arith::XOrIOp::create(b, codes, b.constantLike(b.vectorOf(8), 128));
    if (!isFloat())
      return codes;
    return arith::SIToFPOp::create(b, b.f32Vector(b.getWidth()), codes);
  }

  /// The same as bf16: the numbers that codes stand for, in units of the scale.
  Value lookUp(function_ref<Value(unsigned)> word, unsigned code, unsigned part) {
    if (p.isE4m3())
      return b.lookUpE4m3(word(code), part);
    SmallVector<float> numbers;
    for (unsigned c = 0; c < 1u << bits; ++c)
      numbers.push_back(p.isE2m1() ? e2m1ToFloat(uint8_t(c)) : float(c) - (p.zeros ? 0.0f : float(1u << (bits - 1))));
    return b.lookUpBf16(b.extractCodes(word, bits, code, 16, part, /*isClean=*/false), numbers);
  }

  /// What multiplies code `code` of the lanes from `part` on, in every free index.
  Value loadSmall(int64_t head, Value tile, int64_t code, unsigned part) {
    // Fours of words and of bf16 stand as 0 2 1 3, or as digits: see PreparePattern.
    bool isSingle = smallBits == 32;
    int64_t within = 4 * code + (isSingle ? part : 2 * part);
    Value at[] = {row(head), b.addIndex(b.mulIndex(tile, kReduceTile), b.index(within))};
    return isSingle ? b.loadSplat(p.small, at, b.getWidth()) : b.loadRepeated(p.small, at, codeBits);
  }

  /// What multiplies a group's sum of codes, and what multiplies the sum of the small operand.
  struct GroupScales {
    Value scale, zero;
  };
  GroupScales loadScales(FreeVector at, Value group) {
    int64_t width = b.getWidth();
    float step = getStep(), shift = getShift();
    auto times = [&](Value vector, float factor) {
      return factor == 1 ? vector : b.mul(vector, b.f32Splat(factor, width));
    };
    GroupScales scales;
    if (p.freeGroup) { // folded
      scales.scale = step == 1 ? Value() : b.f32Splat(step, width);
      scales.zero = shift == 0 ? Value() : b.f32Splat(step * shift, width);
      return scales;
    }
    // Scales and zeros lie as [free tile][group][16].
    int64_t groups = p.block.getReduceExtent() / p.group;
    Value index = b.addIndex(b.mulIndex(b.addIndex(b.mulIndex(at.tile, groups), group), kLanes), at.within);
    Value raw = b.loadF32(p.scales, index, p.scaleType, width), zeros, marked;
    if (p.hybrid) {
      // The sign bit marks a group with a zero point; the others are symmetric. (-0.0 is marked too.)
      Value bits = arith::BitcastOp::create(b, b.i32Vector(width), raw);
      marked = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, bits, b.i32Splat(0, width));
      raw = math::AbsFOp::create(b, raw);
    }
    scales.scale = times(raw, step);
    if (p.zeros)
      zeros = b.loadF32(p.zeros, index, {}, width);
    if (p.hybrid)
      zeros = arith::SelectOp::create(b, marked, zeros, times(raw, -float(int64_t(1) << (bits - 1))));
    scales.zero = zeros && shift != 0 ? b.fma(scales.scale, b.f32Splat(shift, width), zeros) : zeros;
    return scales;
  }

  /// The sums over a group, times the scales, added to `sums`.
  SmallVector<Value> finish(Value group, InitialSums before, ValueRange products) {
    int64_t width = b.getWidth();
    SmallVector<Value> result;
    // Codes that are all as far from what they stand for: that much of the small operand's sum, for all vectors.
    SmallVector<Value> shifts;
    if (hasCommonShift())
      for (int64_t h = 0; h < p.heads; ++h)
        shifts.push_back(b.mul(b.loadSplat(p.smallSums, {row(h), group}, width), b.f32Splat(getShift(), width)));
    for (int64_t v = 0; v < unit.getVectors(); ++v) {
      GroupScales scales = loadScales(unit.get(first, v), group);
      for (int64_t h = 0; h < p.heads; ++h) {
        size_t i = size_t(v * p.heads + h);
        Value at[] = {row(h), group};
        Value sum = p.isInPairs() ? b.addPairs(products[2 * i], products[2 * i + 1])
                                  : addTurns(b, products, countSums(), i, 0, size_t(digits));
        if (digits == 2) {
          Value high = addTurns(b, products, countSums(), i, 1, 2), by8 = b.constantLike(b.vectorOf(32), 8);
          sum = b.add(sum, arith::ShLIOp::create(b, high, by8));
        }
        if (!isFloat()) {
          sum = arith::SIToFPOp::create(b, b.f32Vector(width), sum);
          Value scale = b.loadSplat(p.smallScales, at, width);
          sum = shifts.empty() ? b.mul(sum, scale) : b.fma(sum, scale, shifts[size_t(h)]);
        } else if (!shifts.empty()) {
          sum = b.add(sum, shifts[size_t(h)]);
        }
        sum = scales.scale ? b.fma(sum, scales.scale, before(v, h)) : b.add(sum, before(v, h));
        if (scales.zero)
          sum = b.fma(scales.zero, b.loadSplat(p.smallSums, at, width), sum);
        if (p.offsets)
          sum = b.add(sum, b.loadSplat(p.offsets, {row(h), b.index(0)}, width));
        result.push_back(sum);
      }
    }
    return result;
  }

  ProductBuilder &b;
  const Product &p;
  const Unit &unit;
  FreeVector first;
  Value firstRow;
  unsigned bits, smallBits;
  int64_t digits;
  unsigned codeBits; // of an element that is multiplied
  bool biased;
  int64_t tiles; // of the reduction
  Prefetcher ahead;
  Value firstStep; // of the unit
};

/// The same for numbers, which lie as [free tile][reduction index][16], from zero: of very many tokens, one after the
/// other, numbers would be too small for their sum.
SmallVector<Value> floatProduct(ProductBuilder &b, const Product &p, const Unit &unit, FreeVector first) {
  int64_t width = b.getWidth(), extent = p.block.getReduceExtent();
  constexpr int64_t kUnrolled = 4;
  int64_t steps = extent / kUnrolled;
  Prefetcher ahead(b, p, unit.getCount(p.block.getFreeExtent()) * steps);
  Value firstStep = b.mulIndex(unit.getNumber(first), steps);
  int64_t turns = std::min(unit.getSums(), kUnrolled);
  auto count = size_t(unit.getVectors() * p.heads); // of a turn
  SmallVector<Value> zeros(size_t(turns) * count, b.f32Splat(0.0f, width));
  SmallVector<Value> all = b.loop(0, steps, zeros, [&](Value i, ValueRange before) {
    SmallVector<Value> sums(before);
    for (int64_t r = 0; r < kUnrolled; ++r) {
      ahead.ask(b.addIndex(firstStep, i), r, kUnrolled);
      Value index = b.addIndex(b.mulIndex(i, kUnrolled), b.index(r));
      SmallVector<Value> numbers;
      for (int64_t v = 0; v < unit.getVectors(); ++v) {
        FreeVector at = unit.get(first, v);
        Value row = b.addIndex(b.mulIndex(at.tile, extent), index);
        numbers.push_back(b.loadF32(p.data, b.addIndex(b.mulIndex(row, kLanes), at.within), {}, width));
      }
      for (int64_t h = 0; h < p.heads; ++h) {
        Value small = b.loadSplat(p.small, {b.index(h), index}, width);
        for (int64_t v = 0; v < unit.getVectors(); ++v) {
          Value &sum = sums[size_t(r % turns) * count + size_t(v * p.heads + h)];
          sum = b.fma(numbers[size_t(v)], small, sum);
        }
      }
    }
    return sums;
  });
  SmallVector<Value> result;
  for (size_t i = 0; i < count; ++i)
    result.push_back(addTurns(b, all, count, i));
  return result;
}

/// Writes a product to `result`, or adds it to what is there.
void emitProduct(ProductBuilder &b, const Product &p, Value result, bool adds) {
  Unit unit(b, p);
  unit.forEach(p.block.getFreeExtent(), [&](FreeVector first) {
    auto initial = [&](int64_t v, int64_t h) {
      return adds ? b.loadF32(result, {b.index(h), unit.getFreeIndex(unit.get(first, v))}, {}, b.getWidth())
                  : b.f32Splat(0.0f, b.getWidth());
    };
    bool isCodes = p.block.isCodes();
    SmallVector<Value> sums = isCodes ? CodeProduct(b, p, unit, first).run(initial) : floatProduct(b, p, unit, first);
    for (int64_t v = 0; v < unit.getVectors(); ++v)
      for (int64_t h = 0; h < p.heads; ++h) {
        Value sum = sums[size_t(v * p.heads + h)];
        if (p.isBf16 && p.smallScales)
          sum = b.mul(sum, b.loadSplat(p.smallScales, {b.index(h), b.index(0)}, b.getWidth()));
        b.store(adds && !isCodes ? b.add(sum, initial(v, h)) : sum, result,
                {b.index(h), unit.getFreeIndex(unit.get(first, v))});
      }
  });
}

/// Refuses what these lowerings do not implement.
LogicalResult checkProduct(Operation *op, Placement placement, TypedValue<BlockType> scales, BlockType block,
                           const CpuLevel &level) {
  if (placement == Placement::Element)
    return op->emitError("expected scales placed at accumulator, result or operand for a cpu target, but got element");
  // The free indices of a vector share the rows of a folded operand.
  int64_t freeGroup =
      placement == Placement::Operand ? block.getFreeExtent() / scales.getType().getFreeExtent() : kLanes;
  if (freeGroup % kLanes)
    return op->emitError() << "expected scales at operand that a multiple of " << kLanes
                           << " free indices share for a cpu target, but got " << freeGroup;
  auto expected = block.isCodes() ? PackingAttr::get(op->getContext(), kLanes, kReduceTile, kTileLanes)
                                  : PackingAttr::get(op->getContext(), kLanes, 1, 1);
  if (block.getPacking() != expected)
    return op->emitError() << "expected packing " << expected << " for a cpu target, but got " << block.getPacking();
  Type element = cast<VectorType>(op->getOperand(isa<TileScoreOp>(op) ? 0 : 1).getType()).getElementType();
  if (isa<Float8E4M3FNType>(block.getElement()) && !element.isF32() && !element.isBF16())
    return op->emitError() << "expected compute f32 or bf16 with codes of f8E4M3FN, but got " << element;
  if (element.isBF16() && (!level.hasBf16Products || !block.isCodes()))
    return op->emitError() << "expected bf16 with codes on a cpu level that multiplies it, but got " << level.name
                           << " and " << block;
  return success();
}

/// The product of an operation, whose small operand, of `smallElement`, sums and scales have names of their own.
template <typename Op, typename Adaptor>
Product makeProduct(ProductBuilder &b, Op op, Adaptor in, BlockType block, Value data, Value small, Value sums,
                    Value smallScales, int64_t heads, Type smallElement) {
  Product product{block,
                  data,
                  in.getScales(),
                  in.getZeros(),
                  small,
                  sums,
                  smallScales,
                  in.getOffsets(),
                  heads,
                  block.getReduceExtent(),
                  0,
                  op.getHybrid(),
                  !smallElement.isUnsignedInteger(),
                  smallElement.isBF16(),
                  {},
                  {},
                  int64_t(op.getAheadBytes().value_or(0))};
  if (op.getScales())
    product.scaleType = op.getScales().getType().getElement();
  if (op.getAhead())
    product.ahead = memref::ViewOp::create(b, MemRefType::get({product.aheadBytes}, b.getI8Type()), in.getAhead(),
                                           in.getAheadOffset(), ValueRange());
  if (product.isInPairs())
    product.small = b.reorderFours(product.small);
  if (op.getPlacement() == Placement::Operand)
    product.freeGroup = block.getFreeExtent() / op.getScales().getType().getFreeExtent();
  else if (op.getScales())
    product.group /= op.getScales().getType().getReduceExtent();
  return product;
}

struct ScorePattern : OpConversionPattern<TileScoreOp> {
  ScorePattern(const TypeConverter &converter, MLIRContext *context, const CpuLevel &level)
      : OpConversionPattern(converter, context), level(level) {}

  LogicalResult matchAndRewrite(TileScoreOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    BlockType keys = op.getKeys().getType();
    if (failed(checkProduct(op, op.getPlacement(), op.getScales(), keys, level)))
      return failure();
    ProductBuilder b(op, rewriter, level);
    auto shape = cast<VectorType>(op.getResult().getType()).getShape();
    Product product = makeProduct(b, op, in, keys, in.getKeys(), in.getQuery(), in.getQuerySums(), in.getQueryScales(),
                                  shape[0], cast<VectorType>(op.getQuery().getType()).getElementType());
    Value result = b.scratch(shape, b.getF32Type());
    emitProduct(b, product, result, /*adds=*/false);
    rewriter.replaceOp(op, result);
    return success();
  }
  const CpuLevel &level;
};

struct AccumulatePattern : OpConversionPattern<TileAccumulateOp> {
  AccumulatePattern(const TypeConverter &converter, MLIRContext *context, const CpuLevel &level)
      : OpConversionPattern(converter, context), level(level) {}

  LogicalResult matchAndRewrite(TileAccumulateOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    BlockType values = op.getValues().getType();
    if (failed(checkProduct(op, op.getPlacement(), op.getScales(), values, level)))
      return failure();
    ProductBuilder b(op, rewriter, level);
    int64_t heads = op.getState().getType().getHeads();
    Product product =
        makeProduct(b, op, in, values, in.getValues(), in.getWeights(), in.getWeightSums(), in.getWeightScales(), heads,
                    cast<VectorType>(op.getWeights().getType()).getElementType());
    emitProduct(b, product, in.getState(), /*adds=*/true);
    rewriter.eraseOp(op);
    return success();
  }
  const CpuLevel &level;
};

} // namespace

void kvcc::cpu::populateProductPatterns(RewritePatternSet &patterns, const TypeConverter &converter,
                                        const CpuLevel &level) {
  patterns.add<FoldPattern, ScorePattern, AccumulatePattern>(converter, patterns.getContext(), level);
}
