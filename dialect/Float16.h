// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Conversions between float and the 16-bit float formats, round to nearest even.
#ifndef KVCC_DIALECT_FLOAT16_H
#define KVCC_DIALECT_FLOAT16_H

#include <bit>
#include <cstdint>

namespace kvcc {

inline float halfToFloat(uint16_t bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
inline uint16_t floatToHalf(float value) { return std::bit_cast<uint16_t>(static_cast<_Float16>(value)); }

inline float bfloatToFloat(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }
inline uint16_t floatToBfloat(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return uint16_t(bits >> 16) | 0x40; // keep a NaN a NaN
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

} // namespace kvcc

#endif
