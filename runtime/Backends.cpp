// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The three places where kernels run: a thread pool, the CUDA emulator, a GPU.
#include "runtime/Program.h"

#include "passes/TargetInfo.h"
#include "runtime/CudaDriver.h"
#include "runtime/CudaHost.h"
#include "runtime/ErrorKind.h"

using namespace llvm;
using namespace kvcc;

namespace {

/// What MLIR's C interface passes for memref<?xT>.
struct MemRef {
  void *allocated, *aligned;
  int64_t offset = 0, size = std::numeric_limits<int64_t>::max(), stride = 1;
  explicit MemRef(KernelArg arg) : allocated(reinterpret_cast<void *>(uintptr_t(arg.value))), aligned(allocated) {}
};

template <typename T, size_t> using Repeated = T;
/// Calls a kernel of `memories` memrefs, and indices up to `total` arguments.
template <size_t memories, size_t total> void call(void *function, MemRef *memrefs, const int64_t *indices) {
  [&]<size_t... m, size_t... i>(std::index_sequence<m...>, std::index_sequence<i...>) {
    using Function = void(Repeated<MemRef *, m>..., Repeated<int64_t, i>...);
    reinterpret_cast<Function *>(function)(memrefs + m..., indices[i]...);
  }(std::make_index_sequence<memories>(), std::make_index_sequence<total - memories>());
}

/// What the CPU backend needs to know of a kernel's arguments.
struct KernelShape {
  StringLiteral name;
  size_t memories, arguments; ///< the item's indices included
  size_t items;               ///< of these
  void (*call)(void *function, MemRef *memrefs, const int64_t *indices);
};
/// By Kernel.
constexpr KernelShape kKernels[] = {
    {kAttendName, 11, 19, 3, call<11, 19>}, {kAppendName, 9, 19, 3, call<9, 19>}, {kMergeName, 4, 7, 1, call<4, 7>}};
const KernelShape &shapeOf(Kernel kernel) { return kKernels[size_t(kernel)]; }

class CpuBackend : public Backend {
public:
  CpuBackend(std::unique_ptr<cpu::LoadedObject> object, std::array<void *, 3> functions, ThreadPool &pool)
      : object(std::move(object)), functions(functions), pool(pool) {}

  Error launch(Kernel kernel, ArrayRef<KernelArg> args, Grid grid, const LaunchOptions &options) override {
    const KernelShape &shape = shapeOf(kernel);
    assert(args.size() + shape.items == shape.arguments && "expected the arguments of the kernel's ABI");
    SmallVector<MemRef, 9> memrefs(args.begin(), args.begin() + shape.memories);
    SmallVector<int64_t, 16> common;
    for (const KernelArg &arg : args.drop_front(shape.memories))
      common.push_back(int64_t(arg.value));
    pool.run(grid[0] * grid[1] * grid[2], options.threads, [&](int64_t item) {
      SmallVector<int64_t, 16> indices(common);
      for (size_t i = 0; i < shape.items; item /= grid[i++])
        indices.push_back(item % grid[i]);
      shape.call(functions[size_t(kernel)], memrefs.data(), indices.data());
    });
    return Error::success();
  }

  int64_t getParallelism(unsigned threads) const override {
    return threads ? std::min(threads, pool.size()) : pool.size();
  }

private:
  std::unique_ptr<cpu::LoadedObject> object;
  std::array<void *, 3> functions; ///< by Kernel
  ThreadPool &pool;
};

/// Pointers to the values, as cuLaunchKernel wants them.
SmallVector<void *, 16> pointersTo(ArrayRef<KernelArg> args) {
  SmallVector<void *, 16> pointers;
  for (const KernelArg &arg : args)
    pointers.push_back(const_cast<uint64_t *>(&arg.value));
  return pointers;
}

/// Merges take a warp.
CudaBlock blockOf(Kernel kernel, CudaBlock attend) {
  return kernel == Kernel::Attend ? attend : CudaBlock{kernel == Kernel::Append ? unsigned(kWriterThreads) : 32, 0};
}

class CudaHostBackend : public Backend {
public:
  CudaHostBackend(std::unique_ptr<CudaHostModule> module, CudaBlock attend)
      : module(std::move(module)), attend(attend) {}

  Error launch(Kernel kernel, ArrayRef<KernelArg> args, Grid grid, const LaunchOptions &options) override {
    auto pointers = pointersTo(args);
    CudaBlock block = blockOf(kernel, attend);
    return module->launch(shapeOf(kernel).name, {uint32_t(grid[0]), uint32_t(grid[1]), uint32_t(grid[2])},
                          block.threads, pointers, options.seed, block.sharedBytes);
  }
  int64_t getParallelism(unsigned) const override { return 4; }

private:
  std::unique_ptr<CudaHostModule> module;
  CudaBlock attend;
};

class CudaBackend : public Backend {
public:
  CudaBackend(std::shared_ptr<CudaContext> context, SmallVector<CudaKernel, 3> kernels, CudaBlock attend, GpuShape gpu)
      : context(std::move(context)), kernels(std::move(kernels)), attend(attend), gpu(gpu) {}

  Error launch(Kernel kernel, ArrayRef<KernelArg> args, Grid grid, const LaunchOptions &options) override {
    CudaLaunch shape;
    for (size_t i = 0; i < 3; ++i)
      shape.grid[i] = unsigned(grid[i]);
    CudaBlock block = blockOf(kernel, attend);
    shape.block = {block.threads, 1, 1};
    shape.dynamicSharedBytes = block.sharedBytes;
    shape.stream = options.stream;
    const CudaKernel &function = kernels[size_t(kernel)];
    int64_t blocks = grid[0] * grid[1] * grid[2];
    if (kernel != Kernel::Attend) {
      shape.overlaps = beginsBeside(gpu, blocks);
    } else {
      shape.overlaps = overlapsLaunches(gpu, blocks);
      shape.dynamicSharedBytes = unsigned(
          getEvenSharedBytes(gpu, blocks, block.sharedBytes, function.staticSharedBytes() + kReservedSharedBytes));
    }
    auto pointers = pointersTo(args);
    return function.launch(shape, pointers);
  }
  int64_t getParallelism(unsigned) const override { return gpu.resident * gpu.multiprocessors; }
  std::optional<GpuShape> getGpu() const override { return gpu; }

