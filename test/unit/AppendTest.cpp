// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The append kernel against the scalar writer: the same numbers stand in the cache, bit for bit, however tokens come.
#include "dialect/Quantization.h"
#include "runtime/Reference.h"
#include "runtime/Safetensors.h"
#include "test/unit/KernelTestSupport.h"
#include "test/unit/TestPaths.h"
#include "llvm/Support/FormatVariadic.h"
#include "gtest/gtest.h"

#include <cmath>
#include <cstring>
#include <random>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::test;

namespace {

/// One sequence of a problem, and the scalar model of it.
class Replay {
public:
  Replay(const Program &program, const Problem &problem, int64_t capacity, unsigned seed)
      : program(program), cache(program, 1, capacity), capacity(capacity), random(seed) {
    const Plan &plan = program.getPlan();
    elementBytes = plan.cache.getDtype().getIntOrFloatBitWidth() / 8;
    keys.resize(size_t(plan.shape.kvHeads * capacity * plan.shape.headDim * elementBytes));
    values.resize(keys.size());
    for (auto *bytes : {&keys, &values})
      for (int64_t i = 0; i < int64_t(bytes->size() / elementBytes); ++i)
        put(*bytes, i);
  }

  /// The first KV head of a captured layer instead of random numbers.
  void take(const TensorView &capturedKeys, const TensorView &capturedValues) {
    for (auto [tensor, bytes] : {std::pair(&capturedKeys, &keys), std::pair(&capturedValues, &values)})
      std::copy_n(tensor->data.begin(), bytes->size(), bytes->begin());
  }

  int64_t getTokens() const { return cache.getTokens(0); }
  HostCache &getCache() { return cache; }

  /// New numbers for the tokens from `first` on, as after taking back.
  void renew(int64_t first) {
    const AttentionShape &shape = program.getPlan().shape;
    for (auto *bytes : {&keys, &values})
      for (int64_t head = 0; head < shape.kvHeads; ++head)
        for (int64_t i = (head * capacity + first) * shape.headDim; i < (head + 1) * capacity * shape.headDim; ++i)
          put(*bytes, i);
  }

  void append(int64_t count, uint64_t seed = 0) {
    if (!getTokens())
      measured = count;
    const AttentionShape &shape = program.getPlan().shape;
    int64_t at = getTokens() * shape.headDim * elementBytes;
    LaunchOptions options;
    options.seed = seed;
    Error error = cache.append(
        {count}, {keys.data() + at, values.data() + at, 0, shape.headDim, capacity * shape.headDim}, given, options);
    ASSERT_FALSE(bool(error)) << toString(std::move(error));
  }

  /// The cache reads as one that the scalar writer has filled; `whole`: and its pages are the same bytes.
  void expectLikeModel(bool whole = false) {
    const Plan &plan = program.getPlan();
    int64_t tokens = getTokens(), headElements = capacity * plan.shape.headDim;
    HostCache model(program, 1, capacity);
    Error error = writePrefill(plan.cache, plan.schedule, model.getSequence(0), {keys.data(), headElements},
                               {values.data(), headElements}, tokens, getPool(), statistics, measured);
    ASSERT_FALSE(bool(error)) << toString(std::move(error));
    size_t count = size_t(tokens * plan.shape.headDim);
    const AlignedBytes &pages = cache.getPages();
    if (whole && plan.target.executor != Executor::CudaDevice)
      for (size_t i = 0; i < pages.size(); ++i)
        ASSERT_EQ(pages.data()[i], model.getPages().data()[i]) << "byte " << i << " of pages, " << tokens << " tokens";
    for (int64_t head = 0; head < plan.shape.kvHeads; ++head) {
      std::vector<float> read[2][2];
      for (auto *sides : {read[0], read[1]})
        for (int side : {0, 1})
          sides[side].resize(count);
      readSequence(plan.cache, plan.schedule, cache.getSequence(0), head, tokens, read[0][0].data(), read[0][1].data());
      readSequence(plan.cache, plan.schedule, model.getSequence(0), head, tokens, read[1][0].data(), read[1][1].data());
      for (int side : {0, 1})
        for (size_t i = 0; i < count; ++i)
          ASSERT_TRUE(isSame(read[0][side][i], read[1][side][i]))
              << read[0][side][i] << " and " << read[1][side][i] << ": " << (side ? "value" : "key") << " head " << head
              << " token " << i / size_t(plan.shape.headDim) << " channel " << i % size_t(plan.shape.headDim) << " of "
              << tokens << " tokens";
    }
  }

