// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Arithmetic and conversions of lanes.
#include "codegen/LaneBuilder.h"

#include "dialect/SmallFloat.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/TypeUtilities.h"

#include <cmath>

using namespace mlir;
using namespace kvcc;

static bool isFloat(Value value) { return isa<FloatType>(getElementTypeOrSelf(value.getType())); }

Value LaneBuilder::add(Value x, Value y) {
  return isFloat(x) ? arith::AddFOp::create(*this, x, y).getResult() : arith::AddIOp::create(*this, x, y).getResult();
}
Value LaneBuilder::sub(Value x, Value y) {
  return isFloat(x) ? arith::SubFOp::create(*this, x, y).getResult() : arith::SubIOp::create(*this, x, y).getResult();
}
Value LaneBuilder::mul(Value x, Value y) {
  return isFloat(x) ? arith::MulFOp::create(*this, x, y).getResult() : arith::MulIOp::create(*this, x, y).getResult();
}
Value LaneBuilder::fma(Value x, Value y, Value z) { return math::FmaOp::create(*this, x, y, z); }
Value LaneBuilder::abs(Value x) { return math::AbsFOp::create(*this, x); }
Value LaneBuilder::sqrt(Value x) { return math::SqrtOp::create(*this, x); }
Value LaneBuilder::pow(Value x, Value y) { return math::PowFOp::create(*this, x, y); }

Value LaneBuilder::less(Value x, Value y) {
  if (isFloat(x))
    return arith::CmpFOp::create(*this, arith::CmpFPredicate::OLT, x, y);
  return arith::CmpIOp::create(*this, arith::CmpIPredicate::slt, x, y);
}

Value LaneBuilder::shiftLeft(Value x, int64_t by) {
  return by ? arith::ShLIOp::create(*this, x, i32(int32_t(by))).getResult() : x;
}
Value LaneBuilder::shiftRight(Value x, int64_t by) {
  return by ? arith::ShRUIOp::create(*this, x, i32(int32_t(by))).getResult() : x;
}

void LaneBuilder::fillRows(Value tile, Rows rows, Value end, RowNumber number, Rows held) {
  int64_t columns = cast<MemRefType>(tile.getType()).getDimSize(1);
  auto fill = [&](Value first, Value last, RowNumber what) {
    loopAbreast(first, last, [&](Value row) {
      forLanes(columns, [&](Value channel) { storeLanes(what(row, channel), tile, {row, channel}); });
    });
  };
  fill(rows.from, rows.to, number);
  fill(rows.to, end, [&](Value, Value) { return f32(0); });
  int64_t width = getWidth();
  if (!held.from || width == 1)
    return;
  // Rows beside these in a vector of lanes take part in its arithmetic, which subnormal numbers would slow down.
  auto one = [&](Value, Value) { return f32(1); };
  fill(mulIndex(divIndex(held.from, width), width), held.from, one);
  fill(held.to, mulIndex(divIndex(addIndex(held.to, width - 1), width), width), one);
}

scf::ForOp LaneBuilder::loop(Value from, Value to, function_ref<void(Value)> body, int64_t step) {
  auto op = scf::ForOp::create(*this, from, to, index(step));
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(op.getBody());
  body(op.getInductionVar());
  return op;
}

SmallVector<Value> LaneBuilder::loop(Value from, Value to, ValueRange initial,
                                     function_ref<SmallVector<Value>(Value, ValueRange)> body, int64_t step) {
  auto op = scf::ForOp::create(*this, from, to, index(step), initial);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(op.getBody());
  scf::YieldOp::create(*this, body(op.getInductionVar(), op.getRegionIterArgs()));
  return SmallVector<Value>(op.getResults());
}

void LaneBuilder::forLanesAmong(int64_t extent, const Rows &rows, function_ref<void(Value)> body) {
  if (!rows.from)
    return forLanes(extent, body);
  forLanes(extent, [&](Value lane) {
    Value isBelow = arith::CmpIOp::create(*this, arith::CmpIPredicate::ult, lane, rows.to);
    Value isAbove = arith::CmpIOp::create(*this, arith::CmpIPredicate::ugt, addIndex(lane, getWidth()), rows.from);
    branch(arith::AndIOp::create(*this, isBelow, isAbove), [&] { body(lane); });
  });
}

