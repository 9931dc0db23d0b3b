// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The three places where kernels run: a thread pool, the CUDA emulator, a GPU.
#include "runtime/Program.h"

#include "runtime/CudaDriver.h"
#include "runtime/CudaHost.h"
#include "runtime/ErrorKind.h"

using namespace llvm;
using namespace kvcc;

/// Threads of a block in every CUDA kernel: one warp per work item.
static constexpr unsigned kWarp = 32;

namespace {

/// What MLIR's C interface passes for memref<?xT>.
struct MemRef {
  void *allocated, *aligned;
  int64_t offset = 0, size = std::numeric_limits<int64_t>::max(), stride = 1;
  explicit MemRef(KernelArg arg) : allocated(reinterpret_cast<void *>(uintptr_t(arg.value))), aligned(allocated) {}
};

using AttendFunction = void(MemRef *, MemRef *, MemRef *, MemRef *, MemRef *, MemRef *, MemRef *, MemRef *, int64_t,
                            int64_t, int64_t, int64_t, int64_t, int64_t);
using MergeFunction = void(MemRef *, MemRef *, MemRef *, MemRef *, int64_t, int64_t, int64_t);

class CpuBackend : public Backend {
public:
  CpuBackend(std::unique_ptr<cpu::LoadedObject> object, AttendFunction *attendFunction, MergeFunction *mergeFunction,
             ThreadPool &pool)
      : object(std::move(object)), attendFunction(attendFunction), mergeFunction(mergeFunction), pool(pool) {}

  Error attend(ArrayRef<KernelArg> args, std::array<int64_t, 3> grid, const AttendCall &call) override {
    MemRef m[] = {MemRef(args[0]), MemRef(args[1]), MemRef(args[2]), MemRef(args[3]),
                  MemRef(args[4]), MemRef(args[5]), MemRef(args[6]), MemRef(args[7])};
    auto index = [&](size_t i) { return int64_t(args[i].value); };
    pool.run(grid[0] * grid[1] * grid[2], isShort(call) ? 1 : call.threads, [&](int64_t item) {
      attendFunction(&m[0], &m[1], &m[2], &m[3], &m[4], &m[5], &m[6], &m[7], index(8), index(9), index(10),
                     item % grid[0], item / grid[0] % grid[1], item / grid[0] / grid[1]);
    });
    return Error::success();
  }

  Error merge(ArrayRef<KernelArg> args, int64_t rows, const AttendCall &call) override {
    MemRef m[] = {MemRef(args[0]), MemRef(args[1]), MemRef(args[2]), MemRef(args[3])};
    for (int64_t row = 0; row < rows; ++row)
      mergeFunction(&m[0], &m[1], &m[2], &m[3], int64_t(args[4].value), int64_t(args[5].value), row);
    return Error::success();
  }

  int64_t getParallelism(unsigned threads) const override {
    return threads ? std::min(threads, pool.size()) : pool.size();
  }

private:
  /// Waking a worker takes as long as computing this many tokens.
  static bool isShort(const AttendCall &call) {
    constexpr int64_t kFew = 256;
    int64_t tokens = 0;
    for (int64_t i = 0; i < call.batch && tokens <= kFew; ++i)
      tokens += call.lens[i];
    return tokens <= kFew;
  }

  std::unique_ptr<cpu::LoadedObject> object;
  AttendFunction *attendFunction;
  MergeFunction *mergeFunction;
  ThreadPool &pool;
};

/// Pointers to the values, as cuLaunchKernel wants them.
SmallVector<void *, 16> pointersTo(ArrayRef<KernelArg> args) {
  SmallVector<void *, 16> pointers;
  for (const KernelArg &arg : args)
    pointers.push_back(const_cast<uint64_t *>(&arg.value));
  return pointers;
}

class CudaHostBackend : public Backend {
public:
  explicit CudaHostBackend(std::unique_ptr<CudaHostModule> module) : module(std::move(module)) {}

