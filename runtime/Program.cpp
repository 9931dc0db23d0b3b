// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Loading and launching, independent of where kernels run.
#include "runtime/Program.h"

#include "runtime/ErrorKind.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/raw_ostream.h"

#include <cstring>

using namespace llvm;
using namespace kvcc;

/// A split of fewer blocks than this costs more in merging than it wins.
static constexpr int64_t kMinBlocksPerSplit = 8;
/// Of a GPU: a block for each of the usual four warps.
static constexpr int64_t kMinGpuBlocksPerSplit = 4;

Program::Program(Plan plan, std::unique_ptr<Backend> backend) : plan(std::move(plan)), backend(std::move(backend)) {
  kv::ScheduleAttr schedule = this->plan.schedule;
  for (auto [packing, text] : {std::pair(schedule.getKey(), &packings.key),
                               {schedule.getValue(), &packings.value},
                               {schedule.getFloats(), &packings.floats}}) {
    raw_string_ostream stream(*text);
    stream << packing;
  }
}

static Expected<std::unique_ptr<Backend>> loadBackend(const Plan &plan, StringRef bytes, ThreadPool &pool) {
  const Target &target = plan.target;
  constexpr int64_t kWarp = 32;
  CudaBlock attend{unsigned(plan.schedule.getWarps() * kWarp), unsigned(getSharedBytes(plan.cache, plan.schedule))};
  switch (target.executor) {
  case Executor::Cpu:
    if (const CpuLevel *level = findCpuLevel(target.arch); !target.machine.emulated && !cpu::hostHas(*level))
      return withKind(ErrorKind::Unavailable,
                      createStringError("expected a target that this processor can run (cpu stands for cpu:" +
                                        cpu::getHostLevel().name + "), but got " + target.name));
    return loadCpuBackend(bytes, pool);
  case Executor::CudaHost:
    return loadCudaHostBackend(bytes, attend);
  case Executor::CudaDevice:
    return loadCudaBackend(bytes, plan, attend);
  }
  llvm_unreachable("unknown executor");
}

Expected<std::unique_ptr<Program>> Program::load(Compiler &compiler, Plan plan, ThreadPool &pool) {
  auto artifact = compiler.emit(plan, Compiler::getExecutableForm(plan));
  if (!artifact)
    return artifact.takeError();
  auto backend = loadBackend(plan, artifact->bytes->getBuffer(), pool);
  if (!backend)
    return withKind(ErrorKind::Failed, backend.takeError());
  std::unique_ptr<Program> program(new Program(std::move(plan), std::move(*backend)));
  program->cached = artifact->cached;
  program->note = artifact->note;
  return program;
}

int64_t Program::getPages(int64_t tokens) const {
  return divideCeil(plan.cache.getWindow().getQuantizedTokens(tokens), plan.schedule.getPage());
}

int64_t Program::getExpiredPages(int64_t tokens) const {
  kv::WindowAttr window = plan.cache.getWindow();
  int64_t expired = plan.shape.getFirstReached(tokens) - window.getSink();
  return std::clamp<int64_t>(expired, 0, window.getQuantizedTokens(tokens)) / plan.schedule.getPage();
}

int64_t Program::chooseSplits(int64_t batch, int64_t queries, int64_t maxTokens, unsigned threads) const {
  int64_t items = batch * getTiles(queries);
  // Whole items that keep every thread busy need no splitting and no merging.
  if (items == 0 || items % backend->getParallelism(threads) == 0 || items > kMaxSplitItems)
    return 1;
  int64_t most = limitSplits(items, maxTokens, threads);
  std::optional<GpuShape> gpu = backend->getGpu();
  if (!gpu)
    return most;
  const kv::CacheLayout &layout = getLayout();
  GpuStep step;
  step.items = items;
  step.blocks = getReachedBlocks(maxTokens);
  int64_t inWindows = std::min(step.blocks, layout.sinkBlocks + layout.recentBlocks);
  step.bytes = double(items) * double((step.blocks - inWindows) * layout.page.bytes + inWindows * layout.window.bytes);
  step.warps = plan.schedule.getWarps();
  step.staged = plan.schedule.getStages() > 0;
  return kvcc::chooseSplits(*gpu, step, most);
}

