// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The life of a sequence through the C interface: snapshots from anywhere, and validated calls with any arguments.
// Whatever comes, nothing outside the pools and results is written, and what was refused has written nothing.
#include "test/fuzz/FuzzTarget.h"

#include "runtime/HostCache.h"
#include "runtime/JsonText.h"
#include "runtime/kvcc.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/SHA256.h"
#include "llvm/Support/raw_ostream.h"

#include <cmath>
#include <cstring>

using namespace llvm;
using namespace kvcc;

namespace {

constexpr int64_t kQHeads = 2, kKvHeads = 1, kHeadDim = 32, kPage = 32, kPages = 16, kSlots = 4, kGuard = 256;
constexpr uint8_t kGuardByte = 0xa5;

/// Small programs of one layer, compiled once, with validation. Short windows keep snapshots short.
struct Served {
  kvcc_program *program = nullptr;
  kvcc_layer_info info = {};
};
ArrayRef<Served> getServed() {
  // Never destroyed, so that what it points to is no leak.
  static const auto *served = [] {
    setenv("KVCC_CACHE", "off", /*overwrite=*/0);
    SmallString<128> folder;
    fuzz::require(!sys::fs::createUniqueDirectory("kvcc-fuzz", folder), "there is a folder for temporary files");
    std::error_code failed;
    std::string model = (folder + "/config.json").str();
    raw_fd_ostream(model, failed) << R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], )"
                                  << R"("num_hidden_layers": 1, "num_attention_heads": )" << kQHeads
                                  << R"(, "num_key_value_heads": )" << kKvHeads << R"(, "head_dim": )" << kHeadDim
                                  << R"(, "hidden_size": 64, "max_position_embeddings": 8192, "vocab_size": 100, )"
                                  << R"("torch_dtype": "float16"})";
    fuzz::require(!failed, "a model can be written");
    kvcc_context_options options = {sizeof(options), nullptr, 1, nullptr, nullptr, /*validate=*/1};
    kvcc_context *context = nullptr;
    fuzz::require(kvcc_context_create(&options, &context) == KVCC_OK, "there is a context");
    auto *result = new std::vector<Served>;
    for (const char *scheme :
         {"q4_1", "fp16",
          "k = <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>, #kv.center, "
          "#kv.hadamard<32>, #kv.token_norm<f16>]>; v = <i2, map = hybrid, group = 32x1, scale = f16, transforms = "
          "[#kv.center]>; window = <sink = 4, recent = 0, flush = 32>"}) {
      kvcc_compile_options compile = {sizeof(compile), model.c_str(), scheme, "cpu",   "f16",
                                      "auto",          kPage,         0,      nullptr, 0};
      Served one;
      one.info.size = sizeof(one.info);
      if (kvcc_compile(context, &compile, &one.program) != KVCC_OK ||
          kvcc_program_get_layer(one.program, 0, &one.info) != KVCC_OK)
        fuzz::require(false, kvcc_last_message());
      result->push_back(one);
    }
    sys::fs::remove_directories(folder);
    return result;
  }();
  return *served;
}

/// Pools with guards before and after them. A copy shows what has changed.
class Pools {
public:
  explicit Pools(const Served &served)
      : pages(size_t(kPages * served.info.page_bytes + 2 * kGuard)),
        slots(size_t(kSlots * served.info.slot_bytes + 2 * kGuard)) {
    for (AlignedBytes *bytes : {&pages, &slots})
      std::memset(bytes->data(), kGuardByte, bytes->size());
    memory = {pages.data() + kGuard, kPages, slots.data() + kGuard, kSlots};
    keep();
  }
  void keep() {
    kept[0].assign(pages.data(), pages.data() + pages.size());
    kept[1].assign(slots.data(), slots.data() + slots.size());
  }
  void expectUnchanged() const {
    for (auto [bytes, before] : {std::pair(&pages, &kept[0]), {&slots, &kept[1]}})
      fuzz::require(!std::memcmp(bytes->data(), before->data(), bytes->size()), "a refused call has written nothing");
  }
  void expectGuards() const {
    for (const AlignedBytes *bytes : {&pages, &slots})
      for (size_t i = 0; i < size_t(kGuard); ++i)
        fuzz::require(bytes->data()[i] == kGuardByte && bytes->data()[bytes->size() - 1 - i] == kGuardByte,
                      "nothing is written outside the pools");
  }
  /// After a call.
  void check(kvcc_status status) const {
    expectGuards();
    fuzz::require(status == KVCC_OK || status == KVCC_INVALID_ARGUMENT, "arguments are right or wrong");
    if (status == KVCC_OK)
      return;
    fuzz::require(kvcc_last_message()[0] != '\0', "an error says something");
    expectUnchanged();
  }

