// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the lowerings of writers are written with, once for all targets: one number per lane, which is an element of a
// vector on a CPU and a variable of a thread on a GPU.
#ifndef KVCC_CODEGEN_LANEBUILDER_H
#define KVCC_CODEGEN_LANEBUILDER_H

#include "dialect/Quantization.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Transforms/DialectConversion.h"

namespace kvcc {

/// Rows of a tile; null: all of them.
struct Rows {
  mlir::Value from, to;
};

/// Builds code for all lanes at the insertion point of a pattern's rewriter. Arithmetic is exact: nothing is
/// contracted or reordered, so that every target writes the same bits as the scalar writer.
class LaneBuilder : public mlir::ImplicitLocOpBuilder {
public:
  LaneBuilder(mlir::Location loc, mlir::OpBuilder &builder) : ImplicitLocOpBuilder(loc, builder) {}
  virtual ~LaneBuilder() = default;

  /// Lanes that a value of this builder has, from the index of `first` on.
  virtual int64_t getWidth() const = 0;
  /// A number of this type in every lane.
  virtual mlir::Type typed(mlir::Type element) = 0;
  mlir::Type f32Type() { return typed(getF32Type()); }
  mlir::Type i32Type() { return typed(getI32Type()); }

  mlir::Value index(int64_t value) { return mlir::arith::ConstantIndexOp::create(*this, value); }
  /// The same in every lane.
  virtual mlir::Value splat(mlir::Value scalar) = 0;
  mlir::Value f32(float value) { return splat(mlir::arith::ConstantOp::create(*this, getF32FloatAttr(value))); }
  mlir::Value i32(int32_t value) { return splat(mlir::arith::ConstantOp::create(*this, getI32IntegerAttr(value))); }
  /// An index, as an i32.
  mlir::Value i32(mlir::Value index) {
    return splat(mlir::arith::IndexCastOp::create(*this, getI32Type(), index).getResult());
  }

  virtual mlir::Value add(mlir::Value x, mlir::Value y);
  virtual mlir::Value sub(mlir::Value x, mlir::Value y);
  virtual mlir::Value mul(mlir::Value x, mlir::Value y);
  mlir::Value div(mlir::Value x, mlir::Value y) { return mlir::arith::DivFOp::create(*this, x, y); }
  mlir::Value fma(mlir::Value x, mlir::Value y, mlir::Value z);
  mlir::Value abs(mlir::Value x);
  mlir::Value sqrt(mlir::Value x);
  mlir::Value pow(mlir::Value x, mlir::Value y);
  /// Whether x < y; false if either is NaN.
  mlir::Value less(mlir::Value x, mlir::Value y);
  mlir::Value select(mlir::Value condition, mlir::Value x, mlir::Value y) {
    return mlir::arith::SelectOp::create(*this, condition, x, y);
  }
  mlir::Value bitAnd(mlir::Value x, int32_t mask) { return mlir::arith::AndIOp::create(*this, x, i32(mask)); }
  mlir::Value bitOr(mlir::Value x, mlir::Value y) { return mlir::arith::OrIOp::create(*this, x, y); }
  mlir::Value shiftLeft(mlir::Value x, int64_t by);
  mlir::Value shiftRight(mlir::Value x, int64_t by);
  mlir::Value shiftLeft(mlir::Value x, mlir::Value by) { return mlir::arith::ShLIOp::create(*this, x, by); }
  mlir::Value shiftRight(mlir::Value x, mlir::Value by) { return mlir::arith::ShRUIOp::create(*this, x, by); }
  mlir::Value toFloat(mlir::Value integer) { return mlir::arith::SIToFPOp::create(*this, f32Type(), integer); }
  mlir::Value bitsOf(mlir::Value number) { return mlir::arith::BitcastOp::create(*this, i32Type(), number); }
  mlir::Value numberOf(mlir::Value bits) { return mlir::arith::BitcastOp::create(*this, f32Type(), bits); }

  mlir::Value addIndex(mlir::Value x, mlir::Value y) { return mlir::arith::AddIOp::create(*this, x, y); }
  mlir::Value addIndex(mlir::Value x, int64_t y) { return addIndex(x, index(y)); }
  mlir::Value mulIndex(mlir::Value x, int64_t y) { return mlir::arith::MulIOp::create(*this, x, index(y)); }
  mlir::Value divIndex(mlir::Value x, int64_t y) { return mlir::arith::DivUIOp::create(*this, x, index(y)); }
  mlir::Value remIndex(mlir::Value x, int64_t y) { return mlir::arith::RemUIOp::create(*this, x, index(y)); }

  /// A loop over scalar indices.
  mlir::scf::ForOp loop(mlir::Value from, mlir::Value to, llvm::function_ref<void(mlir::Value)> body, int64_t step = 1);
  /// One that carries values.
  llvm::SmallVector<mlir::Value>
  loop(mlir::Value from, mlir::Value to, mlir::ValueRange initial,
       llvm::function_ref<llvm::SmallVector<mlir::Value>(mlir::Value, mlir::ValueRange)> body, int64_t step = 1);
  /// One whose iterations are independent, so that some of them may be done side by side.
  virtual void loopAbreast(mlir::Value from, mlir::Value to, llvm::function_ref<void(mlir::Value)> body) {
    loop(from, to, body);
  }
  void branch(mlir::Value condition, llvm::function_ref<void()> body, llvm::function_ref<void()> otherwise = {});