  Error attend(ArrayRef<KernelArg> args, std::array<int64_t, 3> grid, const AttendCall &call) override {
    auto pointers = pointersTo(args);
    return module->launch(kAttendName, {uint32_t(grid[0]), uint32_t(grid[1]), uint32_t(grid[2])}, kWarp, pointers,
                          call.seed);
  }
  Error merge(ArrayRef<KernelArg> args, int64_t rows, const AttendCall &call) override {
    auto pointers = pointersTo(args);
    return module->launch(kMergeName, {uint32_t(rows), 1, 1}, kWarp, pointers, call.seed);
  }
  int64_t getParallelism(unsigned) const override { return 4; }

private:
  std::unique_ptr<CudaHostModule> module;
};

class CudaBackend : public Backend {
public:
  CudaBackend(CudaKernel attendKernel, CudaKernel mergeKernel, int multiprocessors)
      : attendKernel(std::move(attendKernel)), mergeKernel(std::move(mergeKernel)), multiprocessors(multiprocessors) {}

  Error attend(ArrayRef<KernelArg> args, std::array<int64_t, 3> grid, const AttendCall &call) override {
    return launch(attendKernel, args, grid, call);
  }
  Error merge(ArrayRef<KernelArg> args, int64_t rows, const AttendCall &call) override {
    return launch(mergeKernel, args, {rows, 1, 1}, call);
  }
  /// One-warp blocks: eight of them per multiprocessor hide the latency of loads.
  int64_t getParallelism(unsigned) const override { return 8 * int64_t(multiprocessors); }

private:
  static Error launch(const CudaKernel &kernel, ArrayRef<KernelArg> args, std::array<int64_t, 3> grid,
                      const AttendCall &call) {
    CudaLaunch shape;
    for (size_t i = 0; i < 3; ++i)
      shape.grid[i] = unsigned(grid[i]);
    shape.block = {kWarp, 1, 1};
    shape.stream = call.stream;
    auto pointers = pointersTo(args);
    return kernel.launch(shape, pointers);
  }
  CudaKernel attendKernel, mergeKernel;
  int multiprocessors;
};

} // namespace

Expected<std::unique_ptr<Backend>> kvcc::loadCpuBackend(StringRef bytes, ThreadPool &pool) {
  auto object = cpu::LoadedObject::load(MemoryBuffer::getMemBuffer(bytes, "kvcc", /*RequiresNullTerminator=*/false));
  if (!object)
    return object.takeError();
  auto attend = (*object)->lookup(("_mlir_ciface_" + kAttendName).str());
  if (!attend)
    return attend.takeError();
  auto merge = (*object)->lookup(("_mlir_ciface_" + kMergeName).str());
  if (!merge)
    return merge.takeError();
  return std::make_unique<CpuBackend>(std::move(*object), reinterpret_cast<AttendFunction *>(*attend),
                                      reinterpret_cast<MergeFunction *>(*merge), pool);
}

Expected<std::unique_ptr<Backend>> kvcc::loadCudaHostBackend(StringRef bytes) {
  std::string names[] = {kAttendName.str(), kMergeName.str()};
  auto module = CudaHostModule::loadObject(bytes, names);
  if (!module)
    return module.takeError();
  return std::make_unique<CudaHostBackend>(std::move(*module));
}

Expected<std::unique_ptr<Backend>> kvcc::loadCudaBackend(StringRef image, const Target &target) {
  auto driver = CudaDriver::load();
  if (!driver)
    return withKind(ErrorKind::Unavailable, driver.takeError());
  auto context = CudaContext::retain(*driver, 0);
  if (!context)
    return context.takeError();
  auto module = CudaModule::load(*context, image);
  if (!module)
    return module.takeError();
  auto attend = (*module)->kernel(kAttendName);
  if (!attend)
    return attend.takeError();
  auto merge = (*module)->kernel(kMergeName);
  if (!merge)
    return merge.takeError();
  return std::make_unique<CudaBackend>(std::move(*attend), std::move(*merge), (*context)->device().multiprocessors);
}