  kvcc_memory memory = {};

private:
  AlignedBytes pages, slots;
  std::vector<uint8_t> kept[2];
};

std::vector<uint16_t> makeNumbers(size_t count) {
  std::vector<uint16_t> numbers;
  for (size_t i = 0; i < count; ++i)
    numbers.push_back(uint16_t(0x3000 + i * 2654435761u % 0x1000 + (i % 3 == 0 ? 0x8000 : 0)));
  return numbers;
}

// snapshot: a byte of choices, then the bytes of a snapshot.

constexpr uint8_t kExtends = 1, ///< what follows the header is repeated to the length that it announces
    kRepairs = 2,               ///< the checksum is made right
    kRequantizes = 4;           ///< and from 8 on: the program

std::string repair(StringRef bytes, bool extends) {
  std::string whole = bytes.str();
  if (extends && bytes.size() > 16) {
    size_t length = support::endian::read32le(bytes.data() + 12), prefix = alignTo(16 + length, 64);
    uint64_t payload = 0;
    if (auto header = parseJsonText(bytes.substr(16, length), "fuzz"); !header)
      consumeError(header.takeError());
    else if (const json::Object *object = header->getAsObject())
      payload =
          uint64_t(object->getInteger("pages").value_or(0)) * uint64_t(object->getInteger("page_bytes").value_or(0)) +
          uint64_t(object->getInteger("slot_bytes").value_or(0));
    if (prefix < (1 << 16) && payload < (1 << 20)) {
      std::string filler = bytes.size() > prefix ? bytes.substr(prefix).str() : std::string(1, '\0');
      whole.resize(prefix);
      while (whole.size() < prefix + payload)
        whole += filler;
      whole.resize(prefix + payload + 32);
    }
  }
  if (whole.size() < 32)
    return whole;
  auto digest = SHA256::hash(ArrayRef(reinterpret_cast<const uint8_t *>(whole.data()), whole.size()).drop_back(32));
  std::memcpy(whole.data() + whole.size() - 32, digest.data(), 32);
  return whole;
}

void runSnapshot(StringRef bytes) {
  if (bytes.empty())
    return;
  auto choices = uint8_t(bytes.front());
  const Served &served = getServed()[size_t(choices >> 3) % getServed().size()];
  std::string snapshot = bytes.drop_front().str();
  if (choices & (kRepairs | kExtends))
    snapshot = repair(snapshot, choices & kExtends);
  int64_t tokens = 0;
  kvcc_snapshot_tokens(snapshot.data(), snapshot.size(), &tokens);
  Pools pools(served);
  std::vector<int32_t> table;
  for (int32_t i = 0; i < kPages; ++i)
    table.push_back(int32_t(kPages) - 1 - i);
  kvcc_snapshot_args args = {sizeof(args), pools.memory, table.data(), kPages, 1, 0, snapshot.data(), snapshot.size()};
  kvcc_status status = kvcc_restore(served.program, 0, &args, choices & kRequantizes ? 1 : 0, nullptr);
  pools.check(status);
  if (status != KVCC_OK)
    return;
  fuzz::require(args.tokens == tokens, "a snapshot says how many tokens it has");
  // Any reader and writer comes back, and stays inside the pools.
  auto attend = [&] {
    int32_t slot = 1, length = int32_t(args.tokens);
    std::vector<uint16_t> query = makeNumbers(size_t(kQHeads * kHeadDim));
    std::vector<float> out(query.size()), lse(kQHeads);
    size_t needed = 0;
    fuzz::require(kvcc_workspace_bytes(served.program, 0, 1, length, &needed) == KVCC_OK, "there is a workspace");
    AlignedBytes workspace(needed);
    kvcc_attend_args step = {
        sizeof(step), pools.memory, table.data(), kPages,           &slot,  &length, 1,       length,
        query.data(), out.data(),   lse.data(),   workspace.data(), needed, 0,       nullptr, 0};
    pools.keep();
    fuzz::require(kvcc_attend(served.program, 0, &step, nullptr) == KVCC_OK, "a restored sequence can be read");
    pools.expectUnchanged();
  };
  attend();
  if (args.tokens > 300)
    return;
  size_t needed = 0;
  fuzz::require(kvcc_snapshot_bytes(served.program, 0, args.tokens, &needed) == KVCC_OK, "a snapshot has a size");
  std::vector<uint8_t> again(needed);
  kvcc_snapshot_args back = {sizeof(back), pools.memory, table.data(), kPages, 1, args.tokens, again.data(), needed};
  fuzz::require(kvcc_snapshot(served.program, 0, &back, nullptr) == KVCC_OK, "a restored sequence has a snapshot");
  kvcc_snapshot_args twice = {sizeof(twice), pools.memory, table.data(), kPages, 2, 0, again.data(), needed};
  pools.keep();
  fuzz::require(kvcc_restore(served.program, 0, &twice, 0, nullptr) == KVCC_OK, "which can be restored");
  constexpr int64_t kNew = 70;
  int32_t slot = 1, length = int32_t(args.tokens + kNew), count = kNew;
  std::vector<uint16_t> numbers = makeNumbers(size_t(kNew * kHeadDim));
  kvcc_append_args append = {
      sizeof(append), pools.memory,   table.data(),   kPages, &slot,    &length,        &count, 1,
      kNew,           numbers.data(), numbers.data(), 0,      kHeadDim, kNew * kHeadDim};
  fuzz::require(kvcc_append(served.program, 0, &append, nullptr) == KVCC_OK, "a restored sequence can grow");
  pools.expectGuards();
  args.tokens = length;
  attend();
}

