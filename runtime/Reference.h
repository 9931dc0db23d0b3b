// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decode attention written down as its definition says, in double precision: what every kernel is compared
// with.
#ifndef KVCC_RUNTIME_REFERENCE_H
#define KVCC_RUNTIME_REFERENCE_H

#include "runtime/Plan.h"

namespace kvcc {

/// One query of one head: out[c] = sum_t softmax(logits)[t] values[t][c], lse = ln sum_t exp(logits[t]), with the
/// logits of the shape, and `sink` among them if it is not null. No tokens: out = 0, lse = -inf or the sink. keys and
/// values are [tokens, head_dim].
void computeReference(const AttentionShape &shape, const float *query, const float *keys, const float *values,
                      int64_t tokens, const float *sink, double *out, double &lse);

/// |a - b| / |b| in the L2 norm; |a| if b is zero.
double relativeError(llvm::ArrayRef<float> a, llvm::ArrayRef<double> b);

} // namespace kvcc

#endif