int64_t Program::getSplits(int64_t splitBlocks, int64_t maxTokens) const {
  // As the kernel counts: pages, sinks and recent tokens may each end with a block that is not full.
  return divideCeil(divideCeil(maxTokens, kv::kBlockTokens) + 2, splitBlocks);
}

int64_t Program::getMostSplits(int64_t rows, int64_t maxTokens, unsigned threads) const {
  int64_t items = getTiles(rows);
  return items ? limitSplits(items, maxTokens, threads) : 1;
}

int64_t Program::getTiles(int64_t queries) const {
  return divideCeil(queries, plan.schedule.getQueries()) * (plan.shape.qHeads / plan.schedule.getHeads());
}

int64_t Program::limitSplits(int64_t items, int64_t maxTokens, unsigned threads) const {
  // About four items per thread, so that the last ones end together.
  int64_t wanted = backend->getParallelism(threads), splits = divideCeil(4 * wanted, items);
  int64_t blocks = getReachedBlocks(maxTokens);
  int64_t least = backend->getGpu() ? kMinGpuBlocksPerSplit : kMinBlocksPerSplit;
  return std::clamp<int64_t>(blocks / least, 1, wanted == 1 ? 1 : splits);
}

int64_t Program::getReachedBlocks(int64_t maxTokens) const {
  int64_t reach = plan.shape.reach == kv::Reach::Full ? maxTokens : std::min(maxTokens, plan.shape.windowTokens);
  return divideCeil(reach, kv::kBlockTokens);
}

size_t Program::getWorkspaceBytes(int64_t rows, int64_t splits) const {
  if (splits == 1)
    return 0;
  return kCounterBytes + size_t(splits * rows * plan.shape.qHeads * (plan.shape.headDim + 1)) * sizeof(float);
}

Error Program::attend(const AttendCall &call) const {
  // As many sequences at a time as there are counters for.
  int64_t perSequence = getTiles(call.queries);
  int64_t most = kMaxSplitItems / perSequence;
  if (call.splits > 1 && most == 0)
    return createStringError("expected at most " + Twine(kMaxSplitItems) +
                             " tiles of query heads of a sequence that is split, but got " + Twine(perSequence));
  if (call.splits == 1 || call.batch <= most)
    return attendSome(call);
  int64_t rows = call.queries * plan.shape.qHeads, numbers = rows * plan.shape.headDim;
  int64_t bytes = plan.cache.getDtype().getIntOrFloatBitWidth() / 8,
          outBytes = plan.shape.roundsOut ? bytes : int64_t(sizeof(float));
  for (int64_t first = 0; first < call.batch; first += most) {
    AttendCall part = call;
    part.batch = std::min(most, call.batch - first);
    part.query = static_cast<const uint8_t *>(call.query) + first * numbers * bytes;
    part.out = static_cast<uint8_t *>(call.out) + first * numbers * outBytes;
    part.lse = call.lse + first * rows;
    part.table = call.table + first * call.tableStride;
    part.slotIds = call.slotIds + first;
    part.lens = call.lens + first;
    if (Error error = attendSome(part))
      return error;
  }
  return Error::success();
}

Error Program::attendSome(const AttendCall &call) const {
  int64_t queries = call.batch * call.queries;
  if (queries == 0)
    return Error::success();
  int64_t tiles = getTiles(call.queries);
  auto *counters = static_cast<uint8_t *>(call.workspace), *parts = counters;
  if (call.splits > 1) {
    parts += kCounterBytes;
    if (plan.target.executor != Executor::CudaDevice)
      std::memset(counters, 0, size_t(tiles * call.batch) * sizeof(int32_t));
  }
  KernelArg args[] = {call.query, call.pages,   call.table,  call.slots,      call.slotIds, call.lens,
                      call.out,   call.lse,     call.sinks,  parts,           counters,     call.tableStride,
                      queries,    call.queries, call.splits, call.splitBlocks};
  LaunchOptions options = call;
  if (plan.target.executor == Executor::Cpu && isShort(call))
    options.threads = 1;
  return backend->launch(Kernel::Attend, args, {tiles, call.splits, call.batch}, options);
}