/// A snapshot of `tokens` tokens.
std::string takeSnapshot(const Served &served, int32_t tokens) {
  Pools pools(served);
  std::vector<int32_t> table;
  for (int32_t i = 0; i < kPages; ++i)
    table.push_back(i);
  int32_t slot = 3;
  std::vector<uint16_t> numbers = makeNumbers(size_t(tokens * kHeadDim));
  kvcc_append_args append = {
      sizeof(append), pools.memory,   table.data(),   kPages, &slot,    &tokens,          &tokens, 1,
      tokens,         numbers.data(), numbers.data(), 0,      kHeadDim, tokens * kHeadDim};
  size_t needed = 0;
  fuzz::require(kvcc_append(served.program, 0, &append, nullptr) == KVCC_OK &&
                    kvcc_snapshot_bytes(served.program, 0, tokens, &needed) == KVCC_OK,
                "there is a sequence");
  std::string bytes(needed, '\0');
  kvcc_snapshot_args args = {sizeof(args), pools.memory, table.data(), kPages, 3, tokens, bytes.data(), needed};
  fuzz::require(kvcc_snapshot(served.program, 0, &args, nullptr) == KVCC_OK, "and a snapshot");
  return bytes;
}

std::vector<std::string> getSnapshotSeeds() {
  std::vector<std::string> seeds;
  for (auto [i, served] : enumerate(getServed()))
    for (int32_t tokens : {5, 70}) {
      std::string bytes = takeSnapshot(served, tokens);
      size_t prefix = alignTo(16 + support::endian::read32le(bytes.data() + 12), 64);
      // Whole, for its own program; and its header with a little of its contents, for its own and for another one.
      if (bytes.size() < 6000)
        seeds.push_back(char(i << 3) + bytes);
      for (size_t to : {i, (i + 1) % getServed().size()})
        seeds.push_back(char((to << 3) | kExtends | kRepairs | (to == i ? 0 : kRequantizes)) +
                        bytes.substr(0, prefix + 200));
    }
  return seeds;
}

// calls: which program; then calls with right arguments of which some are replaced.

