// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the GPU lowerings of tile operations are written with.
#ifndef KVCC_CODEGEN_CUDA_GPUBUILDER_H
#define KVCC_CODEGEN_CUDA_GPUBUILDER_H

#include "codegen/LaneBuilder.h"
#include "dialect/Layout.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Transforms/DialectConversion.h"

namespace kvcc::cuda {

/// Threads of a warp, lanes of a packing, free indices of a tile.
constexpr int64_t kWarp = 32;

/// Builds scalar per-lane code at the insertion point of a pattern's rewriter.
class GpuBuilder : public mlir::ImplicitLocOpBuilder {
public:
  using ImplicitLocOpBuilder::ImplicitLocOpBuilder;

  mlir::Value index(int64_t value) { return mlir::arith::ConstantIndexOp::create(*this, value); }
  mlir::Value f32(float value) { return mlir::arith::ConstantOp::create(*this, getF32FloatAttr(value)); }
  mlir::Value i32(int32_t value) { return mlir::arith::ConstantOp::create(*this, getI32IntegerAttr(value)); }
  mlir::Value add(mlir::Value x, mlir::Value y);
  mlir::Value mul(mlir::Value x, mlir::Value y);
  mlir::Value fma(mlir::Value x, mlir::Value y, mlir::Value z) { return add(mul(x, y), z); }
  mlir::Value max(mlir::Value x, mlir::Value y) { return mlir::arith::MaxNumFOp::create(*this, x, y); }
  /// Calls a function of the prelude, for what no upstream operation says.
  llvm::SmallVector<mlir::Value> call(llvm::StringRef function, mlir::TypeRange results, mlir::ValueRange operands,
                                      std::optional<int64_t> templateArgument = {});
  mlir::Value call1(llvm::StringRef function, mlir::Type result, mlir::ValueRange operands,
                    std::optional<int64_t> templateArgument = {}) {
    return call(function, result, operands, templateArgument)[0];
  }
  /// cap * tanh(x / cap).
  mlir::Value bound(mlir::Value x, float cap);
  mlir::Value mulIndex(mlir::Value x, int64_t y) { return mul(x, index(y)); }
  mlir::Value addIndex(mlir::Value x, int64_t y) { return add(x, index(y)); }

  mlir::Value lane() { return mlir::gpu::ThreadIdOp::create(*this, mlir::gpu::Dimension::x); }
  void barrier() { mlir::gpu::BarrierOp::create(*this); }
  /// Combines the lanes' values by a butterfly; every lane gets the result.
  mlir::Value reduce(mlir::Value value, llvm::function_ref<mlir::Value(mlir::Value, mlir::Value)> combine);

  /// A buffer of the block (workgroup memory) or of the lane (private memory), at the function's entry.
  mlir::Value shared(llvm::ArrayRef<int64_t> shape, mlir::Type element = {});
  mlir::Value shared(mlir::MemRefType type);
  mlir::Value registers(llvm::ArrayRef<int64_t> shape);

  mlir::Value load(mlir::Value memory, mlir::ValueRange at) { return mlir::memref::LoadOp::create(*this, memory, at); }
  mlir::Value toF32(mlir::Value number);
  /// One number as f32. Of bytes, `element` says what they are (f8E4M3FN, f8E8M0FNU).
  mlir::Value loadF32(mlir::Value memory, mlir::ValueRange at, mlir::Type element = {});
  /// The same way back: rounded to the type of the memory.
  void storeF32(mlir::Value number, mlir::Value memory, mlir::ValueRange at);
  /// Whether this block is the last of `count` that arrive at a counter. For all its threads.
  mlir::Value arrive(mlir::Value counters, mlir::Value at, mlir::Value count);
  /// What outputs are multiplied by, and the lse; 0 and -inf where the sum of weights is 0.
  std::pair<mlir::Value, mlir::Value> finish(mlir::Value sum, mlir::Value lse);
  /// Of a state's maximum and sum of weights times 2^exponent.
  mlir::Value getLse(mlir::Value max, mlir::Value sum, int64_t exponent = 0);
  /// Where the result of a row is, from that of the first one on: rows are `heads` heads of queries that are `stride`
  /// rows apart.
  mlir::Value getRow(mlir::Value row, int64_t heads, std::optional<uint64_t> stride);
  /// Four numbers from an element on.
  llvm::SmallVector<mlir::Value> loadFour(mlir::Value memory, mlir::Value at);
  /// Merges parts by some threads, whose outputs `loadFour` loads.
  void mergeParts(kv::TileMergeOp op, mlir::Value thread, int64_t threads,
                  llvm::function_ref<llvm::SmallVector<mlir::Value>(mlir::Value, mlir::Value)> loadFour);
  /// A f8E4M3FN code (an i32) as f32.
  mlir::Value decodeE4m3(mlir::Value code);
  /// A f4E2M1FN code (an i32) as an integer: twice the number, plus 12.
  mlir::Value decodeE2m1(mlir::Value code);
  void store(mlir::Value value, mlir::Value memory, mlir::ValueRange at) {
    mlir::memref::StoreOp::create(*this, value, memory, at);
  }

