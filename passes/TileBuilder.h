// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the tile functions of readers and writers are built with: index arithmetic, and where blocks lie.
#ifndef KVCC_PASSES_TILEBUILDER_H
#define KVCC_PASSES_TILEBUILDER_H

#include "dialect/Layout.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace kvcc::kv {

/// Index arithmetic that reads like arithmetic.
struct IndexBuilder {
  mlir::ImplicitLocOpBuilder &b;

  mlir::Value constant(int64_t value) { return mlir::arith::ConstantIndexOp::create(b, value); }
  mlir::Value add(mlir::Value x, mlir::Value y) { return mlir::arith::AddIOp::create(b, x, y); }
  mlir::Value sub(mlir::Value x, mlir::Value y) { return mlir::arith::SubIOp::create(b, x, y); }
  mlir::Value mul(mlir::Value x, mlir::Value y) { return mlir::arith::MulIOp::create(b, x, y); }
  mlir::Value div(mlir::Value x, mlir::Value y) { return mlir::arith::DivUIOp::create(b, x, y); }
  mlir::Value rem(mlir::Value x, mlir::Value y) { return mlir::arith::RemUIOp::create(b, x, y); }
  mlir::Value min(mlir::Value x, mlir::Value y) { return mlir::arith::MinSIOp::create(b, x, y); }
  mlir::Value max(mlir::Value x, mlir::Value y) { return mlir::arith::MaxSIOp::create(b, x, y); }
  mlir::Value mul(mlir::Value x, int64_t y) { return mul(x, constant(y)); }
  mlir::Value add(mlir::Value x, int64_t y) { return add(x, constant(y)); }
  mlir::Value div(mlir::Value x, int64_t y) { return div(x, constant(y)); }
  mlir::Value rem(mlir::Value x, int64_t y) { return rem(x, constant(y)); }
  mlir::Value select(mlir::Value condition, mlir::Value x, mlir::Value y) {
    return mlir::arith::SelectOp::create(b, condition, x, y);
  }
  /// ceil(x / y).
  mlir::Value ceilDiv(mlir::Value x, int64_t y) { return div(add(x, y - 1), y); }
  /// max(x - y, 0).
  mlir::Value monus(mlir::Value x, mlir::Value y) { return max(sub(x, y), constant(0)); }
  /// What is known to be at least `least`, 0 or more, and less than 2^31, for what is computed of it to be narrowed.
  mlir::Value bounded(mlir::Value x, int64_t least = 0) {
    mlir::Value bits = mlir::arith::AndIOp::create(b, x, constant(INT32_MAX));
    return least ? max(bits, constant(least)) : bits;
  }
  /// memory[at], an i32, as an index.
  mlir::Value load(mlir::Value memory, mlir::Value at) {
    mlir::Value word = mlir::memref::LoadOp::create(b, memory, mlir::ValueRange{at});
    return mlir::arith::IndexCastOp::create(b, b.getIndexType(), word);
  }
  /// The same, of what counts something: 0 or more.
  mlir::Value loadCount(mlir::Value memory, mlir::Value at) { return max(load(memory, at), constant(0)); }
  void loop(mlir::Value from, mlir::Value to, mlir::Value step, llvm::function_ref<void(mlir::Value)> body) {
    auto op = mlir::scf::ForOp::create(b, from, to, step);
    mlir::OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(op.getBody());
    body(op.getInductionVar());
  }
  void branch(mlir::Value condition, llvm::function_ref<void()> body) {
    auto op = mlir::scf::IfOp::create(b, condition, /*withElseRegion=*/false);
    mlir::OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(op.thenBlock());
    body();
  }
};

/// Replaces a level 1 function by an empty tile function of the same name, visibility and attributes, whose last
/// `itemArgs` arguments name the work item.
mlir::func::FuncOp replaceFunction(mlir::func::FuncOp old, llvm::ArrayRef<mlir::Type> arguments, int64_t itemArgs);

/// The types of the blocks of one side; those of scales (and zeros, of the same type) and of token norms are null
/// where there are none.
struct SideTypes {
  BlockType data, scales, norms, window;
};
/// The types of the blocks of a cache.
struct BlockTypes {
  SideTypes key, value;
};
/// Fails, at `op`, if a packing of the schedule does not fit.
mlir::FailureOr<BlockTypes> chooseBlockTypes(llvm::function_ref<mlir::InFlightDiagnostic()> emitError, CacheType cache,
                                             ScheduleAttr schedule);

/// How many of `tokens` tokens are quantized.
mlir::Value getQuantizedTokens(IndexBuilder &ix, WindowAttr window, mlir::Value tokens);
/// The first byte of a KV head in the slot of a sequence.
mlir::Value getSlot(IndexBuilder &ix, const CacheLayout &layout, mlir::Value slotIds, mlir::Value sequence,
                    mlir::Value kvHead);
/// The first byte of a block of quantized tokens; `row` is where the sequence's row of the table begins.
mlir::Value getPageBlock(IndexBuilder &ix, const CacheLayout &layout, mlir::Value table, mlir::Value row,
                         mlir::Value kvHead, mlir::Value block);

/// Turns a function of one kv.append into a tile function.
mlir::LogicalResult tileAppend(mlir::func::FuncOp func, AppendOp append);

} // namespace kvcc::kv

#endif
