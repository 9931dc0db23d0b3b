// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The C interface as an embedding framework uses it, and what it answers to wrong arguments.
#include "runtime/kvcc.h"

#include "runtime/HostCache.h"
#include "runtime/Reference.h"
#include "test/unit/ScopedVariable.h"
#include "test/unit/TestPaths.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include <cmath>
#include <random>

using testing::HasSubstr;

using kvcc::ScopedVariable;
using kvcc::testDir;

namespace {

/// smollm2-135m-instruct: 9 query heads on 3 KV heads of 64 channels.
class CApiTest : public testing::Test {
public:
  void SetUp() override {
    if (!getenv("KVCC_CACHE_DIR"))
      cacheOff.emplace("KVCC_CACHE", "off"); // leave the user's cache alone
    kvcc_context_options options = {sizeof(options), nullptr, 4, nullptr, nullptr};
    ASSERT_EQ(kvcc_context_create(&options, &context), KVCC_OK) << kvcc_last_message();
  }
  void TearDown() override {
    kvcc_program_destroy(program);
    kvcc_context_destroy(context);
  }
  kvcc_compile_options compileOptions() {
    return {sizeof(kvcc_compile_options), smollm.c_str(), "innerq-small", "cpu", "f16", "f32", 0};
  }
  void compile() {
    kvcc_compile_options options = compileOptions();
    ASSERT_EQ(kvcc_compile(context, &options, &program), KVCC_OK) << kvcc_last_message();
    info.size = sizeof(info);
    ASSERT_EQ(kvcc_program_get_layer(program, 0, &info), KVCC_OK) << kvcc_last_message();
  }

  /// A cache of two sequences of `tokens` tokens, filled, and the arguments of a step over it.
  void fill(int64_t tokens) {
    int64_t perSequence = 0;
    ASSERT_EQ(kvcc_pages_for(program, 0, tokens, &perSequence), KVCC_OK);
    pages = kvcc::AlignedBytes(size_t(2 * perSequence * info.page_bytes));
    slotBytes = kvcc::AlignedBytes(size_t(2 * info.slot_bytes));
    memory = {pages.data(), 2 * perSequence, slotBytes.data(), 2};
    for (int32_t i = 0; i < 2 * perSequence; ++i)
      table.push_back(int32_t(2 * perSequence) - 1 - i);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (auto [numbers, count] :
         {std::pair(&query, 2 * 9 * 64), {&keys, int(3 * tokens * 64)}, {&values, int(3 * tokens * 64)}})
      for (int i = 0; i < count; ++i)
        numbers->push_back(_Float16(normal(random)));
    for (int32_t sequence = 0; sequence < 2; ++sequence) {
      kvcc_prefill_args args = {sizeof(args),  memory,   table.data() + sequence * perSequence,
                                perSequence,   sequence, keys.data(),
                                values.data(), 0,        0,
                                tokens};
      ASSERT_EQ(kvcc_prefill(program, 0, &args), KVCC_OK) << kvcc_last_message();
      lens.push_back(int32_t(tokens));
      slots.push_back(sequence);
    }
    size_t workspaceBytes = 0;
    ASSERT_EQ(kvcc_workspace_bytes(program, 0, 2, tokens, &workspaceBytes), KVCC_OK);
    workspace = kvcc::AlignedBytes(workspaceBytes);
    out.resize(2 * 9 * 64);
    lse.resize(2 * 9);
    step = {sizeof(step), memory,       table.data(), perSequence, slots.data(),     lens.data(),   2,
            tokens,       query.data(), out.data(),   lse.data(),  workspace.data(), workspaceBytes};
  }

