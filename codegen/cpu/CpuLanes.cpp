// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Lanes as elements of vectors.
#include "codegen/cpu/CpuBuilder.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::cpu;

namespace {

class CpuLanes : public LaneBuilder {
public:
  using LaneBuilder::LaneBuilder;

  int64_t getWidth() const override { return kLanes; }
  Type typed(Type element) override { return VectorType::get({kLanes}, element); }
  Value splat(Value scalar) override { return vector::BroadcastOp::create(*this, typed(scalar.getType()), scalar); }

  void forLanes(int64_t extent, function_ref<void(Value)> body) override {
    loop(index(0), index(extent), body, kLanes);
  }
  void forEach(int64_t extent, function_ref<void(Value)> body) override { loop(index(0), index(extent), body); }
  Value laneIndices(Value first) override {
    SmallVector<int32_t> numbers;
    for (int32_t i = 0; i < kLanes; ++i)
      numbers.push_back(i);
    auto type = cast<VectorType>(i32Type());
    Value lanes = arith::ConstantOp::create(*this, DenseElementsAttr::get(type, ArrayRef(numbers)));
    return add(lanes, splat(arith::IndexCastOp::create(*this, getI32Type(), first)));
  }

  Value loadLanes(Value memory, ValueRange at) override {
    auto element = cast<MemRefType>(memory.getType()).getElementType();
    return vector::LoadOp::create(*this, cast<VectorType>(typed(element)), memory, at);
  }
  void storeLanes(Value value, Value memory, ValueRange at, Value mask) override {
    // Only this thread writes here.
    if (mask)
      value = select(mask, value, loadLanes(memory, at));
    vector::StoreOp::create(*this, value, memory, at);
  }
  Value loadWords(Value codes, Value word) override {
    auto bytes = VectorType::get({4 * kLanes}, getI8Type());
    Value loaded = vector::LoadOp::create(*this, bytes, codes, mulIndex(word, 4));
    return vector::BitCastOp::create(*this, cast<VectorType>(i32Type()), loaded);
  }
  void storeWords(Value value, Value codes, Value word) override {
    Value bytes = vector::BitCastOp::create(*this, VectorType::get({4 * kLanes}, getI8Type()), value);
    vector::StoreOp::create(*this, bytes, codes, mulIndex(word, 4));
  }

  Value scratch(ArrayRef<int64_t> shape, Type element) override {
    return CpuBuilder(getLoc(), *this).scratch(shape, element);
  }
  void barrier() override {}

  Value orient(Value tile) override {
    auto shape = cast<MemRefType>(tile.getType()).getShape();
    Value columns = scratch({shape[1], shape[0]}, getF32Type());
    transpose(tile, columns);
    return columns;
  }
  void orientBack(Value oriented, Value tile) override { transpose(oriented, tile); }
  Value loadColumn(Value oriented, Value column, Value firstRow) override {
    return loadLanes(oriented, {column, firstRow});
  }
  void storeOriented(Value value, Value oriented, Value column, Value firstRow) override {
    storeLanes(value, oriented, {column, firstRow}, {});
  }
  void storeColumn(Value value, Value matrix, Value column, Value firstRow) override {
    for (int64_t i = 0; i < kLanes; ++i) {
      Value element = vector::ExtractOp::create(*this, value, ArrayRef<int64_t>{i});
      memref::StoreOp::create(*this, element, matrix, ValueRange{addIndex(firstRow, i), column});
    }
  }
  void rotateRows(Value tile, int64_t size) override {
    CpuBuilder b(getLoc(), *this);
    auto shape = cast<MemRefType>(tile.getType()).getShape();
    b.loop(0, shape[0], 1, [&](Value row) { rotateRow(b, tile, row, shape[1], size); });
  }

protected:
  Value extendHalf(Value raw) override { return arith::ExtFOp::create(*this, f32Type(), raw); }
  Value extendBfloat(Value raw) override {
    Value bits = arith::BitcastOp::create(*this, typed(getI16Type()), raw);
    return numberOf(shiftLeft(arith::ExtUIOp::create(*this, i32Type(), bits), 16));
  }

private:
  /// Writes the rows of a matrix into the columns of another.
  void transpose(Value from, Value to) {
    auto shape = cast<MemRefType>(from.getType()).getShape();
    forLanes(shape[0], [&](Value row) {
      forLanes(shape[1], [&](Value column) {
        SmallVector<Value> vectors;
        for (int64_t i = 0; i < kLanes; ++i)
          vectors.push_back(loadLanes(from, {addIndex(row, i), column}));
        transpose(vectors);
        for (int64_t i = 0; i < kLanes; ++i)
          storeLanes(vectors[size_t(i)], to, {addIndex(column, i), row}, {});
      });
    });
  }

  /// Transposes a square of vectors: exchanges, for each bit of an index, what has it in the row only with what has it
  /// in the column only.
  void transpose(MutableArrayRef<Value> vectors) {
    for (int64_t bit = 1; bit < kLanes; bit *= 2)
      for (int64_t i = 0; i < kLanes; ++i) {
        if (i & bit)
          continue;
        SmallVector<int64_t> lower, upper;
        for (int64_t j = 0; j < kLanes; ++j) {
          lower.push_back(j & bit ? kLanes + j - bit : j);
          upper.push_back(j & bit ? kLanes + j : j + bit);
        }
        Value a = vectors[size_t(i)], b = vectors[size_t(i + bit)];
        vectors[size_t(i)] = vector::ShuffleOp::create(*this, a, b, lower);
        vectors[size_t(i + bit)] = vector::ShuffleOp::create(*this, a, b, upper);
      }
  }
};

} // namespace

void CpuBuilder::storeF32(Value vector, Value memory, ValueRange at) {
  Type element = cast<MemRefType>(memory.getType()).getElementType();
  store(CpuLanes(getLoc(), *this).encodeNumber(vector, element), memory, at);
}

MakeLaneBuilder kvcc::cpu::getLaneBuilder() {
  return [](Location loc, ConversionPatternRewriter &rewriter) { return std::make_unique<CpuLanes>(loc, rewriter); };
}
