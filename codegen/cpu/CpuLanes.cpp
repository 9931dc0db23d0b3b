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
    return add(lanes, i32(first));
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
  void prefetch(Value memory, Value at) override {
    memref::PrefetchOp::create(*this, memory, at, /*isWrite=*/false, /*localityHint=*/3, /*isDataCache=*/true);
  }
  Value loadWords(Value codes, Value word) override {
    auto bytes = VectorType::get({4 * kLanes}, getI8Type());
    Value loaded = vector::LoadOp::create(*this, bytes, codes, mulIndex(word, 4));
    return vector::BitCastOp::create(*this, cast<VectorType>(i32Type()), loaded);
  }
  void storeWords(Value value, Value codes, Value word, Value mask) override {
    if (mask)
      value = select(mask, value, loadWords(codes, word));
    Value bytes = vector::BitCastOp::create(*this, VectorType::get({4 * kLanes}, getI8Type()), value);
    vector::StoreOp::create(*this, bytes, codes, mulIndex(word, 4));
  }

  Value scratch(ArrayRef<int64_t> shape, Type element) override {
    return CpuBuilder(getLoc(), *this).scratch(shape, element);
  }
  void barrier() override {}

  /// Squares of a tile are transposed where they are: column c of rows r to r + 7, both from the start of a square, is
  /// row r + c of the columns of that square.
  void orient(Value tile, Rows rows) override { transposeSquares(tile, rows); }
  void orientBack(Value tile, Rows rows) override { transposeSquares(tile, rows); }
  Value loadColumn(Value tile, Value column, Value firstRow) override {
    auto square = VectorType::get({kSquare}, getF32Type());
    Value all = f32(0);
    for (int64_t i = 0; i < kLanes; i += kSquare) {
      Value part = vector::LoadOp::create(*this, square, tile, getOriented(column, firstRow, i));
      all = vector::InsertStridedSliceOp::create(*this, part, all, ArrayRef<int64_t>{i}, ArrayRef<int64_t>{1});
    }
    return all;
  }
  void storeOriented(Value value, Value tile, Value column, Value firstRow) override {
    for (int64_t i = 0; i < kLanes; i += kSquare) {
      Value part = vector::ExtractStridedSliceOp::create(*this, value, ArrayRef<int64_t>{i}, ArrayRef<int64_t>{kSquare},
                                                         ArrayRef<int64_t>{1});
      vector::StoreOp::create(*this, part, tile, getOriented(column, firstRow, i));
    }
  }
  void fillOriented(Value tile, Rows rows, Value end, RowNumber number, Rows held) override {
    // Whole blocks are turned in registers, on their way.
    auto is = [&](Value x, int64_t y) { return arith::CmpIOp::create(*this, arith::CmpIPredicate::eq, x, index(y)); };
    int64_t all = cast<MemRefType>(tile.getType()).getDimSize(0);
    branch(
        arith::AndIOp::create(*this, is(rows.from, 0), is(rows.to, all)), [&] { fillOriented(tile, number); },
        [&] { LaneBuilder::fillOriented(tile, rows, end, number, held); });
  }
  void storeColumn(Value value, Value matrix, Value column, Value firstRow) override {
    for (int64_t i = 0; i < kLanes; ++i) {
      Value element = vector::ExtractOp::create(*this, value, ArrayRef<int64_t>{i});
      memref::StoreOp::create(*this, element, matrix, ValueRange{addIndex(firstRow, i), column});
    }
  }
  void rotateRows(Value tile, int64_t size, Rows rows) override {
    auto shape = cast<MemRefType>(tile.getType()).getShape();
    loop(rows.from ? rows.from : index(0), rows.to ? rows.to : index(shape[0]), [&](Value row) {
      CpuBuilder b(getLoc(), *this);
      rotateRow(b, tile, row, shape[1], size);
    });
  }

protected:
  Value extendHalf(Value raw) override { return arith::ExtFOp::create(*this, f32Type(), raw); }
  Value extendBfloat(Value raw) override {
    Value bits = arith::BitcastOp::create(*this, typed(getI16Type()), raw);
    return numberOf(shiftLeft(arith::ExtUIOp::create(*this, i32Type(), bits), 16));
  }

private:
  /// The vectors of a square fit the registers of every level.
  static constexpr int64_t kSquare = 8;
  SmallVector<Value> getOriented(Value column, Value firstRow, int64_t lane) {
    Value inSquare = remIndex(column, kSquare);
    return {addIndex(addIndex(firstRow, lane), inSquare), arith::SubIOp::create(*this, column, inSquare)};
  }
  void fillOriented(Value tile, RowNumber number) {
    auto shape = cast<MemRefType>(tile.getType()).getShape();
    auto fill = [&](Value first, Value column) {
      SmallVector<Value> lines[kLanes / kSquare];
      for (int64_t i = 0; i < kSquare; ++i) {
        Value line = number(addIndex(first, i), column);
        for (auto [at, part] : llvm::enumerate(lines))
          part.push_back(vector::ExtractStridedSliceOp::create(*this, line, ArrayRef<int64_t>{int64_t(at) * kSquare},
                                                               ArrayRef<int64_t>{kSquare}, ArrayRef<int64_t>{1}));
      }
      for (auto [at, part] : llvm::enumerate(lines)) {
        transpose(part);
        for (int64_t i = 0; i < kSquare; ++i)
          vector::StoreOp::create(*this, part[size_t(i)], tile,
                                  ValueRange{addIndex(first, i), addIndex(column, int64_t(at) * kSquare)});
      }
    };
    loop(
        index(0), index(shape[0]), [&](Value first) { forLanes(shape[1], [&](Value column) { fill(first, column); }); },
        kSquare);
  }
  void transposeSquares(Value tile, Rows rows) {
    auto shape = cast<MemRefType>(tile.getType()).getShape();
    auto square = VectorType::get({kSquare}, getF32Type());
    Value first = rows.from ? mulIndex(divIndex(rows.from, kSquare), kSquare) : index(0);
    loop(
        first, rows.to ? rows.to : index(shape[0]),
        [&](Value row) {
          loop(
              index(0), index(shape[1]),
              [&](Value column) {
                SmallVector<Value> vectors;
                for (int64_t i = 0; i < kSquare; ++i)
                  vectors.push_back(vector::LoadOp::create(*this, square, tile, ValueRange{addIndex(row, i), column}));
                transpose(vectors);
                for (int64_t i = 0; i < kSquare; ++i)
                  vector::StoreOp::create(*this, vectors[size_t(i)], tile, ValueRange{addIndex(row, i), column});
              },
              kSquare);
        },
        kSquare);
  }

  /// Transposes a square of vectors: exchanges, for each bit of an index, what has it in the row only with what has it
  /// in the column only.
  void transpose(MutableArrayRef<Value> vectors) {
    for (int64_t bit = 1; bit < kSquare; bit *= 2)
      for (int64_t i = 0; i < kSquare; ++i) {
        if (i & bit)
          continue;
        SmallVector<int64_t> lower, upper;
        for (int64_t j = 0; j < kSquare; ++j) {
          lower.push_back(j & bit ? kSquare + j - bit : j);
          upper.push_back(j & bit ? kSquare + j : j + bit);
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
