// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Unpacking and multiplying codes.
#include "codegen/cpu/ProductBuilder.h"

#include "dialect/SmallFloat.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "passes/Passes.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::cpu;

ProductBuilder::ProductBuilder(Operation *op, OpBuilder &builder, const CpuLevel &level)
    : CpuBuilder(op->getLoc(), builder), level(level) {
  auto func = op->getParentOfType<FunctionOpInterface>();
  if (auto wanted = func->getAttrOfType<IntegerAttr>(kAccumulatorsAttrName))
    accumulators = wanted.getInt();
}

Value ProductBuilder::bitcast(Value vector, unsigned bits) {
  return vector::BitCastOp::create(*this, vectorOf(bits), vector);
}

Value ProductBuilder::bitcastBf16(Value vector) {
  return vector::BitCastOp::create(*this, VectorType::get({2 * getWidth()}, getBF16Type()), vector);
}

Value ProductBuilder::intrinsic(StringRef name, VectorType type, ValueRange operands) {
  return LLVM::CallIntrinsicOp::create(*this, type, getStringAttr(name), operands).getResult(0);
}

Value ProductBuilder::loadBytes(Value memory, Value at) {
  return vector::LoadOp::create(*this, vectorOf(8), memory, at);
}

Value ProductBuilder::extractCodes(function_ref<Value(unsigned)> word, unsigned bits, unsigned code,
                                   unsigned elementBits, unsigned part, bool isClean) {
  unsigned position = code * bits, first = position % 8;
  // The field of a word that starts at bit `from` and has `count` bits, moved to bit `to`. Bytes have no shifts of
  // their own: elements of 32 bits do, and the mask drops what comes from neighbours.
  auto field = [&](unsigned k, unsigned from, unsigned count, unsigned to) -> Value {
    unsigned shifted = elementBits == 8 ? 32 : elementBits;
    Value bytes = bitcast(word(k), shifted);
    int shift = int(from + 8 * part) - int(to);
    if (shift > 0)
      bytes = arith::ShRUIOp::create(*this, bytes, constantLike(vectorOf(shifted), uint64_t(shift)));
    if (shift < 0)
      bytes = arith::ShLIOp::create(*this, bytes, constantLike(vectorOf(shifted), uint64_t(-shift)));
    Value elements = bitcast(bytes, elementBits);
    if (count == elementBits || (count == bits && !isClean))
      return elements;
    return arith::AndIOp::create(*this, elements, constantLike(vectorOf(elementBits), ((1u << count) - 1) << to));
  };
  unsigned low = std::min(bits, 8 - first);
  Value result = field(position / 8, first, low, 0);
  if (low < bits)
    result = arith::OrIOp::create(*this, result, field(position / 8 + 1, 0, bits - low, low));
  return result;
}

Value ProductBuilder::decodeE2m1(Value codes) {
  VectorType type = vectorOf(8);
  if (level.hasByteProducts()) {
    // A table of 16 bytes, for each 16 of the vector.
    SmallVector<int8_t> table;
    while (int64_t(table.size()) < level.vectorBytes)
      for (int8_t sign : {1, -1})
        for (uint8_t twice : kE2m1Twice)
          table.push_back(int8_t(12 + sign * int8_t(twice)));
    Value numbers = arith::ConstantOp::create(*this, DenseElementsAttr::get(type, ArrayRef(table)));
    if (level.product == ByteProduct::Matching)
      return intrinsic("llvm.aarch64.neon.tbl1.v16i8", type, {numbers, codes});
    bool wide = level.vectorBytes == 64;
    return intrinsic(wide ? "llvm.x86.avx512.pshuf.b.512" : "llvm.x86.avx2.pshuf.b", type, {numbers, codes});
  }
  // Twice the magnitudes 0 .. 7 are 0 1 2 3 4 6 8 12: m + (m over 4) + 2 (m over 6).
  Value magnitude = arith::AndIOp::create(*this, codes, constantLike(type, 7));
  auto over = [&](uint64_t limit) {
    Value bound = constantLike(type, limit);
    return arith::SubIOp::create(*this, arith::MaxUIOp::create(*this, magnitude, bound), bound);
  };
  Value top = over(6), twice = add(add(magnitude, over(4)), add(top, top)), zero = constantLike(type, 12);
  Value isNegative = arith::CmpIOp::create(*this, arith::CmpIPredicate::ugt, codes, constantLike(type, 7));
  return arith::SelectOp::create(*this, isNegative, arith::SubIOp::create(*this, zero, twice), add(zero, twice));
}

