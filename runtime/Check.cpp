// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A decode step against the reference, twice: over what the cache holds, and over what it was filled from.
#include "runtime/Check.h"

#include "runtime/Reference.h"

#include <cmath>

using namespace llvm;
using namespace kvcc;

double kvcc::getErrorBound(const Plan &plan) {
  switch (plan.schedule.getCompute()) {
  case kv::Compute::F32:
    return 1e-3;
  case kv::Compute::BF16: // else the query has words, or is bf16 as it is
    return plan.cache.getKey().getBits() <= kHidingBits ? 1e-1 : 2e-2;
  case kv::Compute::Int16:
    return 1e-2;
  case kv::Compute::F16: // of logits near 100; 1e-3 and less where they are below 20
    return 2e-2;
  case kv::Compute::Int8:
    return hasLevelQuery(plan.cache) ? 1e-1 : 2e-1;
  }
  llvm_unreachable("unknown arithmetic");
}

StepErrors kvcc::checkStep(HostCache &cache, ArrayRef<float> query, ArrayRef<float> keys, ArrayRef<float> values,
                           int64_t tokens, ArrayRef<float> sinks, ArrayRef<float> out, ArrayRef<float> lse,
                           ThreadPool &pool) {
  const Plan &plan = cache.getProgram().getPlan();
  int64_t qHeads = plan.shape.qHeads, kvHeads = plan.shape.kvHeads, headDim = plan.shape.headDim;
  int64_t batch = cache.getCall().batch, group = qHeads / kvHeads;
  std::vector<double> stored(out.size()), exact(out.size()), storedLse(lse.size()), exactLse(lse.size());
  pool.run(batch * kvHeads, 0, [&](int64_t item) {
    int64_t sequence = item / kvHeads, kvHead = item % kvHeads, length = cache.getTokens(sequence);
    std::vector<float> storedKeys(size_t(length * headDim)), storedValues(size_t(length * headDim));
    readSequence(plan.cache, plan.schedule, cache.getSequence(sequence), kvHead, length, storedKeys.data(),
                 storedValues.data());
    for (int64_t h = 0; h < group; ++h) {
      size_t row = size_t(sequence * qHeads + kvHead * group + h), at = row * size_t(headDim);
      const float *sink = sinks.empty() ? nullptr : sinks.data() + kvHead * group + h;
      computeReference(plan.shape, query.data() + at, storedKeys.data(), storedValues.data(), length, sink,
                       stored.data() + at, storedLse[row]);
      size_t head = size_t(item * tokens * headDim);
      computeReference(plan.shape, query.data() + at, keys.data() + head, values.data() + head, length, sink,
                       exact.data() + at, exactLse[row]);
    }
  });
  StepErrors errors;
  errors.kernel = relativeError(out, stored);
  errors.total = relativeError(out, exact);
  size_t rowsPerSequence = size_t(qHeads * headDim);
  for (int64_t sequence = 0; sequence < batch; ++sequence) {
    size_t first = size_t(sequence) * rowsPerSequence;
    double error = relativeError(out.slice(first, rowsPerSequence), ArrayRef(exact).slice(first, rowsPerSequence));
    errors.perSequence += error * error / double(batch);
  }
  errors.perSequence = std::sqrt(errors.perSequence);
  for (size_t i = 0; i < lse.size(); ++i) {
    double difference = std::isinf(storedLse[i]) ? (double(lse[i]) == storedLse[i] ? 0 : INFINITY)
                                                 : std::fabs(double(lse[i]) - storedLse[i]);
    errors.lse =
        std::max(errors.lse, difference / (std::isinf(storedLse[i]) ? 1 : std::max(1.0, std::fabs(storedLse[i]))));
  }
  return errors;
}
