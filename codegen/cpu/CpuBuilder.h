// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the CPU lowerings of tile operations are written with: vectors of 16 lanes, loops, scratch buffers, exp2.
#ifndef KVCC_CODEGEN_CPU_CPUBUILDER_H
#define KVCC_CODEGEN_CPU_CPUBUILDER_H

#include "codegen/LaneBuilder.h"
#include "dialect/Layout.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Transforms/DialectConversion.h"
#include "passes/CpuLevel.h"

namespace kvcc::cpu {

/// Lanes of the f32 vectors that lowerings are written in, and free indices of a packing tile. Targets with narrower
/// vectors get several; products choose their own width.
constexpr int64_t kLanes = 16;

/// What decodeE4m3 leaves to be multiplied.
constexpr float kE4m3Scale = 256;

/// Builds vector code at the insertion point of a pattern's rewriter.
class CpuBuilder : public mlir::ImplicitLocOpBuilder {
public:
  CpuBuilder(mlir::Location loc, mlir::OpBuilder &builder) : ImplicitLocOpBuilder(loc, builder) {}

  mlir::VectorType f32Vector(int64_t lanes = kLanes) { return mlir::VectorType::get({lanes}, getF32Type()); }
  mlir::VectorType i32Vector(int64_t lanes = kLanes) { return mlir::VectorType::get({lanes}, getI32Type()); }

  mlir::Value index(int64_t value) { return mlir::arith::ConstantIndexOp::create(*this, value); }
  mlir::Value f32(float value) { return mlir::arith::ConstantOp::create(*this, getF32FloatAttr(value)); }
  mlir::Value i32(int32_t value) { return mlir::arith::ConstantOp::create(*this, getI32IntegerAttr(value)); }
  mlir::Value f32Splat(float value, int64_t lanes = kLanes);
  mlir::Value i32Splat(int32_t value, int64_t lanes = kLanes);
  /// An integer in every lane of a vector of integers.
  mlir::Value constantLike(mlir::VectorType type, uint64_t value);
  mlir::Value splat(mlir::Value scalar, int64_t lanes = kLanes);
  mlir::Value add(mlir::Value x, mlir::Value y);
  mlir::Value mul(mlir::Value x, mlir::Value y);
  /// x * y + z of floats, fused where the target fuses.
  mlir::Value fma(mlir::Value x, mlir::Value y, mlir::Value z);
  /// The larger float, y if either is NaN: the instruction of x86.
  mlir::Value max(mlir::Value x, mlir::Value y);
  mlir::Value addIndex(mlir::Value x, mlir::Value y);
  mlir::Value mulIndex(mlir::Value x, int64_t y);

  /// A zero-initialized or uninitialized buffer on the stack, allocated once at the function's entry.
  mlir::Value scratch(llvm::ArrayRef<int64_t> shape, mlir::Type element);
  /// A loop without results.
  void loop(int64_t from, int64_t to, int64_t step, llvm::function_ref<void(mlir::Value)> body);
  /// A loop that carries values.
  llvm::SmallVector<mlir::Value>
  loop(int64_t from, int64_t to, mlir::ValueRange initial,
       llvm::function_ref<llvm::SmallVector<mlir::Value>(mlir::Value, mlir::ValueRange)> body);

  /// Numbers from `at` on as f32. Of bytes, `element` says what they are (f8E4M3FN, f8E8M0FNU).
  mlir::Value loadF32(mlir::Value memory, mlir::ValueRange at, mlir::Type element = {}, int64_t lanes = kLanes);
  /// f8E4M3FN codes in the upper bytes of words, as f16 and divided by kE4m3Scale.
  mlir::Value decodeE4m3(mlir::Value words);
  /// One element, in every lane.
  mlir::Value loadSplat(mlir::Value memory, mlir::ValueRange at, int64_t lanes = kLanes);
  void store(mlir::Value vector, mlir::Value memory, mlir::ValueRange at);
  /// Asks for a line of memory, into the second-level cache: lines on their way to the first one keep its few fill
  /// buffers from what is needed now.
  void prefetch(mlir::Value memory, mlir::Value at);
  /// Rounded to the type of the memory.
  void storeF32(mlir::Value vector, mlir::Value memory, mlir::ValueRange at);
  mlir::Value reduceAdd(mlir::Value vector);
  mlir::Value reduceMax(mlir::Value vector);
  /// Reduces each of 1, 2, 4, 8 or 16 vectors of kLanes to a lane of the result, all of them together: one after the
  /// other takes as many steps for each as this takes for all. Lanes are combined in any order.
  mlir::Value reduceEach(llvm::ArrayRef<mlir::Value> vectors,
                         llvm::function_ref<mlir::Value(mlir::Value, mlir::Value)> combine);
  mlir::Value addEach(llvm::ArrayRef<mlir::Value> vectors) {
    return reduceEach(vectors, [&](mlir::Value x, mlir::Value y) { return add(x, y); });
  }
  mlir::Value maxEach(llvm::ArrayRef<mlir::Value> vectors) {
    return reduceEach(vectors, [&](mlir::Value x, mlir::Value y) { return max(x, y); });
  }
  /// How many of `rows` rows reduceEach takes at a time, so that none are left over.
  static int64_t getBatch(int64_t rows) { return std::min(kLanes, rows & -rows); }
  /// The same memory, which is contiguous, with other extents.
  mlir::Value reshape(mlir::Value memory, llvm::ArrayRef<int64_t> shape);

  /// 2^x, relative error about 2e-7; 0 below 2^-126 and for -inf.
  mlir::Value exp2(mlir::Value vector);
};

/// Multiplies every `size` of the first `columns` columns of a row of a buffer by the normalized Hadamard matrix.
void rotateRow(CpuBuilder &b, mlir::Value buffer, mlir::Value row, int64_t columns, int64_t size);

/// Builds writers: vectors of 16 lanes.
MakeLaneBuilder getLaneBuilder();

/// The columns of a state's buffer, memref<heads x (head_dim + 32) x f32>: head_dim sums of weights times
/// values, 16 lanes of the sum of weights, the maximum.
struct StateColumns {
  explicit StateColumns(kv::StateType state) : sum(state.getHeadDim()), max(sum + kLanes), total(sum + 32) {}
  int64_t sum, max, total;
};

/// Patterns for score and accumulate, the operations that see codes.
void populateProductPatterns(mlir::RewritePatternSet &patterns, const mlir::TypeConverter &converter,
                             const CpuLevel &level);

} // namespace kvcc::cpu

#endif
