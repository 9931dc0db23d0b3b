// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A cache in host memory, and one step over it.
#include "runtime/HostCache.h"

#include "dialect/Quantization.h"
#include "runtime/CudaDriver.h"
#include "llvm/Support/ErrorHandling.h"
#include "llvm/Support/MathExtras.h"

#include <cstdlib>
#include <cstring>

using namespace llvm;
using namespace kvcc;

AlignedBytes::AlignedBytes(size_t size) : count(size) {
  size_t rounded = alignTo(std::max<size_t>(size, 1), 64);
  bytes.reset(static_cast<uint8_t *>(std::aligned_alloc(64, rounded)));
  if (!bytes)
    report_bad_alloc_error("cache memory");
  std::memset(bytes.get(), 0, rounded);
}

HostCache::HostCache(const Program &program, int64_t batch, int64_t maxTokens)
    : program(program), batch(batch), tableStride(program.getPages(maxTokens)),
      pages(size_t(batch * tableStride * program.getLayout().pageBytes)),
      slots(size_t(batch * program.getLayout().slotBytes)) {
  for (int64_t i = batch * tableStride; i-- > 0;)
    table.push_back(int32_t(i));
  for (int64_t i = batch; i-- > 0;)
    slotIds.push_back(int32_t(i));
  lens.resize(size_t(batch));
}

std::unique_ptr<HostCache> HostCache::clone() const {
  auto copy = std::make_unique<HostCache>(program, 0, 0);
  copy->batch = batch;
  copy->tableStride = tableStride;
  copy->pages = AlignedBytes(pages.size());
  copy->slots = AlignedBytes(slots.size());
  std::memcpy(copy->pages.data(), pages.data(), pages.size());
  std::memcpy(copy->slots.data(), slots.data(), slots.size());
  copy->table = table;
  copy->slotIds = slotIds;
  copy->lens = lens;
  return copy;
}

SequenceMemory HostCache::getSequence(int64_t sequence) {
  return {pages.data(), table.data() + sequence * tableStride,
          slots.data() + slotIds[size_t(sequence)] * program.getLayout().slotBytes};
}

Error HostCache::prefill(int64_t sequence, PrefillTensor keys, PrefillTensor values, int64_t tokens, ThreadPool &pool,
                         ArrayRef<WriterStatistics> statistics) {
  const Plan &plan = program.getPlan();
  auto given = makeGivenVectors(plan.cache, statistics);
  if (!given)
    return given.takeError();
  // Numbers of f16 fit every format. For others the scalar writer tells.
  if (!plan.cache.getDtype().isF16()) {
    if (Error error =
            writePrefill(plan.cache, plan.schedule, getSequence(sequence), keys, values, tokens, pool, statistics))
      return error;
  } else {
    for (auto [tensor, name] : {std::pair(keys, "k"), std::pair(values, "v")})
      if (Error error = checkFinite(plan.cache, tensor, name, tokens))
        return error;
  }
  lens[size_t(sequence)] = 0;
  return append(sequence, tokens, {keys.data, values.data, 0, plan.shape.headDim, keys.headStride}, *given, {});
}

namespace {

/// Copies of host memory on the GPU, for one call.
class DeviceCopies {
public:
  static Expected<DeviceCopies> create() {
    auto driver = CudaDriver::load();
    if (!driver)
      return driver.takeError();
    DeviceCopies copies;
    auto context = CudaContext::retain(*driver, 0);
    if (!context)
      return context.takeError();
    copies.context = std::move(*context);
    auto stream = CudaStream::create(copies.context);
    if (!stream)
      return stream.takeError();
    copies.stream.emplace(std::move(*stream));
    return copies;
  }

