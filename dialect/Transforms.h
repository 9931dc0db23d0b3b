// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the transforms of a #kv.quant do to the numbers of one KV head, before quantization and back.
#ifndef KVCC_DIALECT_TRANSFORMS_H
#define KVCC_DIALECT_TRANSFORMS_H

#include "dialect/Kv.h"

#include <vector>

namespace kvcc::kv {

/// Multiplies every block of `size` of the `count` numbers by the normalized Hadamard matrix, its own inverse.
void rotate(float *numbers, int64_t count, int64_t size);

/// The vectors that transforms of one side of one KV head need; empty where there are none, or for the writer to
/// measure on the tokens it gets. Means are those of what the diagonal leaves.
struct TransformVectors {
  std::vector<float> factors, means;
};

/// The transforms of one side of one KV head.
class SideTransform {
public:
  /// With the vectors that a cache holds. `factors` and `means` have head_dim numbers each and are read where the
  /// format has such a transform.
  SideTransform(QuantAttr quant, int64_t headDim, const float *factors, const float *means);
  /// With vectors from `tokens` tokens, numbers[tokens][head_dim]; those in `given` are taken instead, the means before
  /// the diagonal.
  SideTransform(QuantAttr quant, int64_t headDim, const float *numbers, int64_t tokens, const TransformVectors &given);

  const TransformVectors &getVectors() const { return vectors; }

  /// Transforms the head_dim numbers of a token in place. The result is the stored norm of the token (bits of its
  /// type; not finite if it does not fit), or 0 without token norms.
  uint16_t apply(float *token) const;
  void undo(float *token, uint16_t norm) const;
  /// Whether a stored norm is a number.
  bool isFinite(uint16_t norm) const;

  /// What the second moment of the queries becomes when they are transformed like the keys: [head_dim][head_dim].
  void transformMoment(std::vector<double> &moment) const;

private:
  QuantAttr quant;
  int64_t headDim, rotation = 0;
  mlir::Type normType;
  TransformVectors vectors;
};

/// The error feedback of a token's rounding: errors of channels 0..c-1 times weights (U of H = (U+I) D (U+I)^T,
/// strictly upper, H the second moment of the queries) are added to channel c before it is rounded.
class Feedback {
public:
  /// `moment` is H, [size][size]; its mean diagonal times `damping` is added to the diagonal. A moment of zero gives
  /// no feedback.
  Feedback(std::vector<double> moment, int64_t size, double damping = 0.01);
  int64_t getSize() const { return size; }
  /// Weights of the errors of channels 0..c-1 for channel c.
  const float *getWeights(int64_t channel) const { return weights.data() + channel * size; }

private:
  int64_t size;
  std::vector<float> weights; ///< [channel][earlier channel]
};

} // namespace kvcc::kv

#endif
