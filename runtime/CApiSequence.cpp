// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The C interface: the life of a sequence.
#include "runtime/CApiSupport.h"
#include "runtime/HostCache.h"
#include "runtime/Snapshot.h"

#include "dialect/Quantization.h"
#include "mlir/IR/MLIRContext.h"
#include "llvm/ADT/DenseSet.h"

#include <cmath>
#include <numeric>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::capi;

namespace {

bool isOnHost(const Program &program) { return program.getPlan().target.executor != Executor::CudaDevice; }

/// The layer of a call, and its structure, see readStruct.
template <typename T>
Expected<const Program *> getLayer(const kvcc_program *handle, int32_t layer, const T *given, T &args,
                                   size_t oldest = sizeof(T)) {
  auto program = capi::getLayer(handle, layer);
  if (program)
    if (Error error = readStruct(given, "args", args, oldest))
      return std::move(error);
  return program;
}

/// What kvcc_append and kvcc_attend say of a batch.
struct Batch {
  kvcc_memory memory;
  const int32_t *table;
  int64_t table_stride;
  const int32_t *slots, *seq_lens;
  int64_t batch;
};

/// What is not trusted: sizes and pointers.
Error checkBatch(const Batch &batch, int64_t rows,
                 std::initializer_list<std::pair<const void *, const char *>> pointers) {
  if (rows > UINT16_MAX)
    return expected("at most " + Twine(UINT16_MAX) + " sequences (times queries)", Twine(rows));
  if (Error error = checkMemory(batch.memory))
    return error;
  for (auto [pointer, name] :
       {std::pair<const void *, const char *>(batch.slots, "slots"), {batch.seq_lens, "seq_lens"}})
    if (Error error = notNull(pointer, name))
      return error;
  for (auto [pointer, name] : pointers)
    if (Error error = notNull(pointer, name))
      return error;
  return notNegative(batch.table_stride, "table_stride");
}

/// What is trusted without validation: lengths, slots and tables.
Error validateBatch(const Program &program, const Batch &batch, int64_t maxTokens, StringRef maxName) {
  for (int64_t b = 0; b < batch.batch; ++b) {
    int64_t tokens = batch.seq_lens[b];
    if (tokens < 0 || tokens > maxTokens)
      return expected("seq_lens from 0 to " + maxName + " = " + Twine(maxTokens),
                      Twine(tokens) + " for sequence " + Twine(b));
    if (Error error = checkSlot(batch.slots[b], batch.memory))
      return error;
    if (Error error = checkTable(program, batch.table ? batch.table + b * batch.table_stride : nullptr,
                                 batch.table_stride, tokens, batch.memory, /*entries=*/true))
      return error;
  }
  return Error::success();
}

Error validateNumbers(const Program &program, const kvcc_append_args &args) {
  const Plan &plan = program.getPlan();
  unsigned bytes = plan.cache.getDtype().getIntOrFloatBitWidth() / 8;
  for (auto [data, name] : {std::pair(args.keys, "keys"), std::pair(args.values, "values")})
    for (int64_t b = 0; b < args.batch; ++b)
      for (int64_t token = 0; token < args.new_lens[b]; ++token)
        for (int64_t head = 0; head < plan.shape.kvHeads; ++head) {
          int64_t at = b * args.sequence_stride + token * args.token_stride + head * args.head_stride;
          for (int64_t c = 0; c < plan.shape.headDim; ++c) {
            uint32_t bits = 0;
            std::memcpy(&bits, static_cast<const uint8_t *>(data) + (at + c) * bytes, bytes);
            float number = kv::decodeFloat(plan.cache.getDtype(), bits);
            if (!std::isfinite(number))
              return expected("finite numbers", Twine(std::isnan(number) ? "nan"
                                                      : number > 0       ? "inf"
                                                                         : "-inf") +
                                                    " at " + name + "[sequence " + Twine(b) + ", token " +
                                                    Twine(token) + ", kv head " + Twine(head) + ", channel " +
                                                    Twine(c) + "]");
          }
        }
  return Error::success();
}

/// Marks sequences as written while it lives.
class WriteScope {
public:
  WriteScope(SequenceLedger *ledger) : ledger(ledger) {}
  /// See SequenceLedger::endWrite.
  Error begin(SequenceLedger::Slot slot, int64_t before, int64_t rollback, int64_t after, int64_t most = 0) {
    if (!ledger)
      return Error::success();
    if (Error error = ledger->beginWrite(slot, before, rollback))
      return error;
    writes.push_back({slot, before, after, most});
    return Error::success();
  }
  /// The writes have been made.
  void succeed() {
    for (const Write &write : writes)
      ledger->endWrite(write.slot, write.before, write.after, write.most);
    writes.clear();
  }
  ~WriteScope() {
    for (const Write &write : writes)
      ledger->cancelWrite(write.slot);
  }

private:
  struct Write {
    SequenceLedger::Slot slot;
    int64_t before, after, most;
  };
  SequenceLedger *ledger;
  SmallVector<Write, 8> writes;
};

Expected<int64_t> checkRead(SequenceLedger &ledger, const Program &program, const kvcc_memory &memory, int32_t slot,
                            int64_t tokens) {
  return ledger.checkRead(slotOf(program, memory, slot), tokens, program.getPlan().cache.getWindow().getRollback());
}

Error append(const kvcc_program *handle, int32_t layer, const kvcc_append_args *given, void *stream) {
  kvcc_append_args args;
  auto found = getLayer(handle, layer, given, args);
  if (!found)
    return found.takeError();
  const Program &program = **found;
  if (Error error = notNegative(args.batch, "batch"))
    return error;
  if (Error error = notNegative(args.max_new, "max_new"))
    return error;
  if (args.batch == 0)
    return Error::success();
  Batch batch{args.memory, args.table, args.table_stride, args.slots, args.seq_lens, args.batch};
  if (Error error = checkBatch(batch, args.batch, {{args.new_lens, "new_lens"}}))
    return error;
  if (args.max_new) {
    for (auto [pointer, name] : {std::pair(args.keys, "keys"), std::pair(args.values, "values")})
      if (Error error = notNull(pointer, name))
        return error;
    int64_t headDim = program.getPlan().shape.headDim;
    if (Error error = notNegative(args.sequence_stride, "sequence_stride"))
      return error;
    for (auto [stride, name, matters] : {std::tuple(args.token_stride, "token_stride", args.max_new > 1),
                                         {args.head_stride, "head_stride", program.getPlan().shape.kvHeads > 1}})
      if (matters && stride < headDim)
        return expected(Twine(name) + " of at least head_dim = " + Twine(headDim), Twine(stride));
  }
  WriteScope scope(handle->ledger.get());
  if (handle->ledger && isOnHost(program)) {
    if (Error error = validateBatch(program, batch, INT32_MAX, "2^31 - 1"))
      return error;
    for (int64_t b = 0; b < args.batch; ++b)
      if (int64_t most = std::min<int64_t>(args.max_new, args.seq_lens[b]);
          args.new_lens[b] < 0 || args.new_lens[b] > most)
        return expected("new_lens from 0 to " + Twine(most), Twine(args.new_lens[b]) + " for sequence " + Twine(b));
    if (Error error = validateNumbers(program, args))
      return error;
    for (int64_t b = 0; b < args.batch; ++b)
      if (Error error = scope.begin(slotOf(program, args.memory, args.slots[b]), args.seq_lens[b] - args.new_lens[b],
                                    program.getPlan().cache.getWindow().getRollback(), args.seq_lens[b]))
        return error;
  }
  AppendCall call;
  call.keys = args.keys;
  call.values = args.values;
  call.pages = args.memory.pages;
  call.table = args.table;
  call.slots = args.memory.slots;
  call.slotIds = args.slots;
  call.lens = args.seq_lens;
  call.newLens = args.new_lens;
  const ModelProgram::Given &vectors = handle->model->getGiven(size_t(layer));
  call.given = vectors.numbers.get();
  call.gives = vectors.gives;
  call.tableStride = args.table_stride;
  call.batch = args.batch;
  call.maxNew = args.max_new;
  call.sequenceStride = args.sequence_stride;
  call.tokenStride = args.token_stride;
  call.headStride = args.head_stride;
  call.stream = stream;
  if (Error error = program.append(call))
    return withKind(ErrorKind::Failed, std::move(error));
  scope.succeed();
  return Error::success();
}

Error attend(const kvcc_program *handle, int32_t layer, const kvcc_attend_args *given, void *stream) {
  kvcc_attend_args args;
  auto found = getLayer(handle, layer, given, args, offsetof(kvcc_attend_args, queries));
  if (!found)
    return found.takeError();
  const Program &program = **found;
  if (Error error = notNegative(args.batch, "batch"))
    return error;
  if (Error error = notNegative(args.max_tokens, "max_tokens"))
    return error;
  if (args.queries < 0 || args.queries > kv::kMaxQueries)
    return expected("queries from 0 to " + Twine(kv::kMaxQueries), Twine(args.queries));
  if (args.batch == 0)
    return Error::success();
  int64_t queries = std::max<int64_t>(args.queries, 1);
  int64_t rows = std::min<int64_t>(args.batch, UINT16_MAX + 1) * queries; // no overflow
  Batch batch{args.memory, args.table, args.table_stride, args.slots, args.seq_lens, args.batch};
  if (Error error = checkBatch(batch, rows, {{args.query, "query"}, {args.out, "out"}, {args.lse, "lse"}}))
    return error;
  if (program.getPlan().shape.sinkLogits)
    if (Error error = notNull(args.sinks, "sinks"))
      return error;
  if (handle->ledger && isOnHost(program)) {
    if (Error error = validateBatch(program, batch, args.max_tokens, "max_tokens"))
      return error;
    for (int64_t b = 0; b < args.batch; ++b)
      if (Error error = checkRead(*handle->ledger, program, args.memory, args.slots[b], args.seq_lens[b]).takeError())
        return error;
  }
  if (Error error = checkSplitTokens(args.split_tokens, args.max_tokens))
    return error;
  int64_t splitBlocks = args.split_tokens / kv::kBlockTokens;
  int64_t splits = splitBlocks ? program.getSplits(splitBlocks, args.max_tokens)
                               : program.chooseSplits(args.batch, queries, args.max_tokens, 0);
  size_t bytes = program.getWorkspaceBytes(rows, splits);
  if (bytes) {
    if (Error error = notNull(args.workspace, "workspace"))
      return error;
    if (args.workspace_bytes < bytes)
      return expected("a workspace of at least " + Twine(bytes) + " bytes", Twine(args.workspace_bytes));
    if (reinterpret_cast<uintptr_t>(args.workspace) % kWorkspaceAlignment)
      return expected("a workspace at a multiple of " + Twine(kWorkspaceAlignment) + " bytes",
                      "0x" + Twine::utohexstr(reinterpret_cast<uintptr_t>(args.workspace)));
  }
  AttendCall call;
  call.query = args.query;
  call.pages = args.memory.pages;
  call.table = args.table;
  call.slots = args.memory.slots;
  call.slotIds = args.slots;
  call.lens = args.seq_lens;
  call.out = args.out;
  call.lse = args.lse;
  call.sinks = args.sinks;
  call.workspace = args.workspace;
  call.tableStride = args.table_stride;
  call.batch = args.batch;
  call.queries = queries;
  call.splits = splits;
  call.splitBlocks = splitBlocks;
  call.stream = stream;
  return withKind(ErrorKind::Failed, program.attend(call));
}

/// That no page of `table` from entry `first` on stands there twice, or in `others`: what is copied to one would be
/// overwritten there.
Error checkDistinct(ArrayRef<int32_t> table, int64_t first, ArrayRef<int32_t> others, const char *what) {
  DenseSet<int64_t> seen(others.begin(), others.end());
  for (auto [i, page] : enumerate(table.drop_front(size_t(first))))
    if (!seen.insert(page).second)
      return expected(what, Twine(page) + " at entry " + Twine(int64_t(i) + first));
  return Error::success();
}

/// Pages that no append or rollback changes any more: their tokens stay quantized even if as many as may be are taken
/// back.
int64_t getSharedPages(const Program &program, int64_t tokens) {
  kv::WindowAttr window = program.getPlan().cache.getWindow();
  int64_t least = std::max<int64_t>(tokens - window.getRollback(), 0);
  return window.getQuantizedTokens(least) / program.getPlan().schedule.getPage();
}

Error fork(const kvcc_program *handle, int32_t layer, const kvcc_fork_args *given, void *stream) {
  kvcc_fork_args args;
  auto found = getLayer(handle, layer, given, args);
  if (!found)
    return found.takeError();
  const Program &program = **found;
  if (Error error = checkTokens(args.tokens))
    return error;
  if (Error error = checkMemory(args.memory))
    return error;
  for (int32_t slot : {args.slot, args.fork_slot})
    if (Error error = checkSlot(slot, args.memory))
      return error;
  if (args.slot == args.fork_slot)
    return expected("a fork_slot that is not the slot", Twine(args.fork_slot));
  for (const int32_t *table : {args.table, args.fork_table})
    if (Error error = checkTable(program, table, args.table_length, args.tokens, args.memory, /*entries=*/true))
      return error;
  int64_t pages = program.getPages(args.tokens), shared = getSharedPages(program, args.tokens);
  for (int64_t i = 0; i < pages; ++i)
    if (i < shared && args.table[i] != args.fork_table[i])
      return expected("fork_table entries of shared pages as in table",
                      Twine(args.fork_table[i]) + " at entry " + Twine(i));
  if (pages)
    if (Error error = checkDistinct({args.fork_table, size_t(pages)}, shared, {args.table, size_t(pages)},
                                    "a page of its own for the fork"))
      return error;
  WriteScope scope(handle->ledger.get());
  if (handle->ledger && isOnHost(program)) {
    auto most = checkRead(*handle->ledger, program, args.memory, args.slot, args.tokens);
    if (!most)
      return most.takeError();
    if (Error error = scope.begin(slotOf(program, args.memory, args.fork_slot), 0, 0, args.tokens, *most))
      return error;
  }
  const Backend &backend = program.getBackend();
  for (int64_t i = shared; i < pages; ++i)
    if (Error error =
            backend.copy(pageOf(program, args.memory, args.fork_table[i]), pageOf(program, args.memory, args.table[i]),
                         size_t(program.getLayout().pageBytes), stream))
      return withKind(ErrorKind::Failed, std::move(error));
  if (Error error = backend.copy(slotOf(program, args.memory, args.fork_slot), slotOf(program, args.memory, args.slot),
                                 size_t(program.getLayout().slotBytes), stream))
    return withKind(ErrorKind::Failed, std::move(error));
  scope.succeed();
  return Error::success();
}

SnapshotHeader getHeader(const Program &program, int64_t tokens) {
  return SnapshotHeader::of(program.getPlan().cache, program.getPlan().schedule, program.getLayout(), tokens);
}

/// What snapshot and restore check of their arguments; the length of the table only where tokens are known.
Error checkSnapshotArgs(const Program &program, const kvcc_snapshot_args &args) {
  if (Error error = checkMemory(args.memory))
    return error;
  if (Error error = checkSlot(args.slot, args.memory))
    return error;
  if (Error error = notNegative(args.table_length, "table_length"))
    return error;
  return notNull(args.bytes, "bytes");
}

Error snapshot(const kvcc_program *handle, int32_t layer, const kvcc_snapshot_args *given, void *stream) {
  kvcc_snapshot_args args;
  auto found = getLayer(handle, layer, given, args);
  if (!found)
    return found.takeError();
  const Program &program = **found;
  if (Error error = checkTokens(args.tokens))
    return error;
  if (Error error = checkSnapshotArgs(program, args))
    return error;
  if (Error error = checkTable(program, args.table, args.table_length, args.tokens, args.memory, /*entries=*/true))
    return error;
  SnapshotHeader header = getHeader(program, args.tokens);
  size_t bytes = getSnapshotBytes(header);
  if (args.bytes_length < bytes)
    return expected("bytes_length of at least " + Twine(bytes), Twine(args.bytes_length));
  if (handle->ledger && isOnHost(program))
    if (Error error = checkRead(*handle->ledger, program, args.memory, args.slot, args.tokens).takeError())
      return error;
  auto *target = static_cast<uint8_t *>(args.bytes), *at = target + getPrefixBytes(header);
  for (int64_t i = 0; i < header.pages; ++i, at += header.pageBytes)
    if (Error error = program.getBackend().read(at, pageOf(program, args.memory, args.table[i]),
                                                size_t(header.pageBytes), stream))
      return withKind(ErrorKind::Failed, std::move(error));
  if (Error error =
          program.getBackend().read(at, slotOf(program, args.memory, args.slot), size_t(header.slotBytes), stream))
    return withKind(ErrorKind::Failed, std::move(error));
  sealSnapshot(header, {target, bytes});
  return Error::success();
}

/// Pages of tokens that no query reaches any more may hold anything, on which no transform may be measured: they become
/// repetitions of the tokens that one may reach, `numbers` of [tokens, channels]. `window` is the snapshot's: sinks are
/// in the slot, and whoever took it may have taken tokens back.
void replaceExpired(const AttentionShape &shape, kv::WindowAttr window, int64_t tokens, std::vector<float> &numbers) {
  int64_t least = std::max<int64_t>(tokens - window.getRollback() - (kv::kMaxQueries - 1), 0);
  int64_t first = shape.getFirstReached(least), channels = shape.headDim;
  for (int64_t token = window.getSink(); token < first; ++token)
    std::copy_n(numbers.begin() + (first + token % (tokens - first)) * channels, channels,
                numbers.begin() + token * channels);
}

/// The pages and the slot of a snapshot in another format of the same shape, in the format of the layer.
struct Image {
  AlignedBytes pages, slot;
};
Expected<Image> requantize(const kvcc_program *handle, int32_t layer, const Program &program,
                           const Snapshot &snapshot) {
  std::unique_ptr<mlir::MLIRContext> context = createContext();
  auto format = parseFormat(snapshot.header, *context);
  if (!format)
    return format.takeError();
  auto [cache, schedule] = *format;
  const Plan &plan = program.getPlan();
  auto sameType = [](mlir::Type a, mlir::Type b) { return a.isF16() == b.isF16() && a.isBF16() == b.isBF16(); };
  if (cache.getKvHeads() != plan.shape.kvHeads || cache.getHeadDim() != plan.shape.headDim ||
      !sameType(cache.getDtype(), plan.cache.getDtype()))
    return expected("a snapshot of " + Twine(plan.shape.kvHeads) + " KV heads of " + Twine(plan.shape.headDim) +
                        " channels and the layer's dtype",
                    snapshot.header.cache);
  int64_t tokens = snapshot.header.tokens, elements = tokens * plan.shape.headDim;
  SnapshotHeader header = getHeader(program, tokens);
  // Both sequences have their pages in order.
  std::vector<int32_t> table(size_t(std::max(snapshot.header.pages, header.pages)));
  std::iota(table.begin(), table.end(), 0);
  // Readers load whole vectors from aligned memory.
  AlignedBytes pages(snapshot.pages.size()), slot(snapshot.slot.size());
  std::memcpy(pages.data(), snapshot.pages.data(), snapshot.pages.size());
  std::memcpy(slot.data(), snapshot.slot.data(), snapshot.slot.size());
  SequenceMemory source{pages.data(), table.data(), slot.data()};
  mlir::Type dtype = plan.cache.getDtype();
  unsigned bytes = dtype.getIntOrFloatBitWidth() / 8;
  float largest = kv::getLargestScale(dtype);
  std::vector<uint8_t> stored[2];
  std::vector<float> numbers[2] = {std::vector<float>(size_t(elements)), std::vector<float>(size_t(elements))};
  for (int64_t head = 0; head < plan.shape.kvHeads; ++head) {
    readSequence(cache, schedule, source, head, tokens, numbers[0].data(), numbers[1].data());
    for (int side : {0, 1}) {
      replaceExpired(plan.shape, cache.getWindow(), tokens, numbers[side]);
      for (float number : numbers[side]) {
        // Rounding to a code may have left the range of the dtype.
        if (std::isfinite(number))
          number = std::clamp(number, -largest, largest);
        uint32_t bits = kv::encodeFloat(dtype, number);
        stored[side].insert(stored[side].end(), reinterpret_cast<uint8_t *>(&bits),
                            reinterpret_cast<uint8_t *>(&bits) + bytes);
      }
    }
  }
  Image image{AlignedBytes(size_t(header.pages * header.pageBytes)), AlignedBytes(size_t(header.slotBytes))};
  // In a context of its own: that of the plan may be at work in another thread.
  auto own = parseFormat(header, *context);
  if (!own)
    return own.takeError();
  if (Error error = writePrefill(own->first, own->second, {image.pages.data(), table.data(), image.slot.data()},
                                 {stored[0].data(), elements}, {stored[1].data(), elements}, tokens,
                                 handle->context->pool, handle->model->getStatistics(size_t(layer)),
                                 /*measured=*/tokens))
    return std::move(error);
  return image;
}

Error restore(const kvcc_program *handle, int32_t layer, kvcc_snapshot_args *given, int32_t mayRequantize,
              void *stream) {
  kvcc_snapshot_args args;
  auto found = getLayer(handle, layer, given, args);
  if (!found)
    return found.takeError();
  const Program &program = **found;
  if (mayRequantize != 0 && mayRequantize != 1)
    return expected("requantize 0 or 1", Twine(mayRequantize));
  if (Error error = checkSnapshotArgs(program, args))
    return error;
  auto opened = openSnapshot({static_cast<const uint8_t *>(args.bytes), args.bytes_length});
  if (!opened)
    return opened.takeError();
  SnapshotHeader header = getHeader(program, opened->header.tokens);
  if (Error error = checkTable(program, args.table, args.table_length, header.tokens, args.memory, /*entries=*/true))
    return error;
  if (header.pages)
    if (Error error = checkDistinct({args.table, size_t(header.pages)}, 0, {}, "a page once in a table"))
      return error;
  Image image;
  ArrayRef<uint8_t> pages = opened->pages, slot = opened->slot;
  if (!opened->header.hasFormatOf(header)) {
    if (!mayRequantize)
      return expected("a snapshot of " + header.cache + " with " + header.schedule + " (or requantize = 1)",
                      opened->header.cache + " with " + opened->header.schedule);
    auto requantized = requantize(handle, layer, program, *opened);
    if (!requantized)
      return requantized.takeError();
    image = std::move(*requantized);
    pages = {image.pages.data(), image.pages.size()};
    slot = {image.slot.data(), image.slot.size()};
  } else if (opened->header.pages != header.pages || opened->header.pageBytes != header.pageBytes ||
             opened->header.slotBytes != header.slotBytes) {
    return expected("a snapshot with pages of " + Twine(header.pageBytes) + " bytes", Twine(opened->header.pageBytes));
  }
  WriteScope scope(handle->ledger.get());
  if (handle->ledger && isOnHost(program))
    if (Error error = scope.begin(slotOf(program, args.memory, args.slot), 0, 0, header.tokens))
      return error;
  for (int64_t i = 0; i < header.pages; ++i)
    if (Error error = program.getBackend().write(pageOf(program, args.memory, args.table[i]),
                                                 pages.data() + i * header.pageBytes, size_t(header.pageBytes), stream))
      return withKind(ErrorKind::Failed, std::move(error));
  if (Error error = program.getBackend().write(slotOf(program, args.memory, args.slot), slot.data(),
                                               size_t(header.slotBytes), stream))
    return withKind(ErrorKind::Failed, std::move(error));
  scope.succeed();
  given->tokens = header.tokens;
  return Error::success();
}

} // namespace