/// Bytes as decisions; zeros where there are no more.
class Decisions {
public:
  explicit Decisions(StringRef bytes) : bytes(bytes) {}
  bool empty() const { return bytes.empty(); }
  uint8_t byte() {
    if (bytes.empty())
      return 0;
    auto next = uint8_t(bytes.front());
    bytes = bytes.drop_front();
    return next;
  }
  /// A number that may be wrong, near `right` more often than not.
  int64_t number(int64_t right) {
    static constexpr int64_t kEdges[] = {0,
                                         1,
                                         -1,
                                         2,
                                         15,
                                         16,
                                         17,
                                         31,
                                         32,
                                         33,
                                         64,
                                         65535,
                                         65536,
                                         INT32_MAX,
                                         INT32_MIN,
                                         int64_t(1) << 31,
                                         int64_t(1) << 32,
                                         int64_t(1) << 62,
                                         INT64_MAX,
                                         INT64_MIN};
    switch (uint8_t kind = byte(); kind % 4) {
    case 0:
      return int64_t(uint64_t(right) + uint64_t(int8_t(byte())));
    case 1:
      return kEdges[byte() % std::size(kEdges)];
    case 2:
      return int64_t(byte());
    default:
      return int64_t(uint64_t(right) + (uint64_t(int8_t(byte())) << (byte() % 64)));
    }
  }

private:
  StringRef bytes;
};

/// The sequences as their owner knows them: sequence i has slot i and pages of its own.
struct Owner {
  static constexpr int64_t kEach = kPages / kSlots;
  std::vector<int32_t> table, lens;
  Owner() : lens(size_t(kSlots), 0) {
    for (int32_t i = 0; i < kPages; ++i)
      table.push_back(i);
  }
};

/// Arguments that a call and its arrays are made from.
struct Arguments {
  int64_t batch = 1, tableStride = Owner::kEach, most = 0, queries = 1;
  int64_t sequenceStride = 0, tokenStride = kHeadDim, headStride = kHeadDim;
  std::vector<int32_t> table, slots, lens, newLens;
  int64_t numPages = kPages, numSlots = kSlots;
  uint64_t shift = 0; ///< of the pools: not aligned
  size_t size = 0;    ///< of the structure, 0: right

  void change(Decisions &decisions) {
    auto one = [&](auto &number) { number = std::decay_t<decltype(number)>(decisions.number(int64_t(number))); };
    auto any = [&](std::vector<int32_t> &numbers) {
      if (!numbers.empty())
        one(numbers[decisions.byte() % numbers.size()]);
    };
    switch (decisions.byte() % 15) {
    case 0:
      return one(batch);
    case 1:
      return one(tableStride);
    case 2:
      return one(most);
    case 3:
      return one(queries);
    case 4:
      return one(sequenceStride);
    case 5:
      return one(tokenStride);
    case 6:
      return one(headStride);
    case 7:
      return any(table);
    case 8:
      return any(slots);
    case 9:
      return any(lens);
    case 10:
      return any(newLens);
    // There is not more memory than this.
    case 11:
      numPages = std::min(decisions.number(numPages), kPages);
      return;
    case 12:
      numSlots = std::min(decisions.number(numSlots), kSlots);
      return;
    case 13:
      shift = decisions.byte() % 64;
      return;
    default:
      return one(size);
    }
  }
  kvcc_memory getMemory(const Pools &pools) const {
    return {static_cast<uint8_t *>(pools.memory.pages) + shift, numPages,
            static_cast<uint8_t *>(pools.memory.slots) + shift, numSlots};
  }
  /// What strides and batch say that arrays are is trusted, so that is what they are; false: too much for a test. A
  /// batch that is refused reads no arrays.
  bool makeArrays() {
    if (batch <= 0 || batch > UINT16_MAX)
      return true;
    if (batch > 64 || tableStride > 64)
      return false;
    for (std::vector<int32_t> *each : {&slots, &lens, &newLens})
      each->resize(size_t(batch), each->empty() ? 0 : each->back());
    table.resize(size_t(batch * std::max<int64_t>(tableStride, 0)), 0);
    for (std::vector<int32_t> *each : {&slots, &lens, &newLens, &table})
      each->shrink_to_fit();
    return true;
  }
  /// Elements of keys and values; nothing: too many.
  std::optional<size_t> getElements() const {
    if (batch <= 0 || batch > UINT16_MAX)
      return 0;
    __extension__ using Wide = __int128;
    Wide largest = 0;
    for (int64_t b = 0; b < batch; ++b)
      largest = std::max<Wide>(largest, Wide(b) * std::max<int64_t>(sequenceStride, 0) +
                                            Wide(std::clamp<int64_t>(int64_t(newLens[size_t(b)]) - 1, 0, INT32_MAX)) *
                                                std::max<int64_t>(tokenStride, 0));
    if (largest > (1 << 18))
      return std::nullopt;
    return size_t(largest) + kHeadDim;
  }
};

