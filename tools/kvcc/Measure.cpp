// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Timed decode steps.
#include "tools/kvcc/Measure.h"

#include "dialect/Quantization.h"
#include "runtime/Bandwidth.h"
#include "runtime/Check.h"

#include <chrono>
#include <random>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

namespace {

/// Tensors of one sequence, in the model's dtype. As in models, some key channels are loud and values have a
/// mean per channel; without it the exact output of noise is next to nothing, and every error looks large.
class Tensors {
public:
  Tensors(const Plan &plan, int64_t tokens, int64_t batch) {
    mlir::Type dtype = plan.cache.getDtype();
    bytesPerNumber = dtype.getIntOrFloatBitWidth() / 8;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    int64_t headDim = plan.shape.headDim;
    auto fill = [&](std::vector<float> &numbers, std::vector<uint8_t> &bytes, int64_t count, auto shape) {
      for (int64_t i = 0; i < count; ++i) {
        float number = shape(normal(random), i % headDim);
        uint32_t bits = kv::encodeFloat(dtype, number);
        numbers.push_back(kv::decodeFloat(dtype, bits));
        for (unsigned b = 0; b < bytesPerNumber; ++b)
          bytes.push_back(uint8_t(bits >> (8 * b)));
      }
    };
    const AttentionShape &shape = plan.shape;
    fill(query, queryBytes, batch * shape.qHeads * headDim, [](float x, int64_t) { return x; });
    fill(keys, keyBytes, shape.kvHeads * tokens * headDim,
         [](float x, int64_t channel) { return channel % 24 == 5 ? 8 * x : x; });
    fill(values, valueBytes, shape.kvHeads * tokens * headDim,
         [](float x, int64_t channel) { return x + (channel % 2 ? 1.0f : -1.0f); });
  }
  unsigned bytesPerNumber;
  std::vector<float> query, keys, values;
  std::vector<uint8_t> queryBytes, keyBytes, valueBytes;
};

} // namespace

Expected<std::unique_ptr<Subject>> Subject::create(Compiler &compiler, Plan plan, int64_t tokens, int64_t batch,
                                                   ThreadPool &pool) {
  if (plan.target.executor != Executor::Cpu)
    return createStringError("expected a cpu target for bench, but got " + plan.target.name);
  if (plan.shape.roundsOut)
    return createStringError("expected --out-dtype f32 for bench and tune, which compare results, but got the model's");
  auto program = Program::load(compiler, std::move(plan), pool);
  if (!program)
    return program.takeError();
  auto subject = std::make_unique<Subject>();
  subject->program = std::move(*program);
  if (Error error = subject->fill(tokens, batch, pool))
    return std::move(error);
  return subject;
}

void Subject::makeCold(ArrayRef<std::unique_ptr<Subject>> subjects) {
  size_t round = 1; // bytes that a turn of all visits, and no zero
  for (const std::unique_ptr<Subject> &subject : subjects)
    round += size_t(subject->copies[0]->getBytes());
  size_t count = std::max<size_t>(2, getColdBytes() / round + 1);
  for (const std::unique_ptr<Subject> &subject : subjects)
    while (subject->copies.size() < count)
      subject->copies.push_back(subject->copies[0]->clone());
}

Expected<double> Subject::step(const Program &other, unsigned threads) {
  return step(*copies[next++ % copies.size()], other, threads);
}

static double microsecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

Expected<double> Subject::prefill(unsigned threads) {
  HostCache &cache = *copies[next++ % copies.size()];
  const AttentionShape &shape = program->getPlan().shape;
  int64_t batch = cache.getCall().batch;
  for (int64_t b = 0; b < batch; ++b)
    cache.rollBack(b, cache.getTokens(b));
  std::vector<int64_t> counts(size_t(batch), tokens);
  LaunchOptions options;
  options.threads = threads;
  auto start = std::chrono::steady_clock::now();
  if (Error error =
          cache.append(counts, {keys.data(), values.data(), 0, shape.headDim, tokens * shape.headDim}, {}, options))
    return std::move(error);
  return microsecondsSince(start);
}