void LaneBuilder::forLaneParts(int64_t extent, Rows rows, int64_t count, function_ref<void(Value, Value)> body) {
  forLanesAmong(extent, rows, [&](Value lane) { loop(index(0), index(count), [&](Value part) { body(lane, part); }); });
}

void LaneBuilder::branch(Value condition, function_ref<void()> body, function_ref<void()> otherwise) {
  auto op = scf::IfOp::create(*this, condition, /*withElseRegion=*/bool(otherwise));
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(op.thenBlock());
  body();
  if (!otherwise)
    return;
  setInsertionPointToStart(op.elseBlock());
  otherwise();
}

Value LaneBuilder::decodeNumber(Value raw, Type type) {
  if (type.isF32())
    return raw;
  if (type.isF16())
    return extendHalf(raw);
  if (type.isBF16())
    return extendBfloat(raw);
  Value byte = arith::ExtUIOp::create(*this, i32Type(), raw);
  if (isa<Float8E8M0FNUType>(type)) // the exponent of an f32; 0 is 2^-127, which is subnormal
    return select(less(i32(0), byte), numberOf(shiftLeft(byte, 23)), numberOf(i32(0x00400000)));
  // f8E4M3FN: an f32 with the same exponent field (whose bias is 120 more) and the fraction's bits on top.
  Value magnitude = numberOf(shiftLeft(bitAnd(byte, 0x7f), 20)), sign = shiftLeft(bitAnd(byte, 0x80), 24);
  return numberOf(bitOr(bitsOf(mul(magnitude, f32(0x1p120f))), sign));
}

Value LaneBuilder::encodeNumber(Value number, Type type, bool up) {
  if (type.isF32())
    return number;
  if (type.isF16())
    return arith::TruncFOp::create(*this, typed(type), number);
  Value bits;
  if (type.isBF16()) {
    Value word = bitsOf(number);
    Value odd = bitAnd(shiftRight(word, 16), 1);
    Value rounded = shiftRight(add(add(word, i32(0x7fff)), odd), 16);
    Value isNan = less(i32(0x7f800000), bitAnd(word, 0x7fffffff));
    bits = select(isNan, bitOr(shiftRight(word, 16), i32(0x40)), rounded);
    Value half = arith::TruncIOp::create(*this, typed(getI16Type()), bits);
    return arith::BitcastOp::create(*this, typed(type), half);
  }
  bits = isa<Float8E8M0FNUType>(type) ? encodeE8m0(number, up) : encodeE4m3(number);
  return arith::TruncIOp::create(*this, typed(getI8Type()), bits);
}

Value LaneBuilder::encodeE4m3(Value number) {
  Value word = bitsOf(number), sign = bitAnd(shiftRight(word, 24), 0x80), magnitude = bitAnd(word, 0x7fffffff);
  // 464 is where rounding reaches what stands for NaN.
  Value fits = less(magnitude, i32(0x43e80000));
  return bitOr(sign, select(fits, encodeSmallFloat(numberOf(magnitude), 3, -6), i32(0x7f)));
}

Value LaneBuilder::encodeSmallFloat(Value magnitude, int64_t fraction, int64_t least) {
  // The power of two below, but not below the smallest normal one; its steps are counted in the low bits of a sum.
  Value smallest = f32(std::ldexp(1.0f, int(least)));
  Value power = bitAnd(bitsOf(select(less(smallest, magnitude), magnitude, smallest)), 0x7f800000);
  Value shifter = bitOr(add(power, i32(int32_t(23 - fraction) << 23)), i32(0x400000));
  Value steps = bitAnd(bitsOf(add(magnitude, numberOf(shifter))), int32_t(4 << fraction) - 1);
  return add(steps, sub(shiftRight(power, 23 - fraction), i32(int32_t((127 + least) << fraction))));
}

Value LaneBuilder::encodeE8m0(Value number, bool up) {
  Value word = bitsOf(number), fraction = bitAnd(word, 0x7fffff), exponent = shiftRight(word, 23);
  // See floatToE8m0.
  Value normal = add(exponent, select(less(i32(up ? 0 : kRootOfTwo), fraction), i32(1), i32(0)));
  Value tiny = select(less(i32(up ? kHalfStep : kRootOfHalf), fraction), i32(1), i32(0));
  Value code = select(less(i32(0), exponent), normal, tiny);
  Value positive = select(less(i32(0), word), code, i32(0));
  return select(less(positive, i32(255)), positive, i32(255));
}
