// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Compares a decode step with the reference.
#ifndef KVCC_RUNTIME_CHECK_H
#define KVCC_RUNTIME_CHECK_H

#include "runtime/HostCache.h"

namespace kvcc {

struct StepErrors {
  double kernel = 0;      ///< relative L2 error of the output against the reference over the cache as stored
  double total = 0;       ///< the same against the reference over the original tensors
  double perSequence = 0; ///< as total, of each sequence on its own; the root of the mean square over sequences
  double lse = 0;         ///< largest |difference| of the lse, relative to max(1, |lse|), over the cache as stored
};

/// `query` is [batch, q_heads, head_dim]; `keys` and `values` are the tensors the cache was filled from,
/// [batch, kv_heads, tokens, head_dim], of which each sequence has as many tokens as the cache says; `sinks` are
/// [q_heads] of a shape with sink logits, else empty.
StepErrors checkStep(HostCache &cache, llvm::ArrayRef<float> query, llvm::ArrayRef<float> keys,
                     llvm::ArrayRef<float> values, int64_t tokens, llvm::ArrayRef<float> sinks,
                     llvm::ArrayRef<float> out, llvm::ArrayRef<float> lse, ThreadPool &pool);

/// The kernel error that is promised: integer arithmetic rounds query and weights, see #kv.schedule.
double getErrorBound(const Plan &plan);

} // namespace kvcc

#endif
