// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Loading and launching, independent of where kernels run.
#include "runtime/Program.h"

#include "runtime/ErrorKind.h"
#include "llvm/Support/MathExtras.h"

using namespace llvm;
using namespace kvcc;

/// A split of fewer blocks than this costs more in merging than it wins.
static constexpr int64_t kMinBlocksPerSplit = 8;

Program::Program(Plan plan, std::unique_ptr<Backend> backend)
    : plan(std::move(plan)), layout(this->plan.cache, this->plan.schedule), backend(std::move(backend)) {}

static Expected<std::unique_ptr<Backend>> loadBackend(const Target &target, StringRef bytes, ThreadPool &pool) {
  switch (target.executor) {
  case Executor::Cpu:
    if (const CpuLevel *level = findCpuLevel(target.arch); !target.machine.emulated && !cpu::hostHas(*level))
      return withKind(ErrorKind::Unavailable,
                      createStringError("expected a target that this processor can run (cpu stands for cpu:" +
                                        cpu::getHostLevel().name + "), but got " + target.name));
    return loadCpuBackend(bytes, pool);
  case Executor::CudaHost:
    return loadCudaHostBackend(bytes);
  case Executor::CudaDevice:
    return loadCudaBackend(bytes, target);
  }
  llvm_unreachable("unknown executor");
}

Expected<std::unique_ptr<Program>> Program::load(Compiler &compiler, Plan plan, ThreadPool &pool) {
  auto artifact = compiler.emit(plan, Compiler::getExecutableForm(plan));
  if (!artifact)
    return artifact.takeError();
  auto backend = loadBackend(plan.target, artifact->bytes->getBuffer(), pool);
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

int64_t Program::chooseSplits(int64_t batch, int64_t maxTokens, unsigned threads) const {
  int64_t items = batch * (plan.shape.qHeads / plan.schedule.getHeads());
  int64_t wanted = backend->getParallelism(threads);
  // Whole items that keep every thread busy need no splitting and no merging.
  if (items == 0 || items % wanted == 0)
    return 1;
  // Else about four items per thread, so that the last ones end together.
  int64_t splits = divideCeil(4 * wanted, items);
  int64_t blocks = divideCeil(maxTokens, kv::kBlockTokens);
  return std::clamp<int64_t>(blocks / kMinBlocksPerSplit, 1, wanted == 1 ? 1 : splits);
}

size_t Program::getWorkspaceBytes(int64_t batch, int64_t splits) const {
  if (splits == 1)
    return 0;
  return size_t(splits * batch * plan.shape.qHeads * (plan.shape.headDim + 1)) * sizeof(float);
}

Error Program::attend(const AttendCall &call) const {
  if (call.batch == 0)
    return Error::success();
  bool split = call.splits > 1;
  int64_t rows = call.batch * plan.shape.qHeads;
  // Partial outputs, then their lse.
  float *out = split ? static_cast<float *>(call.workspace) : call.out;
  float *lse = split ? out + call.splits * rows * plan.shape.headDim : call.lse;
  KernelArg args[] = {call.query, call.pages, call.table,       call.slots, call.slotIds, call.lens,
                      out,        lse,        call.tableStride, call.batch, call.splits};
  int64_t tiles = plan.shape.qHeads / plan.schedule.getHeads();
  if (Error error = backend->attend(args, {tiles, call.splits, call.batch}, call))
    return error;
  if (!split)
    return Error::success();
  KernelArg mergeArgs[] = {out, lse, call.out, call.lse, rows, call.splits};
  return backend->merge(mergeArgs, rows, call);
}
