// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Building blocks of the tensor-core lowerings.
#include "codegen/cuda/FragmentBuilder.h"

using namespace mlir;
using namespace kvcc::kv;
using namespace kvcc::cuda;

Value FragmentBuilder::shift(Value x, int64_t by) {
  if (by > 0)
    return arith::ShRUIOp::create(*this, x, i32(int32_t(by)));
  return by ? arith::ShLIOp::create(*this, x, i32(int32_t(-by))).getResult() : x;
}

Value FragmentBuilder::makeQuad(const Quad &quad) { return call1("kv_make_f32x4", opaque("kv_f32x4"), quad); }

Quad FragmentBuilder::splitQuad(Value fragment) {
  Quad quad;
  for (int64_t i = 0; i < 4; ++i)
    quad[size_t(i)] = element(fragment, i, getF32Type());
  return quad;
}

Value FragmentBuilder::makeA(const std::array<Value, 4> &words) {
  return call1("kv_make_u32x4", opaque("kv_u32x4"), words);
}

Value FragmentBuilder::mma(Type half, Value a, Value b0, Value b1, Value c) {
  Value b = call1("kv_make_u32x2", opaque("kv_u32x2"), {b0, b1});
  return call1(half.isBF16() ? "kv_mma_m16n8k16_bf16" : "kv_mma_m16n8k16_f16", opaque("kv_f32x4"), {a, b, c});
}

Value FragmentBuilder::pack(Type half, Value low, Value high) {
  return call1(half.isBF16() ? "kv_f32x2_to_bf16x2" : "kv_f32x2_to_f16x2", getI32Type(), {low, high});
}

Value FragmentBuilder::scaleHalves(Value halves, int64_t exponent) {
  if (!exponent)
    return halves;
  auto bits = uint32_t(15 - exponent) << 10;
  return call1("kv_mul_f16x2", getI32Type(), {halves, word(bits | bits << 16)});
}

Value FragmentBuilder::extract(Type type, Value words, int64_t at) {
  if (type.isF16())
    return call1(at ? "kv_f16x2_hi_to_f32" : "kv_f16x2_lo_to_f32", getF32Type(), words);
  if (type.isBF16())
    return bitsToF32(at ? bitAnd(words, 0xffff0000u) : shift(words, -16));
  Value byte = bitAnd(shift(words, 8 * at), 0xff);
  return isa<Float8E8M0FNUType>(type) ? bitsToF32(shift(byte, -23)) : decodeE4m3(byte);
}

Value FragmentBuilder::getLane(LaneOffset offset) {
  Value lane = offset.kind == LaneOffset::Gid ? gid : offset.kind == LaneOffset::Tig ? tig : add(mulIndex(gid, 4), tig);
  return mulIndex(lane, offset.stride);
}

Value FragmentBuilder::addLane(Value pointer, LaneOffset offset) {
  auto &known = pointers[pointer];
  for (auto &[other, value] : known)
    if (other.kind == offset.kind && other.stride == offset.stride)
      return value;
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointAfterValue(pointer);
  // Opaque: computing it again in every iteration would cost more than the register.
  Value sum = call1("kv_opaque_word", pointer.getType(), addBytes(pointer, toI32(getLane(offset))));
  known.push_back({offset, sum});
  return sum;
}

Value FragmentBuilder::advance(Value memory, Value offset) {
  auto type = cast<MemRefType>(memory.getType());
  Type pointerType = emitc::PointerType::get(type.getElementType());
  Value pointer = UnrealizedConversionCastOp::create(*this, pointerType, memory).getResult(0);
  Value distance = arith::IndexCastOp::create(*this, getI64Type(), offset);
  pointer = emitc::AddOp::create(*this, pointerType, pointer, distance);
  pointer = call1("kv_opaque_ptr", pointerType, pointer);
  return UnrealizedConversionCastOp::create(*this, type, pointer).getResult(0);
}

//===-- Words -------------------------------------------------------------------------------===//

WordReader::WordReader(FragmentBuilder &b, const BlockMemory &block, LaneOffset lane, int64_t offset, int64_t count)
    : b(b), block(block), offset(offset + block.bytes), width(count % 4 ? count % 2 ? 1 : 2 : 4), words(size_t(count)) {
  base = block.ring ? b.addBytes(b.addLane(block.ring, lane), block.offset) : b.add(block.offset, b.getLane(lane));
}

Value WordReader::get(int64_t word) {
  if (words[size_t(word)])
    return words[size_t(word)];
  int64_t first = word / width * width, at = offset + 4 * first;
  Value address;
  if (block.ring) {
    address = b.addBytes(base, b.i32(int32_t(at)));
  } else {
    auto bytes = MemRefType::get({16}, b.getI8Type());
    address = memref::ViewOp::create(b, bytes, block.memory, b.addIndex(base, at), ValueRange());
  }
  std::string function = (block.ring ? "kv_lds" : "kv_ldg") + std::to_string(32 * width);
  if (!block.ring)
    function += "_nc";
  Type type = width == 1 ? b.getI32Type() : Type(b.opaque(width == 2 ? "kv_u32x2" : "kv_u32x4"));
  Value loaded = b.call1(function, type, address);
  for (int64_t i = 0; i < width; ++i)
    words[size_t(first + i)] = width == 1 ? loaded : b.element(loaded, i, b.getI32Type());
  return words[size_t(word)];
}