Value ProductBuilder::lookUpBf16(Value codes, ArrayRef<float> numbers) {
  // The instruction looks at five bits: where a code has fewer, the table repeats itself.
  SmallVector<int16_t> table;
  for (size_t i = 0; i < 32; ++i)
    table.push_back(int16_t(floatToBfloat(numbers[i % numbers.size()])));
  Value entries = arith::ConstantOp::create(*this, DenseElementsAttr::get(vectorOf(16), ArrayRef(table)));
  return intrinsic("llvm.x86.avx512.permvar.hi.512", vectorOf(16), {entries, codes});
}

Value ProductBuilder::lookUpE4m3(Value bytes, unsigned part) {
  // The low and the high bytes of magnitudes, by tables of 128 bytes in two vectors.
  auto lookUp = [&](unsigned shift) {
    SmallVector<int8_t> table;
    for (unsigned i = 0; i < 128; ++i)
      table.push_back(int8_t(floatToBfloat(e4m3ToFloat(uint8_t(i))) >> shift));
    auto half = [&](size_t from) {
      return arith::ConstantOp::create(*this, DenseElementsAttr::get(vectorOf(8), ArrayRef(table).slice(from, 64)))
          .getResult();
    };
    return intrinsic("llvm.x86.avx512.vpermi2var.qi.512", vectorOf(8), {half(0), bytes, half(64)});
  };
  Value sign = arith::AndIOp::create(*this, bytes, constantLike(vectorOf(8), 0x80));
  Value low = bitcast(lookUp(0), 16), high = bitcast(arith::OrIOp::create(*this, lookUp(8), sign), 16);
  Value by8 = constantLike(vectorOf(16), 8), lowBytes = constantLike(vectorOf(16), 0xff),
        highBytes = constantLike(vectorOf(16), 0xff00);
  if (part == 0)
    return arith::OrIOp::create(*this, arith::AndIOp::create(*this, low, lowBytes),
                                arith::ShLIOp::create(*this, high, by8));
  return arith::OrIOp::create(*this, arith::ShRUIOp::create(*this, low, by8),
                              arith::AndIOp::create(*this, high, highBytes));
}

std::array<Value, 2> ProductBuilder::decodeE4m3Pairs(Value bytes, unsigned parity) {
  Value top = bitcast(bytes, 16);
  if (parity == 0)
    top = arith::ShLIOp::create(*this, top, constantLike(vectorOf(16), 8));
  Value halves = decodeE4m3(top);
  int64_t width = getWidth();
  std::array<Value, 2> result;
  for (int64_t i = 0; i < 2; ++i) {
    Value part = vector::ExtractStridedSliceOp::create(*this, halves, ArrayRef<int64_t>{i * width},
                                                       ArrayRef<int64_t>{width}, ArrayRef<int64_t>{1});
    result[size_t(i)] = arith::ExtFOp::create(*this, f32Vector(width), part);
  }
  return result;
}

Value ProductBuilder::reorderFours(Value matrix) {
  auto shape = cast<MemRefType>(matrix.getType()).getShape();
  Value copy = scratch(shape, getF32Type());
  SmallVector<int64_t> order;
  for (int64_t i = 0; i < kLanes; i += 4)
    order.append({i, i + 2, i + 1, i + 3});
  loop(0, shape[0], 1, [&](Value row) {
    loop(0, shape[1], kLanes, [&](Value column) {
      Value numbers = loadF32(matrix, {row, column});
      store(vector::ShuffleOp::create(*this, numbers, numbers, order), copy, {row, column});
    });
  });
  return copy;
}

Value ProductBuilder::loadPairs(Value memory, ValueRange at) {
  Value pair = vector::LoadOp::create(*this, f32Vector(2), memory, at);
  Value bits = vector::BitCastOp::create(*this, VectorType::get({1}, getI64Type()), pair);
  Value scalar = vector::ExtractOp::create(*this, bits, ArrayRef<int64_t>{0});
  return vector::BitCastOp::create(*this, f32Vector(getWidth()), splat(scalar, getWidth() / 2));
}

Value ProductBuilder::addPairs(Value first, Value second) {
  SmallVector<int64_t> even, odd;
  for (int64_t i = 0; i < 2 * getWidth(); i += 2) {
    even.push_back(i);
    odd.push_back(i + 1);
  }
  return add(vector::ShuffleOp::create(*this, first, second, even),
             vector::ShuffleOp::create(*this, first, second, odd));
}