Expected<Subject::AppendTimes> Subject::append(unsigned threads) {
  HostCache &cache = *copies[next++ % copies.size()];
  const AttentionShape &shape = program->getPlan().shape;
  int64_t batch = cache.getCall().batch, flush = program->getPlan().cache.getWindow().getFlush();
  int64_t steps = flush == 1 ? 64 : flush;
  // The last tokens are taken back and come again one by one. More than may be: the numbers are the same.
  for (int64_t b = 0; b < batch; ++b)
    cache.rollBack(b, steps);
  std::vector<int64_t> one(size_t(batch), 1);
  LaunchOptions options;
  options.threads = threads;
  AppendTimes times;
  size_t bytes = size_t(program->getPlan().cache.getDtype().getIntOrFloatBitWidth() / 8);
  for (int64_t i = 0; i < steps; ++i) {
    size_t at = size_t((tokens - steps + i) * shape.headDim) * bytes;
    auto start = std::chrono::steady_clock::now();
    if (Error error = cache.append(
            one, {keys.data() + at, values.data() + at, 0, shape.headDim, tokens * shape.headDim}, {}, options))
      return std::move(error);
    times.append += microsecondsSince(start) / double(steps);
    auto step = this->step(cache, *program, threads);
    if (!step)
      return step.takeError();
    times.step += *step / double(steps);
  }
  return times;
}

Expected<double> Subject::step(HostCache &cache, const Program &other, unsigned threads) {
  AttendCall call = cache.getCall();
  call.query = query.data();
  call.out = out.data();
  call.lse = lse.data();
  call.sinks = sinks.data();
  call.threads = threads;
  call.splits = other.chooseSplits(call.batch, call.queries, cache.getTokens(0), threads);
  size_t bytes = other.getWorkspaceBytes(call.batch, call.splits);
  if (workspace.size() < bytes)
    workspace = AlignedBytes(bytes);
  call.workspace = workspace.data();
  auto start = std::chrono::steady_clock::now();
  if (Error error = other.attend(call))
    return std::move(error);
  return microsecondsSince(start);
}

Error Subject::fill(int64_t tokens, int64_t batch, ThreadPool &pool) {
  Tensors tensors(program->getPlan(), tokens, batch);
  query = tensors.queryBytes;
  keys = tensors.keyBytes;
  values = tensors.valueBytes;
  this->tokens = tokens;
  const AttentionShape &shape = program->getPlan().shape;
  if (shape.sinkLogits)
    sinks.assign(size_t(shape.qHeads), 1.0f);
  auto cache = std::make_unique<HostCache>(*program, batch, tokens);
  int64_t stride = tokens * shape.headDim;
  for (int64_t b = 0; b < batch; ++b)
    if (Error error =
            cache->prefill(b, {tensors.keyBytes.data(), stride}, {tensors.valueBytes.data(), stride}, tokens, pool))
      return error;
  copies.push_back(std::move(cache));
  out.resize(size_t(batch * shape.qHeads * shape.headDim));
  lse.resize(size_t(batch * shape.qHeads));
  auto first = step(0);
  if (!first)
    return first.takeError();
  std::vector<float> keys, values;
  for (int64_t b = 0; b < batch; ++b) {
    append_range(keys, tensors.keys);
    append_range(values, tensors.values);
  }
  relError = checkStep(*copies[0], tensors.query, keys, values, tokens, sinks, out, lse, pool).total;
  return Error::success();
}

double tool::median(std::vector<double> numbers) {
  llvm::sort(numbers);
  size_t middle = numbers.size() / 2;
  return numbers.size() % 2 ? numbers[middle] : (numbers[middle - 1] + numbers[middle]) / 2;
}
