// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The CUDA driver loader against fake_libcuda.c. No GPU is needed or used.

#include "runtime/CudaDriver.h"
#include "test/unit/ScopedVariable.h"
#include "test/unit/TestPaths.h"

#include "gtest/gtest.h"

#include <cstdlib>
#include <dlfcn.h>
#include <optional>

using namespace kvcc;

namespace {

#define EXPECT_OK(expression)                                                                                          \
  do {                                                                                                                 \
    llvm::Error error_ = (expression);                                                                                 \
    EXPECT_FALSE(bool(error_)) << llvm::toString(std::move(error_));                                                   \
  } while (0)

/// The text of an error that must be there.
template <typename T> std::string errorText(llvm::Expected<T> value) {
  return value ? "no error" : llvm::toString(value.takeError());
}
std::string errorText(llvm::Error error) { return error ? llvm::toString(std::move(error)) : "no error"; }

class CudaDriverTest : public testing::Test {
protected:
  void SetUp() override {
    std::string path = fakeLibcuda();
    variable.emplace("KVCC_LIBCUDA", path.c_str());
    library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library, nullptr) << dlerror();
    call<void>("fakeCudaReset");
  }
  void TearDown() override {
    if (library) {
      EXPECT_EQ(call<int>("fakeCudaLive"), 0) << "something was not released";
      EXPECT_EQ(call<int>("fakeCudaContextDepth"), 0) << "a context was left current";
    }
  }

  template <typename Result, typename... Args> Result call(const char *name, Args... args) {
    return reinterpret_cast<Result (*)(Args...)>(dlsym(library, name))(args...);
  }
  std::string log() { return call<const char *>("fakeCudaLog"); }
  bool logged(const std::string &text) { return log().find(text) != std::string::npos; }
  void failWith(const char *symbol, int status) { call<void>("fakeCudaFail", symbol, status); }

  std::shared_ptr<CudaDriver> driver() {
    auto driver = CudaDriver::load();
    if (!driver) {
      ADD_FAILURE() << llvm::toString(driver.takeError());
      std::abort(); // nothing of the test can run
    }
    return *driver;
  }
  std::shared_ptr<CudaContext> context() { return llvm::cantFail(CudaContext::retain(driver(), 0)); }
  std::shared_ptr<CudaModule> module() { return llvm::cantFail(CudaModule::load(context(), ".version 9.0")); }

  void *library = nullptr;
  std::optional<ScopedVariable> variable;
};

TEST_F(CudaDriverTest, LoadsAndDescribesTheDevice) {
  std::vector<CudaDriverAttempt> attempts;
  auto loaded = CudaDriver::load(&attempts);
  ASSERT_TRUE(bool(loaded));
  ASSERT_EQ(attempts.size(), 1u);
  EXPECT_TRUE(attempts[0].loaded);
  EXPECT_EQ((*loaded)->version(), 13000);
  EXPECT_EQ(llvm::cantFail((*loaded)->deviceCount()), 1);
  CudaDeviceInfo info = llvm::cantFail((*loaded)->deviceInfo(0));
  EXPECT_EQ(info.name, "Fake GPU 40");
  EXPECT_EQ(info.architecture(), "sm_90");
  EXPECT_EQ(info.multiprocessors, 132);
  EXPECT_EQ(info.memoryBytes, uint64_t(80) << 30);
  EXPECT_EQ(info.maxSharedBytesPerBlock, 227 << 10);
  EXPECT_EQ(errorText((*loaded)->deviceInfo(1)), "expected a cuda device number from 0 to 0, but got 1");
}

TEST_F(CudaDriverTest, NamesWhatTheDriverSaid) {
  failWith("cuInit", 100);
  std::string text = errorText(CudaDriver::load());
  EXPECT_NE(text.find("cuInit failed: CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"), std::string::npos)
      << text;
}

