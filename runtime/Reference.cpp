// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The scalar reference.
#include "runtime/Reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

void kvcc::computeReference(const AttentionShape &shape, const float *query, const float *keys, const float *values,
                            int64_t tokens, const float *sink, double *out, double &lse) {
  std::vector<double> logits(size_t(tokens), 0.0);
  double max = sink ? double(*sink) : -std::numeric_limits<double>::infinity();
  int64_t first = shape.getFirstReached(tokens);
  for (int64_t t = first; t < tokens; ++t) {
    double &logit = logits[size_t(t)];
    for (int64_t c = 0; c < shape.headDim; ++c)
      logit += double(query[c]) * double(keys[t * shape.headDim + c]);
    logit *= shape.scale;
    if (shape.softcap != 0)
      logit = shape.softcap * std::tanh(logit / shape.softcap);
    max = std::max(max, logit);
  }
  std::fill(out, out + shape.headDim, 0.0);
  double sum = sink ? std::exp(double(*sink) - max) : 0;
  for (int64_t t = first; t < tokens; ++t) {
    double weight = std::exp(logits[size_t(t)] - max);
    sum += weight;
    for (int64_t c = 0; c < shape.headDim; ++c)
      out[c] += weight * double(values[t * shape.headDim + c]);
  }
  for (int64_t c = 0; c < shape.headDim && tokens; ++c)
    out[c] /= sum;
  lse = sum > 0 ? max + std::log(sum) : max;
}

double kvcc::relativeError(llvm::ArrayRef<float> a, llvm::ArrayRef<double> b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    norm += b[i] * b[i];
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}
