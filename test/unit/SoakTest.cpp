// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Random lives of several sequences through the C interface, validated, against the scalar model of the cache.
// KVCC_SOAK_OPERATIONS says how many operations there are in all.
#include "runtime/CApiSupport.h"

#include "dialect/Quantization.h"
#include "runtime/CacheContents.h"
#include "runtime/HostCache.h"
#include "runtime/Reference.h"
#include "test/unit/KernelTestSupport.h"
#include "test/unit/ScopedVariable.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/raw_ostream.h"
#include "gtest/gtest.h"

#include <cmath>
#include <random>

using namespace llvm;
using namespace kvcc;

namespace {

struct Config {
  std::string scheme, dtype;
  int64_t kvHeads, headDim, page;
  const char *target = "cpu";
};
std::ostream &operator<<(std::ostream &os, const Config &c) {
  return os << c.scheme << " of " << c.dtype << ", " << c.kvHeads << " x " << c.headDim << ", page " << c.page << ", "
            << c.target;
}

constexpr int64_t kMostTokens = 500, kSlots = 7, kGuard = 64;
constexpr uint8_t kGuardByte = 0xa5;

/// The pools of a layer with a free list and counts of who uses a page. What is handed out holds garbage, and a copy
/// of everything shows what a call has written.
class Pools {
public:
  void create(const kvcc_layer_info &layer, int64_t numPages, int64_t numSlots) {
    info = layer;
    pages = AlignedBytes(size_t(numPages * info.page_bytes + kGuard));
    slots = AlignedBytes(size_t(numSlots * info.slot_bytes + kGuard));
    for (AlignedBytes *bytes : {&pages, &slots})
      std::memset(bytes->data(), kGuardByte, bytes->size());
    memory = {pages.data(), numPages, slots.data(), numSlots};
    users.assign(size_t(numPages), 0);
    for (int64_t i = 0; i < numPages; ++i)
      freePages.push_back(int32_t(i));
    for (int64_t i = 0; i < numSlots; ++i)
      freeSlots.push_back(int32_t(i));
    keepShadow();
  }

  bool hasPages(int64_t count) const { return int64_t(freePages.size()) >= count; }
  bool hasSlot() const { return !freeSlots.empty(); }
  int32_t takePage(std::mt19937 &random) {
    int32_t page = takeAny(freePages, random);
    users[size_t(page)] = 1;
    spoil(pages.data() + page * info.page_bytes, info.page_bytes, random);
    return page;
  }
  void sharePage(int32_t page) { ++users[size_t(page)]; }
  void releasePage(int32_t page) {
    if (!--users[size_t(page)])
      freePages.push_back(page);
  }
  int32_t takeSlot(std::mt19937 &random) {
    int32_t slot = takeAny(freeSlots, random);
    spoil(slots.data() + slot * info.slot_bytes, info.slot_bytes, random);
    return slot;
  }
  void releaseSlot(int32_t slot) { freeSlots.push_back(slot); }
  bool isShared(int32_t page) const { return users[size_t(page)] > 1; }

  void keepShadow() {
    shadowPages.assign(pages.data(), pages.data() + pages.size());
    shadowSlots.assign(slots.data(), slots.data() + slots.size());
  }
  /// Nothing but these pages and slots has changed since keepShadow.
  void expectOnlyWritten(const std::vector<int32_t> &writtenPages, const std::vector<int32_t> &writtenSlots) {
    expectSame(pages, shadowPages, info.page_bytes, memory.num_pages, writtenPages, "page");
    expectSame(slots, shadowSlots, info.slot_bytes, memory.num_slots, writtenSlots, "slot");
  }

  kvcc_layer_info info = {};
  kvcc_memory memory = {};

private:
  static int32_t takeAny(std::vector<int32_t> &from, std::mt19937 &random) {
    std::swap(from[size_t(random() % from.size())], from.back());
    int32_t taken = from.back();
    from.pop_back();
    return taken;
  }
  static void spoil(uint8_t *bytes, int64_t count, std::mt19937 &random) {
    std::memset(bytes, int(random() % 256), size_t(count));
  }
  static void expectSame(const AlignedBytes &bytes, const std::vector<uint8_t> &shadow, int64_t each, int64_t count,
                         const std::vector<int32_t> &written, const char *what) {
    for (int64_t i = 0; i <= count; ++i) // the last one is the guard
      if (i == count || !is_contained(written, int32_t(i)))
        ASSERT_EQ(std::memcmp(bytes.data() + i * each, shadow.data() + i * each, size_t(i == count ? kGuard : each)), 0)
            << what << " " << i << " of " << count;
  }

