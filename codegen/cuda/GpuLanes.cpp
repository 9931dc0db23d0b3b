// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Lanes as threads of a block.
#include "codegen/cuda/GpuBuilder.h"

#include "passes/Passes.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::cuda;

namespace {

class GpuLanes : public LaneBuilder {
public:
  using LaneBuilder::LaneBuilder;

  int64_t getWidth() const override { return 1; }
  int64_t getRowsAbreast() const override { return kv::kBlockTokens; }
  // The device compiler would contract the operations of the language.
  Value add(Value x, Value y) override { return x.getType().isF32() ? call("kv_add", x, y) : LaneBuilder::add(x, y); }
  Value sub(Value x, Value y) override { return x.getType().isF32() ? call("kv_sub", x, y) : LaneBuilder::sub(x, y); }
  Value mul(Value x, Value y) override { return x.getType().isF32() ? call("kv_mul", x, y) : LaneBuilder::mul(x, y); }
  Type typed(Type element) override { return element; }
  Value splat(Value scalar) override { return scalar; }

  void loopAbreast(Value from, Value to, function_ref<void(Value)> body) override {
    loop(from, to, body)->setAttr(kUnrollAttrName, getI64IntegerAttr(4));
  }
  void forLanes(int64_t extent, function_ref<void(Value)> body) override { forThreads(index(extent), extent, body); }
  /// Lanes that are neighbours, and then their next parts.
  void forLaneParts(int64_t extent, Rows rows, int64_t count, function_ref<void(Value, Value)> body) override {
    Value lanes = rows.from ? arith::SubIOp::create(*this, rows.to, rows.from).getResult() : index(extent);
    forThreads(mulIndex(lanes, count), rows.from ? 0 : extent * count, [&](Value i) {
      // A few thousand at most: divisions of 64 bits are calls.
      auto divide = [&](auto op) -> Value {
        auto word = [&](Value x) { return arith::IndexCastOp::create(*this, getI32Type(), x).getResult(); };
        Value result = decltype(op)::create(*this, word(i), word(lanes));
        return arith::IndexCastUIOp::create(*this, getIndexType(), result);
      };
      Value lane = divide(arith::RemUIOp()), part = divide(arith::DivUIOp());
      body(rows.from ? addIndex(rows.from, lane) : lane, part);
    });
  }
  void forEach(int64_t extent, function_ref<void(Value)> body) override { forLanes(extent, body); }
  Value laneIndices(Value first) override { return arith::IndexCastOp::create(*this, getI32Type(), first); }

  Value loadLanes(Value memory, ValueRange at) override { return memref::LoadOp::create(*this, memory, at); }
  void storeLanes(Value value, Value memory, ValueRange at, Value mask) override {
    auto store = [&] { memref::StoreOp::create(*this, value, memory, at); };
    mask ? branch(mask, store) : store();
  }
  Value loadWords(Value codes, Value word) override { return loadLanes(codes, word); }
  void storeWords(Value value, Value codes, Value word, Value mask) override { storeLanes(value, codes, word, mask); }

  Value scratch(ArrayRef<int64_t> shape, Type element) override { return scratch(getSharedType(shape, element)); }
  Value scratchMatrix(ArrayRef<int64_t> shape, Type element) override { return scratch(getMatrixType(shape, element)); }
  Value makeTile(ArrayRef<int64_t> shape) override {
    return GpuBuilder(getLoc(), *this).shared(getMatrixType(shape, getF32Type()));
  }
  void barrier() override { gpu::BarrierOp::create(*this); }

  void orient(Value, Rows) override {}
  void orientBack(Value, Rows) override {}
  Value loadColumn(Value tile, Value column, Value firstRow) override { return loadLanes(tile, {firstRow, column}); }
  void storeOriented(Value value, Value tile, Value column, Value firstRow) override {
    storeLanes(value, tile, {firstRow, column}, {});
  }
  void storeColumn(Value value, Value matrix, Value column, Value firstRow) override {
    storeLanes(value, matrix, {firstRow, column}, {});
  }
  void rotateRows(Value tile, int64_t size, Rows) override { // all at once
    GpuBuilder b(getLoc(), *this);
    cuda::rotateRows(b, tile, cast<MemRefType>(tile.getType()).getShape(), size, kWriterThreads);
  }

private:
  /// What another operation has had, if it has what this one needs: a block has 48 KiB for all of them.
  Value scratch(MemRefType type) {
    constexpr StringLiteral kScratch = "kv.scratch";
    auto func = getInsertionBlock()->getParent()->getParentOfType<func::FuncOp>();
    for (auto known : func.front().getOps<memref::AllocaOp>())
      if (known.getType() == type && known->hasAttr(kScratch) && !is_contained(taken, known.getResult()))
        return taken.emplace_back(known.getResult());
    Value memory = GpuBuilder(getLoc(), *this).shared(type);
    memory.getDefiningOp()->setAttr(kScratch, getUnitAttr());
    return taken.emplace_back(memory);
  }
  /// Indices 0 to `extent`, which is `known` unless that is 0.
  void forThreads(Value extent, int64_t known, function_ref<void(Value)> body) {
    Value thread = gpu::ThreadIdOp::create(*this, gpu::Dimension::x);
    if (known == kWriterThreads)
      return body(thread);
    if (known == 0 || known > kWriterThreads)
      return void(loop(thread, extent, body, kWriterThreads));
    branch(arith::CmpIOp::create(*this, arith::CmpIPredicate::ult, thread, extent), [&] { body(thread); });
  }
  Value call(StringRef function, Value x, Value y) {
    return GpuBuilder(getLoc(), *this).call1(function, x.getType(), {x, y});
  }

  SmallVector<Value> taken; ///< by this operation

protected:
  Value extendHalf(Value raw) override { return arith::ExtFOp::create(*this, getF32Type(), raw); }
  Value extendBfloat(Value raw) override { return arith::ExtFOp::create(*this, getF32Type(), raw); }
};

} // namespace

MakeLaneBuilder kvcc::cuda::getLaneBuilder() {
  return [](Location loc, ConversionPatternRewriter &rewriter) { return std::make_unique<GpuLanes>(loc, rewriter); };
}
