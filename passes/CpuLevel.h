// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The instruction sets that CPU kernels are written for.
#ifndef KVCC_PASSES_CPULEVEL_H
#define KVCC_PASSES_CPULEVEL_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <string>

namespace kvcc {

/// How a level multiplies bytes and adds four neighbouring products into 32 bits.
enum class ByteProduct {
  None,    ///< it does not: shifts and multiplications of 32 bits stand in
  Pairs,   ///< x86 vpmaddubsw, unsigned by signed: two products into 16 bits, which saturate; vpmaddwd widens
  Mixed,   ///< x86 vpdpbusd, unsigned by signed
  Matching ///< Arm sdot and udot: both signed, or both unsigned
};

struct CpuLevel {
  llvm::StringLiteral name; ///< of #kv.target
  llvm::StringLiteral alias;
  ByteProduct product;
  int64_t vectorBytes;
  int64_t registers; ///< that a product with codes may keep sums in; the rest holds what is multiplied
  /// The machine that code is compiled for where the host is not one: its LLVM triple, processor, more features.
  llvm::StringLiteral triple, processor, features;
  /// What a host must have, as LLVM names features. The first level of getCpuLevels that a host has is its own.
  llvm::StringLiteral required;
  /// The processor that the level is for, as LLVM names it, or none: others may have its instructions, but not as fast.
  llvm::StringLiteral only;
  /// Whether pairs of bf16 are multiplied, and codes looked up as such (x86 vdpbf16ps, vpermw and vpermi2b), at the
  /// rate of bytes.
  bool hasBf16Products = false;
  /// Vectors that a product computes together.
  int64_t unitVectors = 2;
  /// Sums that a product over more than 32 codes, or of bf16, adds to by turns, if there are no more than 8 of a head
  /// and a vector then: the next product of the same sum has to wait for the last.
  int64_t openSums = 1;

  bool hasByteProducts() const { return product != ByteProduct::None; }
  /// Whether words are multiplied as two digits of a byte: see ProductBuilder.
  bool splitsWords() const { return product == ByteProduct::Mixed || product == ByteProduct::Matching; }
  /// Vectors that a product computes together for `heads` query heads: a power of two, as many as `accumulators` hold
  /// sums of; 0 stands for the level's where registers allow it. More of them broadcast less, but their codes come from
  /// more places at once, which measured slower.
  int64_t getUnitVectors(int64_t heads, int64_t accumulators = 0) const;
};

llvm::ArrayRef<CpuLevel> getCpuLevels();
/// By name or alias; null if there is none.
const CpuLevel *findCpuLevel(llvm::StringRef name);
/// The names, for messages: "generic, avx2, ...".
std::string getCpuLevelNames();

} // namespace kvcc

#endif
