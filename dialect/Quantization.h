// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a #kv.quant means, in numbers: the one definition that writers, references and checks share.
#ifndef KVCC_DIALECT_QUANTIZATION_H
#define KVCC_DIALECT_QUANTIZATION_H

#include "dialect/Kv.h"
#include "llvm/ADT/ArrayRef.h"

namespace kvcc::kv {

/// Encodes and decodes groups of a quantized format. Cheap to copy; thread-safe.
class Quantizer {
public:
  /// `quant` must be a quantized format (QuantAttr::isQuantized).
  explicit Quantizer(QuantAttr quant);

  /// The scale of a group as it is stored (f16 bits). `values` are finite. The result is infinite (check
  /// with isFiniteScale) if the group's magnitude does not fit the scale's type.
  uint16_t chooseScale(llvm::ArrayRef<float> values) const;
  static bool isFiniteScale(uint16_t scale) { return (scale & 0x7c00) != 0x7c00; }

  /// The code of `value`, in [0, 2^bits), under a stored scale: rounded half to even, then clamped.
  uint8_t encode(float value, uint16_t scale) const;
  /// The number that a code stands for: (code - zero code) * scale, exact in f32.
  float decode(uint8_t code, uint16_t scale) const;

private:
  Map map;
  int zeroCode, minCode, maxCode;
};

/// One number of a format without codes (f16, bf16, f32): its stored bits, and back.
uint32_t encodeFloat(mlir::Type element, float value);
float decodeFloat(mlir::Type element, uint32_t bits);

/// The factors of a diagonal transform of one KV head. `keys` is [tokens, channels]; factors[c] gets 1
/// for a channel that is zero throughout (and for no tokens at all).
void computeDiagFactors(DiagAttr diag, const float *keys, int64_t tokens, int64_t channels, float *factors);

} // namespace kvcc::kv

#endif