  /// Replaces a host pointer by one to memory of the device, with the same contents or without.
  template <typename T> void move(T *&pointer, size_t bytes, bool upload = true) {
    if (failure || !pointer)
      return;
    auto buffer = DeviceBuffer::allocate(context, bytes);
    if (!buffer) {
      failure = buffer.takeError();
      return;
    }
    if (upload && bytes)
      failure = buffer->upload(pointer, bytes);
    pointer = reinterpret_cast<T *>(uintptr_t(buffer->pointer()));
    buffers.push_back(std::move(*buffer));
  }
  /// Of moving.
  Error takeError() { return std::move(failure); }
  void *getStream() const { return stream->handle(); }
  Error wait() { return context->synchronize(stream->handle()); }
  /// Copies the memory at a moved pointer back.
  Error download(void *host, const void *device, size_t bytes) {
    for (DeviceBuffer &buffer : buffers)
      if (uintptr_t(buffer.pointer()) == uintptr_t(device))
        return buffer.download(host, bytes);
    llvm_unreachable("not a moved pointer");
  }

private:
  DeviceCopies() = default;
  std::shared_ptr<CudaContext> context;
  std::optional<CudaStream> stream;
  SmallVector<DeviceBuffer, 12> buffers;
  Error failure = Error::success();
};

} // namespace

Error HostCache::append(int64_t first, ArrayRef<int64_t> counts, const NewTokens &tokens, const GivenVectors &given,
                        const LaunchOptions &options) {
  AppendCall call;
  static_cast<LaunchOptions &>(call) = options;
  SmallVector<int32_t> newLens;
  for (auto [i, count] : enumerate(counts)) {
    newLens.push_back(int32_t(count));
    lens[size_t(first) + i] += int32_t(count);
    call.maxNew = std::max(call.maxNew, count);
  }
  call.keys = tokens.keys;
  call.values = tokens.values;
  call.sequenceStride = tokens.sequenceStride;
  call.tokenStride = tokens.tokenStride;
  call.headStride = tokens.headStride;
  call.pages = pages.data();
  call.table = table.data() + first * tableStride;
  call.tableStride = tableStride;
  call.slots = slots.data();
  call.slotIds = slotIds.data() + first;
  call.lens = lens.data() + first;
  call.newLens = newLens.data();
  call.given = given.numbers.empty() ? nullptr : given.numbers.data();
  call.gives = given.gives;
  call.batch = int64_t(counts.size());
  if (program.getPlan().target.executor != Executor::CudaDevice || !call.batch)
    return program.append(call);

  auto copies = DeviceCopies::create();
  if (!copies)
    return copies.takeError();
  size_t element = program.getPlan().cache.getDtype().getIntOrFloatBitWidth() / 8, batch = counts.size();
  const AttentionShape &shape = program.getPlan().shape;
  size_t elements = call.maxNew ? size_t((call.batch - 1) * call.sequenceStride + (call.maxNew - 1) * call.tokenStride +
                                         (shape.kvHeads - 1) * call.headStride + shape.headDim)
                                : 0;
  copies->move(call.keys, elements * element);
  copies->move(call.values, elements * element);
  copies->move(call.pages, pages.size());
  copies->move(call.table, batch * size_t(tableStride) * sizeof(int32_t));
  copies->move(call.slots, slots.size());
  copies->move(call.slotIds, batch * sizeof(int32_t));
  copies->move(call.lens, batch * sizeof(int32_t));
  copies->move(call.newLens, batch * sizeof(int32_t));
  copies->move(call.given, given.numbers.size() * sizeof(float));
  if (Error error = copies->takeError())
    return error;
  call.stream = copies->getStream();
  if (Error error = program.append(call))
    return error;
  if (Error error = copies->wait())
    return error;
  if (Error error = copies->download(pages.data(), call.pages, pages.size()))
    return error;
  return copies->download(slots.data(), call.slots, slots.size());
}

AttendCall HostCache::getCall() const {
  AttendCall call;
  call.pages = pages.data();
  call.table = table.data();
  call.slots = slots.data();
  call.slotIds = slotIds.data();
  call.lens = lens.data();
  call.tableStride = tableStride;
  call.batch = batch;
  return call;
}

