// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The C interface as an embedding framework uses it, and what it answers to wrong arguments.
#include "runtime/kvcc.h"

#include "runtime/HostCache.h"
#include "runtime/Reference.h"
#include "runtime/Snapshot.h"
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
    kvcc_context_options options = {sizeof(options), nullptr, 4, nullptr, nullptr, /*validate=*/1};
    ASSERT_EQ(kvcc_context_create(&options, &context), KVCC_OK) << kvcc_last_message();
  }
  void TearDown() override {
    kvcc_program_destroy(program);
    kvcc_context_destroy(context);
  }
  kvcc_compile_options compileOptions() {
    return {sizeof(kvcc_compile_options), smollm.c_str(), "innerq-small", "cpu", "f16", "f32", 128, 0, nullptr, 0};
  }
  void compile() {
    kvcc_compile_options options = compileOptions();
    ASSERT_EQ(kvcc_compile(context, &options, &program), KVCC_OK) << kvcc_last_message();
    info.size = sizeof(info);
    ASSERT_EQ(kvcc_program_get_layer(program, 0, &info), KVCC_OK) << kvcc_last_message();
  }

  /// A cache of two sequences of `tokens` tokens, filled, and the arguments of a step over it.
  void fill(int64_t tokens) {
    for (auto *numbers : {&table, &lens, &slots})
      numbers->clear();
    for (auto *numbers : {&query, &keys, &values})
      numbers->clear();
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
      lens.push_back(int32_t(tokens));
      slots.push_back(sequence);
    }
    newLens = lens;
    tableStride = perSequence;
    kvcc_append_args args = appendArgs(tokens);
    ASSERT_EQ(kvcc_append(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
    size_t workspaceBytes = 0;
    ASSERT_EQ(kvcc_workspace_bytes(program, 0, 2, tokens, &workspaceBytes), KVCC_OK);
    workspace = kvcc::AlignedBytes(workspaceBytes);
    out.resize(2 * 9 * 64);
    lse.resize(2 * 9);
    step = {sizeof(step), memory,     table.data(), perSequence,      slots.data(),   lens.data(), 2,       tokens,
            query.data(), out.data(), lse.data(),   workspace.data(), workspaceBytes, 0,           nullptr, 0};
  }
  /// The prefill of both sequences with the same `tokens` tokens.
  kvcc_append_args appendArgs(int64_t tokens) {
    return {sizeof(kvcc_append_args),
            memory,
            table.data(),
            tableStride,
            slots.data(),
            lens.data(),
            newLens.data(),
            2,
            tokens,
            keys.data(),
            values.data(),
            0,
            64,
            tokens * 64};
  }

  const std::string models = testDir() + "/models/", smollm = models + "smollm2-135m-instruct.json",
                    deepseek = models + "deepseek-v3.json", gemma = models + "gemma-4-26b-a4b.json",
                    gptOss = models + "gpt-oss-20b.json";
  std::optional<ScopedVariable> cacheOff;
  kvcc_context *context = nullptr;
  kvcc_program *program = nullptr;
  kvcc_layer_info info = {};
  kvcc_memory memory = {};
  kvcc_attend_args step = {};
  kvcc::AlignedBytes pages, slotBytes, workspace;
  std::vector<int32_t> table, lens, slots, newLens;
  int64_t tableStride = 0;
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
  kvcc_context_options options = {sizeof(options),
                                  nullptr,
                                  4,
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
                                  &items,
                                  0};
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
    kvcc::AttentionShape shape{9, 3, 64, info.scale};
    kvcc::computeReference(shape, q.data(), k.data(), v.data(), 150, nullptr, exact.data(), exactLse);
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
    fill(300);
    ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
    for (float number : out)
      ASSERT_TRUE(std::isfinite(number));
    kvcc_program_destroy(program);
    program = nullptr;
  }
}

