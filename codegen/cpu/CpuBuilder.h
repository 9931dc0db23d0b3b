// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the CPU lowerings of tile operations are written with: vectors of 16 lanes, loops, scratch
// buffers, exp2, the unpacking of codes and the dot product of bytes.
#ifndef KVCC_CODEGEN_CPU_CPUBUILDER_H
#define KVCC_CODEGEN_CPU_CPUBUILDER_H

#include "dialect/Layout.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Transforms/DialectConversion.h"

namespace kvcc::cpu {

/// Lanes of the f32 vectors that lowerings are written in, and free indices of a packing tile. Targets
/// with shorter vectors split them.
constexpr int64_t kLanes = 16;
/// Codes of a vector of bytes, and of the tile 16 x 4 of a packing.
constexpr int64_t kCodes = 64;

/// What decodeE4m3 leaves to be multiplied.
constexpr float kE4m3Scale = 256;

/// Instructions that lowerings may choose.
enum class Isa { Generic, Avx512Vnni };

/// Builds vector code at the insertion point of a pattern's rewriter.
class CpuBuilder : public mlir::ImplicitLocOpBuilder {
public:
  CpuBuilder(mlir::Location loc, mlir::OpBuilder &builder, Isa isa = Isa::Generic)
      : ImplicitLocOpBuilder(loc, builder), isa(isa) {}

  mlir::VectorType f32Vector() { return mlir::VectorType::get({kLanes}, getF32Type()); }
  mlir::VectorType i32Vector() { return mlir::VectorType::get({kLanes}, getI32Type()); }
  mlir::VectorType byteVector() { return mlir::VectorType::get({kCodes}, getI8Type()); }

  mlir::Value index(int64_t value) { return mlir::arith::ConstantIndexOp::create(*this, value); }
  mlir::Value f32(float value) { return mlir::arith::ConstantOp::create(*this, getF32FloatAttr(value)); }
  mlir::Value i32(int32_t value) { return mlir::arith::ConstantOp::create(*this, getI32IntegerAttr(value)); }
  mlir::Value f32Splat(float value);
  mlir::Value i32Splat(int32_t value);
  mlir::Value splat(mlir::Value scalar);
  mlir::Value add(mlir::Value x, mlir::Value y);
  mlir::Value mul(mlir::Value x, mlir::Value y);
  /// x * y + z of floats, fused where the target fuses.
  mlir::Value fma(mlir::Value x, mlir::Value y, mlir::Value z);
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

  /// 16 numbers from `at` on as f32. Of bytes, `element` says what they are (f8E4M3FN, f8E8M0FNU).
  mlir::Value loadF32(mlir::Value memory, mlir::ValueRange at, mlir::Type element = {});
  /// f8E4M3FN bytes (as i32 lanes) as f32, divided by kE4m3Scale.
  mlir::Value decodeE4m3(mlir::Value lanes);
  /// f4E2M1FN codes, one per byte, as integers: twice the number, plus 12.
  mlir::Value decodeE2m1(mlir::Value codes);
  /// One element, in every lane.
  mlir::Value loadSplat(mlir::Value memory, mlir::ValueRange at);
  void store(mlir::Value vector, mlir::Value memory, mlir::ValueRange at);
  mlir::Value reduceAdd(mlir::Value vector);
  mlir::Value reduceMax(mlir::Value vector);

  /// 2^x, relative error about 2e-7; 0 below 2^-126 and for -inf.
  mlir::Value exp2(mlir::Value vector);

  /// The 64 codes of `bits` bits at byte `at`, one per byte.
  mlir::Value unpackCodes(mlir::Value bytes, mlir::Value at, unsigned bits);
  /// Codes 4i+e of 64, as the f32 or i32 lanes i.
  mlir::Value codeLanes(mlir::Value codes, unsigned e, bool isSigned);
  /// Four consecutive bytes of `memory`, repeated in every lane.
  mlir::Value loadFourBytes(mlir::Value memory, mlir::ValueRange at);
  /// acc[i] += sum over e of unsignedBytes[4i+e] * signedBytes[4i+e].
  mlir::Value dotBytes(mlir::Value acc, mlir::Value unsignedBytes, mlir::Value signedBytes);

  Isa getIsa() const { return isa; }

private:
  Isa isa;
};

/// The columns of a state's buffer, memref<heads x (head_dim + 32) x f32>: head_dim sums of weights times
/// values, 16 lanes of the sum of weights, the maximum.
struct StateColumns {
  explicit StateColumns(kv::StateType state) : sum(state.getHeadDim()), max(sum + kLanes), total(sum + 32) {}
  int64_t sum, max, total;
};

/// Patterns for score and accumulate, the operations that see codes.
void populateProductPatterns(mlir::RewritePatternSet &patterns, const mlir::TypeConverter &converter, Isa isa);

} // namespace kvcc::cpu

#endif
