// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The table of CPU levels.
#include "passes/CpuLevel.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/bit.h"

using namespace llvm;
using namespace kvcc;

int64_t CpuLevel::getUnitVectors(int64_t heads, int64_t accumulators) const {
  if (!accumulators)
    accumulators = std::min(registers, unitVectors * heads);
  return int64_t(bit_floor(uint64_t(std::max<int64_t>(accumulators / heads, 1))));
}

ArrayRef<CpuLevel> kvcc::getCpuLevels() {
  static constexpr StringLiteral kX86("x86_64-unknown-linux-gnu"), kArm("aarch64-unknown-linux-gnu"), kNone("");
  // Zen 5 starts two products of 64 bytes of bf16 each cycle, as of bytes; Sapphire Rapids one in two cycles, where it
  // starts two of bytes in one. Nobody has measured others.
  static const CpuLevel kLevels[] = {
      {"avx512_bf16", kNone, ByteProduct::Mixed, 64, 16, kX86, "x86-64-v4", "+avx512vnni,+avx512bf16,+avx512vbmi",
       "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi,f16c,fma", "znver5", true, 1, 16},
      {"avx512_vnni", kNone, ByteProduct::Mixed, 64, 16, kX86, "x86-64-v4", "+avx512vnni",
       "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma", kNone},
      {"avx512", "x86-64-v4", ByteProduct::Pairs, 64, 16, kX86, "x86-64-v4", kNone,
       "avx512f,avx512bw,avx512dq,avx512vl,f16c,fma", kNone},
      {"avx_vnni", kNone, ByteProduct::Mixed, 32, 8, kX86, "x86-64-v3", "+avxvnni", "avx2,avxvnni,f16c,fma", kNone},
      {"avx2", "x86-64-v3", ByteProduct::Pairs, 32, 8, kX86, "x86-64-v3", kNone, "avx2,f16c,fma", kNone},
      {"neon_dotprod", kNone, ByteProduct::Matching, 16, 16, kArm, "generic", "+dotprod,+fullfp16", "neon,dotprod",
       kNone},
      {"generic", kNone, ByteProduct::None, 16, 8, kNone, kNone, kNone, kNone, kNone},
  };
  return kLevels;
}

const CpuLevel *kvcc::findCpuLevel(StringRef name) {
  ArrayRef<CpuLevel> all = getCpuLevels();
  const CpuLevel *found =
      find_if(all, [&](const CpuLevel &level) { return level.name == name || (!name.empty() && level.alias == name); });
  return found == all.end() ? nullptr : found;
}

std::string kvcc::getCpuLevelNames() {
  return join(map_range(getCpuLevels(), [](const CpuLevel &level) { return level.name; }), ", ");
}
