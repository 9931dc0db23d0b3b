// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A cache in host memory, and one step over it.
#include "runtime/HostCache.h"

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
  if (Error error =
          writePrefill(plan.cache, plan.schedule, getSequence(sequence), keys, values, tokens, pool, statistics))
    return error;
  lens[size_t(sequence)] = int32_t(tokens);
  return Error::success();
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
    int64_t quantized = window.getQuantizedTokens(tokens), sink = std::min(tokens, window.getSink());
    int64_t windowBlocks = divideCeil(sink, kv::kBlockTokens) + divideCeil(tokens - sink - quantized, kv::kBlockTokens);
    bytes +=
        kvHeads * (divideCeil(quantized, kv::kBlockTokens) * layout.page.bytes + windowBlocks * layout.window.bytes);
  }
  return bytes;
}

/// Copies the cache to the GPU, runs the step there and copies its results back.
static Error decodeStepOnDevice(const HostCache &cache, AttendCall call, size_t queryBytes, size_t workspaceBytes) {
  auto driver = CudaDriver::load();
  if (!driver)
    return driver.takeError();
  auto context = CudaContext::retain(*driver, 0);
  if (!context)
    return context.takeError();
  auto stream = CudaStream::create(*context);
  if (!stream)
    return stream.takeError();
  SmallVector<DeviceBuffer, 12> buffers;
  // Replaces a host pointer by one to a copy on the device.
  auto move = [&](auto *&pointer, size_t bytes, bool upload) -> Error {
    auto buffer = DeviceBuffer::allocate(*context, bytes);
    if (!buffer)
      return buffer.takeError();
    if (upload && bytes)
      if (Error error = buffer->upload(pointer, bytes))
        return error;
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(uintptr_t(buffer->pointer()));
    buffers.push_back(std::move(*buffer));
    return Error::success();
  };
  size_t batch = size_t(call.batch), rows = batch * size_t(cache.getProgram().getPlan().shape.qHeads),
         outBytes = rows * size_t(cache.getProgram().getPlan().shape.headDim) * sizeof(float);
  float *out = call.out, *lse = call.lse;
  Error steps[] = {move(call.query, queryBytes, true),
                   move(call.pages, cache.getPages().size(), true),
                   move(call.table, batch * size_t(call.tableStride) * sizeof(int32_t), true),
                   move(call.slots, cache.getSlots().size(), true),
                   move(call.slotIds, batch * sizeof(int32_t), true),
                   move(call.lens, batch * sizeof(int32_t), true),
                   move(call.out, outBytes, false),
                   move(call.lse, rows * sizeof(float), false),
                   move(call.workspace, workspaceBytes, false)};
  Error failed = Error::success();
  for (Error &step : steps)
    failed = joinErrors(std::move(failed), std::move(step));
  if (failed)
    return failed;
  call.stream = stream->handle();
  if (Error error = cache.getProgram().attend(call))
    return error;
  if (Error error = (*context)->synchronize(stream->handle()))
    return error;
  if (Error error = buffers[6].download(out, outBytes))
    return error;
  return buffers[7].download(lse, rows * sizeof(float));
}

Error kvcc::decodeStep(const HostCache &cache, const void *query, std::vector<float> &out, std::vector<float> &lse,
                       int64_t splits, unsigned threads, uint64_t seed) {
  const Program &program = cache.getProgram();
  const Plan &plan = program.getPlan();
  AttendCall call = cache.getCall();
  int64_t rows = call.batch * plan.shape.qHeads, longest = 0;
  for (int64_t i = 0; i < call.batch; ++i)
    longest = std::max(longest, cache.getTokens(i));
  out.resize(size_t(rows * plan.shape.headDim));
  lse.resize(size_t(rows));
  call.query = query;
  call.out = out.data();
  call.lse = lse.data();
  call.threads = threads;
  call.seed = seed;
  call.splits = splits ? splits : program.chooseSplits(call.batch, longest, threads);
  AlignedBytes workspace(program.getWorkspaceBytes(call.batch, call.splits));
  call.workspace = workspace.data();
  if (plan.target.executor != Executor::CudaDevice)
    return program.attend(call);
  size_t elementBytes = plan.cache.getDtype().getIntOrFloatBitWidth() / 8;
  return decodeStepOnDevice(cache, call, size_t(rows * plan.shape.headDim) * elementBytes, workspace.size());
}
