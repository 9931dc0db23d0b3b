// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The scalar reference.
#include "runtime/Reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

void kvcc::computeReference(const float *query, const float *keys, const float *values, int64_t tokens, int64_t headDim,
                            double scale, double *out, double &lse) {
  std::vector<double> scores(size_t(tokens), 0.0);
  double max = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < headDim; ++c)
      scores[size_t(t)] += double(query[c]) * double(keys[t * headDim + c]);
    scores[size_t(t)] *= scale;
    max = std::max(max, scores[size_t(t)]);
  }
  std::fill(out, out + headDim, 0.0);
  for (int64_t t = 0; t < tokens; ++t) {
    double weight = std::exp(scores[size_t(t)] - max);
    sum += weight;
    for (int64_t c = 0; c < headDim; ++c)
      out[c] += weight * double(values[t * headDim + c]);
  }
  for (int64_t c = 0; c < headDim && tokens; ++c)
    out[c] /= sum;
  lse = max + std::log(sum);
  if (!tokens)
    lse = max;
}

double kvcc::relativeError(llvm::ArrayRef<float> a, llvm::ArrayRef<double> b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    norm += b[i] * b[i];
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}