  Expected<std::shared_ptr<const float>> upload(ArrayRef<float> numbers) const override {
    auto buffer = DeviceBuffer::allocate(context, numbers.size() * sizeof(float));
    if (!buffer)
      return buffer.takeError();
    if (Error error = buffer->upload(numbers.data(), numbers.size() * sizeof(float)))
      return std::move(error);
    auto owner = std::make_shared<DeviceBuffer>(std::move(*buffer));
    return std::shared_ptr<const float>(owner, reinterpret_cast<const float *>(uintptr_t(owner->pointer())));
  }

  Error read(void *host, const void *memory, size_t bytes, void *stream) const override {
    return context->read(host, CudaPointer(uintptr_t(memory)), bytes, stream);
  }
  Error write(void *memory, const void *host, size_t bytes, void *stream) const override {
    return context->write(CudaPointer(uintptr_t(memory)), host, bytes, stream);
  }
  Error copy(void *target, const void *source, size_t bytes, void *stream) const override {
    return context->copy(CudaPointer(uintptr_t(target)), CudaPointer(uintptr_t(source)), bytes, stream);
  }

private:
  std::shared_ptr<CudaContext> context;
  SmallVector<CudaKernel, 3> kernels; ///< by Kernel
  CudaBlock attend;
  GpuShape gpu;
};

} // namespace

Expected<std::unique_ptr<Backend>> kvcc::loadCpuBackend(StringRef bytes, ThreadPool &pool) {
  auto object = cpu::LoadedObject::load(MemoryBuffer::getMemBuffer(bytes, "kvcc", /*RequiresNullTerminator=*/false));
  if (!object)
    return object.takeError();
  std::array<void *, 3> functions;
  for (auto [shape, function] : zip_equal(kKernels, functions)) {
    auto found = (*object)->lookup(("_mlir_ciface_" + shape.name).str());
    if (!found)
      return found.takeError();
    function = *found;
  }
  return std::make_unique<CpuBackend>(std::move(*object), functions, pool);
}

Expected<std::unique_ptr<Backend>> kvcc::loadCudaHostBackend(StringRef bytes, CudaBlock attend) {
  SmallVector<std::string> names;
  for (const KernelShape &shape : kKernels)
    names.push_back(shape.name.str());
  auto module = CudaHostModule::loadObject(bytes, names);
  if (!module)
    return module.takeError();
  return std::make_unique<CudaHostBackend>(std::move(*module), attend);
}

/// Whether kernels wait for those before them on their own (kv_grid_wait), and the driver can make use of it. PTX may
/// be of an older architecture than was asked for.
static bool canOverlap(StringRef image, StringRef arch, const CudaDriver &driver) {
  if (auto [before, after] = image.split(".target "); !after.empty() && !isCubin(image))
    arch = after.take_until([](char c) { return c == ',' || c == '\n'; });
  return getComputeCapability(arch) >= 90 && driver.overlapsLaunches();
}

Expected<std::unique_ptr<Backend>> kvcc::loadCudaBackend(StringRef image, const Plan &plan, CudaBlock attend) {
  auto driver = CudaDriver::load();
  if (!driver)
    return withKind(ErrorKind::Unavailable, driver.takeError());
  auto context = CudaContext::retain(*driver, 0);
  if (!context)
    return context.takeError();
  auto module = CudaModule::load(*context, image);
  if (!module)
    return module.takeError();
  SmallVector<CudaKernel, 3> kernels;
  for (const KernelShape &shape : kKernels) {
    auto kernel = (*module)->kernel(getGpuName(plan, shape.name));
    if (!kernel)
      return kernel.takeError();
    kernels.push_back(std::move(*kernel));
  }
  // Beyond 48 KiB, which the kernel's static memory is part of, a kernel has to ask: for what getEvenSharedBytes may
  // want.
  CudaKernel &kernel = kernels[size_t(Kernel::Attend)];
  const CudaDeviceInfo &device = (*context)->device();
  if (Error error = kernel.setMaxDynamicShared(
          std::max(attend.sharedBytes, unsigned(device.maxSharedBytesPerBlock - kernel.staticSharedBytes()))))
    return std::move(error);
  auto resident = kernel.getResidentBlocks(attend.threads, attend.sharedBytes);
  if (!resident)
    return resident.takeError();
  // Eight blocks of one warp hide the latency of loads.
  constexpr int kMostBlocks = 8;
  // Two transfers a clock; loads get seven eighths at best. Where the driver does not say, what the architecture's
  // usual GPU has.
  double bandwidth = 2 * device.memoryClockKHz * 1e3 * device.memoryBusBits / 8;
  if (bandwidth == 0)
    if (const TargetInfo *usual = getDefaultGpu(plan.target.arch))
      bandwidth = usual->bandwidth;
  constexpr double kReached = 0.875, kUnknown = 1e12;
  GpuShape gpu{device.multiprocessors, std::min(*resident, kMostBlocks),
               bandwidth == 0 ? kUnknown : kReached * bandwidth, canOverlap(image, plan.target.arch, **driver),
               device.sharedBytesPerMultiprocessor};
  return std::make_unique<CudaBackend>(std::move(*context), std::move(kernels), attend, gpu);
}
