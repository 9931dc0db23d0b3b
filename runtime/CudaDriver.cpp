// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Finding, loading and questioning the CUDA driver, and the primary context. What lives in a
// context (modules, kernels, memory, streams, events) is in CudaObjects.cpp.

#include "runtime/CudaDriver.h"

#include "runtime/CudaFunctions.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/Process.h"

#include <dlfcn.h>

using namespace llvm;

namespace kvcc {
namespace {

Error fail(const Twine &text) { return createStringError(inconvertibleErrorCode(), text); }

} // namespace

std::string CudaDeviceInfo::architecture() const {
  return "sm_" + std::to_string(computeMajor) + std::to_string(computeMinor);
}

Expected<std::shared_ptr<CudaDriver>> CudaDriver::load(std::vector<CudaDriverAttempt> *attempts) {
  std::vector<std::string> places = {"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"};
  bool chosen = false;
  if (auto path = sys::Process::GetEnv("KVCC_LIBCUDA"); path && !path->empty()) {
    places = {*path}; // an explicit choice is not replaced silently
    chosen = true;
  }
  std::string tried;
  for (const std::string &place : places) {
    void *handle = ::dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      const char *message = ::dlerror();
      std::string outcome = message ? message : "dlopen failed";
      tried += (tried.empty() ? "" : ", ") + place + " (" + outcome + ")";
      if (attempts)
        attempts->push_back({place, outcome});
      continue;
    }
    // A library that loads but does not work is the driver: its own words are the error. It is not
    // closed, because a driver that ran cuInit does not survive that.
    Expected<std::shared_ptr<CudaDriver>> driver = bind(handle, place);
    if (driver) {
      if (attempts)
        attempts->push_back({place, "loaded", true});
      return driver;
    }
    std::string outcome = toString(driver.takeError());
    if (attempts)
      attempts->push_back({place, outcome});
    return fail("cannot use cuda driver '" + place + "': " + outcome);
  }
  return fail(
      "no NVIDIA driver: " + (chosen ? "cannot load KVCC_LIBCUDA '" + places[0] + "'" : places[0] + " not found") +
      "; tried " + tried + "; install the NVIDIA driver, or set KVCC_LIBCUDA to the full path of libcuda.so.1");
}

Expected<std::shared_ptr<CudaDriver>> CudaDriver::bind(void *handle, std::string path) {
  auto functions = std::make_shared<CudaFunctions>();
  std::string missing;
  auto resolve = [&](auto &function, const char *symbol) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(::dlsym(handle, symbol));
    return function != nullptr;
  };
#define KVCC_CUDA_RESOLVE(member, symbol, parameters)                                                                  \
  if (!resolve(functions->member, symbol) && missing.empty())                                                          \
    missing = symbol;
  KVCC_CUDA_FUNCTIONS(KVCC_CUDA_RESOLVE)
#undef KVCC_CUDA_RESOLVE
  (void)resolve(functions->funcLoad, "cuFuncLoad");
  (void)resolve(functions->launchKernelEx, "cuLaunchKernelEx");
  if (!missing.empty())
    return fail("it has no function " + missing + "; expected the driver of cuda 12.0 or newer");

  std::shared_ptr<CudaDriver> driver(new CudaDriver);
  driver->fn = functions;
  driver->libraryPath = std::move(path);
  if (Error error = driver->check(functions->init(0), "cuInit failed"))
    return std::move(error);
  if (Error error = driver->check(functions->driverGetVersion(&driver->driverVersion), "cuDriverGetVersion failed"))
    return std::move(error);
  return driver;
}

Error CudaDriver::check(int status, const Twine &what) const {
  if (status == 0)
    return Error::success();
  const char *name = nullptr, *text = nullptr;
  fn->getErrorName(status, &name);
  fn->getErrorString(status, &text);
  // CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED to CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
  bool isCapture = status >= 900 && status <= 908;
  return fail(what + ": " + (name ? StringRef(name) : "error " + std::to_string(status)) +
              (text ? ": " + StringRef(text).str() : std::string()) +
              (isCapture
                   ? "; while a stream is captured into a CUDA graph, expected only attention, appends and merges: "
                     "compile, allocate, copy and synchronize before the capture begins"
                   : ""));
}

bool CudaDriver::overlapsLaunches() const {
  // Since this version, such launches can be captured into graphs.
  constexpr int kOverlapsInGraphs = 12030;
  return fn->launchKernelEx && driverVersion >= kOverlapsInGraphs;
}

Expected<int> CudaDriver::deviceCount() const {
  int count = 0;
  if (Error error = check(fn->deviceGetCount(&count), "cannot count cuda devices"))
    return std::move(error);
  return count;
}