Value ProductBuilder::widenPart(Value vector, unsigned bits, unsigned part, bool isSigned) {
  VectorType type = vectorOf(32);
  Value top = arith::ShLIOp::create(*this, bitcast(vector, 32), constantLike(type, 32 - bits * (part + 1)));
  Value down = constantLike(type, 32 - bits);
  if (isSigned)
    return arith::ShRSIOp::create(*this, top, down);
  return arith::ShRUIOp::create(*this, top, down);
}

Value ProductBuilder::dotBytes(Value sums, Value codes, Value small, bool smallIsSigned) {
  bool codesAreSigned = wantsSignedCodes(smallIsSigned);
  switch (level.product) {
  case ByteProduct::Mixed: {
    if (codesAreSigned)
      std::swap(codes, small);
    bool wide = level.vectorBytes == 64;
    return intrinsic(wide ? "llvm.x86.avx512.vpdpbusd.512" : "llvm.x86.avx512.vpdpbusd.256", vectorOf(32),
                     {sums, codes, small});
  }
  case ByteProduct::Matching:
    return intrinsic(smallIsSigned ? "llvm.aarch64.neon.sdot.v4i32.v16i8" : "llvm.aarch64.neon.udot.v4i32.v16i8",
                     vectorOf(32), {sums, codes, small});
  case ByteProduct::Pairs:
    return add(sums, widen(multiplyPairs(codes, small, smallIsSigned), 1));
  case ByteProduct::None:
    for (unsigned e = 0; e < 4; ++e)
      sums = add(sums, mul(widenPart(codes, 8, e, codesAreSigned), widenPart(small, 8, e, smallIsSigned)));
    return sums;
  }
  llvm_unreachable("unknown product");
}

Value ProductBuilder::multiplyPairs(Value codes, Value small, bool smallIsSigned) {
  if (!smallIsSigned)
    std::swap(codes, small);
  bool wide = level.vectorBytes == 64;
  return intrinsic(wide ? "llvm.x86.avx512.pmaddubs.w.512" : "llvm.x86.avx2.pmadd.ub.sw", vectorOf(16), {codes, small});
}

Value ProductBuilder::multiplyAdd(Value x, Value y) {
  bool wide = level.vectorBytes == 64;
  return intrinsic(wide ? "llvm.x86.avx512.pmaddw.d.512" : "llvm.x86.avx2.pmadd.wd", vectorOf(32), {x, y});
}

Value ProductBuilder::widen(Value narrow, uint64_t factor) {
  return multiplyAdd(narrow, constantLike(vectorOf(16), factor));
}

Value ProductBuilder::dotWords(Value sums, Value codes, Value small) {
  assert(!splitsWords() && "words are digits");
  if (level.product == ByteProduct::Pairs)
    return add(sums, multiplyAdd(codes, small));
  for (unsigned e = 0; e < 2; ++e)
    sums = add(sums, mul(widenPart(codes, 16, e, true), widenPart(small, 16, e, true)));
  return sums;
}

Value ProductBuilder::dotBf16(Value sums, Value codes, Value small) {
  Value operands[] = {sums, bitcastBf16(codes), bitcastBf16(small)};
  return intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", f32Vector(getWidth()), operands);
}

Value ProductBuilder::toBf16(Value first, Value second) {
  VectorType type = VectorType::get({2 * getWidth()}, getBF16Type());
  Value both = bitcast(intrinsic("llvm.x86.avx512bf16.cvtne2ps2bf16.512", type, {second, first}), 16);
  SmallVector<int64_t> order;
  for (int64_t i = 0; i < 2 * getWidth(); i += 4)
    order.append({i, i + 2, i + 1, i + 3});
  return vector::ShuffleOp::create(*this, both, both, order);
}

Value ProductBuilder::loadRepeated(Value memory, ValueRange at, unsigned bits) {
  auto element = cast<MemRefType>(memory.getType()).getElementType();
  auto type = VectorType::get({32 / element.getIntOrFloatBitWidth()}, element);
  Value loaded = vector::LoadOp::create(*this, type, memory, at);
  Value word = vector::BitCastOp::create(*this, VectorType::get({1}, getI32Type()), loaded);
  Value scalar = vector::ExtractOp::create(*this, word, ArrayRef<int64_t>{0});
  return bitcast(splat(scalar, getWidth()), bits);
}