Error Program::merge(const float *outs, const float *lses, int64_t parts, int64_t rows, float *out, float *lse,
                     const LaunchOptions &options) const {
  if (rows == 0)
    return Error::success();
  KernelArg args[] = {outs, lses, out, lse, rows, parts};
  return backend->launch(Kernel::Merge, args, {rows, 1, 1}, options);
}

/// Tokens per sequence up to which one work item per head, or side of one, does all phases of an append.
static constexpr int64_t kFusedTokens = 64;
/// Heads whose new tokens are only copied, a microsecond's work each, for which a thread more is worth waking.
static constexpr int64_t kCopiesPerThread = 16;

Error Program::append(const AppendCall &call) const {
  if (call.batch == 0)
    return Error::success();
  int64_t heads = plan.shape.kvHeads * (plan.target.executor == Executor::Cpu ? 1 : kAppendSides);
  auto launch = [&](int64_t phases, int64_t parts, const LaunchOptions &options) {
    KernelArg args[] = {
        call.keys,    call.values, call.pages,       call.table,          call.slots,       call.slotIds,    call.lens,
        call.newLens, call.given,  call.tableStride, call.sequenceStride, call.tokenStride, call.headStride, call.gives,
        phases,       parts};
    return backend->launch(Kernel::Append, args, {parts, heads, call.batch}, options);
  };
  if (call.maxNew <= kFusedTokens) {
    LaunchOptions options = call;
    if (plan.target.executor == Executor::Cpu && !quantizes(call))
      options.threads = unsigned(std::clamp<int64_t>(call.batch * plan.shape.kvHeads / kCopiesPerThread, 1,
                                                     backend->getParallelism(call.threads)));
    return launch(kAppendAll, 1, options);
  }
  // The blocks of a prefill are independent of each other, but not of what is measured before and overwritten after.
  if (Error error = launch(kAppendBegins, 1, call))
    return error;
  int64_t blocksOfWindows = std::max<int64_t>(plan.layout->sinkBlocks + plan.layout->recentBlocks, 1);
  int64_t blocks = divideCeil(call.maxNew, kv::kBlockTokens), items = call.batch * heads;
  // So many per thread, or per block of threads of attention that a GPU holds, that the last ones end together.
  int64_t each = plan.target.executor == Executor::Cpu ? 4 : 16;
  int64_t wanted = std::max<int64_t>(divideCeil(each * backend->getParallelism(call.threads), items), 1);
  if (Error error = launch(kAppendQuantizes, std::min(wanted, blocks), call))
    return error;
  return launch(kAppendFillsWindows, std::min(wanted, blocksOfWindows), call);
}

bool Program::quantizes(const AppendCall &call) const {
  kv::WindowAttr window = plan.cache.getWindow();
  for (int64_t i = 0; i < call.batch; ++i)
    if (window.getQuantizedTokens(call.lens[i]) != window.getQuantizedTokens(call.lens[i] - call.newLens[i]))
      return true;
  return false;
}

bool Program::isShort(const AttendCall &call) const {
  // Waking a worker takes as long as computing this many tokens.
  constexpr int64_t kFew = 256;
  int64_t tokens = 0;
  for (int64_t i = 0; i < call.batch && tokens <= kFew; ++i)
    tokens += call.queries * (call.lens[i] - plan.shape.getFirstReached(call.lens[i]));
  return tokens <= kFew;
}

Expected<std::shared_ptr<const float>> Backend::upload(ArrayRef<float> numbers) const {
  auto copy = std::make_shared<std::vector<float>>(numbers);
  return std::shared_ptr<const float>(copy, copy->data());
}

Error Backend::read(void *host, const void *memory, size_t bytes, void *) const {
  std::memcpy(host, memory, bytes);
  return Error::success();
}
Error Backend::write(void *memory, const void *host, size_t bytes, void *) const {
  std::memcpy(memory, host, bytes);
  return Error::success();
}
Error Backend::copy(void *target, const void *source, size_t bytes, void *) const {
  std::memcpy(target, source, bytes);
  return Error::success();
}
