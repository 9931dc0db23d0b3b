// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The formats that the selection passes choose from, with what each is expected to damage.
#ifndef KVCC_PASSES_CANDIDATES_H
#define KVCC_PASSES_CANDIDATES_H

#include "dialect/Kv.h"

namespace kvcc {

/// A format for one side of one layer.
struct Candidate {
  kv::QuantAttr quant;
  /// The share of the model's damage, as KL(exact || quantized) of next-token logits.
  double damage = 0;
};

/// What a layer's side may be stored as: the formats that its profile measured, else those of recipe T (one signed
/// scale per token, rotation, centred keys) with priors from what is known about models. Always with the unquantized
/// format. `layers` is how many layers share the damage.
std::vector<Candidate> getCandidates(kv::LayerOp layer, kv::Role role, int64_t layers);

/// The formats that a profile should measure for a side.
std::vector<kv::QuantAttr> getProfileCandidates(mlir::MLIRContext &context, kv::Role role, int64_t headDim);

/// The format without what modes decide: transforms, search, feedback, and the map among those of the same bytes.
kv::QuantAttr getLayout(kv::QuantAttr quant);

/// What is known about the damage of a layer without measuring: a factor, and the facts behind it in words.
struct Prior {
  double factor = 1;
  std::string words;
};
Prior getPrior(kv::LayerOp layer, kv::Role role);

/// Bytes of `tokens` tokens of one side of a layer in a format, scales and norms included.
double getPageBytes(kv::LayerOp layer, kv::QuantAttr quant, int64_t tokens);

} // namespace kvcc

#endif