//===-- Fragments ---------------------------------------------------------------------------===//

/// The shift that brings a whole code of a line down to where it is multiplied: as few different ones as possible.
static int64_t getNaturalShift(unsigned bits, int64_t chunk, const CodePiece &piece) {
  switch (bits) {
  case 3: // brings the bit at 9, a part of another code, to where that needs it; but two words are alike for four rows
    return piece.bit < 10 ? 0 : chunk == 4 && piece.word == 0 ? 8 : 9 - piece.word;
  case 5:
    return piece.bit < 10 ? 0 : 5;
  case 6:
  case 7:
    return piece.bit;
  case 16:
    return 0;
  default:
    return piece.bit < 8 ? 0 : 8;
  }
}

int64_t kvcc::cuda::getPairExponent(Type element, int64_t reduceExtent, int64_t t, int64_t n) {
  if (!isa<IntegerType>(element))
    return 0;
  unsigned bits = element.getIntOrFloatBitWidth();
  FragmentOrder order(32, reduceExtent, bits);
  FragmentOrder::Chunk chunk = order.getChunk(n);
  // Both rows of a tile multiply the same operand.
  for (int64_t u : {t % 2 * 2, t % 2 * 2 + 1}) {
    ArrayRef<CodePiece> pieces = getCodePieces(bits, getLinePosition(bits, chunk.extent, u, n - chunk.first));
    if (pieces.size() == 1)
      return pieces[0].bit - getNaturalShift(bits, chunk.extent, pieces[0]);
  }
  return 0;
}

FragmentReader::FragmentReader(FragmentBuilder &b, const BlockMemory &block)
    : b(b), element(block.type.getElement()),
      order(block.type.getFreeExtent(), block.type.getReduceExtent(), element.getIntOrFloatBitWidth()),
      bits(element.getIntOrFloatBitWidth()) {
  int64_t words = order.getWordsPerLane(), fours = words / 4 * 4;
  // Runs of four words of each lane, then two, then one.
  auto run = [&](int64_t first, int64_t count) {
    runs.push_back(std::make_unique<WordReader>(b, block, LaneOffset{LaneOffset::Lane, 4 * count}, first * 128, count));
  };
  for (int64_t x = 0; x < fours; x += 4)
    run(x, 4);
  if (words % 4 >= 2)
    run(fours, 2);
  if (words % 2)
    run(words - 1, 1);
}

Value FragmentReader::getWord(int64_t x) {
  int64_t fours = order.getWordsPerLane() / 4 * 4, rest = order.getWordsPerLane() % 4;
  if (x < fours)
    return runs[size_t(x / 4)]->get(x % 4);
  if (rest >= 2 && x < fours + 2)
    return runs[size_t(fours / 4)]->get(x - fours);
  return runs.back()->get(0);
}

Value FragmentReader::getShifted(int64_t x, int64_t by) {
  Value &result = shifted[{x, by}];
  if (!result)
    result = b.shift(getWord(x), by);
  return result;
}

Value FragmentReader::getPair(int64_t u, int64_t n, int64_t exponent) {
  auto [line, position] = order.getPosition(u, n);
  auto mask = [](uint32_t half) { return half | half << 16; };
  if (bits == 16)
    return getWord(line * 16 + position);
  ArrayRef<CodePiece> pieces = getCodePieces(bits, position);
  int64_t first = line * int64_t(bits);
  if (!isa<IntegerType>(element)) {
    // The sign to the top of a half, the magnitude to where the exponent of a half ends.
    const CodePiece &piece = pieces[0];
    Value top = getShifted(first + piece.word, piece.bit + int64_t(bits) - 16);
    int64_t down = bits == 8 ? 1 : 3;
    uint32_t magnitude = bits == 8 ? 0x3f80 : 0x0e00;
    Value sign = b.bitAnd(top, mask(0x8000));
    return b.bitOr(b.bitAnd(getShifted(first + piece.word, piece.bit + int64_t(bits) - 16 + down), mask(magnitude)),
                   sign);
  }
  Value pair;
  for (const CodePiece &piece : pieces) {
    int64_t to = exponent + piece.from;
    Value part = b.bitAnd(getShifted(first + piece.word, piece.bit - to), mask(((1u << piece.count) - 1) << to));
    pair = pair ? b.bitOr(part, pair) : part;
  }
  return pair;
}

Value FragmentReader::getA(int64_t t, int64_t s) {
  std::array<Value, 4> words;
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t hi = 0; hi < 2; ++hi) {
      int64_t n = 2 * s + h;
      words[size_t(2 * h + hi)] = getPair(2 * t + hi, n, getPairExponent(element, order.getReduceExtent(), t, n));
    }
  return b.makeA(words);
}