TEST_F(CudaDriverTest, KeepsTheContextOfTheThread) {
  {
    auto ctx = context();
    EXPECT_OK(ctx->synchronize());
    EXPECT_EQ(call<int>("fakeCudaContextDepth"), 0);
    uint64_t freeBytes = 0, totalBytes = 0;
    EXPECT_OK(ctx->memoryInfo(freeBytes, totalBytes));
    EXPECT_EQ(freeBytes, uint64_t(70) << 30);

    // Current already: neither pushed nor popped.
    call<int>("cuCtxPushCurrent_v2", call<void *>("fakeCudaPrimaryContext"));
    call<void>("fakeCudaReset");
    EXPECT_OK(ctx->synchronize());
    EXPECT_FALSE(logged("cuCtxPushCurrent_v2"));
    EXPECT_FALSE(logged("cuCtxPopCurrent_v2"));
    void *popped;
    call<int>("cuCtxPopCurrent_v2", &popped);

    // Another one is current: restored afterwards.
    int other;
    call<int>("cuCtxPushCurrent_v2", static_cast<void *>(&other));
    EXPECT_OK(ctx->synchronize());
    call<int>("cuCtxPopCurrent_v2", &popped);
    EXPECT_EQ(popped, &other);
  }
  EXPECT_TRUE(logged("cuDevicePrimaryCtxRelease_v2"));
}

TEST_F(CudaDriverTest, LoadsModulesAndLaunches) {
  CudaKernel kernel = llvm::cantFail(module()->kernel("kernel")); // keeps its module alive
  EXPECT_TRUE(logged("cuFuncLoad"));
  EXPECT_EQ(kernel.registers(), 96);
  EXPECT_EQ(kernel.staticSharedBytes(), 512);
  EXPECT_EQ(kernel.maxThreadsPerBlock(), 1024);
  EXPECT_OK(kernel.setMaxDynamicShared(100000));
  EXPECT_TRUE(logged("cuFuncSetAttribute(8, 100000)"));
  std::string tooMuch = errorText(kernel.setMaxDynamicShared(232448));
  EXPECT_NE(tooMuch.find("at most 232448 bytes"), std::string::npos) << tooMuch;
  EXPECT_EQ(llvm::cantFail(kernel.getResidentBlocks(128, 1000)), 16);
  std::string none = errorText(kernel.getResidentBlocks(128, 210000).takeError());
  EXPECT_NE(none.find("a block of kernel 'kernel' that fits"), std::string::npos) << none;
  EXPECT_NE(none.find("128 threads of 96 registers with 210000 bytes"), std::string::npos) << none;

  int argument = 77;
  void *arguments[] = {&argument};
  CudaLaunch launch;
  launch.grid = {3, 4, 5};
  launch.block = {128, 2, 1};
  launch.dynamicSharedBytes = 4096;
  launch.stream = &argument;
  EXPECT_OK(kernel.launch(launch, arguments));
  EXPECT_TRUE(logged("cuLaunchKernel(3x4x5, 128x2x1, 4096, stream, 77, null)")) << log();

  // Programmatic stream serialization, attribute 6.
  launch.overlaps = true;
  EXPECT_OK(kernel.launch(launch, arguments));
  EXPECT_TRUE(logged("cuLaunchKernelEx(3x4x5, 128x2x1, 4096, stream, 6 = 1, 77, null)")) << log();

  launch.block = {2048, 1, 1};
  std::string text = errorText(kernel.launch(launch, arguments));
  EXPECT_NE(text.find("block 2048x1x1"), std::string::npos) << text;
  EXPECT_NE(text.find("CUDA_ERROR_INVALID_VALUE"), std::string::npos) << text;
}