  /// A loop without results; `unroll` where the body indexes registers by the induction variable.
  void loop(mlir::Value from, mlir::Value to, int64_t step, bool unroll, llvm::function_ref<void(mlir::Value)> body);
  void loop(mlir::Value from, int64_t to, int64_t step, bool unroll, llvm::function_ref<void(mlir::Value)> body) {
    loop(from, index(to), step, unroll, body);
  }
  /// A loop that carries values.
  llvm::SmallVector<mlir::Value>
  loop(int64_t from, int64_t to, mlir::ValueRange initial,
       llvm::function_ref<llvm::SmallVector<mlir::Value>(mlir::Value, mlir::ValueRange)> body);

  /// The 32 codes of `bits` bits of this lane, as i32; word k of them is at word first + 32*k of `words`.
  llvm::SmallVector<mlir::Value> unpackCodes(mlir::Value words, mlir::Value first, unsigned bits);
};

/// Workgroup memory, and a lane's own.
mlir::MemRefType getSharedType(llvm::ArrayRef<int64_t> shape, mlir::Type element);
mlir::MemRefType getPrivateType(llvm::ArrayRef<int64_t> shape, mlir::Type element);
/// A matrix in workgroup memory whose rows are padded, so that a column's numbers are in banks of their own.
mlir::MemRefType getMatrixType(llvm::ArrayRef<int64_t> shape, mlir::Type element);

/// Writes a result or a part of one.
class ResultWriter {
public:
  ResultWriter(GpuBuilder &b, kv::TileStoreResultOp op) : b(b), op(op) {}
  void storeOut(mlir::Value number, mlir::Value head, mlir::Value channel);
  void storeLse(mlir::Value number, mlir::Value head);

private:
  mlir::Value getRow(mlir::Value row);
  /// Calls one of them where it is to be called.
  void choose(llvm::function_ref<void()> storePart, llvm::function_ref<void()> storeWhole);
  GpuBuilder &b;
  kv::TileStoreResultOp op;
};

/// Multiplies blocks of `size` channels of a buffer in workgroup memory, which has been written before a barrier, by
/// the normalized Hadamard matrix. By all threads of a block.
void rotateRows(GpuBuilder &b, mlir::Value buffer, llvm::ArrayRef<int64_t> shape, int64_t size, int64_t threads);

/// Builds writers: lanes are the threads of a block.
MakeLaneBuilder getLaneBuilder();

/// A state in a lane's registers, per head: head_dim/32 outputs (channels lane, lane+32, ...), this lane's
/// share of the sum, the maximum (the same in all lanes).
struct StateColumns {
  explicit StateColumns(kv::StateType state)
      : channels(state.getHeadDim() / kWarp), sum(channels), max(channels + 1), total(channels + 2) {}
  int64_t channels, sum, max, total;
};

/// Patterns for score and accumulate, the operations that see codes.
void populateProductPatterns(mlir::RewritePatternSet &patterns, const mlir::TypeConverter &converter);

/// Lowers the tile operations of a function to fragments of tensor cores, for blocks of `warps` warps.
mlir::LogicalResult lowerFragments(mlir::func::FuncOp func, int64_t warps, llvm::StringRef arch);

} // namespace kvcc::cuda

#endif