Expected<CudaDeviceInfo> CudaDriver::deviceInfo(int ordinal) const {
  Expected<int> count = deviceCount();
  if (!count)
    return count.takeError();
  if (*count == 0)
    return fail("expected a cuda device, but got none; see nvidia-smi and CUDA_VISIBLE_DEVICES");
  if (ordinal < 0 || ordinal >= *count)
    return fail("expected a cuda device number from 0 to " + Twine(*count - 1) + ", but got " + Twine(ordinal));

  CudaDeviceInfo info;
  info.ordinal = ordinal;
  int device = 0;
  auto what = [&](const char *property) {
    return "cannot read " + std::string(property) + " of cuda device " + std::to_string(ordinal);
  };
  if (Error error = check(fn->deviceGet(&device, ordinal), what("the handle")))
    return std::move(error);
  char name[256] = {};
  if (Error error = check(fn->deviceGetName(name, sizeof(name) - 1, device), what("the name")))
    return std::move(error);
  info.name = name;
  size_t bytes = 0;
  if (Error error = check(fn->deviceTotalMem(&bytes, device), what("the memory size")))
    return std::move(error);
  info.memoryBytes = bytes;

  using namespace cuda;
  const std::pair<int *, int> needed[] = {
      {&info.computeMajor, DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR},
      {&info.computeMinor, DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR},
      {&info.multiprocessors, DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT},
      {&info.maxSharedBytesPerBlock, DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN},
      {&info.sharedBytesPerMultiprocessor, DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR},
      {&info.l2Bytes, DEVICE_ATTRIBUTE_L2_CACHE_SIZE}};
  for (auto [value, attribute] : needed)
    if (Error error = check(fn->deviceGetAttribute(value, attribute, device), what("an attribute")))
      return std::move(error);
  // Informative only, and refused by some virtualized devices.
  if (fn->deviceGetAttribute(&info.memoryClockKHz, DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, device) != 0)
    info.memoryClockKHz = 0;
  if (fn->deviceGetAttribute(&info.memoryBusBits, DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, device) != 0)
    info.memoryBusBits = 0;
  return info;
}

Expected<std::shared_ptr<CudaContext>> CudaContext::retain(std::shared_ptr<CudaDriver> driver, int ordinal) {
  Expected<CudaDeviceInfo> info = driver->deviceInfo(ordinal);
  if (!info)
    return info.takeError();
  const CudaFunctions &fn = driver->functions();
  std::string what = "cannot open the primary context of cuda device " + std::to_string(ordinal);
  int device = 0;
  if (Error error = driver->check(fn.deviceGet(&device, ordinal), what))
    return std::move(error);
  void *handle = nullptr;
  if (Error error = driver->check(fn.primaryCtxRetain(&handle, device), what))
    return std::move(error);
  return std::shared_ptr<CudaContext>(new CudaContext(std::move(driver), std::move(*info), device, handle));
}

CudaContext::~CudaContext() {
  // At the end of a process the driver may be gone already and say so; nothing is left to do then.
  (void)owner->functions().primaryCtxRelease(device_);
}

Error CudaContext::synchronize() const {
  Scope scope(*this);
  if (Error error = scope.takeError())
    return error;
  return owner->check(owner->functions().ctxSynchronize(), "cuda work failed");
}

Error CudaContext::synchronize(CudaStreamHandle stream) const {
  Scope scope(*this);
  if (Error error = scope.takeError())
    return error;
  return owner->check(owner->functions().streamSynchronize(stream), "cuda work failed");
}

Error CudaContext::read(void *host, CudaPointer source, size_t bytes, CudaStreamHandle stream) const {
  Scope scope(*this);
  if (Error error = scope.takeError())
    return error;
  if (Error error =
          owner->check(owner->functions().memcpyDtoHAsync(host, source, bytes, stream), "cannot copy from the device"))
    return error;
  return owner->check(owner->functions().streamSynchronize(stream), "cuda work failed");
}

Error CudaContext::write(CudaPointer target, const void *host, size_t bytes, CudaStreamHandle stream) const {
  Scope scope(*this);
  if (Error error = scope.takeError())
    return error;
  if (Error error =
          owner->check(owner->functions().memcpyHtoDAsync(target, host, bytes, stream), "cannot copy to the device"))
    return error;
  return owner->check(owner->functions().streamSynchronize(stream), "cuda work failed");
}

Error CudaContext::copy(CudaPointer target, CudaPointer source, size_t bytes, CudaStreamHandle stream) const {
  Scope scope(*this);
  if (Error error = scope.takeError())
    return error;
  return owner->check(owner->functions().memcpyDtoDAsync(target, source, bytes, stream), "cannot copy on the device");
}

Error CudaContext::memoryInfo(uint64_t &freeBytes, uint64_t &totalBytes) const {
  Scope scope(*this);
  if (Error error = scope.takeError())
    return error;
  size_t available = 0, total = 0;
  Error error = owner->check(owner->functions().memGetInfo(&available, &total), "cannot read memory sizes");
  freeBytes = available;
  totalBytes = total;
  return error;
}

CudaContext::Scope::Scope(const CudaContext &context) : context(context) {
  const CudaFunctions &fn = context.owner->functions();
  void *current = nullptr;
  status = fn.ctxGetCurrent(&current);
  if (status == 0 && current != context.handle) {
    status = fn.ctxPushCurrent(context.handle);
    pushed = status == 0;
  }
}

CudaContext::Scope::~Scope() {
  void *popped = nullptr;
  if (pushed)
    (void)context.owner->functions().ctxPopCurrent(&popped);
}

Error CudaContext::Scope::takeError() { return context.owner->check(status, "cannot make the cuda context current"); }

} // namespace kvcc
