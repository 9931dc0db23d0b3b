// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The meaning of quantized formats.
#include "dialect/Quantization.h"

#include "dialect/Float16.h"

#include <algorithm>
#include <cmath>

using namespace kvcc;
using namespace kvcc::kv;

static constexpr uint16_t kSignBit = 0x8000;

Quantizer::Quantizer(QuantAttr quant)
    : map(quant.getMap()), scaleType(quant.getScale()), zeroCode(int(quant.getZeroCode())),
      minCode(map == Map::Sym ? 1 : 0), maxCode(2 * zeroCode - 1) {}

uint16_t Quantizer::store(float value) const { return uint16_t(encodeFloat(scaleType, value)); }
float Quantizer::load(uint16_t bits) const { return decodeFloat(scaleType, bits); }

bool Quantizer::isFinite(GroupParameters group) const {
  return std::isfinite(load(group.scale)) && std::isfinite(load(group.zero));
}

bool Quantizer::isAsym(GroupParameters group) const {
  return map == Map::Asym || (map == Map::Hybrid && (group.scale & kSignBit));
}

GroupParameters Quantizer::chooseAsym(llvm::ArrayRef<float> values) const {
  auto [min, max] = std::minmax_element(values.begin(), values.end());
  return {store((*max - *min) / float(maxCode)), store(*min)};
}

GroupParameters Quantizer::choose(llvm::ArrayRef<float> values) const {
  float extreme = 0;
  for (float value : values)
    if (std::fabs(value) > std::fabs(extreme))
      extreme = value;
  switch (map) {
  case Map::Sym:
    return {store(std::fabs(extreme) / float(zeroCode - 1))};
  case Map::SymFull:
    return {store(std::fabs(extreme) / float(zeroCode))};
  case Map::SymSigned:
    return {store(-extreme / float(zeroCode))};
  case Map::Asym:
    return chooseAsym(values);
  case Map::Hybrid: {
    GroupParameters symmetric{store(std::fabs(extreme) / float(zeroCode))}, asymmetric = chooseAsym(values);
    asymmetric.scale |= kSignBit;
    auto error = [&](GroupParameters group) {
      double sum = 0;
      for (float value : values)
        sum += std::fabs(double(decode(encode(value, group), group)) - double(value));
      return sum;
    };
    return error(symmetric) <= error(asymmetric) ? symmetric : asymmetric;
  }
  case Map::None:
    break;
  }
  llvm_unreachable("a format without codes has no scale");
}

uint8_t Quantizer::encode(float value, GroupParameters group) const {
  bool asym = isAsym(group);
  float scale = load(group.scale);
  if (map == Map::Hybrid)
    scale = std::fabs(scale);
  if (scale == 0)
    return uint8_t(asym ? 0 : zeroCode);
  // A group far below the smallest scale may overflow here; clamp as float before going to int.
  float code = asym ? std::nearbyintf((value - load(group.zero)) / scale)
                    : std::nearbyintf(value / scale) + float(zeroCode);
  return uint8_t(std::clamp(code, float(minCode), float(maxCode)));
}

float Quantizer::decode(uint8_t code, GroupParameters group) const {
  float scale = load(group.scale);
  if (isAsym(group))
    return float(double(code) * double(map == Map::Hybrid ? std::fabs(scale) : scale) + double(load(group.zero)));
  return float(int(code) - zeroCode) * scale;
}

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
