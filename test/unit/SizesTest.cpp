// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Offsets beyond 32 bits: the same calls over memory that lies far apart give the same bits.
#include "runtime/CacheContents.h"
#include "test/unit/KernelTestSupport.h"
#include "gtest/gtest.h"

#include <cstring>
#include <random>
#include <sys/mman.h>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::test;

namespace {

/// Zeroed memory that takes as much as is touched of it.
class SparseMemory {
public:
  explicit SparseMemory(int64_t size) : size(size_t(size)) {
    void *mapped =
        mmap(nullptr, this->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    bytes = mapped == MAP_FAILED ? nullptr : static_cast<uint8_t *>(mapped);
  }
  ~SparseMemory() {
    if (bytes)
      munmap(bytes, size);
  }
  SparseMemory(const SparseMemory &) = delete;
  SparseMemory &operator=(const SparseMemory &) = delete;

  uint8_t *bytes;

private:
  size_t size;
};

/// Where things lie. Strides in elements.
struct Places {
  int64_t firstPage, pageStep, firstSlot, slotStep, tableStride, sequenceStride, tokenStride, headStride;
};

struct Case {
  const char *scheme, *target;
};
std::ostream &operator<<(std::ostream &os, const Case &c) { return os << c.scheme << " on " << c.target; }

class SizesTest : public testing::TestWithParam<Case> {
public:
  static constexpr int64_t kBatch = 2, kTokens = 212, kPrefill = 200, kQueries = 2;

  void SetUp() override {
    problem.scheme = GetParam().scheme;
    problem.target = GetParam().target;
    problem.headDim = 32;
    auto loaded = loadProgram(problem);
    ASSERT_TRUE(bool(loaded)) << toString(loaded.takeError());
    program = std::move(*loaded);
  }