TEST_F(CApiTest, PagesOfOneSizeServeAllLayers) {
  kvcc_compile_options options = compileOptions();
  options.page_bytes = 20480;
  ASSERT_EQ(kvcc_compile(context, &options, &program), KVCC_OK) << kvcc_last_message();
  info.size = sizeof(info);
  ASSERT_EQ(kvcc_program_get_layer(program, 0, &info), KVCC_OK);
  EXPECT_EQ(info.page_bytes, 20480);
  fill(600);
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
  std::vector<float> padded = out;
  kvcc_program_destroy(program);
  program = nullptr;
  compile();
  fill(600);
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK);
  EXPECT_EQ(out, padded);
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
      {[](auto &o) { o.queries = 17; }, KVCC_INVALID_ARGUMENT, "expected queries from 1 to 16, or 0 for"},
      {[](auto &o) { o.page_bytes = 100; }, KVCC_INVALID_ARGUMENT, "page_bytes of 0 or a positive multiple of 64"},
      {[](auto &o) { o.page_bytes = 640; }, KVCC_INVALID_ARGUMENT,
       "page_bytes of at least the 18432 that a page of 128"},
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
      {[](CApiTest &t) { t.step.workspace = t.workspace.data() + 4; }, "a workspace at a multiple of 16 bytes"},
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
    std::vector<_Float16> kept = keys;
    keys[(1 * 400 + 7) * 64 + 5] = _Float16(bad);
    kvcc_append_args args = appendArgs(400);
    args.batch = 1;
    EXPECT_EQ(kvcc_append(program, 0, &args, nullptr), KVCC_INVALID_ARGUMENT);
    EXPECT_THAT(kvcc_last_message(), HasSubstr("keys[sequence 0, token 7, kv head 1, channel 5]"));
    keys = kept;
  }
}

TEST_F(CApiTest, RefusesWrongAppends) {
  compile();
  fill(600);
  struct Case {
    std::function<void(CApiTest &, kvcc_append_args &)> change;
    const char *message;
  };
  const Case cases[] = {
      {[](auto &, auto &a) { a.size = 8; }, "args.size"},
      {[](auto &, auto &a) { a.batch = -1; }, "batch of at least 0, but got -1"},
      {[](auto &, auto &a) { a.max_new = -1; }, "max_new of at least 0, but got -1"},
      {[](auto &, auto &a) { a.batch = 70000; }, "at most 65535 sequences (times queries), but got 70000"},
      {[](auto &, auto &a) { a.keys = nullptr; }, "keys that is not null"},
      {[](auto &, auto &a) { a.new_lens = nullptr; }, "new_lens that is not null"},
      {[](auto &, auto &a) { a.seq_lens = nullptr; }, "seq_lens that is not null"},
      {[](auto &, auto &a) { a.head_stride = 10; }, "head_stride of at least head_dim = 64, but got 10"},
      {[](auto &, auto &a) { a.token_stride = 0; }, "token_stride of at least head_dim = 64, but got 0"},
      {[](auto &, auto &a) { a.table_stride = 1; }, "a table of at least 4 pages for 600 tokens, but got 1"},
      {[](auto &t, auto &) { t.newLens[1] = 601; }, "new_lens from 0 to 600, but got 601 for sequence 1"},
      {[](auto &t, auto &) { t.newLens[0] = -1; }, "new_lens from 0 to 600, but got -1 for sequence 0"},
      {[](auto &t, auto &) { t.table[4] = -2; }, "but got -2 at entry 0"},
      {[](auto &t, auto &) { t.slots[0] = 7; }, "but got 7"},
      {[](auto &t, auto &) { t.slots[1] = 0; }, "one call at a time that writes a sequence"},
      {[](auto &t, auto &) { t.newLens[1] = 200; },
       "at most 96 tokens taken back, but got 400 tokens of a sequence that had 600"},
  };
  for (const Case &c : cases) {
    std::vector<int32_t> keptTable = table, keptSlots = slots, keptNew = newLens;
    kvcc_append_args args = appendArgs(600);
    c.change(*this, args);
    EXPECT_EQ(kvcc_append(program, 0, &args, nullptr), KVCC_INVALID_ARGUMENT) << c.message;
    EXPECT_THAT(kvcc_last_message(), HasSubstr(c.message));
    table = keptTable;
    slots = keptSlots;
    newLens = keptNew;
  }
  lens[0] = 700;
  newLens[0] = 50;
  kvcc_append_args args = appendArgs(600);
  args.batch = 1;
  EXPECT_EQ(kvcc_append(program, 0, &args, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("a table of at least 5 pages"));
  EXPECT_EQ(kvcc_append(program, 0, nullptr, nullptr), KVCC_INVALID_ARGUMENT);
  // What was refused has changed nothing: the sequences still have their tokens.
  lens = {600, 600};
  EXPECT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
  step.batch = int64_t(1) << 62;
  step.queries = 16;
  EXPECT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("at most 65535 sequences"));
  size_t bytes = 0;
  EXPECT_EQ(kvcc_workspace_bytes(program, 0, int64_t(1) << 62, 100, &bytes), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("batch from 0 to 65535"));
}