  /// To the last bit, but for powers on a GPU, whose powf is not that of the host.
  bool isSame(float x, float y) const {
    auto diag = program.getPlan().cache.getKey().getDiag();
    bool powers = diag && diag.getStrength().convertToDouble() != 0.5 && diag.getStrength().convertToDouble() != 1;
    if (powers && program.getPlan().target.executor == Executor::CudaDevice)
      return std::fabs(x - y) <= 1e-4f * std::fabs(y) + 1e-6f;
    return bit_cast<uint32_t>(x) == bit_cast<uint32_t>(y);
  }

  /// The last `queries` tokens' queries see what they may of the cache as stored.
  void expectAttends(int64_t queries, double bound, int64_t splits = 0) {
    const Plan &plan = program.getPlan();
    int64_t qHeads = plan.shape.qHeads, kvHeads = plan.shape.kvHeads, headDim = plan.shape.headDim;
    std::vector<uint8_t> query(size_t(queries * qHeads * headDim * elementBytes));
    for (int64_t i = 0; i < queries * qHeads * headDim; ++i)
      put(query, i);
    std::vector<float> out, lse;
    Error error = decodeStep(cache, query.data(), out, lse, splits, 0, 3, queries);
    ASSERT_FALSE(bool(error)) << toString(std::move(error));
    int64_t tokens = getTokens();
    std::vector<float> storedKeys(size_t(tokens * headDim)), storedValues(storedKeys);
    for (int64_t head = 0; head < qHeads; ++head) {
      readSequence(plan.cache, plan.schedule, cache.getSequence(0), head / (qHeads / kvHeads), tokens,
                   storedKeys.data(), storedValues.data());
      for (int64_t i = 0; i < queries; ++i) {
        size_t row = size_t(i * qHeads + head), at = row * size_t(headDim);
        std::vector<float> numbers;
        for (int64_t c = 0; c < headDim; ++c) {
          uint32_t bits = 0;
          std::memcpy(&bits, query.data() + (at + size_t(c)) * size_t(elementBytes), size_t(elementBytes));
          numbers.push_back(kv::decodeFloat(plan.cache.getDtype(), bits));
        }
        std::vector<double> exact(size_t(headDim), 0.0);
        double exactLse = 0;
        computeReference(plan.shape, numbers.data(), storedKeys.data(), storedValues.data(), tokens - (queries - 1 - i),
                         nullptr, exact.data(), exactLse);
        EXPECT_LE(relativeError(ArrayRef(out).slice(at, size_t(headDim)), exact), bound) << "query " << i;
        EXPECT_LE(std::fabs(double(lse[row]) - exactLse) / std::max(1.0, std::fabs(exactLse)), bound) << "query " << i;
      }
    }
  }

  std::vector<WriterStatistics> statistics;
  GivenVectors given;

private:
  void put(std::vector<uint8_t> &bytes, int64_t index) {
    std::normal_distribution<float> normal;
    const Plan &plan = program.getPlan();
    int64_t channel = index % plan.shape.headDim, row = index / plan.shape.headDim;
    float number = normal(random) * (channel % 17 == 3 ? 10.0f : 1.0f) + (channel % 5 == 0 ? 0.5f : 0.0f);
    // Some tokens have scales that round to zero, and numbers that are zeros of either sign.
    uint32_t bits = kv::encodeFloat(plan.cache.getDtype(), row % 47 == 11 ? 1e-7f * number : number);
    std::memcpy(bytes.data() + index * elementBytes, &bits, size_t(elementBytes));
  }

