// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The meaning of quantized formats.
#include "dialect/Quantization.h"

#include "dialect/Float16.h"

#include <algorithm>
#include <cmath>

using namespace kvcc;
using namespace kvcc::kv;

Quantizer::Quantizer(QuantAttr quant)
    : map(quant.getMap()), zeroCode(int(quant.getZeroCode())), minCode(map == Map::Sym ? 1 : 0),
      maxCode(2 * zeroCode - 1) {}

uint16_t Quantizer::chooseScale(llvm::ArrayRef<float> values) const {
  float extreme = 0;
  for (float value : values)
    if (std::fabs(value) > std::fabs(extreme))
      extreme = value;
  switch (map) {
  case Map::Sym:
    return floatToHalf(std::fabs(extreme) / float(zeroCode - 1));
  case Map::SymFull:
    return floatToHalf(std::fabs(extreme) / float(zeroCode));
  case Map::SymSigned:
    return floatToHalf(-extreme / float(zeroCode));
  case Map::None:
    break;
  }
  llvm_unreachable("a format without codes has no scale");
}

uint8_t Quantizer::encode(float value, uint16_t scale) const {
  float stored = halfToFloat(scale);
  if (stored == 0)
    return uint8_t(zeroCode);
  // A group far below the smallest scale may overflow here; clamp as float before going to int.
  float code = std::nearbyintf(value / stored) + float(zeroCode);
  return uint8_t(std::clamp(code, float(minCode), float(maxCode)));
}

float Quantizer::decode(uint8_t code, uint16_t scale) const { return float(int(code) - zeroCode) * halfToFloat(scale); }

uint32_t kv::encodeFloat(mlir::Type element, float value) {
  if (element.isF16())
    return floatToHalf(value);
  if (element.isBF16())
    return floatToBfloat(value);
  return std::bit_cast<uint32_t>(value);
}

float kv::decodeFloat(mlir::Type element, uint32_t bits) {
  if (element.isF16())
    return halfToFloat(uint16_t(bits));
  if (element.isBF16())
    return bfloatToFloat(uint16_t(bits));
  return std::bit_cast<float>(bits);
}

void kv::computeDiagFactors(DiagAttr diag, const float *keys, int64_t tokens, int64_t channels, float *factors) {
  std::fill(factors, factors + channels, 0.0f);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < channels; ++c)
      factors[c] = std::max(factors[c], std::fabs(keys[t * channels + c]));
  for (int64_t c = 0; c < channels; ++c)
    factors[c] = factors[c] > 0 ? std::sqrt(factors[c]) : 1.0f;
}
