// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decode attention written down as its definition says, in double precision: what every kernel is compared
// with.
#ifndef KVCC_RUNTIME_REFERENCE_H
#define KVCC_RUNTIME_REFERENCE_H

#include "llvm/ADT/ArrayRef.h"

#include <cstdint>

namespace kvcc {

/// out[c] = sum_t softmax(scale * query.keys[t]) values[t][c]; lse = ln sum_t exp(scale * query.keys[t]).
/// No tokens: out = 0, lse = -inf. keys and values are [tokens, head_dim].
void computeReference(const float *query, const float *keys, const float *values, int64_t tokens, int64_t headDim,
                      double scale, double *out, double &lse);

/// |a - b| / |b| in the L2 norm; |a| if b is zero.
double relativeError(llvm::ArrayRef<float> a, llvm::ArrayRef<double> b);

} // namespace kvcc

#endif