TEST_F(CudaDriverTest, ModuleErrorsCarryTheLog) {
  auto ctx = context();
  std::string text = errorText(CudaModule::load(ctx, "not ptx"));
  EXPECT_NE(text.find("cannot load ptx on 'Fake GPU 40' (sm_90, driver 13.0): "
                      "CUDA_ERROR_INVALID_PTX"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("fatal: Missing .version"), std::string::npos) << text;
  EXPECT_EQ(errorText(CudaModule::load(ctx, "")), "expected a cubin or ptx, but got an empty image");
  auto cubin = CudaModule::load(ctx, llvm::StringRef("\x7f"
                                                     "ELF\0\0",
                                                     6));
  ASSERT_TRUE(bool(cubin));
  std::string missing = errorText((*cubin)->kernel("absent"));
  EXPECT_EQ(missing, "cannot find kernel 'absent': CUDA_ERROR_NOT_FOUND");
}

TEST_F(CudaDriverTest, CopiesMemory) {
  auto ctx = context();
  DeviceBuffer buffer = llvm::cantFail(DeviceBuffer::allocate(ctx, 16));
  EXPECT_NE(buffer.pointer(), 0u);
  CudaStream stream = llvm::cantFail(CudaStream::create(ctx));
  EXPECT_TRUE(logged("cuStreamCreate(non-blocking)"));
  EXPECT_OK(buffer.fillAsync(0xab, stream.handle()));
  EXPECT_OK(buffer.upload("xy", 2, 3));
  EXPECT_OK(buffer.uploadAsync("z", 1, stream.handle(), 15));
  char back[16];
  EXPECT_OK(buffer.download(back, 16));
  EXPECT_EQ(back[2], '\xab');
  EXPECT_EQ(back[3], 'x');
  EXPECT_EQ(back[4], 'y');
  EXPECT_EQ(back[15], 'z');
  char last = 0;
  EXPECT_OK(buffer.downloadAsync(&last, 1, stream.handle(), 15));
  EXPECT_OK(ctx->synchronize(stream.handle()));
  EXPECT_EQ(last, 'z');
  EXPECT_EQ(errorText(buffer.download(back, 2, 15)),
            "expected a range inside 16 device bytes, but got 2 bytes at offset 15");
  EXPECT_EQ(errorText(buffer.upload(back, size_t(-1), 1)).substr(0, 16), "expected a range");

  DeviceBuffer moved = std::move(buffer);
  EXPECT_EQ(buffer.pointer(), 0u);
  moved = llvm::cantFail(DeviceBuffer::allocate(ctx, 0));
  EXPECT_EQ(moved.pointer(), 0u);
  EXPECT_OK(moved.upload(nullptr, 0));
  failWith("cuMemAlloc_v2", 2);
  EXPECT_EQ(errorText(DeviceBuffer::allocate(ctx, 64)), "cannot allocate 64 device bytes: CUDA_ERROR_OUT_OF_MEMORY");
}

TEST_F(CudaDriverTest, MeasuresTime) {
  auto ctx = context();
  CudaEvent start = llvm::cantFail(CudaEvent::create(ctx));
  CudaEvent stop = llvm::cantFail(CudaEvent::create(ctx));
  EXPECT_OK(start.record(nullptr));
  EXPECT_OK(stop.record(nullptr));
  EXPECT_EQ(llvm::cantFail(stop.millisecondsSince(start)), 1.5f);
}

TEST_F(CudaDriverTest, ReportsUnknownStatus) {
  auto ctx = context();
  failWith("cuCtxSynchronize", 999);
  EXPECT_EQ(errorText(ctx->synchronize()), "cuda work failed: error 999");
}

TEST_F(CudaDriverTest, RefusesToPrepareDuringCapture) {
  auto ctx = context();
  failWith("cuModuleLoadDataEx", 900);
  std::string text = errorText(CudaModule::load(ctx, "image"));
  EXPECT_NE(text.find("error 900"), std::string::npos) << text;
  EXPECT_NE(text.find("while a stream is captured into a CUDA graph, expected only attention, appends and merges: "
                      "compile, allocate, copy and synchronize before the capture begins"),
            std::string::npos)
      << text;
}

TEST(CudaDriverLoadTest, MissingLibraryIsOneClearError) {
  ScopedVariable variable("KVCC_LIBCUDA", "/nonexistent/libcuda.so.1");
  std::vector<CudaDriverAttempt> attempts;
  std::string text = errorText(CudaDriver::load(&attempts));
  EXPECT_EQ(text.find("no NVIDIA driver: cannot load KVCC_LIBCUDA '/nonexistent/libcuda.so.1'; "
                      "tried /nonexistent/libcuda.so.1 ("),
            0u)
      << text;
  ASSERT_EQ(attempts.size(), 1u);
  EXPECT_FALSE(attempts[0].loaded);
}

TEST(CudaDriverLoadTest, LibraryWithoutTheFunctions) {
  ScopedVariable variable("KVCC_LIBCUDA", "libm.so.6");
  std::string text = errorText(CudaDriver::load());
  EXPECT_NE(text.find("it has no function cuInit"), std::string::npos) << text;
}

TEST(CudaDriverLoadTest, WithoutADriver) {
  ScopedVariable variable("KVCC_LIBCUDA", nullptr);
  if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL))
    GTEST_SKIP() << "this machine has an NVIDIA driver";
  std::string text = errorText(CudaDriver::load());
  EXPECT_EQ(text.find("no NVIDIA driver: libcuda.so.1 not found; tried libcuda.so.1 ("), 0u) << text;
}

} // namespace