void append(const Served &served, Pools &pools, Owner &owner, Decisions &decisions) {
  Arguments a;
  int64_t first = decisions.byte() % kSlots;
  a.batch = 1 + decisions.byte() % (kSlots - first);
  a.most = 1 + decisions.byte() % 50;
  for (int64_t b = 0; b < a.batch; ++b) {
    // Within what the pages and the table are good for: else the sequence begins anew.
    int32_t before = owner.lens[size_t(first + b)], count = 1 + int32_t(decisions.byte() % a.most);
    if (before + count > Owner::kEach * kPage)
      before = 0;
    a.slots.push_back(int32_t(first + b));
    a.lens.push_back(before + count);
    a.newLens.push_back(count);
  }
  a.table.assign(owner.table.begin() + first * Owner::kEach, owner.table.begin() + (first + a.batch) * Owner::kEach);
  a.sequenceStride = a.headStride = a.most * kHeadDim;
  for (int changes = decisions.byte() % 4; changes > 0; --changes)
    a.change(decisions);
  if (!a.makeArrays())
    return;
  std::optional<size_t> elements = a.getElements();
  if (!elements)
    return;
  std::vector<uint16_t> numbers = makeNumbers(*elements);
  if (decisions.byte() % 8 == 1 && !numbers.empty())
    numbers[decisions.byte() % numbers.size()] = 0x7c00;
  kvcc_append_args args = {a.size ? a.size : sizeof(args),
                           a.getMemory(pools),
                           a.table.data(),
                           a.tableStride,
                           a.slots.data(),
                           a.lens.data(),
                           a.newLens.data(),
                           a.batch,
                           a.most,
                           numbers.data(),
                           numbers.data(),
                           a.sequenceStride,
                           a.tokenStride,
                           a.headStride};
  pools.keep();
  kvcc_status status = kvcc_append(served.program, 0, &args, nullptr);
  pools.check(status);
  for (int64_t b = 0; status == KVCC_OK && b < a.batch; ++b)
    owner.lens[size_t(a.slots[size_t(b)])] = a.lens[size_t(b)];
}

void attend(const Served &served, Pools &pools, Owner &owner, Decisions &decisions) {
  Arguments a;
  int64_t first = decisions.byte() % kSlots;
  a.batch = 1 + decisions.byte() % (kSlots - first);
  a.queries = decisions.byte() % 17;
  for (int64_t b = 0; b < a.batch; ++b) {
    a.slots.push_back(int32_t(first + b));
    a.lens.push_back(owner.lens[size_t(first + b)]);
    a.most = std::max<int64_t>(a.most, a.lens.back());
  }
  a.table.assign(owner.table.begin() + first * Owner::kEach, owner.table.begin() + (first + a.batch) * Owner::kEach);
  for (int changes = decisions.byte() % 4; changes > 0; --changes)
    a.change(decisions);
  if (!a.makeArrays())
    return;
  // Results and queries are as large as the batch says; what is refused touches none.
  bool touches = a.batch > 0 && a.batch <= 64 && a.queries >= 0 && a.queries <= 16;
  size_t rows = touches ? size_t(a.batch * std::max<int64_t>(a.queries, 1) * kQHeads) : 1;
  std::vector<uint16_t> query = makeNumbers(rows * kHeadDim);
  constexpr float kUntouched = 12345;
  std::vector<float> out(query.size() + 16, kUntouched), lse(rows + 16, kUntouched);
  size_t needed = 0;
  if (touches && kvcc_workspace_bytes(served.program, 0, int64_t(rows) / kQHeads, a.most, &needed) != KVCC_OK)
    needed = 0;
  if (needed > (1 << 20))
    return;
  needed -= std::min<size_t>(needed, decisions.byte() % 8 == 1 ? decisions.byte() : 0);
  AlignedBytes workspace(needed + 64);
  std::memset(workspace.data() + needed, kGuardByte, 64);
  kvcc_attend_args args = {a.size ? a.size : sizeof(args),
                           a.getMemory(pools),
                           a.table.data(),
                           a.tableStride,
                           a.slots.data(),
                           a.lens.data(),
                           a.batch,
                           a.most,
                           query.data(),
                           out.data(),
                           lse.data(),
                           workspace.data(),
                           needed,
                           a.queries,
                           nullptr,
                           0};
  pools.keep();
  kvcc_status status = kvcc_attend(served.program, 0, &args, nullptr);
  pools.check(status);
  pools.expectUnchanged();
  for (size_t i = 0; i < 64; ++i)
    fuzz::require(workspace.data()[needed + i] == kGuardByte, "nothing is written after the workspace");
  for (const std::vector<float> *each : {&out, &lse})
    for (auto [i, number] : enumerate(*each)) {
      if (status != KVCC_OK || i >= each->size() - 16)
        fuzz::require(number == kUntouched, "nothing is written outside the results, nor by a refused call");
      else if (a.batch > 0)
        fuzz::require(number != kUntouched, "every result is written");
    }
}