kvcc_status kvcc_append(const kvcc_program *program, int32_t layer, const kvcc_append_args *args, void *stream) {
  return report(append(program, layer, args, stream));
}

kvcc_status kvcc_attend(const kvcc_program *program, int32_t layer, const kvcc_attend_args *args, void *stream) {
  return report(attend(program, layer, args, stream));
}

kvcc_status kvcc_merge(const kvcc_program *handle, int32_t layer, const kvcc_merge_args *given, void *stream) {
  return report([&]() -> Error {
    kvcc_merge_args args;
    auto program = getLayer(handle, layer, given, args);
    if (!program)
      return program.takeError();
    if (args.parts < 1)
      return expected("parts of at least 1", Twine(args.parts));
    if (args.rows < 0 || args.rows > INT32_MAX)
      return expected("rows from 0 to 2^31 - 1", Twine(args.rows));
    if (args.rows == 0)
      return Error::success();
    for (auto [pointer, name] : {std::pair<const void *, const char *>(args.outs, "outs"),
                                 {args.lses, "lses"},
                                 {args.out, "out"},
                                 {args.lse, "lse"}})
      if (Error error = notNull(pointer, name))
        return error;
    LaunchOptions options;
    options.stream = stream;
    return withKind(ErrorKind::Failed,
                    (*program)->merge(args.outs, args.lses, args.parts, args.rows, args.out, args.lse, options));
  }());
}