TEST_F(CApiTest, ForksHaveWhatIsLeftToTakeBack) {
  compile();
  fill(600);
  lens = {520, 600};
  newLens = {0, 0};
  kvcc_append_args back = appendArgs(600);
  ASSERT_EQ(kvcc_append(program, 0, &back, nullptr), KVCC_OK) << kvcc_last_message();
  int64_t shared = 0;
  ASSERT_EQ(kvcc_shared_pages(program, 0, 520, &shared), KVCC_OK);
  for (int64_t i = 0; i < shared; ++i)
    table[size_t(tableStride + i)] = table[size_t(i)];
  kvcc_fork_args args = {sizeof(args), memory, table.data(), 0, table.data() + tableStride, 1, tableStride, 520};
  ASSERT_EQ(kvcc_fork(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
  // 80 of 96 have been taken back.
  for (int32_t tokens : {504, 503}) {
    lens = {tokens, tokens};
    EXPECT_EQ(kvcc_attend(program, 0, &step, nullptr), tokens == 504 ? KVCC_OK : KVCC_INVALID_ARGUMENT);
    newLens = {0, 0};
    kvcc_append_args append = appendArgs(0);
    append.table = table.data() + tableStride;
    append.slots = slots.data() + 1;
    append.batch = 1;
    EXPECT_EQ(kvcc_append(program, 0, &append, nullptr), tokens == 504 ? KVCC_OK : KVCC_INVALID_ARGUMENT);
  }
  EXPECT_THAT(kvcc_last_message(),
              HasSubstr("at most 96 tokens taken back, but got 503 tokens of a sequence that had 600"));
}

TEST_F(CApiTest, TellsWhereEverythingLies) {
  compile();
  kvcc_page_layout layout = {};
  EXPECT_EQ(kvcc_program_get_page_layout(program, 0, &layout), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("layout.size"));
  layout.size = sizeof(layout);
  ASSERT_EQ(kvcc_program_get_page_layout(program, 0, &layout), KVCC_OK) << kvcc_last_message();
  EXPECT_EQ(layout.block_tokens, 32);
  // Keys: 32 * 64 * 3 bits, 32 * 2 scales; values: 32 * 64 * 2 bits, 64 scales.
  EXPECT_EQ(layout.keys.codes, 0);
  EXPECT_EQ(layout.keys.scales, 768);
  EXPECT_EQ(layout.keys.zeros, -1);
  EXPECT_EQ(layout.keys.norms, -1);
  EXPECT_EQ(layout.values.codes, 896);
  EXPECT_EQ(layout.values.scales, 1408);
  EXPECT_EQ(layout.block_bytes, 1536);
  EXPECT_EQ(layout.head_bytes, info.page_tokens / 32 * 1536);
  EXPECT_EQ(layout.page_bytes, info.page_bytes);
  EXPECT_STREQ(layout.key_packing, "#kv.packing<16x32, lanes = 64>");
  EXPECT_STREQ(layout.number_packing, "#kv.packing<16x1>");
  int64_t quantized = -1;
  for (auto [tokens, expected] : {std::pair(0, 0), {159, 0}, {160, 32}, {191, 32}, {600, 448}}) {
    ASSERT_EQ(kvcc_quantized_tokens(program, 0, tokens, &quantized), KVCC_OK);
    EXPECT_EQ(quantized, expected) << tokens;
  }
  EXPECT_EQ(kvcc_quantized_tokens(program, 0, -1, &quantized), KVCC_INVALID_ARGUMENT);
}

TEST_F(CApiTest, ForksShareTheirBeginning) {
  compile();
  fill(600);
  // The second sequence becomes a fork of the first.
  int64_t shared = 0;
  ASSERT_EQ(kvcc_shared_pages(program, 0, 600, &shared), KVCC_OK);
  EXPECT_EQ(shared, 2); // 600 - 96 - 32 - 96 tokens stay quantized whatever is taken back
  kvcc_fork_args args = {sizeof(args), memory, table.data(), 0, table.data() + tableStride, 1, tableStride, 600};
  EXPECT_EQ(kvcc_fork(program, 0, &args, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("fork_table entries of shared pages as in table"));
  for (int64_t i = 0; i < shared; ++i)
    table[size_t(tableStride + i)] = table[size_t(i)];
  args.fork_slot = 0;
  EXPECT_EQ(kvcc_fork(program, 0, &args, nullptr), KVCC_INVALID_ARGUMENT);
  args.fork_slot = 1;
  int32_t own = table[size_t(tableStride + shared)];
  table[size_t(tableStride + shared)] = table[size_t(shared + 1)]; // a page of the sequence, at another place
  EXPECT_EQ(kvcc_fork(program, 0, &args, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("a page of its own for the fork"));
  table[size_t(tableStride + shared)] = own;
  ASSERT_EQ(kvcc_fork(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
  std::vector<float> before(out.begin(), out.begin() + 9 * 64);
  std::copy(query.begin(), query.begin() + 9 * 64, query.begin() + 9 * 64);
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK);
  EXPECT_EQ(std::vector<float>(out.begin() + 9 * 64, out.end()), before);
  // What the fork takes back and writes anew is its own.
  int64_t left = 0;
  ASSERT_EQ(kvcc_rollback(program, 0, 600, 90, &left), KVCC_OK);
  EXPECT_EQ(left, 510);
  EXPECT_EQ(kvcc_rollback(program, 0, 600, 97, &left), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("a count from 0 to 96 to take back from 600 tokens, but got 97"));
  newLens = {0, 80};
  lens = {600, 590};
  kvcc_append_args append = appendArgs(600);
  append.keys = values.data();
  ASSERT_EQ(kvcc_append(program, 0, &append, nullptr), KVCC_OK) << kvcc_last_message();
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK);
  EXPECT_EQ(std::vector<float>(out.begin(), out.begin() + 9 * 64), before);
  EXPECT_NE(std::vector<float>(out.begin() + 9 * 64, out.end()), before);
}

TEST_F(CApiTest, ForksOfWhatWasTakenBackTakeBackNoMore) {
  compile();
  fill(600);
  int64_t shared = 0;
  ASSERT_EQ(kvcc_shared_pages(program, 0, 510, &shared), KVCC_OK);
  for (int64_t i = 0; i < shared; ++i)
    table[size_t(tableStride + i)] = table[size_t(i)];
  kvcc_fork_args args = {sizeof(args), memory, table.data(), 0, table.data() + tableStride, 1, tableStride, 510};
  ASSERT_EQ(kvcc_fork(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
  // The slot holds the latest of 600 tokens, not of 510.
  newLens = {0, 10};
  lens = {600, 513};
  kvcc_append_args append = appendArgs(600);
  EXPECT_EQ(kvcc_append(program, 0, &append, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(),
              HasSubstr("at most 96 tokens taken back, but got 503 tokens of a sequence that had 600"));
  lens[1] = 514;
  EXPECT_EQ(kvcc_append(program, 0, &append, nullptr), KVCC_OK) << kvcc_last_message();
}

TEST_F(CApiTest, SlotsThatTheCallerFillsAreAdopted) {
  compile();
  fill(600);
  // Sequence 1 ends and begins anew; then the slot of 0 is moved there, as from where it had been swapped out to.
  newLens = {0, 5};
  lens = {600, 5};
  kvcc_append_args append = appendArgs(600);
  ASSERT_EQ(kvcc_append(program, 0, &append, nullptr), KVCC_OK) << kvcc_last_message();
  auto *slots = static_cast<uint8_t *>(memory.slots);
  std::copy_n(slots, info.slot_bytes, slots + info.slot_bytes);
  newLens = {0, 1};
  lens = {600, 601};
  EXPECT_EQ(kvcc_append(program, 0, &append, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(),
              HasSubstr("expected a sequence of at most 5 tokens before the new ones, but got 600"));
  EXPECT_EQ(kvcc_adopt(program, 0, nullptr, 1), KVCC_INVALID_ARGUMENT);
  EXPECT_EQ(kvcc_adopt(program, 0, &memory, -1), KVCC_INVALID_ARGUMENT);
  ASSERT_EQ(kvcc_adopt(program, 0, &memory, 1), KVCC_OK) << kvcc_last_message();
  EXPECT_EQ(kvcc_append(program, 0, &append, nullptr), KVCC_OK) << kvcc_last_message();
}

TEST_F(CApiTest, SnapshotsComeBack) {
  compile();
  fill(600);
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK);
  std::vector<float> before = out;
  size_t bytes = 0;
  ASSERT_EQ(kvcc_snapshot_bytes(program, 0, 600, &bytes), KVCC_OK);
  std::vector<uint8_t> taken(bytes);
  kvcc_snapshot_args args = {sizeof(args), memory, table.data(), tableStride, 0, 600, taken.data(), bytes - 1};
  EXPECT_EQ(kvcc_snapshot(program, 0, &args, nullptr), KVCC_INVALID_ARGUMENT);
  args.bytes_length = bytes;
  ASSERT_EQ(kvcc_snapshot(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
  int64_t tokens = 0;
  ASSERT_EQ(kvcc_snapshot_tokens(taken.data(), bytes, &tokens), KVCC_OK);
  EXPECT_EQ(tokens, 600);
  // Into the other sequence, which then is the first.
  args.table = table.data() + tableStride;
  args.slot = 1;
  args.tokens = 0;
  ASSERT_EQ(kvcc_restore(program, 0, &args, 0, nullptr), KVCC_OK) << kvcc_last_message();
  EXPECT_EQ(args.tokens, 600);
  std::copy(query.begin(), query.begin() + 9 * 64, query.begin() + 9 * 64);
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK);
  EXPECT_EQ(std::vector<float>(out.begin() + 9 * 64, out.end()),
            std::vector<float>(before.begin(), before.begin() + 9 * 64));
  // Any byte that is another is found.
  for (size_t at = 0; at < bytes; at += 997) {
    taken[at] ^= 4;
    EXPECT_EQ(kvcc_restore(program, 0, &args, 0, nullptr), KVCC_INVALID_ARGUMENT) << at;
    taken[at] ^= 4;
  }
  for (size_t length : {size_t(0), size_t(7), size_t(20), bytes / 2, bytes - 1}) {
    args.bytes_length = length;
    EXPECT_EQ(kvcc_restore(program, 0, &args, 0, nullptr), KVCC_INVALID_ARGUMENT) << length;
  }
  args.bytes_length = bytes;

  // A header as deep as brackets go, before any checksum.
  for (size_t depth : {size_t(6000), size_t(1000000)}) {
    std::string text(depth, '[');
    std::vector<uint8_t> deep(taken.begin(), taken.begin() + 16);
    for (int i = 0; i < 4; ++i)
      deep[size_t(12 + i)] = uint8_t(depth >> (8 * i));
    deep.insert(deep.end(), text.begin(), text.end());
    deep.resize(deep.size() + 128);
    EXPECT_EQ(kvcc_snapshot_tokens(deep.data(), deep.size(), &tokens), KVCC_INVALID_ARGUMENT);
    EXPECT_THAT(kvcc_last_message(), HasSubstr("expected an undamaged snapshot"));
  }

  // Into another scheme: refused, or requantized.
  kvcc_compile_options options = compileOptions();
  options.scheme = "q8_0";
  kvcc_program *other = nullptr;
  ASSERT_EQ(kvcc_compile(context, &options, &other), KVCC_OK) << kvcc_last_message();
  kvcc_layer_info otherInfo = {};
  otherInfo.size = sizeof(otherInfo);
  ASSERT_EQ(kvcc_program_get_layer(other, 0, &otherInfo), KVCC_OK);
  int64_t otherPages = 0;
  ASSERT_EQ(kvcc_pages_for(other, 0, 600, &otherPages), KVCC_OK);
  kvcc::AlignedBytes pool(size_t(otherPages * otherInfo.page_bytes)), slot(size_t(otherInfo.slot_bytes));
  std::vector<int32_t> numbers;
  for (int32_t i = 0; i < otherPages; ++i)
    numbers.push_back(int32_t(otherPages) - 1 - i);
  kvcc_snapshot_args there = {
      sizeof(there), {pool.data(), otherPages, slot.data(), 1}, numbers.data(), otherPages, 0, 0, taken.data(), bytes};
  EXPECT_EQ(kvcc_restore(other, 0, &there, 0, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("or requantize = 1"));
  ASSERT_EQ(kvcc_restore(other, 0, &there, 1, nullptr), KVCC_OK) << kvcc_last_message();
  size_t needed = 0;
  ASSERT_EQ(kvcc_workspace_bytes(other, 0, 1, 600, &needed), KVCC_OK);
  workspace = kvcc::AlignedBytes(needed);
  int32_t length = 600, zero = 0;
  kvcc_attend_args attend = {
      sizeof(attend), there.memory, numbers.data(), otherPages,       &zero,  &length, 1,       600,
      query.data(),   out.data(),   lse.data(),     workspace.data(), needed, 1,       nullptr, 0};
  ASSERT_EQ(kvcc_attend(other, 0, &attend, nullptr), KVCC_OK) << kvcc_last_message();
  std::vector<double> exact(before.begin(), before.begin() + 9 * 64);
  EXPECT_LE(kvcc::relativeError(llvm::ArrayRef(out).take_front(9 * 64), exact), 2e-2);
  // Whoever wrote it, a packing that looks beyond a block is refused.
  auto opened = kvcc::openSnapshot(taken);
  ASSERT_TRUE(bool(opened));
  kvcc::SnapshotHeader forged = opened->header;
  size_t at = forged.schedule.find("floats = #kv.packing<16x1>");
  ASSERT_NE(at, std::string::npos) << forged.schedule;
  forged.schedule.replace(at, 26, "floats = #kv.packing<64x1>");
  std::vector<uint8_t> bad(kvcc::getSnapshotBytes(forged));
  std::copy(opened->pages.begin(), opened->slot.end(), bad.begin() + std::ptrdiff_t(kvcc::getPrefixBytes(forged)));
  kvcc::sealSnapshot(forged, bad);
  there.bytes = bad.data();
  there.bytes_length = bad.size();
  EXPECT_EQ(kvcc_restore(other, 0, &there, 1, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("expected a packing whose tile divides 32x64"));
  kvcc_program_destroy(other);
}

TEST_F(CApiTest, SeveralQueriesSeeWhatTheyMay) {
  compile();
  fill(600);
  // The last four tokens' queries at once, against one after the other.
  std::vector<_Float16> four;
  for (int repeat = 0; repeat < 4; ++repeat)
    for (_Float16 number : query)
      four.push_back(number * _Float16(1.0f + 0.25f * float(repeat)));
  std::vector<float> together(four.size()), theirLse(4 * 2 * 9);
  kvcc_attend_args all = step;
  size_t needed = 0;
  ASSERT_EQ(kvcc_workspace_bytes(program, 0, 8, 600, &needed), KVCC_OK);
  kvcc::AlignedBytes larger(needed);
  all.workspace = larger.data();
  all.workspace_bytes = needed;
  all.query = four.data();
  all.out = together.data();
  all.lse = theirLse.data();
  all.queries = 4;
  ASSERT_EQ(kvcc_attend(program, 0, &all, nullptr), KVCC_OK) << kvcc_last_message();
  all.queries = 17;
  EXPECT_EQ(kvcc_attend(program, 0, &all, nullptr), KVCC_INVALID_ARGUMENT);
  for (int32_t i = 0; i < 4; ++i) {
    lens = {600 - 3 + i, 600 - 3 + i};
    std::vector<_Float16> one;
    for (int sequence = 0; sequence < 2; ++sequence)
      one.insert(one.end(), four.begin() + (sequence * 4 + i) * 9 * 64, four.begin() + (sequence * 4 + i + 1) * 9 * 64);
    step.query = one.data();
    ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
    for (int sequence = 0; sequence < 2; ++sequence) {
      std::vector<double> exact(out.begin() + sequence * 9 * 64, out.begin() + (sequence + 1) * 9 * 64);
      llvm::ArrayRef<float> got(together);
      // A block may be quantized here that is not there: within what the formats lose.
      EXPECT_LE(kvcc::relativeError(got.slice(size_t(sequence * 4 + i) * 9 * 64, 9 * 64), exact), i == 3 ? 1e-6 : 0.2);
    }
  }
}

TEST_F(CApiTest, NamesLayersThatAreNotServed) {
  kvcc_compile_options options = compileOptions();
  options.model = gemma.c_str();
  ASSERT_EQ(kvcc_compile(context, &options, &program), KVCC_OK) << kvcc_last_message();
  info.size = sizeof(info);
  ASSERT_EQ(kvcc_program_get_layer(program, 5, &info), KVCC_OK);
  EXPECT_EQ(info.served, 0);
  EXPECT_THAT(info.unserved_reason, HasSubstr("K used as V"));
  int64_t pageCount;
  EXPECT_EQ(kvcc_pages_for(program, 5, 100, &pageCount), KVCC_UNSUPPORTED);
}

TEST_F(CApiTest, ResultsOfTheDtypeAndMerges) {
  compile();
  fill(150);
  std::vector<float> wide(out.size());
  step.out = wide.data();
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
  // Two parts of the same tokens weigh the same; one without tokens counts nothing.
  size_t rows = lse.size();
  std::vector<float> outs(3 * wide.size(), 7.0f), lses(3 * rows, -INFINITY), merged(wide.size()), mergedLse(rows);
  for (size_t part : {0, 2}) {
    std::copy(wide.begin(), wide.end(), outs.begin() + part * wide.size());
    std::copy(lse.begin(), lse.end(), lses.begin() + part * rows);
  }
  kvcc_merge_args args = {sizeof(args), outs.data(), lses.data(), 3, int64_t(rows), merged.data(), mergedLse.data()};
  ASSERT_EQ(kvcc_merge(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
  EXPECT_LE(kvcc::relativeError(merged, std::vector<double>(wide.begin(), wide.end())), 1e-6);
  for (size_t i = 0; i < rows; ++i)
    EXPECT_NEAR(mergedLse[i], lse[i] + std::log(2.0f), 1e-5);
  args.parts = 0;
  EXPECT_EQ(kvcc_merge(program, 0, &args, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_STREQ(kvcc_last_message(), "expected parts of at least 1, but got 0");
  args.parts = 1;
  args.lses = nullptr;
  EXPECT_EQ(kvcc_merge(program, 0, &args, nullptr), KVCC_INVALID_ARGUMENT);
  kvcc_program_destroy(program);

  kvcc_compile_options options = compileOptions();
  options.out_dtype = "f16";
  ASSERT_EQ(kvcc_compile(context, &options, &program), KVCC_OK) << kvcc_last_message();
  info.size = sizeof(info);
  ASSERT_EQ(kvcc_program_get_layer(program, 0, &info), KVCC_OK);
  EXPECT_STREQ(info.out_dtype, "f16");
  std::vector<_Float16> halves(wide.size());
  step.out = halves.data();
  ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
  for (size_t i = 0; i < wide.size(); ++i)
    EXPECT_EQ(halves[i], _Float16(wide[i]));
  kvcc_program_destroy(program);
  options.out_dtype = "bf16";
  EXPECT_EQ(kvcc_compile(context, &options, &program), KVCC_INVALID_ARGUMENT);
  EXPECT_STREQ(kvcc_last_message(), "expected out_dtype f32 or that of the queries, f16, but got 'bf16'");
}

TEST_F(CApiTest, SplitTokensMakeResultsIndependentOfTheBatch) {
  for (const char *target : {"cpu", "cuda-host"}) {
    kvcc_compile_options options = compileOptions();
    options.target = target;
    options.compute = "auto";
    ASSERT_EQ(kvcc_compile(context, &options, &program), KVCC_OK) << kvcc_last_message();
    info.size = sizeof(info);
    ASSERT_EQ(kvcc_program_get_layer(program, 0, &info), KVCC_OK);
    fill(1500);
    step.split_tokens = 256;
    size_t needed = 0;
    ASSERT_EQ(kvcc_split_workspace_bytes(program, 0, 2, 9000, 256, &needed), KVCC_OK) << kvcc_last_message();
    workspace = kvcc::AlignedBytes(needed);
    step.workspace = workspace.data();
    step.workspace_bytes = needed;
    ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
    std::vector<float> together = out, togetherLse = lse;
    // The first sequence alone, with more splits than it has tokens for.
    step.batch = 1;
    step.max_tokens = 9000;
    ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
    for (size_t i = 0; i < 9 * 64; ++i)
      ASSERT_EQ(out[i], together[i]) << target;
    for (size_t i = 0; i < 9; ++i)
      ASSERT_EQ(lse[i], togetherLse[i]) << target;
    // As near to what is split otherwise as rounding allows.
    step.split_tokens = 0;
    ASSERT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_OK) << kvcc_last_message();
    EXPECT_LE(kvcc::relativeError(llvm::ArrayRef(out).take_front(9 * 64),
                                  std::vector<double>(together.begin(), together.begin() + 9 * 64)),
              info.kernel_error_bound);
    step.split_tokens = 100;
    EXPECT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_INVALID_ARGUMENT);
    EXPECT_STREQ(kvcc_last_message(), "expected split_tokens of 0 or a multiple of 256, but got 100");
    step.split_tokens = 256;
    step.workspace_bytes = 100;
    EXPECT_EQ(kvcc_attend(program, 0, &step, nullptr), KVCC_INVALID_ARGUMENT);
    EXPECT_THAT(kvcc_last_message(), HasSubstr("a workspace of at least"));
    kvcc_program_destroy(program);
    program = nullptr;
  }
}

TEST_F(CApiTest, SinkLogitsAndWindows) {
  kvcc_compile_options options = compileOptions();
  options.model = gptOss.c_str();
  options.scheme = "fp16";
  options.dtype = "f16";
  ASSERT_EQ(kvcc_compile(context, &options, &program), KVCC_OK) << kvcc_last_message();
  info.size = sizeof(info);
  ASSERT_EQ(kvcc_program_get_layer(program, 1, &info), KVCC_OK);
  EXPECT_EQ(info.window_tokens, 0);
  EXPECT_EQ(info.sink_logits, 1);
  ASSERT_EQ(kvcc_program_get_layer(program, 0, &info), KVCC_OK);
  EXPECT_EQ(info.window_tokens, 128);
  EXPECT_EQ(info.chunked, 0);
  EXPECT_EQ(info.softcap, 0);
  // Of 1000 tokens the last 128 are read: whole pages before them are not.
  int64_t expired = -1;
  ASSERT_EQ(kvcc_expired_pages(program, 0, 1000, &expired), KVCC_OK);
  EXPECT_EQ(expired, (1000 - 128) / info.page_tokens);
  ASSERT_EQ(kvcc_expired_pages(program, 1, 1000, &expired), KVCC_OK);
  EXPECT_EQ(expired, 0);
  EXPECT_EQ(kvcc_expired_pages(program, 0, -1, &expired), KVCC_INVALID_ARGUMENT);
  // An early version of the structure ends before the sinks, which this layer cannot do without.
  kvcc_attend_args args = {};
  args.size = offsetof(kvcc_attend_args, sinks);
  std::vector<float> numbers(64 * 64);
  int32_t zero = 0;
  args.memory = {nullptr, 0, nullptr, 1};
  std::vector<uint8_t> memory(size_t(info.slot_bytes) + 64);
  args.memory.slots = memory.data() + (64 - uintptr_t(memory.data()) % 64) % 64;
  args.slots = args.seq_lens = &zero;
  args.batch = 1;
  args.query = args.out = numbers.data();
  args.lse = numbers.data();
  EXPECT_EQ(kvcc_attend(program, 0, &args, nullptr), KVCC_INVALID_ARGUMENT);
  EXPECT_THAT(kvcc_last_message(), HasSubstr("sinks"));
  // With no token the sink has all the weight.
  std::vector<float> sinks(64, 0.75f);
  args.size = sizeof(args);
  args.sinks = sinks.data();
  std::vector<float> lse(64);
  args.lse = lse.data();
  ASSERT_EQ(kvcc_attend(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
  EXPECT_FLOAT_EQ(lse[63], 0.75f);
}

} // namespace
