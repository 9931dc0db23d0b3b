// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a #kv.quant means, in numbers: the one definition that writers, references and checks share.
#ifndef KVCC_DIALECT_QUANTIZATION_H
#define KVCC_DIALECT_QUANTIZATION_H

#include "dialect/Kv.h"
#include "llvm/ADT/ArrayRef.h"

namespace kvcc::kv {

/// 1.5 * 2^23: a float of less than 2^22 plus this is rounded to an integer, half to even, which stands in the low
/// bits.
constexpr float kRoundingShift = 12582912.0f;

/// What is stored for a group beside its codes: bits of the scale's type.
struct GroupParameters {
  uint16_t scale = 0;
  uint16_t zero = 0; ///< only with QuantAttr::hasZeros
};

/// Encodes and decodes groups of a quantized format. Cheap to copy; thread-safe.
class Quantizer {
public:
  /// `quant` must be a quantized format (QuantAttr::isQuantized). `saturates`: parameters that do not fit their type
  /// become its largest number.
  explicit Quantizer(QuantAttr quant, bool saturates = false);

  /// The parameters of a group. `values` are finite. They are not finite (see isFinite) if the group's
  /// magnitude does not fit the scale's type.
  GroupParameters choose(llvm::ArrayRef<float> values) const;
  bool isFinite(GroupParameters group) const;

  /// The code of `value`, in [0, 2^bits), under stored parameters: the product with the reciprocal of the scale (in
  /// f32: a group divides once), which is exact for integers, rounded half to even, then clamped.
  uint8_t encode(float value, GroupParameters group) const;
  /// The number that a code stands for, rounded to f32 once.
  float decode(uint8_t code, GroupParameters group) const;

private:
  uint16_t store(float value) const;
  float load(uint16_t bits) const;
  /// The parameters with a scale `shrink` times what the map says.
  GroupParameters chooseSymmetric(float extreme, float shrink) const;
  GroupParameters chooseAsym(llvm::ArrayRef<float> values, float shrink) const;
  GroupParameters chooseFor(llvm::ArrayRef<float> values, float shrink) const;
  float getError(llvm::ArrayRef<float> values, GroupParameters group, bool squared) const;
  bool isAsym(GroupParameters group) const;

  Map map;
  bool saturates;
  mlir::Type element, scaleType;
  int64_t search;
  int zeroCode, minCode, maxCode;
};

/// The largest number of a floating-point element type, and of a scale's type or a dtype.
float getLargestElement(mlir::Type element);
float getLargestScale(mlir::Type scale);
/// The largest magnitude that a scale of floating-point type and the element type can express together; for the
/// 16-bit scale types 1.
double getLargest(QuantAttr quant);

/// One number of a floating-point type that is not a 4-bit code: its stored bits, and back.
uint32_t encodeFloat(mlir::Type element, float value);
float decodeFloat(mlir::Type element, uint32_t bits);

} // namespace kvcc::kv

#endif
