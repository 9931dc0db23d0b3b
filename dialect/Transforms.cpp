// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The transforms in numbers.
#include "dialect/Transforms.h"

#include "dialect/Quantization.h"
#include "dialect/SmallFloat.h"

#include <algorithm>
#include <cmath>

using namespace kvcc;
using namespace kvcc::kv;

template <typename Number> static void rotateBlocks(Number *numbers, int64_t count, int64_t size, int64_t stride) {
  Number scale = Number(1) / std::sqrt(Number(size));
  for (Number *block = numbers; block < numbers + count * stride; block += size * stride) {
    for (int64_t half = 1; half < size; half *= 2)
      for (int64_t i = 0; i < size; ++i)
        if (!(i & half)) {
          Number &a = block[i * stride], &b = block[(i + half) * stride], sum = a + b;
          b = a - b;
          a = sum;
        }
    for (int64_t i = 0; i < size; ++i)
      block[i * stride] *= scale;
  }
}

void kv::rotate(float *numbers, int64_t count, int64_t size) { rotateBlocks(numbers, count, size, 1); }

/// The sum of each channel, or of its squares, over numbers[tokens][channels]: of 32 tokens at a time, so that long
/// prompts lose no digits.
static std::vector<float> sumTokens(const float *numbers, int64_t tokens, int64_t channels, bool squared) {
  std::vector<float> sums(size_t(channels), 0.0f), part(sums);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < channels; ++c) {
      float x = numbers[t * channels + c], &sum = part[size_t(c)];
      sum = squared ? std::fma(x, x, sum) : sum + x;
      if (t % kBlockTokens == kBlockTokens - 1 || t == tokens - 1) {
        sums[size_t(c)] += sum;
        sum = 0;
      }
    }
  return sums;
}

/// The factors of a diagonal over numbers[tokens][channels].
static std::vector<float> computeFactors(QuantAttr quant, DiagAttr diag, const float *numbers, int64_t tokens,
                                         int64_t channels) {
  std::vector<float> max(size_t(channels), 0.0f);
  for (int64_t i = 0; i < tokens * channels; ++i)
    max[size_t(i % channels)] = std::max(max[size_t(i % channels)], std::fabs(numbers[i]));
  std::vector<float> squares = sumTokens(numbers, tokens, channels, /*squared=*/true);
  if (diag.getTied())
    for (size_t c = 0, pair = size_t(channels / 2); c < pair; ++c) {
      max[c] = max[c + pair] = std::max(max[c], max[c + pair]);
      squares[c] = squares[c + pair] = (squares[c] + squares[c + pair]) / 2;
    }
  std::vector<float> factors(size_t(channels), 1.0f);
  for (size_t c = 0; c < factors.size(); ++c) {
    float factor = 0;
    switch (diag.getStat()) {
    case DiagStat::SqrtMax:
      factor = std::sqrt(max[c]);
      break;
    case DiagStat::Rms:
      factor = std::sqrt(squares[c] / float(std::max<int64_t>(tokens, 1)));
      if (auto strength = float(diag.getStrength().convertToDouble()); strength != 1)
        factor = std::pow(factor, strength);
      break;
    case DiagStat::Tensor:
      factor = *std::max_element(max.begin(), max.end()) / float(getLargest(quant));
      break;
    case DiagStat::Given:
      break;
    }
    if (factor > 0)
      factors[c] = factor;
  }
  return factors;
}

SideTransform::SideTransform(QuantAttr quant, int64_t headDim, const float *factors, const float *means)
    : quant(quant), headDim(headDim) {
  if (auto hadamard = quant.getTransform<HadamardAttr>())
    rotation = hadamard.getSize();
  if (auto norm = quant.getTransform<TokenNormAttr>())
    normType = norm.getType();
  if (quant.getDiag())
    vectors.factors.assign(factors, factors + headDim);
  if (quant.getTransform<CenterAttr>())
    vectors.means.assign(means, means + headDim);
}