  AlignedBytes pages, slots;
  std::vector<uint8_t> shadowPages, shadowSlots;
  std::vector<int32_t> users, freePages, freeSlots;
};

/// A sequence as its owner and the model know it.
struct Sequence {
  int32_t slot = 0;
  std::vector<int32_t> table;
  int64_t tokens = 0, most = 0; ///< that it has, and has had
  /// Keys and values of the cache's dtype, [kv_heads][kMostTokens][head_dim]; and the same as they were when transforms
  /// were measured on the first `measured` of them.
  std::vector<uint8_t> numbers[2], begin[2];
  int64_t measured = 0;
  bool beginIntact = true; ///< these tokens are still the first ones
};

class SoakTest : public testing::TestWithParam<Config> {
public:
  void SetUp() override {
    if (!getenv("KVCC_CACHE_DIR"))
      cacheOff.emplace("KVCC_CACHE", "off"); // leave the user's cache alone
    const Config &config = GetParam();
    SmallString<128> path;
    ASSERT_FALSE(sys::fs::createUniqueDirectory("kvcc-soak", path));
    folder = path.str().str();
    std::error_code failed;
    raw_fd_ostream(folder + "/config.json", failed)
        << R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "num_attention_heads": )"
        << 2 * config.kvHeads << R"(, "num_key_value_heads": )" << config.kvHeads << R"(, "head_dim": )"
        << config.headDim << R"(, "hidden_size": )" << 2 * config.kvHeads * config.headDim
        << R"(, "max_position_embeddings": 8192, "vocab_size": 100, "torch_dtype": "float16"})";
    ASSERT_FALSE(failed);
    kvcc_context_options options = {sizeof(options), nullptr, 2, nullptr, nullptr, /*validate=*/1};
    ASSERT_EQ(kvcc_context_create(&options, &context), KVCC_OK) << kvcc_last_message();
    ASSERT_NO_FATAL_FAILURE(compile(config.scheme.c_str(), program, pools, 60, kSlots));
    ASSERT_NO_FATAL_FAILURE(compile(config.dtype == "bf16" ? "bf16" : "fp16", plain, plainPools, 20, 1));
    plan = &program->model->getProgram(0)->getPlan();
    elementBytes = plan->cache.getDtype().getIntOrFloatBitWidth() / 8;
    scratch = std::make_unique<HostCache>(*program->model->getProgram(0), 1, 3 * kMostTokens);
  }
  void TearDown() override {
    scratch.reset();
    kvcc_program_destroy(program);
    kvcc_program_destroy(plain);
    kvcc_context_destroy(context);
    sys::fs::remove_directories(folder);
  }
  void compile(const char *scheme, kvcc_program *&to, Pools &itsPools, int64_t pages, int64_t slots) {
    const Config &config = GetParam();
    kvcc_compile_options options = {sizeof(options), folder.c_str(), scheme, config.target, config.dtype.c_str(),
                                    "auto",          config.page,    0,      nullptr,       0};
    ASSERT_EQ(kvcc_compile(context, &options, &to), KVCC_OK) << kvcc_last_message();
    kvcc_layer_info info = {};
    info.size = sizeof(info);
    ASSERT_EQ(kvcc_program_get_layer(to, 0, &info), KVCC_OK) << kvcc_last_message();
    itsPools.create(info, pages, slots);
  }

  int64_t below(int64_t bound) { return int64_t(random() % uint64_t(bound)); }
  int64_t headElements() const { return kMostTokens * plan->shape.headDim; }
  int64_t sideBytes() const { return plan->shape.kvHeads * headElements() * elementBytes; }
  int64_t pagesFor(int64_t tokens) {
    int64_t pages = 0;
    EXPECT_EQ(kvcc_pages_for(program, 0, tokens, &pages), KVCC_OK);
    return pages;
  }

  // The allocator.