int64_t HostCache::getBytesRead() const {
  const kv::CacheLayout &layout = program.getLayout();
  kv::WindowAttr window = program.getPlan().cache.getWindow();
  int64_t kvHeads = program.getPlan().shape.kvHeads, bytes = 0;
  for (int64_t tokens : lens) {
    int64_t quantized = window.getQuantizedTokens(tokens), sink = std::min(tokens, window.getSink()),
            first = program.getPlan().shape.getFirstReached(tokens);
    // Of each kind, the blocks from that of the first token on.
    auto blocks = [&](int64_t begin, int64_t count) {
      return divideCeil(count, kv::kBlockTokens) - std::clamp<int64_t>(first - begin, 0, count) / kv::kBlockTokens;
    };
    int64_t windowBlocks = blocks(0, sink) + blocks(sink + quantized, tokens - sink - quantized);
    bytes += kvHeads * (blocks(sink, quantized) * layout.page.bytes + windowBlocks * layout.window.bytes);
  }
  return bytes;
}

/// Copies the cache to the GPU, runs the step there and copies its results back.
static Error decodeStepOnDevice(const HostCache &cache, AttendCall call, size_t queryBytes, size_t workspaceBytes) {
  auto copies = DeviceCopies::create();
  if (!copies)
    return copies.takeError();
  const AttentionShape &shape = cache.getProgram().getPlan().shape;
  size_t batch = size_t(call.batch), rows = batch * size_t(call.queries * shape.qHeads),
         outBytes = shape.roundsOut ? queryBytes : rows * size_t(shape.headDim) * sizeof(float);
  void *out = call.out, *lse = call.lse;
  copies->move(call.query, queryBytes);
  copies->move(call.pages, cache.getPages().size());
  copies->move(call.table, batch * size_t(call.tableStride) * sizeof(int32_t));
  copies->move(call.slots, cache.getSlots().size());
  copies->move(call.slotIds, batch * sizeof(int32_t));
  copies->move(call.lens, batch * sizeof(int32_t));
  copies->move(call.out, outBytes, false);
  copies->move(call.lse, rows * sizeof(float), false);
  copies->move(call.sinks, size_t(shape.qHeads) * sizeof(float));
  copies->move(call.workspace, workspaceBytes); // zeros
  if (Error error = copies->takeError())
    return error;
  call.stream = copies->getStream();
  if (Error error = cache.getProgram().attend(call))
    return error;
  if (Error error = copies->wait())
    return error;
  if (Error error = copies->download(out, call.out, outBytes))
    return error;
  return copies->download(lse, call.lse, rows * sizeof(float));
}

Error kvcc::decodeStep(const HostCache &cache, const void *query, std::vector<float> &out, std::vector<float> &lse,
                       int64_t splits, unsigned threads, uint64_t seed, int64_t queries, ArrayRef<float> sinks) {
  const Program &program = cache.getProgram();
  const Plan &plan = program.getPlan();
  AttendCall call = cache.getCall();
  call.queries = queries;
  int64_t rows = call.batch * queries * plan.shape.qHeads, longest = 0;
  for (int64_t i = 0; i < call.batch; ++i)
    longest = std::max(longest, cache.getTokens(i));
  out.resize(size_t(rows * plan.shape.headDim));
  lse.resize(size_t(rows));
  call.query = query;
  size_t elementBytes = plan.cache.getDtype().getIntOrFloatBitWidth() / 8;
  std::vector<uint8_t> rounded(plan.shape.roundsOut ? out.size() * elementBytes : 0);
  call.out = plan.shape.roundsOut ? static_cast<void *>(rounded.data()) : out.data();
  call.lse = lse.data();
  call.sinks = sinks.empty() ? nullptr : sinks.data();
  call.threads = threads;
  call.seed = seed;
  call.splits = splits ? splits : program.chooseSplits(call.batch * queries, longest, threads);
  AlignedBytes workspace(program.getWorkspaceBytes(call.batch * queries, call.splits));
  call.workspace = workspace.data();
  if (Error error = plan.target.executor != Executor::CudaDevice
                        ? program.attend(call)
                        : decodeStepOnDevice(cache, call, out.size() * elementBytes, workspace.size()))
    return error;
  for (size_t i = 0; i < rounded.size() / elementBytes; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, rounded.data() + i * elementBytes, elementBytes);
    out[i] = kv::decodeFloat(plan.cache.getDtype(), bits);
  }
  return Error::success();
}
