// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tensors and steps for the tests of whole kernels.
#include "test/unit/KernelTestSupport.h"

#include "dialect/Quantization.h"
#include "runtime/Check.h"
#include "llvm/Support/Error.h"
#include "gtest/gtest.h"

#include <algorithm>
#include <cmath>
#include <random>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::test;

std::ostream &kvcc::test::operator<<(std::ostream &os, const Problem &p) {
  os << p.scheme << " on " << p.target << " compute " << p.compute << " " << p.dtype << " " << p.qHeads << "/"
     << p.kvHeads << "x" << p.headDim << " lens";
  for (int64_t len : p.lens)
    os << " " << len;
  if (p.softcap != 0)
    os << " softcap " << p.softcap;
  if (p.reach != kv::Reach::Full)
    os << " " << stringifyReach(p.reach).str() << " " << p.windowTokens;
  return os << (p.sinkLogits ? " sinks" : "") << " splits " << p.splits << " seed " << p.seed;
}

Compiler &kvcc::test::getCompiler() {
  static Compiler compiler([] {
    CacheOptions options;
    if (!getenv("KVCC_CACHE_DIR")) // leave the user's cache alone
      options.mode = CacheMode::Off;
    return options;
  }());
  return compiler;
}

ThreadPool &kvcc::test::getPool() {
  static ThreadPool pool(4);
  return pool;
}

static mlir::Type getElement(const Problem &problem) {
  mlir::MLIRContext *context = &getCompiler().getContext();
  if (problem.dtype == "f16")
    return mlir::Float16Type::get(context);
  if (problem.dtype == "bf16")
    return mlir::BFloat16Type::get(context);
  return mlir::Float32Type::get(context);
}

Tensors kvcc::test::makeTensors(const Problem &p, const Fill &query, const Fill &keys, const Fill &values) {
  Tensors tensors;
  mlir::Type element = getElement(p);
  auto fill = [&](std::vector<float> &to, int64_t heads, int64_t tokens, const Fill &from) {
    for (int64_t b = 0; b < int64_t(p.lens.size()); ++b)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t c = 0; c < p.headDim; ++c)
            to.push_back(kv::decodeFloat(element, kv::encodeFloat(element, from(b, h, t, c))));
  };
  for (int64_t len : p.lens)
    tensors.tokens = std::max(tensors.tokens, len);
  fill(tensors.query, p.qHeads, 1, query);
  fill(tensors.keys, p.kvHeads, tensors.tokens, keys);
  fill(tensors.values, p.kvHeads, tensors.tokens, values);
  for (int64_t h = 0; p.sinkLogits && h < p.qHeads; ++h)
    tensors.sinks.push_back(float(h % 5) - 1.5f);
  return tensors;
}

Tensors kvcc::test::makeRandomTensors(const Problem &problem, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Fill plain = [&](int64_t, int64_t, int64_t, int64_t) { return normal(random); };
  Fill keys = [&](int64_t, int64_t, int64_t, int64_t c) { return normal(random) * (c % 24 == 5 ? 10 : 1); };
  return makeTensors(problem, plain, keys, plain);
}

static const char *const kDevice = getenv("KVCC_TEST_CUDA_TARGET");

bool kvcc::test::runsHere(const Problem &problem) { return !kDevice || problem.target == "cuda-host"; }

Expected<std::unique_ptr<Program>> kvcc::test::loadProgram(const Problem &p) {
  auto target = parseTarget(kDevice && p.target == "cuda-host" ? kDevice : p.target);
  if (!target)
    return target.takeError();
  AttentionShape shape{p.qHeads,       p.kvHeads,    p.headDim,  1 / std::sqrt(double(p.headDim)), p.softcap, p.reach,
                       p.windowTokens, p.sinkLogits, p.roundsOut};
  ScheduleOptions options;
  options.compute = p.compute;
  options.queries = p.queries;
  options.stages = p.stages;
  auto plan = getCompiler().plan(shape, p.dtype, p.scheme, *target, options);
  if (!plan)
    return plan.takeError();
  return Program::load(getCompiler(), std::move(*plan), getPool());
}

/// Numbers as the bytes of the problem's dtype.
static std::vector<uint8_t> toBytes(const Problem &problem, const std::vector<float> &numbers) {
  mlir::Type element = getElement(problem);
  size_t width = element.getIntOrFloatBitWidth() / 8;
  std::vector<uint8_t> bytes(numbers.size() * width);
  for (size_t i = 0; i < numbers.size(); ++i) {
    uint32_t bits = kv::encodeFloat(element, numbers[i]);
    std::memcpy(bytes.data() + i * width, &bits, width);
  }
  return bytes;
}

Expected<StepResult> kvcc::test::runStep(const Program &program, const Problem &p, const Tensors &tensors) {
  std::vector<uint8_t> query = toBytes(p, tensors.query), keys = toBytes(p, tensors.keys),
                       values = toBytes(p, tensors.values);
  int64_t batch = int64_t(p.lens.size()), headElements = tensors.tokens * p.headDim;
  size_t sequenceBytes = keys.size() / size_t(std::max<int64_t>(batch, 1));
  HostCache cache(program, batch, tensors.tokens);
  for (int64_t b = 0; b < batch; ++b)
    if (Error error =
            cache.prefill(b, {keys.data() + size_t(b) * sequenceBytes, headElements},
                          {values.data() + size_t(b) * sequenceBytes, headElements}, p.lens[size_t(b)], getPool()))
      return std::move(error);
  StepResult result;
  if (Error error = decodeStep(cache, query.data(), result.out, result.lse, p.splits, p.threads, p.seed,
                               /*queries=*/1, tensors.sinks))
    return std::move(error);
  StepErrors errors = checkStep(cache, tensors.query, tensors.keys, tensors.values, tensors.tokens, tensors.sinks,
                                result.out, result.lse, getPool());
  result.kernelError = errors.kernel;
  result.totalError = errors.total;
  result.lseError = errors.lse;
  return result;
}

double kvcc::test::getBound(const Plan &plan) { return std::min(getErrorBound(plan), 1e-1); }

void kvcc::test::expectAgrees(const Problem &problem, const Tensors &tensors, double bound) {
  if (!runsHere(problem))
    return;
  std::ostringstream text;
  text << problem;
  SCOPED_TRACE(text.str());
  auto program = loadProgram(problem);
  ASSERT_TRUE(bool(program)) << toString(program.takeError());
  auto result = runStep(**program, problem, tensors);
  ASSERT_TRUE(bool(result)) << toString(result.takeError());
  for (float number : result->out)
    ASSERT_TRUE(std::isfinite(number));
  EXPECT_LE(result->kernelError, bound);
  EXPECT_LE(result->lseError, bound);
}