SideTransform::SideTransform(QuantAttr quant, int64_t headDim, const float *numbers, int64_t tokens,
                             const TransformVectors &given)
    : SideTransform(quant, headDim, std::vector<float>(size_t(headDim), 1.0f).data(),
                    std::vector<float>(size_t(headDim), 0.0f).data()) {
  if (DiagAttr diag = quant.getDiag())
    vectors.factors = given.factors.empty() ? computeFactors(quant, diag, numbers, tokens, headDim) : given.factors;
  if (vectors.means.empty() || !tokens)
    return;
  if (!given.means.empty())
    vectors.means = given.means;
  else
    for (auto [mean, sum] : llvm::zip_equal(vectors.means, sumTokens(numbers, tokens, headDim, /*squared=*/false)))
      mean = sum / float(tokens);
  // Means are of what the diagonal leaves.
  if (!vectors.factors.empty())
    for (size_t c = 0; c < vectors.means.size(); ++c)
      vectors.means[c] /= vectors.factors[c];
}

uint16_t SideTransform::apply(float *token) const {
  if (!vectors.factors.empty())
    for (int64_t c = 0; c < headDim; ++c)
      token[c] *= 1 / vectors.factors[size_t(c)];
  if (!vectors.means.empty())
    for (int64_t c = 0; c < headDim; ++c)
      token[c] -= vectors.means[size_t(c)];
  if (rotation)
    rotate(token, headDim, rotation);
  if (!normType)
    return 0;
  float squares = 0;
  for (int64_t c = 0; c < headDim; ++c)
    squares = std::fma(token[c], token[c], squares);
  float rms = std::sqrt(squares / float(headDim));
  bool power = !normType.isF16();
  uint16_t norm = power ? floatToE8m0(rms, /*up=*/false) : floatToHalf(rms);
  float factor = decodeFloat(normType, norm);
  if (rms == 0 || factor == 0) {
    factor = 1;
    norm = uint16_t(encodeFloat(normType, 1.0f));
  }
  for (int64_t c = 0; c < headDim; ++c)
    token[c] /= factor;
  return norm;
}

void SideTransform::undo(float *token, uint16_t norm) const {
  if (normType)
    for (int64_t c = 0; c < headDim; ++c)
      token[c] *= decodeFloat(normType, norm);
  if (rotation)
    rotate(token, headDim, rotation);
  if (!vectors.means.empty())
    for (int64_t c = 0; c < headDim; ++c)
      token[c] += vectors.means[size_t(c)];
  if (!vectors.factors.empty())
    for (int64_t c = 0; c < headDim; ++c)
      token[c] *= vectors.factors[size_t(c)];
}

bool SideTransform::isFinite(uint16_t norm) const { return !normType || std::isfinite(decodeFloat(normType, norm)); }

void SideTransform::transformMoment(std::vector<double> &moment) const {
  auto n = size_t(headDim);
  if (!vectors.factors.empty())
    for (size_t i = 0; i < n * n; ++i)
      moment[i] *= double(vectors.factors[i / n]) * double(vectors.factors[i % n]);
  if (!rotation)
    return;
  for (int64_t i = 0; i < headDim; ++i)
    rotateBlocks(moment.data() + i * headDim, headDim, rotation, 1); // rows
  for (int64_t i = 0; i < headDim; ++i)
    rotateBlocks(moment.data() + i, headDim, rotation, headDim); // columns
}

Feedback::Feedback(std::vector<double> moment, int64_t size, double damping)
    : size(size), weights(size_t(size * size), 0.0f) {
  auto n = size_t(size);
  auto at = [&](size_t row, size_t column) -> double & { return moment[row * n + column]; };
  double mean = 0;
  for (size_t i = 0; i < n; ++i)
    mean += at(i, i) / double(n);
  if (!(mean > 0))
    return;
  for (size_t i = 0; i < n; ++i)
    at(i, i) += damping * mean;
  // H = (U+I) D (U+I)^T from the last channel to the first: column k of U is what is left of H[.,k] over D[k].
  for (size_t k = n; k-- > 0;) {
    double pivot = at(k, k);
    if (!(pivot > 0))
      continue;
    for (size_t j = 0; j < k; ++j)
      weights[k * n + j] = float(at(j, k) / pivot);
    for (size_t i = 0; i < k; ++i)
      for (size_t j = 0; j < k; ++j)
        at(i, j) -= double(weights[k * n + i]) * double(weights[k * n + j]) * pivot;
  }
}
