// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The quantizer as code. See dialect/Quantization.cpp, which says the same of one group.
#include "codegen/GroupCodec.h"

#include "dialect/Quantization.h"
#include "dialect/SmallFloat.h"

#include <bit>
#include <limits>

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;

GroupCodec::GroupCodec(LaneBuilder &b, QuantAttr quant)
    : b(b), quant(quant), element(quant.getElement()), map(quant.getMap()) {
  if (!isa<IntegerType>(element))
    return;
  zeroCode = quant.getZeroCode();
  minCode = map == Map::Sym ? 1 : 0;
  maxCode = 2 * zeroCode - 1;
}

/// Between -largest and largest, and not NaN.
static Value limit(LaneBuilder &b, Value number, float largest) {
  number = b.select(b.less(number, b.f32(largest)), number, b.f32(largest));
  return b.select(b.less(b.f32(-largest), number), number, b.f32(-largest));
}

Value GroupCodec::roundTo(Value number, float largest) {
  Type type = quant.getScale();
  // What the type cannot hold becomes its largest number, and so does NaN: nothing infinite is ever stored.
  return b.decodeNumber(b.encodeNumber(limit(b, number, largest), type), type);
}

GroupCodec::Parameters GroupCodec::select(Value condition, const Parameters &x, const Parameters &y) {
  return {b.select(condition, x.scale, y.scale), x.zero ? b.select(condition, x.zero, y.zero) : Value()};
}

Value GroupCodec::isAsym(const Parameters &group) { return b.less(b.bitsOf(group.scale), b.i32(0)); }
Value GroupCodec::getMagnitude(const Parameters &group) {
  return map == Map::Hybrid ? b.abs(group.scale) : group.scale;
}

Value GroupCodec::getError(int64_t size, Numbers numbers, const Parameters &group, bool squared) {
  Value inverse = getInverse(group);
  return b.loop(b.index(0), b.index(size), b.f32(0), [&](Value i, ValueRange sums) {
    Value number = numbers(i);
    Value difference = b.abs(b.sub(decode(encode(number, group, inverse), group), number));
    Value sum = squared ? b.fma(difference, difference, sums[0]) : b.add(sums[0], difference);
    return SmallVector<Value>{sum};
  })[0];
}

GroupCodec::Parameters GroupCodec::chooseFor(Value extreme, Value min, Value max, Value shrink, int64_t size,
                                             Numbers numbers) {
  float largest = getLargestScale(quant.getScale());
  auto shrunk = [&](Value x) { return shrink ? b.mul(x, shrink) : x; };
  Parameters symmetric, asymmetric;
  if (map != Map::Asym) {
    float steps = zeroCode == 0 ? getLargestElement(element) : float(map == Map::Sym ? zeroCode - 1 : zeroCode);
    Value numerator = map == Map::SymSigned ? b.sub(b.f32(-0.0f), extreme) : b.abs(extreme);
    symmetric.scale = roundTo(shrunk(b.div(numerator, b.f32(steps))), largest);
    if (map == Map::Hybrid)
      symmetric.zero = roundTo(b.f32(0), largest);
    if (map != Map::Hybrid)
      return symmetric;
  }
  Value range = b.sub(max, min), zero = min;
  if (shrink)
    zero = b.add(min, b.mul(b.mul(range, b.sub(b.f32(1), shrink)), b.f32(0.5f)));
  asymmetric.scale = roundTo(shrunk(b.div(range, b.f32(float(maxCode)))), largest);
  asymmetric.zero = roundTo(zero, largest);
  if (map == Map::Asym)
    return asymmetric;
  asymmetric.scale = b.numberOf(b.bitOr(b.bitsOf(asymmetric.scale), b.i32(int32_t(0x80000000))));
  Value isBetter = b.less(getError(size, numbers, asymmetric, false), getError(size, numbers, symmetric, false));
  return select(isBetter, asymmetric, symmetric);
}

