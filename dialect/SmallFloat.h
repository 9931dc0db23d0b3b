// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Conversions between float and the float formats of 16, 8 and 4 bits.
#ifndef KVCC_DIALECT_SMALLFLOAT_H
#define KVCC_DIALECT_SMALLFLOAT_H

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace kvcc {

/// Without the library call that a compiler makes where the processor's conversion may be missing: exact, whatever the
/// processor does with subnormal numbers.
inline float halfToFloat(uint16_t bits) {
  uint32_t magnitude = bits & 0x7fffu, sign = uint32_t(bits & 0x8000u) << 16;
  if (magnitude < 0x0400) {
    float number = float(magnitude) * 0x1p-24f;
    return sign ? -number : number;
  }
  uint32_t exponent = magnitude >= 0x7c00 ? 0x70000000u : 0x38000000u; // infinities and NaN keep all exponent bits
  return std::bit_cast<float>(sign | ((magnitude << 13) + exponent));
}
inline uint16_t floatToHalf(float value) { return std::bit_cast<uint16_t>(static_cast<_Float16>(value)); }

inline float bfloatToFloat(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }
inline uint16_t floatToBfloat(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return uint16_t(bits >> 16) | 0x40; // keep a NaN a NaN
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

/// f8E4M3FN: to nearest even, NaN (0x7f) beyond 448 as rounding has it.
inline float e4m3ToFloat(uint8_t bits) {
  float magnitude = (bits & 0x7f) == 0x7f ? NAN : halfToFloat(uint16_t((bits & 0x7f) << 7)) * 256;
  return bits & 0x80 ? -magnitude : magnitude;
}
inline uint8_t floatToE4m3(float value) {
  uint8_t sign = std::signbit(value) ? 0x80 : 0;
  float magnitude = std::fabs(value);
  if (!(magnitude < 464))
    return uint8_t(sign | 0x7f);
  // Eighths of the power of two below; those of the smallest normal number serve the subnormal ones.
  int exponent = std::max(std::ilogb(std::max(magnitude, 0x1p-6f)), -6);
  int eighths = int(std::nearbyintf(std::ldexp(magnitude, 3 - exponent)));
  return uint8_t(sign | ((exponent + 6) * 8 + eighths));
}

/// f4E2M1FN: to nearest even, saturating at 6. Twice a magnitude is a small integer.
constexpr uint8_t kE2m1Twice[] = {0, 1, 2, 3, 4, 6, 8, 12};
inline float e2m1ToFloat(uint8_t bits) {
  float magnitude = float(kE2m1Twice[bits & 7]) / 2;
  return bits & 8 ? -magnitude : magnitude;
}
inline uint8_t floatToE2m1(float value) {
  float twice = 2 * std::fabs(value);
  uint8_t code = 0;
  // Past the middle, or on it if the next code is even, the next code is nearer.
  while (code < 7) {
    float middle = float(kE2m1Twice[code] + kE2m1Twice[code + 1]) / 2;
    if (twice < middle || (twice == middle && code % 2 == 0))
      break;
    ++code;
  }
  return uint8_t((std::signbit(value) ? 8 : 0) | code);
}

/// f8E8M0FNU, powers of two from 2^-127 to 2^127; 0xff is NaN. Zero becomes the smallest.
inline float e8m0ToFloat(uint8_t bits) { return bits == 0xff ? NAN : std::ldexp(1.0f, int(bits) - 127); }
/// Fractions of an f32 beyond which the next power of two is nearer by ratio: that of the root of two; and below
/// 2^-126, where an f32 has no exponent, of 2^-126.5 and of 2^-127.
constexpr int32_t kRootOfTwo = 0x3504f3, kRootOfHalf = 0x5a8279, kHalfStep = 0x400000;
/// `up`: the next power of two that is not smaller; else the nearest by ratio.
inline uint8_t floatToE8m0(float value, bool up) {
  if (!(value > 0))
    return 0;
  int32_t bits = std::bit_cast<int32_t>(value), exponent = bits >> 23, fraction = bits & 0x7fffff;
  int32_t limit = exponent ? (up ? 0 : kRootOfTwo) : (up ? kHalfStep : kRootOfHalf);
  return uint8_t(std::min(exponent + (fraction > limit ? 1 : 0), 255));
}

} // namespace kvcc

#endif