  /// A prefill, 12 tokens one by one, and a step, with everything at these places.
  void run(const Places &at, std::vector<uint8_t> &contents, std::vector<float> &out, std::vector<float> &lse) {
    const Plan &plan = program->getPlan();
    int64_t qHeads = plan.shape.qHeads, kvHeads = plan.shape.kvHeads, headDim = plan.shape.headDim;
    const kv::CacheLayout &layout = program->getLayout();
    int64_t pagesEach = program->getPages(kTokens), numPages = kBatch * pagesEach;
    SparseMemory pages((at.firstPage + numPages * at.pageStep) * layout.pageBytes),
        slots((at.firstSlot + kBatch * at.slotStep) * layout.slotBytes),
        tableMemory(((kBatch - 1) * at.tableStride + pagesEach) * int64_t(sizeof(int32_t)));
    int64_t elements =
        (kBatch - 1) * at.sequenceStride + (kvHeads - 1) * at.headStride + (kPrefill - 1) * at.tokenStride + headDim;
    SparseMemory keys(2 * elements), values(2 * elements);
    for (const SparseMemory *memory : {&pages, &slots, &tableMemory, &keys, &values})
      if (!memory->bytes)
        GTEST_SKIP() << "needs an address space in which terabytes can be reserved";
    auto *table = reinterpret_cast<int32_t *>(tableMemory.bytes);
    std::vector<int32_t> slotIds, lens(kBatch, 0), newLens(kBatch, 0);
    for (int64_t b = 0; b < kBatch; ++b) {
      for (int64_t i = 0; i < pagesEach; ++i)
        table[b * at.tableStride + i] = int32_t(at.firstPage + (b * pagesEach + i) * at.pageStep);
      slotIds.push_back(int32_t(at.firstSlot + b * at.slotStep));
    }
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    auto *keyNumbers = reinterpret_cast<_Float16 *>(keys.bytes),
         *valueNumbers = reinterpret_cast<_Float16 *>(values.bytes);
    auto append = [&](int64_t count) {
      for (int64_t b = 0; b < kBatch; ++b)
        for (int64_t h = 0; h < kvHeads; ++h)
          for (int64_t t = 0; t < count; ++t)
            for (int64_t c = 0; c < headDim; ++c) {
              int64_t i = b * at.sequenceStride + h * at.headStride + t * at.tokenStride + c;
              keyNumbers[i] = _Float16(normal(random));
              valueNumbers[i] = _Float16(normal(random));
            }
      for (int32_t &length : newLens)
        length = int32_t(count);
      for (int32_t &length : lens)
        length += int32_t(count);
      AppendCall call;
      call.keys = keys.bytes;
      call.values = values.bytes;
      call.pages = pages.bytes;
      call.table = table;
      call.slots = slots.bytes;
      call.slotIds = slotIds.data();
      call.lens = lens.data();
      call.newLens = newLens.data();
      call.tableStride = at.tableStride;
      call.batch = kBatch;
      call.maxNew = count;
      call.sequenceStride = at.sequenceStride;
      call.tokenStride = at.tokenStride;
      call.headStride = at.headStride;
      Error error = program->append(call);
      ASSERT_FALSE(bool(error)) << toString(std::move(error));
    };
    ASSERT_NO_FATAL_FAILURE(append(kPrefill));
    for (int64_t t = kPrefill; t < kTokens; ++t)
      ASSERT_NO_FATAL_FAILURE(append(1));

    std::vector<_Float16> query(size_t(kBatch * kQueries * qHeads * headDim));
    for (_Float16 &number : query)
      number = _Float16(normal(random));
    out.assign(query.size(), 0);
    lse.assign(size_t(kBatch * kQueries * qHeads), 0);
    AttendCall call;
    call.query = query.data();
    call.pages = pages.bytes;
    call.table = table;
    call.slots = slots.bytes;
    call.slotIds = slotIds.data();
    call.lens = lens.data();
    call.out = out.data();
    call.lse = lse.data();
    call.tableStride = at.tableStride;
    call.batch = kBatch;
    call.queries = kQueries;
    call.splits = 2;
    AlignedBytes workspace(program->getWorkspaceBytes(kBatch * kQueries, call.splits));
    call.workspace = workspace.data();
    Error error = program->attend(call);
    ASSERT_FALSE(bool(error)) << toString(std::move(error));

    for (int64_t b = 0; b < kBatch; ++b) {
      for (int64_t i = 0; i < pagesEach; ++i) {
        uint8_t *page = pages.bytes + int64_t(table[b * at.tableStride + i]) * layout.pageBytes;
        contents.insert(contents.end(), page, page + layout.pageBytes);
      }
      uint8_t *slot = slots.bytes + int64_t(slotIds[size_t(b)]) * layout.slotBytes;
      contents.insert(contents.end(), slot, slot + layout.slotBytes);
    }
  }

  Problem problem;
  std::unique_ptr<Program> program;
};

TEST_P(SizesTest, OffsetsHave64Bits) {
  int64_t headDim = problem.headDim, near = kPrefill * headDim;
  Places together = {0, 1, 0, 1, program->getPages(kTokens), problem.kvHeads * near, headDim, near};
  // Pages up to number 2^31 - 1, slots up to 2^29, tokens 4 GB apart.
  int64_t pages = kBatch * program->getPages(kTokens), far = int64_t(1) << 31, head = far * (kPrefill + 1);
  Places apart = {far - 1 - (pages - 1) * 1000,
                  1000,
                  (int64_t(1) << 29) - 5,
                  4,
                  2 * far + 3,
                  problem.kvHeads * head + 7,
                  far + 1,
                  head};
  std::vector<uint8_t> contents[2];
  std::vector<float> out[2], lse[2];
  ASSERT_NO_FATAL_FAILURE(run(together, contents[0], out[0], lse[0]));
  ASSERT_NO_FATAL_FAILURE(run(apart, contents[1], out[1], lse[1]));
  if (IsSkipped())
    return;
  EXPECT_EQ(contents[0], contents[1]);
  EXPECT_EQ(out[0], out[1]);
  EXPECT_EQ(lse[0], lse[1]);
  for (float number : out[0])
    ASSERT_NE(number, 0);
}

INSTANTIATE_TEST_SUITE_P(Schemes, SizesTest,
                         testing::Values(Case{"innerq-hybrid", "cpu"}, Case{"q4_1", "cpu"},
                                         Case{"innerq-hybrid", "cuda-host"}));

} // namespace