kvcc_status kvcc_rollback(const kvcc_program *handle, int32_t layer, int64_t tokens, int64_t count, int64_t *result) {
  return answer<int64_t>(handle, layer, tokens, result, "result", [&](const Program &program) -> Expected<int64_t> {
    int64_t most = std::min(program.getPlan().cache.getWindow().getRollback(), tokens);
    if (count < 0 || count > most)
      return expected("a count from 0 to " + Twine(most) + " to take back from " + Twine(tokens) + " tokens",
                      Twine(count));
    return tokens - count;
  });
}

kvcc_status kvcc_shared_pages(const kvcc_program *handle, int32_t layer, int64_t tokens, int64_t *pages) {
  return answer<int64_t>(handle, layer, tokens, pages, "pages",
                         [&](const Program &program) { return getSharedPages(program, tokens); });
}

kvcc_status kvcc_fork(const kvcc_program *program, int32_t layer, const kvcc_fork_args *args, void *stream) {
  return report(fork(program, layer, args, stream));
}

kvcc_status kvcc_snapshot_bytes(const kvcc_program *handle, int32_t layer, int64_t tokens, size_t *bytes) {
  return answer<size_t>(handle, layer, tokens, bytes, "bytes",
                        [&](const Program &program) { return getSnapshotBytes(getHeader(program, tokens)); });
}

