// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The meaning of quantized formats.
#include "dialect/Quantization.h"

#include "dialect/SmallFloat.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace kvcc;
using namespace kvcc::kv;

static constexpr uint16_t kSignBit = 0x8000;

float kv::getLargestElement(mlir::Type element) { return isa<mlir::Float4E2M1FNType>(element) ? 6.0f : 448.0f; }

float kv::getLargestScale(mlir::Type scale) {
  if (isa<mlir::Float8E4M3FNType>(scale))
    return 448.0f;
  if (isa<mlir::Float8E8M0FNUType>(scale))
    return 0x1p127f;
  if (scale.isF32())
    return std::numeric_limits<float>::max();
  return scale.isF16() ? 65504.0f : bfloatToFloat(0x7f7f);
}

double kv::getLargest(QuantAttr quant) {
  if (!quant.isQuantized() || quant.getScale().getIntOrFloatBitWidth() != 8)
    return 1;
  double scale = isa<mlir::Float8E4M3FNType>(quant.getScale()) ? 448 : 1;
  if (isa<mlir::IntegerType>(quant.getElement()))
    return scale * double(quant.getZeroCode() - (quant.getMap() == Map::Sym ? 1 : 0));
  return scale * double(getLargestElement(quant.getElement()));
}

Quantizer::Quantizer(QuantAttr quant, bool saturates)
    : map(quant.getMap()), saturates(saturates), element(quant.getElement()), scaleType(quant.getScale()),
      search(quant.getSearch()), zeroCode(isa<mlir::IntegerType>(element) ? int(quant.getZeroCode()) : 0),
      minCode(map == Map::Sym ? 1 : 0), maxCode(2 * zeroCode - 1) {}

uint16_t Quantizer::store(float value) const {
  float largest = getLargestScale(scaleType);
  return uint16_t(encodeFloat(scaleType, saturates ? std::clamp(value, -largest, largest) : value));
}
float Quantizer::load(uint16_t bits) const { return decodeFloat(scaleType, bits); }

bool Quantizer::isFinite(GroupParameters group) const {
  return std::isfinite(load(group.scale)) && (map < Map::Asym || std::isfinite(load(group.zero)));
}

bool Quantizer::isAsym(GroupParameters group) const {
  return map == Map::Asym || (map == Map::Hybrid && (group.scale & kSignBit));
}

GroupParameters Quantizer::chooseSymmetric(float extreme, float shrink) const {
  float steps = zeroCode == 0 ? getLargestElement(element) : float(map == Map::Sym ? zeroCode - 1 : zeroCode);
  return {store((map == Map::SymSigned ? -extreme : std::fabs(extreme)) / steps * shrink)};
}

GroupParameters Quantizer::chooseAsym(llvm::ArrayRef<float> values, float shrink) const {
  // Of equal ones, zeros of two signs, the first.
  auto min = std::min_element(values.begin(), values.end()), max = std::max_element(values.begin(), values.end());
  float range = *max - *min;
  return {store(range / float(maxCode) * shrink), store(*min + range * (1 - shrink) / 2)};
}

float Quantizer::getError(llvm::ArrayRef<float> values, GroupParameters group, bool squared) const {
  float sum = 0;
  for (float value : values) {
    float difference = std::fabs(decode(encode(value, group), group) - value);
    sum = squared ? std::fma(difference, difference, sum) : sum + difference;
  }
  return sum;
}

GroupParameters Quantizer::chooseFor(llvm::ArrayRef<float> values, float shrink) const {
  float extreme = 0;
  for (float value : values)
    if (std::fabs(value) > std::fabs(extreme))
      extreme = value;
  if (map == Map::Asym)
    return chooseAsym(values, shrink);
  GroupParameters symmetric = chooseSymmetric(extreme, shrink);
  if (map != Map::Hybrid)
    return symmetric;
  GroupParameters asymmetric = chooseAsym(values, shrink);
  asymmetric.scale |= kSignBit;
  return getError(values, symmetric, false) <= getError(values, asymmetric, false) ? symmetric : asymmetric;
}

GroupParameters Quantizer::choose(llvm::ArrayRef<float> values) const {
  GroupParameters best = chooseFor(values, 1);
  if (search < 2 || !isFinite(best))
    return best;
  float least = getError(values, best, true);
  for (int64_t i = 1; i < search; ++i) {
    GroupParameters candidate = chooseFor(values, 1 - 0.22f * float(i) / float(search - 1));
    if (float error = getError(values, candidate, true); error < least) {
      least = error;
      best = candidate;
    }
  }
  return best;
}

uint8_t Quantizer::encode(float value, GroupParameters group) const {
  bool asym = isAsym(group);
  float scale = load(group.scale);
  if (map == Map::Hybrid)
    scale = std::fabs(scale);
  // With a scale of zero every code is that of zero.
  constexpr float largest = std::numeric_limits<float>::max();
  float inverse = scale == 0 ? 0 : std::clamp(1 / scale, -largest, largest);
  if (isa<mlir::Float4E2M1FNType>(element))
    return floatToE2m1(value * inverse);
  if (isa<mlir::Float8E4M3FNType>(element))
    return floatToE4m3(std::clamp(value * inverse, -448.0f, 448.0f));
  // The exact product is rounded, ties to even (that of zero is even). A group far below the smallest scale may
  // overflow here; clamp as float before going to int.
  float code = asym ? std::fma(value - load(group.zero), inverse, kRoundingShift)
                    : std::fma(value, inverse, kRoundingShift + float(zeroCode));
  return uint8_t(std::clamp(code - kRoundingShift, float(minCode), float(maxCode)));
}

float Quantizer::decode(uint8_t code, GroupParameters group) const {
  float scale = load(group.scale);
  if (isa<mlir::Float4E2M1FNType>(element))
    return e2m1ToFloat(code) * scale;
  if (isa<mlir::Float8E4M3FNType>(element))
    return e4m3ToFloat(code) * scale;
  if (isAsym(group))
    return std::fma(float(code), map == Map::Hybrid ? std::fabs(scale) : scale, load(group.zero));
  return float(int(code) - zeroCode) * scale;
}

uint32_t kv::encodeFloat(mlir::Type element, float value) {
  if (element.isF16())
    return floatToHalf(value);
  if (element.isBF16())
    return floatToBfloat(value);
  if (isa<mlir::Float8E4M3FNType>(element))
    return floatToE4m3(value);
  if (isa<mlir::Float8E8M0FNUType>(element))
    return floatToE8m0(value, /*up=*/true);
  return std::bit_cast<uint32_t>(value);
}

float kv::decodeFloat(mlir::Type element, uint32_t bits) {
  if (element.isF16())
    return halfToFloat(uint16_t(bits));
  if (element.isBF16())
    return bfloatToFloat(uint16_t(bits));
  if (isa<mlir::Float8E4M3FNType>(element))
    return e4m3ToFloat(uint8_t(bits));
  if (isa<mlir::Float8E8M0FNUType>(element))
    return e8m0ToFloat(uint8_t(bits));
  return std::bit_cast<float>(bits);
}