  const std::string models = testDir() + "/models/", smollm = models + "smollm2-135m-instruct.json",
                    deepseek = models + "deepseek-v3.json", gemma = models + "gemma-3-1b-it.json";
  std::optional<ScopedVariable> cacheOff;
  kvcc_context *context = nullptr;
  kvcc_program *program = nullptr;
  kvcc_layer_info info = {};
  kvcc_memory memory = {};
  kvcc_attend_args step = {};
  kvcc::AlignedBytes pages, slotBytes, workspace;
  std::vector<int32_t> table, lens, slots;
  std::vector<_Float16> query, keys, values;
  std::vector<float> out, lse;
};

TEST_F(CApiTest, RunsOnTheThreadsOfTheHost) {
  compile();
  fill(600);
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
  std::vector<float> own = out;
  kvcc_program_destroy(program);
  kvcc_context_destroy(context);
  std::atomic<int64_t> items{0};
  kvcc_context_options options = {sizeof(options), nullptr, 4,
                                  [](void *user, int64_t count, void (*body)(void *, int64_t), void *data) {
                                    *static_cast<std::atomic<int64_t> *>(user) += count;
                                    std::vector<std::thread> threads;
                                    for (int64_t first = 0; first < 4; ++first)
                                      threads.emplace_back([=] {
                                        for (int64_t item = first; item < count; item += 4)
                                          body(data, item);
                                      });
                                    for (std::thread &thread : threads)
                                      thread.join();
                                  },
                                  &items};
  ASSERT_EQ(kvcc_context_create(&options, &context), KVCC_OK) << kvcc_last_message();
  compile();
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
  EXPECT_GT(items.load(), 1);
  EXPECT_EQ(out, own);
}

TEST_F(CApiTest, DecodesOneStep) {
  compile();
  EXPECT_EQ(info.served, 1);
  EXPECT_EQ(info.q_heads, 9);
  EXPECT_EQ(info.kv_heads, 3);
  EXPECT_EQ(info.head_dim, 64);
  EXPECT_EQ(info.sink, 32);
  EXPECT_STREQ(info.dtype, "f16");
  // 150 tokens: all of them in full precision, so that the exact result is known without the format.
  fill(150);
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
  for (int head = 0; head < 9; ++head) {
    std::vector<float> q(64), k(150 * 64), v(150 * 64);
    for (int i = 0; i < 64; ++i)
      q[size_t(i)] = float(query[size_t(head * 64 + i)]);
    for (size_t i = 0; i < k.size(); ++i) {
      k[i] = float(keys[size_t(head / 3) * 150 * 64 + i]);
      v[i] = float(values[size_t(head / 3) * 150 * 64 + i]);
    }
    std::vector<double> exact(64);
    double exactLse;
    kvcc::computeReference(q.data(), k.data(), v.data(), 150, 64, info.scale, exact.data(), exactLse);
    EXPECT_LE(kvcc::relativeError(llvm::ArrayRef(out).slice(size_t(head) * 64, 64), exact), 1e-5);
    EXPECT_NEAR(lse[size_t(head)], exactLse, 1e-5);
  }
}

TEST_F(CApiTest, SchemesOfBracketsDoNotOverflowTheStack) {
  kvcc_compile_options options = compileOptions();
  const std::string deep = "k = " + std::string(100000, '[') + "; v = <bf16>";
  options.scheme = deep.c_str();
  EXPECT_EQ(kvcc_compile(context, &options, &program), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("expected k of at most 1024 characters, but got 100000"));
  // What is just short enough is parsed, and refused by the parser.
  const std::string longest = "k = " + std::string(1024, '[') + "; v = <bf16>";
  options.scheme = longest.c_str();
  EXPECT_EQ(kvcc_compile(context, &options, &program), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("expected attribute value"));
}

TEST_F(CApiTest, SchemesAreText) {
  for (const char *scheme : {"auto; budget = 3.5", "innerq-small; v = <i4, map = asym, group = 1x32, scale = f16>"}) {
    kvcc_compile_options options = compileOptions();
    options.scheme = scheme;
    ASSERT_EQ(kvcc_compile(context, &options, &program), KVCC_OK) << kvcc_last_message();
    info.size = sizeof(info);
    ASSERT_EQ(kvcc_program_get_layer(program, 0, &info), KVCC_OK) << kvcc_last_message();
    table.clear();
    lens.clear();
    slots.clear();
    query.clear();
    keys.clear();
    values.clear();
    fill(300);
    ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
    for (float number : out)
      ASSERT_TRUE(std::isfinite(number));
    kvcc_program_destroy(program);
    program = nullptr;
  }
}

TEST_F(CApiTest, InfoCountsVariants) {
  compile();
  kvcc_program_info all = {};
  all.size = sizeof(all);
  ASSERT_EQ(kvcc_program_get_info(program, &all), KVCC_OK);
  EXPECT_EQ(all.layers, 30);
  EXPECT_EQ(all.variants, 1);
  EXPECT_GT(all.milliseconds, 0);
}

TEST_F(CApiTest, ProgramsOutliveTheirContext) {
  compile();
  kvcc_context_destroy(context);
  context = nullptr;
  fill(400);
  EXPECT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
}

TEST_F(CApiTest, RefusesWrongCompileOptions) {
  struct Case {
    std::function<void(kvcc_compile_options &)> change;
    kvcc_status status;
    const char *message;
  };
  const Case cases[] = {
      {[](auto &o) { o.size = 3; }, KVCC_INVALID_ARGUMENT, "options.size"},
      {[](auto &o) { o.model = nullptr; }, KVCC_INVALID_ARGUMENT, "model"},
      {[](auto &o) { o.model = "/no/such/config.json"; }, KVCC_INVALID_ARGUMENT, "/no/such/config.json"},
      {[](auto &o) { o.scheme = "int5"; }, KVCC_INVALID_ARGUMENT, "kvcc-5, but got 'int5'; the nearest is "},
      {[](auto &o) { o.scheme = "auto; budget = 1"; }, KVCC_INVALID_ARGUMENT, "expected a budget from 2.25 to 16.00"},
      {[](auto &o) { o.scheme = "q8_0; v = <i9>"; }, KVCC_INVALID_ARGUMENT, "in v '#kv.quant<i9>'"},
      {[](auto &o) { o.scheme = "fp16; profile = /no.json"; }, KVCC_INVALID_ARGUMENT, "cannot read /no.json"},
      {[](auto &o) { o.target = "tpu"; }, KVCC_INVALID_ARGUMENT, "but got 'tpu'"},
      {[](auto &o) { o.dtype = "f8"; }, KVCC_INVALID_ARGUMENT, "f16, bf16 or f32, but got 'f8'"},
      {[](auto &o) { o.compute = "int3"; }, KVCC_INVALID_ARGUMENT, "but got int3"},
      {[](auto &o) { o.page_tokens = 48; }, KVCC_INVALID_ARGUMENT, "from 32 to 65536, but got 48"},
      {[&](auto &o) { o.model = deepseek.c_str(); }, KVCC_UNSUPPORTED, "MLA"},
  };
  for (const Case &c : cases) {
    kvcc_compile_options options = compileOptions();
    c.change(options);
    EXPECT_EQ(kvcc_compile(context, &options, &program), c.status) << c.message;
    EXPECT_THAT(kvcc_last_message(), HasSubstr(c.message));
    EXPECT_EQ(program, nullptr);
  }
  EXPECT_EQ(kvcc_compile(nullptr, nullptr, &program), KVCC_INVALID_ARGUMENT);
  EXPECT_EQ(kvcc_context_create(nullptr, nullptr), KVCC_INVALID_ARGUMENT);
}

TEST_F(CApiTest, RefusesWrongSteps) {
  compile();
  fill(2000); // long enough to be split, so that there is a workspace
  struct Case {
    std::function<void(CApiTest &)> change;
    const char *message;
  };
  const Case cases[] = {
      {[](CApiTest &t) { t.step.size = 1; }, "args.size"},
      {[](CApiTest &t) { t.step.batch = -1; }, "batch of at least 0, but got -1"},
      {[](CApiTest &t) { t.step.query = nullptr; }, "query that is not null"},
      {[](CApiTest &t) { t.lens[1] = 2001; }, "seq_lens from 0 to max_tokens = 2000, but got 2001 for sequence 1"},
      {[](CApiTest &t) { t.lens[0] = -5; }, "but got -5"},
      {[](CApiTest &t) { t.table[1] = 99; }, "but got 99 at entry 1"},
      {[](CApiTest &t) { t.slots[1] = 2; }, "a slot from 0 to num_slots - 1 = 1, but got 2"},
      {[](CApiTest &t) { t.step.table_stride = 1; }, "a table of at least 15 pages for 2000 tokens, but got 1"},
      {[](CApiTest &t) { t.step.memory.pages = t.pages.data() + 4; }, "multiple of 64"},
      {[](CApiTest &t) { t.step.workspace_bytes = 8; }, "a workspace of at least"},
  };
  for (const Case &c : cases) {
    kvcc_attend_args kept = step;
    std::vector<int32_t> keptTable = table, keptLens = lens, keptSlots = slots;
    c.change(*this);
    EXPECT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_INVALID_ARGUMENT) << c.message;
    EXPECT_THAT(kvcc_last_message(), HasSubstr(c.message));
    step = kept;
    std::copy(keptTable.begin(), keptTable.end(), table.begin());
    std::copy(keptLens.begin(), keptLens.end(), lens.begin());
    std::copy(keptSlots.begin(), keptSlots.end(), slots.begin());
  }
  EXPECT_EQ(kvcc_attend(program, 30, &step, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("layer from 0 to 29, but got 30"));
  EXPECT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
}

TEST_F(CApiTest, RefusesNumbersThatAreNone) {
  compile();
  fill(400);
  for (float bad : {NAN, INFINITY}) {
    std::vector<_Float16> broken = keys;
    broken[(1 * 400 + 7) * 64 + 5] = _Float16(bad);
    kvcc_prefill_args args = {
        sizeof(args), memory, table.data(), step.table_stride, 0, broken.data(), values.data(), 0, 0, 400};
    EXPECT_EQ(kvcc_prefill(program, 0, &args), KVCC_INVALID_ARGUMENT);
    EXPECT_THAT(kvcc_last_message(), HasSubstr("k[kv head 1, token 7, channel 5]"));
  }
}

TEST_F(CApiTest, NamesLayersThatAreNotServed) {
  kvcc_compile_options options = compileOptions();
  options.model = gemma.c_str();
  ASSERT_EQ(kvcc_compile(context, &options, &program), KVCC_OK) << kvcc_last_message();
  info.size = sizeof(info);
  ASSERT_EQ(kvcc_program_get_layer(program, 0, &info), KVCC_OK);
  EXPECT_EQ(info.served, 0);
  EXPECT_THAT(info.unserved_reason, HasSubstr("sliding window"));
  int64_t pageCount;
  EXPECT_EQ(kvcc_pages_for(program, 0, 100, &pageCount), KVCC_UNSUPPORTED);
}

} // namespace