  Sequence *pick() { return sequences.empty() ? nullptr : sequences[size_t(below(int64_t(sequences.size())))].get(); }
  Sequence *create() {
    auto sequence = std::make_unique<Sequence>();
    sequence->slot = pools.takeSlot(random);
    for (auto &side : sequence->numbers)
      side.resize(size_t(sideBytes()));
    sequences.push_back(std::move(sequence));
    return sequences.back().get();
  }
  void drop(Sequence *sequence) {
    shrink(*sequence, 0);
    pools.releaseSlot(sequence->slot);
    llvm::erase_if(sequences, [&](const auto &each) { return each.get() == sequence; });
  }
  bool canGrow(const Sequence &sequence, int64_t tokens) {
    return tokens <= kMostTokens &&
           pools.hasPages(std::max<int64_t>(pagesFor(tokens) - int64_t(sequence.table.size()), 0));
  }
  void grow(Sequence &sequence, int64_t tokens) {
    while (int64_t(sequence.table.size()) < pagesFor(tokens))
      sequence.table.push_back(pools.takePage(random));
  }
  void shrink(Sequence &sequence, int64_t pages) {
    for (; int64_t(sequence.table.size()) > pages; sequence.table.pop_back())
      pools.releasePage(sequence.table.back());
  }
  /// Pages of a sequence that nobody else has: a call that writes it may change these.
  std::vector<int32_t> ownPages(const Sequence &sequence) {
    std::vector<int32_t> own;
    for (int32_t page : sequence.table)
      if (!pools.isShared(page))
        own.push_back(page);
    return own;
  }

  // The operations.

  uint32_t makeNumber(int64_t channel) {
    std::normal_distribution<float> normal;
    return kv::encodeFloat(plan->cache.getDtype(),
                           normal(random) * (channel % 17 == 3 ? 10.0f : 1.0f) + (channel % 5 == 0 ? 0.5f : 0.0f));
  }
  uint8_t *at(std::vector<uint8_t> &side, int64_t head, int64_t token) {
    return side.data() + (head * headElements() + token * plan->shape.headDim) * elementBytes;
  }
  /// New numbers for the model's tokens from sequence.tokens on.
  void renew(Sequence &sequence, int64_t count) {
    if (sequence.tokens < sequence.measured)
      sequence.beginIntact = false;
    for (auto &side : sequence.numbers)
      for (int64_t head = 0; head < plan->shape.kvHeads; ++head)
        for (int64_t i = 0; i < count * plan->shape.headDim; ++i) {
          uint32_t bits = makeNumber(i % plan->shape.headDim);
          std::memcpy(at(side, head, sequence.tokens) + i * elementBytes, &bits, size_t(elementBytes));
        }
    if (sequence.tokens == 0)
      begins(sequence, count);
  }
  static void begins(Sequence &sequence, int64_t count) {
    sequence.measured = count;
    sequence.most = 0;
    sequence.beginIntact = true;
    for (int side : {0, 1})
      sequence.begin[side] = sequence.numbers[side];
  }