kvcc_status kvcc_adopt(const kvcc_program *handle, int32_t layer, const kvcc_memory *memory, int32_t slot) {
  return report([&]() -> Error {
    auto program = getLayer(handle, layer);
    if (!program)
      return program.takeError();
    if (Error error = notNull(memory, "memory"))
      return error;
    if (Error error = checkMemory(*memory))
      return error;
    if (Error error = checkSlot(slot, *memory))
      return error;
    if (!handle->ledger || !isOnHost(**program))
      return Error::success();
    return handle->ledger->forget(slotOf(**program, *memory, slot));
  }());
}

kvcc_status kvcc_snapshot_tokens(const void *bytes, size_t length, int64_t *tokens) {
  return report([&]() -> Error {
    if (Error error = notNull(bytes, "bytes"))
      return error;
    if (Error error = notNull(tokens, "tokens"))
      return error;
    auto opened = openSnapshot({static_cast<const uint8_t *>(bytes), length});
    if (!opened)
      return opened.takeError();
    *tokens = opened->header.tokens;
    return Error::success();
  }());
}

kvcc_status kvcc_snapshot(const kvcc_program *program, int32_t layer, const kvcc_snapshot_args *args, void *stream) {
  return report(snapshot(program, layer, args, stream));
}

kvcc_status kvcc_restore(const kvcc_program *program, int32_t layer, kvcc_snapshot_args *args, int32_t requantize,
                         void *stream) {
  return report(restore(program, layer, args, requantize, stream));
}
