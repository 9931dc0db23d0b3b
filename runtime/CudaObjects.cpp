// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What lives in a CUDA context: modules, kernels, memory, streams and events.

#include "runtime/CudaDriver.h"

#include "runtime/CudaFunctions.h"

#include "llvm/ADT/Twine.h"

#include <utility>

using namespace llvm;

namespace kvcc {
namespace {

Error fail(const Twine &text) { return createStringError(inconvertibleErrorCode(), text); }

/// Runs `call` with the context current and turns its status into an error.
template <typename Call> Error inContext(const CudaContext &context, const Twine &what, Call &&call) {
  CudaContext::Scope scope(context);
  if (Error error = scope.takeError())
    return error;
  return context.driver().check(call(context.driver().functions()), what);
}

/// For destructors. A status is ignored: either the context is dead, and with it the object, or the
/// process is ending and the driver is gone.
template <typename Call> void releaseInContext(const CudaContext &context, Call &&call) {
  CudaContext::Scope scope(context);
  if (Error error = scope.takeError())
    return consumeError(std::move(error));
  (void)call(context.driver().functions());
}

} // namespace

Expected<std::shared_ptr<CudaModule>> CudaModule::load(std::shared_ptr<CudaContext> context, StringRef image) {
  if (image.empty())
    return fail("expected a cubin or ptx, but got an empty image");
  // PTX must end in a zero byte, and a cubin must be aligned as an ELF file is; a StringRef
  // promises neither. operator new gives the alignment.
  std::string copy = image.str();

  char log[8192] = {};
  int options[] = {cuda::JIT_ERROR_LOG_BUFFER, cuda::JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void *values[] = {log, reinterpret_cast<void *>(uintptr_t(sizeof(log) - 1))};
  void *handle = nullptr;
  if (Error error = inContext(*context, "", [&](const CudaFunctions &fn) {
        return fn.moduleLoadDataEx(&handle, copy.data(), 2, options, values);
      })) {
    StringRef text = StringRef(log).rtrim();
    std::string message = toString(std::move(error));
    return fail("cannot load " + Twine(isCubin(image) ? "cubin" : "ptx") + " on '" + context->device().name + "' (" +
                context->device().architecture() + ", driver " + Twine(context->driver().version() / 1000) + "." +
                Twine(context->driver().version() % 1000 / 10) + ")" + message +
                (text.empty() ? "" : "\n" + text.str()));
  }
  return std::shared_ptr<CudaModule>(new CudaModule(std::move(context), handle));
}

CudaModule::~CudaModule() {
  releaseInContext(*owner, [&](const CudaFunctions &fn) { return fn.moduleUnload(handle); });
}

Expected<CudaKernel> CudaModule::kernel(StringRef name) const {
  CudaKernel kernel;
  kernel.module = shared_from_this();
  kernel.name = name.str();
  if (Error error = inContext(*owner, "cannot find kernel '" + name + "'", [&](const CudaFunctions &fn) {
        return fn.moduleGetFunction(&kernel.handle, handle, kernel.name.c_str());
      }))
    return std::move(error);
  using namespace cuda;
  if (Error error = inContext(*owner, "cannot load kernel '" + name + "'", [&](const CudaFunctions &fn) {
        // With lazy loading the first launch would load the code, which is neither fast nor
        // legal during capture. Older drivers load it when its attributes are read.
        if (fn.funcLoad)
          if (int status = fn.funcLoad(kernel.handle))
            return status;
        const std::pair<int *, int> wanted[] = {{&kernel.registerCount, FUNC_ATTRIBUTE_NUM_REGS},
                                                {&kernel.localByteCount, FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES},
                                                {&kernel.sharedByteCount, FUNC_ATTRIBUTE_SHARED_SIZE_BYTES},
                                                {&kernel.maxThreads, FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK}};
        for (auto [value, attribute] : wanted)
          if (int status = fn.funcGetAttribute(value, attribute, kernel.handle))
            return status;
        return 0;
      }))
    return std::move(error);
  return kernel;
}

Error CudaKernel::setMaxDynamicShared(unsigned bytes) {
  int limit = module->context().device().maxSharedBytesPerBlock;
  if (uint64_t(bytes) + sharedByteCount > uint64_t(limit))
    return fail("expected kernel '" + name + "' to use at most " + Twine(limit) +
                " bytes of shared memory per block on '" + module->context().device().name + "', but got " +
                Twine(bytes) + " dynamic and " + Twine(sharedByteCount) + " static bytes");
  return inContext(module->context(), "cannot set the shared memory of kernel '" + name + "'",
                   [&](const CudaFunctions &fn) {
                     return fn.funcSetAttribute(handle, cuda::FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, int(bytes));
                   });
}

Expected<int> CudaKernel::getResidentBlocks(unsigned threads, unsigned dynamicSharedBytes) const {
  int blocks = 0;
  if (Error error = inContext(
          module->context(), "cannot ask how many blocks of kernel '" + name + "' fit",
          [&](const CudaFunctions &fn) { return fn.occupancy(&blocks, handle, int(threads), dynamicSharedBytes); }))
    return std::move(error);
  if (blocks < 1)
    return fail("expected a block of kernel '" + name + "' that fits '" + module->context().device().name +
                "', but got " + Twine(threads) + " threads of " + Twine(registerCount) + " registers with " +
                Twine(dynamicSharedBytes) + " bytes of dynamic shared memory");
  return blocks;
}

Error CudaKernel::launch(const CudaLaunch &launch, ArrayRef<void *> arguments) const {
  const CudaContext &context = module->context();
  CudaContext::Scope scope(context);
  if (Error error = scope.takeError())
    return error;
  const CudaFunctions &fn = context.driver().functions();
  auto **parameters = const_cast<void **>(arguments.data());
  int status;
  if (launch.overlaps && context.driver().overlapsLaunches()) {
    CudaLaunchAttribute attribute{cuda::LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, 0, {1}};
    CudaLaunchConfig config{{launch.grid[0], launch.grid[1], launch.grid[2]},
                            {launch.block[0], launch.block[1], launch.block[2]},
                            launch.dynamicSharedBytes,
                            launch.stream,
                            &attribute,
                            1};
    status = fn.launchKernelEx(&config, handle, parameters, nullptr);
  } else {
    status = fn.launchKernel(handle, launch.grid[0], launch.grid[1], launch.grid[2], launch.block[0], launch.block[1],
                             launch.block[2], launch.dynamicSharedBytes, launch.stream, parameters, nullptr);
  }
  if (LLVM_LIKELY(status == 0))
    return Error::success();
  auto triple = [](const std::array<unsigned, 3> &v) {
    return std::to_string(v[0]) + "x" + std::to_string(v[1]) + "x" + std::to_string(v[2]);
  };
  return context.driver().check(status, "cannot launch kernel '" + name + "' with grid " + triple(launch.grid) +
                                            ", block " + triple(launch.block) + " and " +
                                            Twine(launch.dynamicSharedBytes) + " bytes of dynamic shared memory");
}

Expected<DeviceBuffer> DeviceBuffer::allocate(std::shared_ptr<CudaContext> context, size_t bytes) {
  DeviceBuffer buffer;
  buffer.context = std::move(context);
  buffer.bytes = bytes;
  if (bytes == 0) // which the driver refuses
    return buffer;
  if (Error error = inContext(*buffer.context, "cannot allocate " + Twine(bytes) + " device bytes",
                              [&](const CudaFunctions &fn) { return fn.memAlloc(&buffer.address, bytes); }))
    return std::move(error);
  return buffer;
}

DeviceBuffer::DeviceBuffer(DeviceBuffer &&other) noexcept
    : context(std::move(other.context)), address(std::exchange(other.address, 0)),
      bytes(std::exchange(other.bytes, 0)) {}

DeviceBuffer &DeviceBuffer::operator=(DeviceBuffer &&other) noexcept {
  if (this != &other) {
    release();
    context = std::move(other.context);
    address = std::exchange(other.address, 0);
    bytes = std::exchange(other.bytes, 0);
  }
  return *this;
}

DeviceBuffer::~DeviceBuffer() { release(); }

void DeviceBuffer::release() {
  if (address)
    releaseInContext(*context, [&](const CudaFunctions &fn) { return fn.memFree(address); });
  address = 0;
  bytes = 0;
}

Error DeviceBuffer::checkRange(size_t count, size_t offset) const {
  if (offset <= bytes && count <= bytes - offset)
    return Error::success();
  return fail("expected a range inside " + Twine(bytes) + " device bytes, but got " + Twine(count) +
              " bytes at offset " + Twine(offset));
}

Error DeviceBuffer::upload(const void *source, size_t count, size_t offset) {
  if (Error error = checkRange(count, offset))
    return error;
  if (count == 0)
    return Error::success();
  // From pageable memory, the copy itself may be done after the call, and streams that do not block do not wait for it.
  return inContext(*context, "cannot copy to the device", [&](const CudaFunctions &fn) {
    int status = fn.memcpyHtoD(address + offset, source, count);
    return status ? status : fn.streamSynchronize(nullptr);
  });
}

Error DeviceBuffer::download(void *target, size_t count, size_t offset) const {
  if (Error error = checkRange(count, offset))
    return error;
  if (count == 0)
    return Error::success();
  return inContext(*context, "cannot copy from the device",
                   [&](const CudaFunctions &fn) { return fn.memcpyDtoH(target, address + offset, count); });
}

Error DeviceBuffer::uploadAsync(const void *source, size_t count, CudaStreamHandle stream, size_t offset) {
  if (Error error = checkRange(count, offset))
    return error;
  if (count == 0)
    return Error::success();
  return inContext(*context, "cannot copy to the device", [&](const CudaFunctions &fn) {
    return fn.memcpyHtoDAsync(address + offset, source, count, stream);
  });
}

Error DeviceBuffer::downloadAsync(void *target, size_t count, CudaStreamHandle stream, size_t offset) const {
  if (Error error = checkRange(count, offset))
    return error;
  if (count == 0)
    return Error::success();
  return inContext(*context, "cannot copy from the device", [&](const CudaFunctions &fn) {
    return fn.memcpyDtoHAsync(target, address + offset, count, stream);
  });
}

Error DeviceBuffer::fillAsync(uint8_t value, CudaStreamHandle stream) {
  if (bytes == 0)
    return Error::success();
  return inContext(*context, "cannot fill device memory",
                   [&](const CudaFunctions &fn) { return fn.memsetD8Async(address, value, bytes, stream); });
}

Expected<CudaStream> CudaStream::create(std::shared_ptr<CudaContext> context) {
  CudaStream result;
  result.context = std::move(context);
  if (Error error = inContext(*result.context, "cannot create a stream", [&](const CudaFunctions &fn) {
        return fn.streamCreate(&result.stream, cuda::STREAM_NON_BLOCKING);
      }))
    return std::move(error);
  return std::move(result);
}

CudaStream::CudaStream(CudaStream &&other) noexcept
    : context(std::move(other.context)), stream(std::exchange(other.stream, nullptr)) {}

CudaStream::~CudaStream() {
  if (stream)
    releaseInContext(*context, [&](const CudaFunctions &fn) { return fn.streamDestroy(stream); });
}

Expected<CudaEvent> CudaEvent::create(std::shared_ptr<CudaContext> context) {
  CudaEvent result;
  result.context = std::move(context);
  if (Error error = inContext(*result.context, "cannot create an event", [&](const CudaFunctions &fn) {
        return fn.eventCreate(&result.event, cuda::EVENT_DEFAULT);
      }))
    return std::move(error);
  return std::move(result);
}

CudaEvent::CudaEvent(CudaEvent &&other) noexcept
    : context(std::move(other.context)), event(std::exchange(other.event, nullptr)) {}

CudaEvent::~CudaEvent() {
  if (event)
    releaseInContext(*context, [&](const CudaFunctions &fn) { return fn.eventDestroy(event); });
}

Error CudaEvent::record(CudaStreamHandle stream) {
  return inContext(*context, "cannot record an event",
                   [&](const CudaFunctions &fn) { return fn.eventRecord(event, stream); });
}

Error CudaEvent::synchronize() const {
  return inContext(*context, "cuda work failed", [&](const CudaFunctions &fn) { return fn.eventSynchronize(event); });
}

Expected<float> CudaEvent::millisecondsSince(const CudaEvent &start) const {
  if (Error error = synchronize())
    return std::move(error);
  float milliseconds = 0;
  if (Error error = inContext(*context, "cannot read elapsed time", [&](const CudaFunctions &fn) {
        return fn.eventElapsedTime(&milliseconds, start.event, event);
      }))
    return std::move(error);
  return milliseconds;
}

} // namespace kvcc