  void append(const std::vector<Sequence *> &batch) {
    int64_t stride = 0, maxNew = 0, headDim = plan->shape.headDim, tokenStride = headDim + 8 * below(3);
    std::vector<int64_t> counts;
    for (Sequence *sequence : batch) {
      int64_t count = below(2) ? 1 + below(3) : below(81);
      if (!canGrow(*sequence, sequence->tokens + count))
        count = 0;
      renew(*sequence, count);
      grow(*sequence, sequence->tokens + count);
      counts.push_back(count);
      maxNew = std::max(maxNew, count);
      stride = std::max(stride, int64_t(sequence->table.size()));
    }
    int64_t headStride = std::max<int64_t>(maxNew, 1) * tokenStride, sequenceStride = plan->shape.kvHeads * headStride;
    std::vector<uint8_t> staged[2];
    std::vector<int32_t> table(batch.size() * size_t(stride), -1), slots, lens, newLens, written;
    for (auto &side : staged)
      side.resize(batch.size() * size_t(sequenceStride * elementBytes));
    for (auto [b, sequence] : enumerate(batch)) {
      for (int side : {0, 1})
        for (int64_t head = 0; head < plan->shape.kvHeads; ++head)
          for (int64_t t = 0; t < counts[b]; ++t)
            std::memcpy(staged[side].data() +
                            (int64_t(b) * sequenceStride + head * headStride + t * tokenStride) * elementBytes,
                        at(sequence->numbers[side], head, sequence->tokens + t), size_t(headDim * elementBytes));
      copy(sequence->table, table.begin() + int64_t(b) * stride);
      slots.push_back(sequence->slot);
      lens.push_back(int32_t(sequence->tokens + counts[b]));
      newLens.push_back(int32_t(counts[b]));
      append_range(written, ownPages(*sequence));
    }
    kvcc_append_args args = {sizeof(args),     pools.memory,   table.data(),          stride,    slots.data(),
                             lens.data(),      newLens.data(), int64_t(batch.size()), maxNew,    staged[0].data(),
                             staged[1].data(), sequenceStride, tokenStride,           headStride};
    pools.keepShadow();
    ASSERT_EQ(kvcc_append(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
    pools.expectOnlyWritten(written, slots);
    for (auto [sequence, count] : zip_equal(batch, counts)) {
      sequence->tokens += count;
      sequence->most = std::max(sequence->most, sequence->tokens);
    }
  }

  void rollBack(Sequence &sequence) {
    int64_t most = std::min(pools.info.max_rollback - (sequence.most - sequence.tokens), sequence.tokens);
    int64_t count = below(3) ? below(most + 1) : most;
    int64_t left = 0;
    ASSERT_EQ(kvcc_rollback(program, 0, sequence.tokens, count, &left), KVCC_OK) << kvcc_last_message();
    ASSERT_EQ(left, sequence.tokens - count);
    sequence.tokens = left;
    shrink(sequence, pagesFor(left));
  }

  Sequence *fork(Sequence &from) {
    int64_t shared = 0, pages = pagesFor(from.tokens);
    EXPECT_EQ(kvcc_shared_pages(program, 0, from.tokens, &shared), KVCC_OK);
    if (!pools.hasSlot() || !pools.hasPages(pages - shared) || !from.tokens)
      return nullptr;
    Sequence *made = create();
    int32_t slot = made->slot;
    *made = from;
    made->slot = slot;
    made->table.resize(size_t(shared));
    for (int32_t page : made->table)
      pools.sharePage(page);
    grow(*made, made->tokens);
    kvcc_fork_args args = {sizeof(args), pools.memory, from.table.data(), from.slot, made->table.data(),
                           slot,         pages,        from.tokens};
    pools.keepShadow();
    EXPECT_EQ(kvcc_fork(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
    pools.expectOnlyWritten(ownPages(*made), {slot});
    return made;
  }

  /// A snapshot of `from` restored into a new sequence, or over another one.
  Sequence *restore(Sequence &from) {
    size_t bytes = 0;
    EXPECT_EQ(kvcc_snapshot_bytes(program, 0, from.tokens, &bytes), KVCC_OK);
    std::vector<uint8_t> taken(bytes);
    kvcc_snapshot_args args = {sizeof(args), pools.memory, from.table.data(), int64_t(from.table.size()),
                               from.slot,    from.tokens,  taken.data(),      bytes};
    pools.keepShadow();
    EXPECT_EQ(kvcc_snapshot(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
    pools.expectOnlyWritten({}, {});
    if (!pools.hasPages(pagesFor(from.tokens)))
      return nullptr;
    Sequence *made = below(2) && pools.hasSlot() ? create() : pick();
    if (made == &from)
      return nullptr;
    shrink(*made, 0);
    int32_t slot = made->slot;
    *made = from;
    made->slot = slot;
    made->table.clear();
    grow(*made, from.tokens);
    restoreInto(*made, taken, 0);
    EXPECT_EQ(made->tokens, from.tokens);
    return made;
  }
  void restoreInto(Sequence &sequence, std::vector<uint8_t> &taken, int32_t requantize) {
    kvcc_snapshot_args args = {
        sizeof(args), pools.memory, sequence.table.data(), int64_t(sequence.table.size()), sequence.slot, 0,
        taken.data(), taken.size()};
    pools.keepShadow();
    EXPECT_EQ(kvcc_restore(program, 0, &args, requantize, nullptr), KVCC_OK) << kvcc_last_message();
    pools.expectOnlyWritten(ownPages(sequence), {sequence.slot});
    sequence.tokens = args.tokens;
  }

  /// A sequence that another program has kept in full precision.
  Sequence *requantize() {
    int64_t count = 1 + below(250);
    if (!pools.hasSlot() || !pools.hasPages(pagesFor(count)))
      return nullptr;
    Sequence *made = create();
    renew(*made, count);
    grow(*made, count);
    int32_t zero = 0, length = int32_t(count);
    std::vector<int32_t> table;
    for (int32_t i = 0; i < plainPools.memory.num_pages; ++i)
      table.push_back(int32_t(plainPools.memory.num_pages) - 1 - i);
    int64_t tableLength = int64_t(table.size());
    kvcc_append_args args = {sizeof(args),
                             plainPools.memory,
                             table.data(),
                             tableLength,
                             &zero,
                             &length,
                             &length,
                             1,
                             count,
                             made->numbers[0].data(),
                             made->numbers[1].data(),
                             0,
                             plan->shape.headDim,
                             headElements()};
    EXPECT_EQ(kvcc_append(plain, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
    size_t bytes = 0;
    EXPECT_EQ(kvcc_snapshot_bytes(plain, 0, count, &bytes), KVCC_OK);
    std::vector<uint8_t> taken(bytes);
    kvcc_snapshot_args snapshot = {
        sizeof(snapshot), plainPools.memory, table.data(), tableLength, 0, count, taken.data(), bytes};
    EXPECT_EQ(kvcc_snapshot(plain, 0, &snapshot, nullptr), KVCC_OK) << kvcc_last_message();
    // What the snapshot stands for is what the sequence begins with.
    const Plan &source = plain->model->getProgram(0)->getPlan();
    SequenceMemory memory{static_cast<uint8_t *>(plainPools.memory.pages), table.data(),
                          static_cast<uint8_t *>(plainPools.memory.slots)};
    std::vector<float> stored[2];
    for (auto &side : stored)
      side.resize(size_t(count * plan->shape.headDim));
    for (int64_t head = 0; head < plan->shape.kvHeads; ++head) {
      readSequence(source.cache, source.schedule, memory, head, count, stored[0].data(), stored[1].data());
      for (int side : {0, 1})
        for (auto [i, number] : enumerate(stored[side])) {
          uint32_t bits = kv::encodeFloat(plan->cache.getDtype(), number);
          std::memcpy(at(made->numbers[side], head, 0) + int64_t(i) * elementBytes, &bits, size_t(elementBytes));
        }
    }
    begins(*made, count);
    restoreInto(*made, taken, 1);
    EXPECT_EQ(made->tokens, count);
    made->most = count;
    return made;
  }

  void attend(const std::vector<Sequence *> &batch) {
    int64_t qHeads = plan->shape.qHeads, kvHeads = plan->shape.kvHeads, headDim = plan->shape.headDim;
    int64_t queries = 1 + below(below(4) ? 4 : 16), stride = 0, longest = 0;
    std::vector<int32_t> slots, lens;
    for (Sequence *sequence : batch) {
      stride = std::max(stride, int64_t(sequence->table.size()));
      longest = std::max(longest, sequence->tokens);
      slots.push_back(sequence->slot);
      lens.push_back(int32_t(sequence->tokens));
    }
    std::vector<int32_t> table(batch.size() * size_t(stride), -1);
    for (auto [b, sequence] : enumerate(batch))
      copy(sequence->table, table.begin() + int64_t(b) * stride);
    size_t rows = batch.size() * size_t(queries * qHeads);
    std::vector<uint8_t> query(rows * size_t(headDim * elementBytes));
    std::vector<float> asked;
    for (size_t i = 0; i < rows * size_t(headDim); ++i) {
      uint32_t bits = makeNumber(1);
      std::memcpy(query.data() + i * size_t(elementBytes), &bits, size_t(elementBytes));
      asked.push_back(kv::decodeFloat(plan->cache.getDtype(), bits));
    }
    size_t needed = 0;
    ASSERT_EQ(kvcc_workspace_bytes(program, 0, int64_t(batch.size()) * queries, longest, &needed), KVCC_OK);
    AlignedBytes workspace(needed);
    std::vector<float> out(rows * size_t(headDim), NAN), lse(rows, NAN);
    kvcc_attend_args args = {sizeof(args),
                             pools.memory,
                             table.data(),
                             stride,
                             slots.data(),
                             lens.data(),
                             int64_t(batch.size()),
                             longest,
                             query.data(),
                             out.data(),
                             lse.data(),
                             workspace.data(),
                             needed,
                             queries,
                             nullptr,
                             0};
    pools.keepShadow();
    ASSERT_EQ(kvcc_attend(program, 0, &args, nullptr), KVCC_OK) << kvcc_last_message();
    pools.expectOnlyWritten({}, {});
    std::vector<double> exact(out.size());
    for (auto [b, sequence] : enumerate(batch))
      for (int64_t kvHead = 0; kvHead < kvHeads; ++kvHead) {
        auto [keys, values] = read(*sequence, kvHead);
        for (int64_t q = 0; q < queries; ++q)
          for (int64_t h = kvHead * qHeads / kvHeads; h < (kvHead + 1) * qHeads / kvHeads; ++h) {
            size_t row = size_t((int64_t(b) * queries + q) * qHeads + h);
            int64_t seen = std::max<int64_t>(sequence->tokens - (queries - 1 - q), 0);
            double exactLse = 0;
            computeReference(plan->shape, asked.data() + row * size_t(headDim), keys.data(), values.data(), seen,
                             nullptr, exact.data() + row * size_t(headDim), exactLse);
            if (seen)
              ASSERT_NEAR(lse[row], exactLse, pools.info.kernel_error_bound * std::max(1.0, std::fabs(exactLse)));
            else
              ASSERT_EQ(lse[row], -INFINITY);
          }
      }
    for (float number : out)
      ASSERT_TRUE(std::isfinite(number));
    ASSERT_LE(relativeError(out, exact), pools.info.kernel_error_bound) << "of " << queries << " queries";
  }

  // The model.

  std::pair<std::vector<float>, std::vector<float>> read(const Sequence &sequence, int64_t head) {
    std::vector<float> keys(size_t(sequence.tokens * plan->shape.headDim)), values(keys.size());
    SequenceMemory memory{static_cast<uint8_t *>(pools.memory.pages), sequence.table.data(),
                          static_cast<uint8_t *>(pools.memory.slots) + sequence.slot * pools.info.slot_bytes};
    readSequence(plan->cache, plan->schedule, memory, head, sequence.tokens, keys.data(), values.data());
    return {keys, values};
  }

  /// The sequence reads as the scalar writer would have it. Where the tokens that transforms were measured on are not
  /// the first ones any more, they stand before the others in the model: blocks of 32 quantized tokens are independent.
  void expectLikeModel(Sequence &sequence) {
    kv::WindowAttr window = plan->cache.getWindow();
    int64_t headDim = plan->shape.headDim, sink = window.getSink(), tokens = sequence.tokens;
    int64_t quantized = window.getQuantizedTokens(tokens), tokenBytes = headDim * elementBytes, shift = 0;
    int64_t total = tokens, stride = headElements();
    std::vector<uint8_t> moved[2];
    if ((!sequence.beginIntact || tokens < sequence.measured) && quantized) {
      shift = int64_t(alignTo(uint64_t(sequence.measured), uint64_t(std::max(kv::kBlockTokens, window.getFlush()))));
      total = sink + window.getRecent() + shift + quantized;
      stride = total * headDim;
      for (int side : {0, 1}) {
        moved[side].resize(size_t(plan->shape.kvHeads * total * tokenBytes));
        for (int64_t head = 0; head < plan->shape.kvHeads; ++head) {
          uint8_t *to = moved[side].data() + head * total * tokenBytes;
          std::memcpy(to, at(sequence.begin[side], head, 0), size_t(sequence.measured * tokenBytes));
          std::memcpy(to + (sink + shift) * tokenBytes, at(sequence.numbers[side], head, sink),
                      size_t(quantized * tokenBytes));
        }
      }
    }
    const uint8_t *numbers[2];
    for (int side : {0, 1})
      numbers[side] = shift ? moved[side].data() : sequence.numbers[side].data();
    Error error = writePrefill(plan->cache, plan->schedule, scratch->getSequence(0), {numbers[0], stride},
                               {numbers[1], stride}, total, test::getPool(), {}, sequence.measured);
    ASSERT_FALSE(bool(error)) << toString(std::move(error));
    std::vector<float> model[2];
    for (auto &side : model)
      side.resize(size_t(total * headDim));
    for (int64_t head = 0; head < plan->shape.kvHeads; ++head) {
      auto [keys, values] = read(sequence, head);
      readSequence(plan->cache, plan->schedule, scratch->getSequence(0), head, total, model[0].data(), model[1].data());
      for (int side : {0, 1})
        for (int64_t t = 0; t < tokens; ++t) {
          bool inPages = t >= sink && t < sink + quantized;
          for (int64_t c = 0; c < headDim; ++c) {
            float got = (side ? values : keys)[size_t(t * headDim + c)], wanted = 0;
            if (shift && !inPages) {
              uint32_t bits = 0;
              std::memcpy(&bits, at(sequence.numbers[side], head, t) + c * elementBytes, size_t(elementBytes));
              wanted = kv::decodeFloat(plan->cache.getDtype(), bits);
            } else {
              wanted = model[side][size_t((t + (inPages ? shift : 0)) * headDim + c)];
            }
            ASSERT_EQ(got, wanted) << (side ? "value" : "key") << " head " << head << " token " << t << " channel " << c
                                   << " of " << tokens << " tokens, begun with " << sequence.measured;
          }
        }
    }
  }

  /// One to three different sequences.
  std::vector<Sequence *> pickSome() {
    std::vector<Sequence *> some;
    for (int64_t i = below(3); i >= 0; --i)
      if (Sequence *one = pick(); one && !is_contained(some, one))
        some.push_back(one);
    return some;
  }

  /// Returns the sequences that it has changed.
  std::vector<Sequence *> operate(std::string &name) {
    std::vector<Sequence *> some = pickSome();
    int64_t kind = some.empty() ? 8 : below(20);
    auto named = [&](const char *what, Sequence *made) {
      name = what;
      return made ? std::vector<Sequence *>{made} : std::vector<Sequence *>();
    };
    if (kind < 8) {
      name = "append";
      append(some);
      return some;
    }
    if (kind == 8) {
      if (!pools.hasSlot())
        drop(pick());
      Sequence *made = create();
      append({made});
      return named("begin", made);
    }
    if (kind < 12) {
      rollBack(*some[0]);
      return named("rollback", some[0]);
    }
    if (kind < 14)
      return named("fork", fork(*some[0]));
    if (kind < 16)
      return named("restore", restore(*some[0]));
    if (kind == 16)
      return named("requantize", requantize());
    if (kind == 17 && (sequences.size() > 4 || !pools.hasPages(20))) {
      drop(some[0]);
      return named("drop", nullptr);
    }
    name = "attend";
    attend(some);
    return {};
  }

  std::optional<ScopedVariable> cacheOff;
  std::string folder;
  kvcc_context *context = nullptr;
  kvcc_program *program = nullptr, *plain = nullptr;
  Pools pools, plainPools;
  const Plan *plan = nullptr;
  int64_t elementBytes = 0;
  std::unique_ptr<HostCache> scratch;
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::mt19937 random{20};
};

std::vector<Config> getConfigs() {
  return {{"innerq-small", "f16", 2, 32, 32},
          {"innerq-hybrid", "f16", 1, 64, 64},
          {"kvcc-3.5", "bf16", 1, 64, 32},
          {"q4_1", "f16", 2, 32, 32},
          {"kivi-2", "f16", 1, 32, 64},
          {"k = <i5, map = sym_signed, group = 1x32, scale = bf16, transforms = [#kv.diag<rms, strength = 0.4, tied>, "
           "#kv.center, #kv.hadamard<32>, #kv.token_norm<f16>]>; v = <i6, map = hybrid, group = 16x1, scale = f16, "
           "transforms = [#kv.center]>; window = <sink = 5, recent = 0, flush = 32>",
           "f16", 1, 32, 32},
          {"k = <f4E2M1FN, map = sym, group = 1x16, scale = f8E4M3FN, transforms = [#kv.diag<tensor>]>; v = <i8, map = "
           "sym, group = 1x32, scale = f16>; window = <sink = 0, recent = 64, flush = 64>",
           "f32", 2, 32, 64}};
}

TEST_P(SoakTest, SequencesStayWhatTheyAre) {
  int64_t operations = 2800;
  if (const char *wanted = getenv("KVCC_SOAK_OPERATIONS"))
    ASSERT_TRUE(to_integer(wanted, operations)) << wanted;
  operations /= int64_t(getConfigs().size());
  for (int64_t i = 0; i < operations; ++i) {
    std::string name;
    std::vector<Sequence *> changed = operate(name);
    SCOPED_TRACE("operation " + std::to_string(i) + ", " + name);
    ASSERT_FALSE(HasFailure());
    // Each change of a sequence now and then, and all of them in the end.
    if (i % 100 == 0 || i == operations - 1) {
      changed.clear();
      for (const auto &each : sequences)
        changed.push_back(each.get());
    } else if (below(8)) {
      continue;
    }
    for (Sequence *sequence : changed)
      ASSERT_NO_FATAL_FAILURE(expectLikeModel(*sequence));
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, SoakTest, testing::ValuesIn(getConfigs()));

} // namespace
