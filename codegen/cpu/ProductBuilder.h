// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What differs between CPU levels: the width of vectors, and the instructions that multiply small integers.
#ifndef KVCC_CODEGEN_CPU_PRODUCTBUILDER_H
#define KVCC_CODEGEN_CPU_PRODUCTBUILDER_H

#include "codegen/cpu/CpuBuilder.h"

namespace kvcc::cpu {

/// Codes of a lane of a packing: neighbours along the reduction that four lanes hold are a word of 32 bits of a vector.
constexpr int64_t kLaneCodes = 8;
/// Reduction indices of a packing tile, 16 x 32 on 64 lanes, and its bytes per bit of a code.
constexpr int64_t kReduceTile = 32, kTileLanes = 64;

class ProductBuilder : public CpuBuilder {
public:
  /// Replaces `op`.
  ProductBuilder(mlir::Operation *op, mlir::OpBuilder &builder, const CpuLevel &level);

  /// Free indices of a vector: one for each 32 bits.
  int64_t getWidth() const { return level.vectorBytes / 4; }
  /// Vectors that a product for `heads` query heads computes together.
  int64_t getUnitVectors(int64_t heads) const { return level.getUnitVectors(heads, accumulators); }
  int64_t getOpenSums() const { return level.openSums; }
  mlir::VectorType vectorOf(unsigned bits) {
    return mlir::VectorType::get({level.vectorBytes * 8 / bits}, getIntegerType(bits));
  }

  /// A vector of bytes from `at` on.
  mlir::Value loadBytes(mlir::Value memory, mlir::Value at);
  /// Code `code` of every lane, out of the words of a tile (vectors of bytes, as many as a code has bits; `word(k)`
  /// gives them). In elements of 8 bits that is all; in elements of 16 or 32 bits it is the codes of every second or
  /// fourth lane, from lane `part` on. What is above a code is zero, or anything unless `isClean`.
  mlir::Value extractCodes(llvm::function_ref<mlir::Value(unsigned)> word, unsigned bits, unsigned code,
                           unsigned elementBits, unsigned part, bool isClean = true);
  /// Codes in elements of 16 bits as bf16: `numbers` has one for each code of at most 5 bits. What is above a code may
  /// be anything.
  mlir::Value lookUpBf16(mlir::Value codes, llvm::ArrayRef<float> numbers);
  /// f8E4M3FN bytes as bf16: those of every second lane, from lane `part` on.
  mlir::Value lookUpE4m3(mlir::Value bytes, unsigned part);
  /// f4E2M1FN codes, one per byte, as integers: twice the number, plus 12.
  mlir::Value decodeE2m1(mlir::Value codes);
  /// f8E4M3FN bytes as f32, divided by kE4m3Scale, two at a time: of each four, those at `parity` and `parity` + 2
  /// stand beside each other in the result, and the fours of the vector's first half are its first half.
  std::array<mlir::Value, 2> decodeE4m3Pairs(mlir::Value bytes, unsigned parity);
  /// A copy of a matrix of f32 with its fours in the order 0 2 1 3, for loadPairs.
  mlir::Value reorderFours(mlir::Value matrix);
  /// Two neighbouring f32, repeated.
  mlir::Value loadPairs(mlir::Value memory, mlir::ValueRange at);
  /// Of each pair of neighbours in two vectors, the sum.
  mlir::Value addPairs(mlir::Value first, mlir::Value second);

  /// Whether words multiply codes in bytes, as two digits. A number n is 256 * high + low, both from -128 to 127; four
  /// of them stand as four low digits, then four high ones, and the products of both are added up apart.
  bool splitsWords() const { return level.splitsWords(); }
  /// Whether dotBytes wants codes that are signed, for a small operand that is signed or not.
  bool wantsSignedCodes(bool smallIsSigned) const {
    return level.product == ByteProduct::Matching ? smallIsSigned : !smallIsSigned;
  }
  /// Whether sums of byte products are kept in 16 bits for a while: see multiplyPairs.
  bool hasNarrowSums() const { return level.product == ByteProduct::Pairs; }

  /// sums[i] += sum over e of codes[4i+e] * small[4i+e], of bytes into 32 bits.
  mlir::Value dotBytes(mlir::Value sums, mlir::Value codes, mlir::Value small, bool smallIsSigned);
  /// codes[2i] * small[2i] + codes[2i+1] * small[2i+1], of bytes into 16 bits.
  mlir::Value multiplyPairs(mlir::Value codes, mlir::Value small, bool smallIsSigned);
  /// Neighbouring sums of 16 bits times `factor`, added into 32 bits.
  mlir::Value widen(mlir::Value narrow, uint64_t factor);
  /// sums[i] += codes[2i] * small[2i] + codes[2i+1] * small[2i+1], of 16 bits into 32.
  mlir::Value dotWords(mlir::Value sums, mlir::Value codes, mlir::Value small);
  /// sums[i] += codes[2i] * small[2i] + codes[2i+1] * small[2i+1], of bf16 into f32.
  mlir::Value dotBf16(mlir::Value sums, mlir::Value codes, mlir::Value small);
  /// Two vectors of f32 rounded to one of bf16, one after the other and in fours as 0 2 1 3: the order in which
  /// extractCodes gives what they multiply.
  mlir::Value toBf16(mlir::Value first, mlir::Value second);
  /// 32 bits of memory, which holds bytes or words, repeated in every element of 32 bits, as elements of `bits` bits.
  mlir::Value loadRepeated(mlir::Value memory, mlir::ValueRange at, unsigned bits);

private:
  mlir::Value bitcast(mlir::Value vector, unsigned bits);
  mlir::Value bitcastBf16(mlir::Value vector);
  mlir::Value intrinsic(llvm::StringRef name, mlir::VectorType type, mlir::ValueRange operands);
  /// x86 vpmaddwd: neighbouring products of 16 bits, added into 32 bits.
  mlir::Value multiplyAdd(mlir::Value x, mlir::Value y);
  /// Element `part` of each 32 bits, as 32 bits.
  mlir::Value widenPart(mlir::Value vector, unsigned bits, unsigned part, bool isSigned);

  const CpuLevel &level;
  int64_t accumulators = 0; // 0: what the level says
};

} // namespace kvcc::cpu

#endif