GroupCodec::Parameters GroupCodec::choose(int64_t size, Numbers numbers) {
  bool wantsExtreme = map != Map::Asym, wantsRange = quant.hasZeros();
  // Quarters of the group side by side, since each step waits for the one before: the extreme of numbers seen, the
  // smallest and the largest.
  constexpr int64_t parts = 4;
  int64_t share = size / parts;
  Value first = wantsRange ? numbers(b.index(0)) : Value();
  auto seenOf = [&](Value extreme, Value number) {
    SmallVector<Value> seen;
    if (wantsExtreme)
      seen.push_back(extreme);
    if (wantsRange)
      seen.append({number, number});
    return seen;
  };
  auto join = [&](ValueRange seen, ValueRange more) {
    SmallVector<Value> joined;
    if (wantsExtreme) {
      // Only sym_signed asks for the sign of the first largest number.
      Value isLarger = map == Map::SymSigned ? b.less(b.abs(seen[0]), b.abs(more[0])) : b.less(seen[0], more[0]);
      joined.push_back(b.select(isLarger, more[0], seen[0]));
    }
    if (wantsRange) {
      size_t min = seen.size() - 2, max = min + 1;
      joined.push_back(b.select(b.less(more[min], seen[min]), more[min], seen[min]));
      joined.push_back(b.select(b.less(seen[max], more[max]), more[max], seen[max]));
    }
    return joined;
  };
  SmallVector<Value> nothing = seenOf(b.f32(0), first), initial;
  for (int64_t part = 0; part < parts; ++part)
    initial.append(nothing);
  auto partOf = [&](ValueRange all, int64_t part) { return all.slice(size_t(part) * nothing.size(), nothing.size()); };
  SmallVector<Value> found = b.loop(b.index(0), b.index(share), initial, [&](Value i, ValueRange before) {
    SmallVector<Value> after;
    for (int64_t part = 0; part < parts; ++part) {
      Value number = numbers(b.addIndex(i, part * share));
      after.append(join(partOf(before, part), seenOf(map == Map::SymSigned ? number : b.abs(number), number)));
    }
    return after;
  });
  SmallVector<Value> all(partOf(found, 0));
  for (int64_t part = 1; part < parts; ++part)
    all = join(all, partOf(found, part));
  Value extreme = wantsExtreme ? all[0] : Value(), min, max;
  if (wantsRange) {
    min = all[all.size() - 2];
    max = all.back();
  }
  Parameters best = chooseFor(extreme, min, max, Value(), size, numbers);
  int64_t search = quant.getSearch();
  if (search < 2)
    return best;
  Value least = getError(size, numbers, best, true);
  SmallVector<Value> state{least, best.scale};
  if (best.zero)
    state.push_back(best.zero);
  state = b.loop(b.index(1), b.index(search), state, [&](Value i, ValueRange before) {
    Value step = arith::IndexCastOp::create(b, b.getI32Type(), i);
    Value part = b.mul(b.f32(0.22f), b.splat(arith::SIToFPOp::create(b, b.getF32Type(), step)));
    Value shrink = b.sub(b.f32(1), b.div(part, b.f32(float(search - 1))));
    Parameters candidate = chooseFor(extreme, min, max, shrink, size, numbers);
    Parameters known{before[1], best.zero ? before[2] : Value()};
    Value error = getError(size, numbers, candidate, true), isBetter = b.less(error, before[0]);
    Parameters better = select(isBetter, candidate, known);
    SmallVector<Value> after{b.select(isBetter, error, before[0]), better.scale};
    if (better.zero)
      after.push_back(better.zero);
    return after;
  });
  return {state[1], best.zero ? state[2] : Value()};
}

Value GroupCodec::getInverse(const Parameters &group) {
  Value scale = getMagnitude(group);
  Value inverse = limit(b, b.div(b.f32(1), scale), std::numeric_limits<float>::max());
  // With a scale of zero every code is that of zero.
  Value isZero = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, scale, b.f32(0));
  return b.select(isZero, b.f32(0), inverse);
}

Value GroupCodec::encode(Value number, const Parameters &group, Value inverse) {
  auto clamp = [&](Value x, float low, float high) {
    x = b.select(b.less(b.f32(low), x), x, b.f32(low));
    return b.select(b.less(x, b.f32(high)), x, b.f32(high));
  };
  if (isa<Float8E4M3FNType>(element)) {
    Value byte = b.encodeNumber(clamp(b.mul(number, inverse), -448.0f, 448.0f), element);
    return arith::ExtUIOp::create(b, b.i32Type(), byte);
  }
  if (isa<Float4E2M1FNType>(element)) {
    Value ratio = b.mul(number, inverse), magnitude = b.abs(ratio), largest = b.f32(6);
    magnitude = b.select(b.less(magnitude, largest), magnitude, largest);
    Value sign = b.bitAnd(b.shiftRight(b.bitsOf(ratio), 28), 8);
    return b.bitOr(sign, b.encodeSmallFloat(magnitude, /*fraction=*/1, /*least=*/0));
  }
  // As Quantizer::encode; the sum has the integer in its low bits. Clamped there: of NaN comes the lowest code.
  auto codeOf = [&](bool asym) {
    Value from = asym ? b.sub(number, group.zero) : number;
    Value shifted = b.fma(from, inverse, b.f32(kRoundingShift + float(asym ? 0 : zeroCode)));
    return b.bitsOf(clamp(shifted, kRoundingShift + float(minCode), kRoundingShift + float(maxCode)));
  };
  switch (map) {
  case Map::Asym:
    return codeOf(true);
  case Map::Hybrid:
    return b.select(isAsym(group), codeOf(true), codeOf(false));
  default:
    return codeOf(false);
  }
}

Value GroupCodec::decode(Value code, const Parameters &group) {
  Value scale = getMagnitude(group);
  if (isa<Float8E4M3FNType>(element)) {
    Value byte = arith::TruncIOp::create(b, b.typed(b.getI8Type()), code);
    return b.mul(b.decodeNumber(byte, element), scale);
  }
  if (isa<Float4E2M1FNType>(element)) {
    Value magnitude = b.bitAnd(code, 7), number = b.f32(0);
    for (int i = 1; i < 8; ++i)
      number = b.select(b.less(magnitude, b.i32(i)), number, b.f32(float(kE2m1Twice[i]) / 2));
    Value sign = b.shiftLeft(b.bitAnd(code, 8), 28);
    return b.mul(b.numberOf(b.bitOr(b.bitsOf(number), sign)), scale);
  }
  code = b.bitAnd(code, int32_t(2 * zeroCode - 1));
  Value symmetric = b.mul(b.toFloat(b.sub(code, b.i32(int32_t(zeroCode)))), scale);
  if (map != Map::Asym && map != Map::Hybrid)
    return symmetric;
  Value asymmetric = b.fma(b.toFloat(code), scale, group.zero);
  return map == Map::Asym ? asymmetric : b.select(isAsym(group), asymmetric, symmetric);
}