void fork(const Served &served, Pools &pools, Owner &owner, Decisions &decisions) {
  auto from = int32_t(decisions.byte() % kSlots), to = int32_t(decisions.byte() % kSlots);
  int64_t tokens = owner.lens[size_t(from)], shared = 0, length = Owner::kEach;
  fuzz::require(kvcc_shared_pages(served.program, 0, tokens, &shared) == KVCC_OK, "pages are shared or not");
  Arguments a;
  a.table.assign(owner.table.begin() + from * Owner::kEach, owner.table.begin() + (from + 1) * Owner::kEach);
  std::vector<int32_t> forkTable;
  for (int64_t i = 0; i < Owner::kEach; ++i)
    forkTable.push_back(i < shared ? a.table[size_t(i)] : int32_t(to * Owner::kEach + i));
  for (int changes = decisions.byte() % 3; changes > 0; --changes)
    switch (decisions.byte() % 6) {
    case 0:
      from = int32_t(decisions.number(from));
      break;
    case 1:
      to = int32_t(decisions.number(to));
      break;
    case 2:
      tokens = decisions.number(tokens);
      break;
    case 3:
      length = std::min(decisions.number(length), Owner::kEach);
      break;
    case 4:
      forkTable[decisions.byte() % forkTable.size()] = int32_t(decisions.number(0));
      break;
    default:
      a.change(decisions);
    }
  if (int64_t(a.table.size()) < length)
    return;
  kvcc_fork_args args = {
      a.size ? a.size : sizeof(args), a.getMemory(pools), a.table.data(), from, forkTable.data(), to, length, tokens};
  pools.keep();
  kvcc_status status = kvcc_fork(served.program, 0, &args, nullptr);
  pools.check(status);
  if (status != KVCC_OK)
    return;
  owner.lens[size_t(to)] = int32_t(tokens);
  llvm::copy(forkTable, owner.table.begin() + to * Owner::kEach);
}

void runCalls(StringRef bytes) {
  Decisions decisions(bytes);
  const Served &served = getServed()[decisions.byte() % getServed().size()];
  Pools pools(served);
  Owner owner;
  for (int calls = 0; calls < 64 && !decisions.empty(); ++calls)
    switch (decisions.byte() % 4) {
    case 0:
    case 1:
      append(served, pools, owner, decisions);
      break;
    case 2:
      attend(served, pools, owner, decisions);
      break;
    default:
      fork(served, pools, owner, decisions);
    }
}

std::vector<std::string> getCallSeeds() {
  std::vector<std::string> seeds;
  for (char program : {0, 1, 2}) {
    // Appends to all sequences, a step, a fork of the first one to the third, which grows, a step.
    std::string text(1, program);
    text += std::string("\0\0\3\x31\x28\x28\x28\x28\0\0", 11);
    text += std::string("\2\0\3\4\0\0\3\0\2\0\0\0\2\0\0\5\4\0\0", 19);
    seeds.push_back(text + std::string("\2\0\3\1\0\0", 6));
    seeds.push_back(text + std::string("\0\1\1\x20\x11\x0a\2\7\1\2\x21\0\2\1\1\3\1\x0d\0\0", 20));
  }
  return seeds;
}

} // namespace

const fuzz::Target fuzz::snapshot = {"snapshot", runSnapshot, getSnapshotSeeds};
const fuzz::Target fuzz::calls = {"calls", runCalls, getCallSeeds};