  const Program &program;
  HostCache cache;
  int64_t capacity, measured = 0, elementBytes;
  std::mt19937 random;
  std::vector<uint8_t> keys, values;
};

std::vector<std::string> getPresets() {
  std::vector<std::string> names;
  for (const SchemePreset &preset : getSchemePresets())
    names.push_back(preset.name.str());
  return names;
}

struct Case {
  std::string scheme, target = "cpu", dtype = "f16";
  int64_t headDim = 64;
};
std::ostream &operator<<(std::ostream &os, const Case &c) {
  return os << c.scheme << " on " << c.target << " of " << c.dtype << ", head_dim " << c.headDim;
}

class AppendTest : public testing::TestWithParam<Case> {
public:
  void SetUp() override {
    problem.target = GetParam().target;
    if (!runsHere(problem))
      GTEST_SKIP();
  }
  void load() {
    problem.scheme = GetParam().scheme;
    problem.dtype = GetParam().dtype;
    problem.headDim = GetParam().headDim;
    problem.kvHeads = 1;
    problem.qHeads = 1;
    auto loaded = loadProgram(problem);
    ASSERT_TRUE(bool(loaded)) << toString(loaded.takeError());
    program = std::move(*loaded);
  }
  Problem problem;
  std::unique_ptr<Program> program;
};

TEST_P(AppendTest, WritesWhatTheScalarWriterWrites) {
  ASSERT_NO_FATAL_FAILURE(load());
  Replay replay(*program, problem, 400, 7);
  if (auto diag = program->getPlan().cache.getKey().getDiag(); diag && diag.getStat() == kv::DiagStat::Given)
    return; // see TakesWhatItIsGiven
  // Few tokens are measured and written in one launch.
  Replay few(*program, problem, 64, 6);
  ASSERT_NO_FATAL_FAILURE(few.append(50, 4));
  ASSERT_NO_FATAL_FAILURE(few.expectLikeModel(/*whole=*/true));
  std::mt19937 random(3);
  // A prefill, a chunk of one, tokens one by one over several flushes, more than fits the windows at once.
  ASSERT_NO_FATAL_FAILURE(replay.append(90, 2));
  ASSERT_NO_FATAL_FAILURE(replay.expectLikeModel(/*whole=*/true));
  ASSERT_NO_FATAL_FAILURE(replay.append(70, 5));
  ASSERT_NO_FATAL_FAILURE(replay.expectLikeModel(/*whole=*/true));
  for (int i = 0; i < 40; ++i)
    ASSERT_NO_FATAL_FAILURE(replay.append(1, random()));
  ASSERT_NO_FATAL_FAILURE(replay.expectLikeModel(/*whole=*/true));
  ASSERT_NO_FATAL_FAILURE(replay.append(13, 9));
  ASSERT_NO_FATAL_FAILURE(replay.append(187));
  ASSERT_NO_FATAL_FAILURE(replay.expectLikeModel(/*whole=*/true));
  // Taking back, and other tokens instead.
  for (int64_t count : {int64_t(1), int64_t(16), program->getPlan().cache.getWindow().getRollback()}) {
    replay.getCache().rollBack(0, count);
    replay.renew(replay.getTokens());
    ASSERT_NO_FATAL_FAILURE(replay.expectLikeModel());
    for (int64_t i = 0; i < count; i += 11)
      ASSERT_NO_FATAL_FAILURE(replay.append(std::min<int64_t>(11, count - i)));
    ASSERT_NO_FATAL_FAILURE(replay.expectLikeModel());
  }
  for (int64_t queries : {1, 4, 16})
    ASSERT_NO_FATAL_FAILURE(replay.expectAttends(queries, getBound(program->getPlan())));
}

TEST_P(AppendTest, ReplaysACapturedSequence) {
  if (GetParam().dtype != "f16" || GetParam().headDim != 64)
    return; // the capture is of heads of 64 channels of f16
  ASSERT_NO_FATAL_FAILURE(load());
  auto file = SafetensorsFile::open(testDir() + "/data/smollm2-135m.safetensors");
  ASSERT_TRUE(bool(file)) << toString(file.takeError());
  auto keys = file->get("layer.8.k"), values = file->get("layer.8.v");
  ASSERT_TRUE(bool(keys) && bool(values));
  int64_t tokens = (*keys)->shape[1];
  Replay replay(*program, problem, tokens, 1);
  replay.take(**keys, **values);
  ASSERT_NO_FATAL_FAILURE(replay.append(tokens - 32));
  for (int64_t step = 0; step < 32; ++step) {
    ASSERT_NO_FATAL_FAILURE(replay.append(1));
    // The model is slow: all steps on one target, every fourth on the other.
    if (GetParam().target == "cpu" || step % 4 == 3)
      ASSERT_NO_FATAL_FAILURE(replay.expectLikeModel());
  }
}

TEST_P(AppendTest, TakesWhatItIsGiven) {
  ASSERT_NO_FATAL_FAILURE(load());
  const Plan &plan = program->getPlan();
  // Only formats that can be given something.
  if (!plan.cache.getKey().getFeedback() && !plan.cache.getKey().getTransform<kv::CenterAttr>() &&
      !plan.cache.getValue().getTransform<kv::CenterAttr>())
    return;
  Replay replay(*program, problem, 300, 5);
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  auto size = size_t(plan.shape.headDim);
  WriterStatistics &head = replay.statistics.emplace_back();
  for (auto *vectors : {&head.keys, &head.values})
    for (size_t c = 0; c < size; ++c) {
      vectors->means.push_back(normal(random));
      vectors->factors.push_back(std::fabs(normal(random)) + 0.5f);
    }
  // The second moment of a few random queries.
  head.queryMoment.assign(size * size, 0.0);
  for (int sample = 0; sample < 200; ++sample) {
    std::vector<double> query;
    for (size_t c = 0; c < size; ++c)
      query.push_back(double(normal(random)) + (c ? 0.5 * query.back() : 0.0));
    for (size_t i = 0; i < size * size; ++i)
      head.queryMoment[i] += query[i / size] * query[i % size] / 200;
  }
  auto given = makeGivenVectors(plan.cache, replay.statistics);
  ASSERT_TRUE(bool(given)) << toString(given.takeError());
  replay.given = std::move(*given);
  EXPECT_EQ(bool(replay.given.gives & kGivesWeights), plan.cache.getKey().getFeedback());
  for (int64_t count : {120, 1, 40, 100})
    ASSERT_NO_FATAL_FAILURE(replay.append(count));
  ASSERT_NO_FATAL_FAILURE(replay.expectLikeModel());
}

std::vector<Case> getCases() {
  std::vector<Case> cases;
  for (const std::string &preset : getPresets())
    for (const char *target : {"cpu", "cuda-host"})
      cases.push_back({preset, target});
  for (const char *target : {"cpu", "cpu:generic", "cuda-host"}) {
    cases.push_back({"innerq-base", target, "bf16", 128});
    cases.push_back({"innerq-small", target, "f32", 32});
    cases.push_back(
        {"k = <i5, map = sym_signed, group = 1x64, scale = bf16, transforms = [#kv.diag<rms, strength = 0.4, "
         "tied>, #kv.center, #kv.hadamard<64>, #kv.token_norm<f16>], search = 5>; v = <i7, map = hybrid, "
         "group = 16x1, scale = f16, transforms = [#kv.center, #kv.token_norm<f8E8M0FNU>], search = 3>",
         target, "f16", 64});
    cases.push_back({"k = <f4E2M1FN, map = sym, group = 1x16, scale = f8E4M3FN, transforms = [#kv.diag<tensor>]>; v = "
                     "<f4E2M1FN, map = sym, group = 32x1, scale = f8E8M0FNU>",
                     target, "bf16", 96});
    cases.push_back(
        {"k = <i6, map = asym, group = 1x32, scale = f16, search = 2>; v = <i8, map = sym_full, group = 1x32, "
         "scale = f8E8M0FNU>; window = <sink = 5, recent = 0, flush = 1>",
         target, "f16", 256});
    cases.push_back(
        {"k = <i3, map = sym_full, group = 1x32, scale = f16, transforms = [#kv.diag<rms>, #kv.center, "
         "#kv.hadamard<32>, #kv.token_norm<f16>], feedback>; v = <i5, map = asym, group = 1x32, scale = f16, "
         "transforms = [#kv.hadamard<64>]>; window = <sink = 0, recent = 0, flush = 1>",
         target, "f16", 64});
    cases.push_back({"k = <f16, transforms = [#kv.token_norm<f16>]>; v = <i7, map = sym, group = 1x64, scale = f16, "
                     "transforms = [#kv.token_norm<f8E8M0FNU>]>; window = <sink = 0, recent = 0, flush = 1>",
                     target, "f16", 64});
    cases.push_back({"k = <i6, map = sym, group = 1x64, scale = f16>; v = <i3, map = sym, group = 1x128, scale = f16>; "
                     "window = <sink = 32, recent = 0, flush = 1>",
                     target, "bf16", 128});
    cases.push_back({"k = <i4, map = sym_signed, group = 32x1, scale = f16, transforms = [#kv.diag<given>, "
                     "#kv.hadamard<32>], feedback>; v = <i3, map = asym, group = 1x32, scale = bf16, transforms = "
                     "[#kv.diag<rms>, #kv.center]>; window = <sink = 40, recent = 64, flush = 64>",
                     target, "bf16", 32});
  }
  return cases;
}

/// Tensor cores have columns for several queries of a few heads; the last work item of a sequence may have fewer.
TEST(Append, QueriesShareAPassOverTheCodes) {
  struct Case { // kernels take seconds to compile: not each with each
    int64_t group;
    const char *scheme;
    int64_t wanted, queries;
  };
  for (auto [group, scheme, wanted, shared] : {Case{1, "innerq-small", 0, 8},
                                               {2, "kvcc-3", 0, 4},
                                               {3, "int4-token", 0, 2},
                                               {4, "innerq-small", 0, 2},
                                               {6, "int4-token", 0, 1},
                                               {8, "innerq-small", 16, 2},
                                               {5, "kvcc-3", 16, 3},
                                               {1, "int4-token", 16, 16}}) {
    Problem problem;
    problem.target = "cuda-host";
    problem.scheme = scheme;
    problem.kvHeads = 2;
    problem.qHeads = 2 * group;
    problem.headDim = 32;
    problem.queries = wanted;
    auto program = loadProgram(problem);
    ASSERT_TRUE(bool(program)) << toString(program.takeError());
    EXPECT_EQ((*program)->getPlan().schedule.getQueries(), shared);
    Replay replay(**program, problem, 400, 5);
    ASSERT_NO_FATAL_FAILURE(replay.append(390));
    for (int64_t queries : {1, 2, 3, 5, 16})
      for (int64_t splits : {1, 3}) {
        SCOPED_TRACE(formatv("{0} heads, {1}, {2} queries, {3} splits", group, scheme, queries, splits).str());
        // With 32 channels of which two are loud, logits reach 300, not the 100 that the bound is for.
        ASSERT_NO_FATAL_FAILURE(replay.expectAttends(queries, 4 * getBound((*program)->getPlan()), splits));
      }
  }
}

/// Of several queries, each has a window of its own; nothing recent, or blocks that are quantized together.
TEST(Append, QueriesReachWindowsOfTheirOwn) {
  for (const char *target : {"cpu", "cuda-host"})
    for (const char *scheme : {"innerq-small", "q4_0"})
      for (kv::Reach reach : {kv::Reach::Sliding, kv::Reach::Chunked}) {
        Problem problem;
        problem.target = target;
        problem.scheme = scheme;
        problem.qHeads = problem.kvHeads = 1;
        problem.reach = reach;
        problem.windowTokens = 50;
        auto program = loadProgram(problem);
        ASSERT_TRUE(bool(program)) << toString(program.takeError());
        Replay replay(**program, problem, 310, 5);
        ASSERT_NO_FATAL_FAILURE(replay.append(290));
        for (int64_t queries : {1, 5, 16})
          ASSERT_NO_FATAL_FAILURE(replay.expectAttends(queries, getBound((*program)->getPlan())));
        ASSERT_NO_FATAL_FAILURE(replay.append(17)); // a chunk ends within the queries
        ASSERT_NO_FATAL_FAILURE(replay.expectAttends(16, getBound((*program)->getPlan())));
      }
}

INSTANTIATE_TEST_SUITE_P(Presets, AppendTest, testing::ValuesIn(getCases()));

} // namespace