  /// Calls `body` for indices 0 to `extent`, a multiple of 32, some lanes at a time. `first` is the index of the first
  /// lane on a CPU and that of the thread on a GPU: loads and stores of lanes take it.
  virtual void forLanes(int64_t extent, llvm::function_ref<void(mlir::Value first)> body) = 0;
  /// The same, without vectors of lanes that are not among `rows`.
  void forLanesAmong(int64_t extent, const Rows &rows, llvm::function_ref<void(mlir::Value first)> body);
  /// The same as forLanes, one index at a time, for what lanes cannot do side by side on a CPU.
  virtual void forEach(int64_t extent, llvm::function_ref<void(mlir::Value index)> body) = 0;
  /// Calls `body` for each of `count` parts of the work of every lane among `rows`, in any order.
  virtual void forLaneParts(int64_t extent, Rows rows, int64_t count,
                            llvm::function_ref<void(mlir::Value first, mlir::Value part)> body);
  /// The index of every lane, an i32.
  virtual mlir::Value laneIndices(mlir::Value first) = 0;
  virtual mlir::Value loadLanes(mlir::Value memory, mlir::ValueRange at) = 0;
  /// Of how many rows a lane should load numbers before it waits for them.
  virtual int64_t getRowsAbreast() const { return 1; }
  /// Where `mask`, an i1 in every lane, is true; null: everywhere.
  virtual void storeLanes(mlir::Value value, mlir::Value memory, mlir::ValueRange at, mlir::Value mask = {}) = 0;
  /// Says that these lanes are loaded soon, if telling helps; no address is wrong here.
  virtual void prefetch(mlir::Value, mlir::Value) {}
  /// 32 bits of every lane, at `word` in units of 32 bits of a block of codes.
  virtual mlir::Value loadWords(mlir::Value codes, mlir::Value word) = 0;
  virtual void storeWords(mlir::Value value, mlir::Value codes, mlir::Value word, mlir::Value mask = {}) = 0;
  /// Memory of the work item, for one operation.
  virtual mlir::Value scratch(llvm::ArrayRef<int64_t> shape, mlir::Type element) = 0;
  /// The same, for a matrix whose rows or columns are lanes.
  virtual mlir::Value scratchMatrix(llvm::ArrayRef<int64_t> shape, mlir::Type element) {
    return scratch(shape, element);
  }
  /// Memory of its own for the tile of a writer, which operations pass on.
  virtual mlir::Value makeTile(llvm::ArrayRef<int64_t> shape) { return scratch(shape, getF32Type()); }
  /// What has been stored may be loaded by other lanes after it. Every operation of a writer ends with it.
  virtual void barrier() = 0;

  using RowNumber = llvm::function_ref<mlir::Value(mlir::Value row, mlir::Value channel)>;
  /// Turns a 32-row tile, in its place, into a form in which lanes that are rows load a column, and back. Only these
  /// loads and stores are for a tile in that form. With `rows`, the others are lost.
  virtual void orient(mlir::Value tile, Rows rows = {}) = 0;
  virtual void orientBack(mlir::Value tile, Rows rows = {}) = 0;
  virtual mlir::Value loadColumn(mlir::Value tile, mlir::Value column, mlir::Value firstRow) = 0;
  virtual void storeOriented(mlir::Value value, mlir::Value tile, mlir::Value column, mlir::Value firstRow) = 0;
  /// Stores into a column of a matrix, for lanes that are rows.
  virtual void storeColumn(mlir::Value value, mlir::Value matrix, mlir::Value column, mlir::Value firstRow) = 0;
  /// Stores rows of a 32-row tile, `number(row, channel)` in its lanes, and zeros from there to row `end`. The rows of
  /// `held` count then.
  void fillRows(mlir::Value tile, Rows rows, mlir::Value end, RowNumber number, Rows held);
  /// The same, and leaves the tile as `orient` does.
  virtual void fillOriented(mlir::Value tile, Rows rows, mlir::Value end, RowNumber number, Rows held) {
    fillRows(tile, rows, end, number, held);
    orient(tile, held);
  }
  /// Multiplies blocks of `size` columns of these rows, at least, by the normalized Hadamard matrix.
  virtual void rotateRows(mlir::Value tile, int64_t size, Rows rows) = 0;

  /// A stored number of `type` (raw as loadLanes gives it) as f32, and back: to nearest even, as dialect/SmallFloat.h.
  mlir::Value decodeNumber(mlir::Value raw, mlir::Type type);
  /// Powers of two are rounded up, or to the nearest by ratio.
  mlir::Value encodeNumber(mlir::Value number, mlir::Type type, bool up = true);
  /// The bits of a float of few bits but its sign, for a magnitude that rounds to one: `fraction` bits, and 2^`least`
  /// the smallest normal number.
  mlir::Value encodeSmallFloat(mlir::Value magnitude, int64_t fraction, int64_t least);

protected:
  virtual mlir::Value extendHalf(mlir::Value raw) = 0;
  virtual mlir::Value extendBfloat(mlir::Value raw) = 0;

private:
  mlir::Value encodeE4m3(mlir::Value number);
  mlir::Value encodeE8m0(mlir::Value number, bool up);
};

/// Makes a builder for the code that replaces an operation.
using MakeLaneBuilder = std::function<std::unique_ptr<LaneBuilder>(mlir::Location, mlir::ConversionPatternRewriter &)>;

/// The patterns of the writers' operations, for the builder of a target.
void populateWriterPatterns(mlir::RewritePatternSet &patterns, const mlir::TypeConverter &converter,
                            const MakeLaneBuilder &makeBuilder);

} // namespace kvcc

#endif
