// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Finding NVRTC and compiling with it. Tests that need the library are skipped without one.

#include "runtime/Nvrtc.h"
#include "test/unit/ScopedVariable.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/Support/FileSystem.h"

#include "gtest/gtest.h"

#include <thread>

using namespace kvcc;

namespace {

constexpr const char *kKernel = R"(
extern "C" __global__ void twice(float *x, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = 2.0f * x[i];
}
)";

template <typename T> std::string errorText(llvm::Expected<T> value) {
  return value ? "no error" : llvm::toString(value.takeError());
}

// First of all tests: once the library is loaded, the loader finds it by its name.
TEST(NvrtcSearchTest, FailureListsEveryPlace) {
  ScopedVariable a("KVCC_NVRTC", nullptr), b("CUDA_HOME", "/nonexistent/home"), c("CUDA_PATH", "/nonexistent/path"),
      d("VIRTUAL_ENV", "/nonexistent/venv"), e("CONDA_PREFIX", "/nonexistent/conda"),
      f("KVCC_PYTHON_ENV", "/nonexistent/own");
  NvrtcReport report;
  auto loaded = Nvrtc::load({"/nonexistent/extra"}, &report);
  if (loaded)
    GTEST_SKIP() << "this machine has NVRTC at " << (*loaded)->path();
  std::string text = llvm::toString(loaded.takeError());
  for (const char *place : {"/nonexistent/home/lib64 (CUDA_HOME)", "/nonexistent/path/lib64 (CUDA_PATH)",
                            "/usr/local/cuda/lib64 (default toolkit)", "libnvrtc.so.13 (loader path)",
                            "/nonexistent/venv/lib/python* (VIRTUAL_ENV)", "/nonexistent/conda/lib (CONDA_PREFIX)",
                            "/nonexistent/own/lib/python* (KVCC_PYTHON_ENV)", "/nonexistent/extra (extra directory)"})
    EXPECT_NE(text.find(place), std::string::npos) << place << " is not in\n" << text;
}

TEST(NvrtcSearchTest, BadExplicitPathIsAnError) {
  ScopedVariable variable("KVCC_NVRTC", "/nonexistent/libnvrtc.so.13");
  NvrtcReport report;
  std::string text = errorText(Nvrtc::load({}, &report));
  EXPECT_NE(text.find("/nonexistent/libnvrtc.so.13 (KVCC_NVRTC): not found"), std::string::npos) << text;
  EXPECT_NE(text.find("pip install nvidia-cuda-nvrtc==13.0.88"), std::string::npos) << text;
  EXPECT_EQ(report.attempts.size(), 1u) << "an explicit choice must not be replaced silently";
  EXPECT_EQ(report.path, "");
}

TEST(NvrtcSearchTest, OtherLibraryIsRefused) {
  ScopedVariable variable("KVCC_NVRTC", "libm.so.6");
  std::string text = errorText(Nvrtc::load());
  EXPECT_NE(text.find("it has no function nvrtcGetErrorString"), std::string::npos) << text;
}

class NvrtcTest : public testing::Test {
protected:
  void SetUp() override {
    auto loaded = Nvrtc::load();
    if (!loaded) {
      llvm::consumeError(loaded.takeError());
      GTEST_SKIP() << "this machine has no NVRTC";
    }
    nvrtc = *loaded;
  }
  std::shared_ptr<Nvrtc> nvrtc;
};

TEST_F(NvrtcTest, IdentifiesItself) {
  EXPECT_GE(nvrtc->major(), 12);
  EXPECT_EQ(nvrtc->version(), std::to_string(nvrtc->major()) + "." + std::to_string(nvrtc->minor()));
  EXPECT_EQ(nvrtc->identity().find("nvrtc " + nvrtc->version() + " "), 0u) << nvrtc->identity();
  EXPECT_EQ(nvrtc->identity().find('/'), std::string::npos) << "a key must hold no path";
  EXPECT_EQ(nvrtc->identity().find("unknown"), std::string::npos);
  EXPECT_TRUE(llvm::sys::fs::exists(nvrtc->path())) << nvrtc->path();
  EXPECT_FALSE(nvrtc->supportedArchs().empty());
}

TEST_F(NvrtcTest, CompilesForEveryArchitecture) {
  for (int arch : nvrtc->supportedArchs()) {
    std::string name = "sm_" + std::to_string(arch);
    auto kernel = nvrtc->compile(kKernel, "twice.cu", name);
    ASSERT_TRUE(bool(kernel)) << llvm::toString(kernel.takeError());
    EXPECT_EQ(kernel->architecture, name);
    EXPECT_EQ(kernel->cubin.substr(0, 4), "\x7f"
                                          "ELF")
        << name;
    EXPECT_NE(kernel->ptx.find(".target " + name), std::string::npos) << name;
    EXPECT_NE(kernel->ptx.find(".entry twice"), std::string::npos);
    EXPECT_EQ(kernel->ptx.find('\0'), std::string::npos);
    EXPECT_EQ(kernel->fallbackNote, "");
    EXPECT_EQ(kernel->log, "");
  }
}

TEST_F(NvrtcTest, PtxOnly) {
  auto kernel = nvrtc->compile(kKernel, "twice.cu", "sm_90", {}, /*wantCubin=*/false);
  ASSERT_TRUE(bool(kernel)) << llvm::toString(kernel.takeError());
  EXPECT_EQ(kernel->architecture, "compute_90");
  EXPECT_TRUE(kernel->cubin.empty());
  EXPECT_NE(kernel->ptx.find(".entry twice"), std::string::npos);
}

TEST_F(NvrtcTest, ArchitectureSpecificFeatures) {
  auto kernel = nvrtc->compile(kKernel, "twice.cu", "sm_90a");
  ASSERT_TRUE(bool(kernel)) << llvm::toString(kernel.takeError());
  EXPECT_EQ(kernel->architecture, "sm_90a");
  EXPECT_NE(kernel->ptx.find(".target sm_90a"), std::string::npos);
}

TEST_F(NvrtcTest, OptionsReachTheCompiler) {
  const char *source = "extern \"C\" __global__ void k(int *x) { *x = VALUE; }";
  auto kernel = nvrtc->compile(source, "k.cu", "sm_80", {"-DVALUE=1234"}, false);
  ASSERT_TRUE(bool(kernel)) << llvm::toString(kernel.takeError());
  EXPECT_NE(kernel->ptx.find("1234"), std::string::npos);
  for (const char *option : {"--gpu-architecture=sm_90", "-arch=sm_90", "-arch"}) {
    std::string text = errorText(nvrtc->compile(source, "k.cu", "sm_80", {option}));
    EXPECT_EQ(text, std::string("expected options without an architecture, but got '") + option + "'");
  }
}

TEST_F(NvrtcTest, NewerArchitectureGetsPtx) {
  int newest = nvrtc->supportedArchs().back();
  auto kernel = nvrtc->compile(kKernel, "twice.cu", "sm_990");
  ASSERT_TRUE(bool(kernel)) << llvm::toString(kernel.takeError());
  EXPECT_EQ(kernel->architecture, "compute_" + std::to_string(newest));
  EXPECT_TRUE(kernel->cubin.empty());
  EXPECT_NE(kernel->ptx.find(".target sm_" + std::to_string(newest)), std::string::npos);
  EXPECT_NE(kernel->fallbackNote.find("does not know 'sm_990'"), std::string::npos) << kernel->fallbackNote;
}

TEST_F(NvrtcTest, ArchitectureBetweenKnownOnesGetsPtxOfTheLowerOne) {
  auto kernel = nvrtc->compile(kKernel, "twice.cu", "sm_91");
  ASSERT_TRUE(bool(kernel)) << llvm::toString(kernel.takeError());
  EXPECT_EQ(kernel->architecture, "compute_90");
  EXPECT_NE(kernel->fallbackNote, "");
}

TEST_F(NvrtcTest, RefusesOldAndMalformedArchitectures) {
  std::string old = errorText(nvrtc->compile(kKernel, "twice.cu", "sm_20"));
  EXPECT_NE(old.find("'sm_20'"), std::string::npos) << old;
  EXPECT_NE(old.find(nvrtc->supportedArchNames()), std::string::npos) << old;
  for (const char *arch : {"", "sm_", "sm_9", "sm_9x", "sm_90b", "sm_90aa", "sm_090", "sm_99999", "SM_90", "90",
                           "compute_90", "gfx942", "sm_-90", "sm_+90", "sm_a"}) {
    std::string text = errorText(nvrtc->compile(kKernel, "twice.cu", arch));
    EXPECT_NE(text.find("but got '" + std::string(arch) + "'"), std::string::npos) << text;
    EXPECT_NE(text.find(nvrtc->supportedArchNames()), std::string::npos) << text;
  }
}

TEST_F(NvrtcTest, BadSourceCarriesTheLog) {
  std::string text = errorText(nvrtc->compile("__global__ void k() { undeclared_thing = 1; }", "broken.cu", "sm_90"));
  EXPECT_NE(text.find("cannot compile 'broken.cu' for sm_90: NVRTC_ERROR_COMPILATION"), std::string::npos) << text;
  EXPECT_NE(text.find("undeclared_thing"), std::string::npos) << text;
}

TEST_F(NvrtcTest, WarningsAreInTheLog) {
  auto kernel = nvrtc->compile("extern \"C\" __global__ void k() { int unused_thing = 1; }", "warn.cu", "sm_90");
  ASSERT_TRUE(bool(kernel)) << llvm::toString(kernel.takeError());
  EXPECT_NE(kernel->log.find("unused_thing"), std::string::npos) << kernel->log;
}

TEST_F(NvrtcTest, SameBytesEveryTimeAndInEveryThread) {
  auto first = nvrtc->compile(kKernel, "twice.cu", "sm_90");
  ASSERT_TRUE(bool(first)) << llvm::toString(first.takeError());
  std::vector<std::string> cubins(4), ptx(4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      auto again = nvrtc->compile(kKernel, "twice.cu", "sm_90");
      if (!again)
        return llvm::consumeError(again.takeError());
      cubins[t] = again->cubin;
      ptx[t] = again->ptx;
    });
  for (std::thread &thread : threads)
    thread.join();
  for (int t = 0; t < 4; ++t) {
    EXPECT_EQ(cubins[t], first->cubin);
    EXPECT_EQ(ptx[t], first->ptx);
  }
}

TEST_F(NvrtcTest, WorkingDirectoryDoesNotMatter) {
  llvm::SmallString<128> before;
  ASSERT_FALSE(llvm::sys::fs::current_path(before));
  std::string results[2];
  const char *places[2] = {"/", "/tmp"};
  for (int i = 0; i < 2; ++i) {
    ASSERT_FALSE(llvm::sys::fs::set_current_path(places[i]));
    auto kernel = nvrtc->compile(kKernel, "twice.cu", "sm_90", {"-lineinfo"});
    if (kernel)
      results[i] = kernel->ptx + kernel->cubin;
    else
      ADD_FAILURE() << llvm::toString(kernel.takeError());
  }
  ASSERT_FALSE(llvm::sys::fs::set_current_path(before));
  EXPECT_EQ(results[0], results[1]);
}

TEST_F(NvrtcTest, FoundThroughEveryKindOfPlace) {
  std::string path = nvrtc->path();
  {
    ScopedVariable variable("KVCC_NVRTC", path.c_str());
    NvrtcReport report;
    auto loaded = Nvrtc::load({}, &report);
    ASSERT_TRUE(bool(loaded)) << llvm::toString(loaded.takeError());
    ASSERT_EQ(report.attempts.size(), 1u);
    EXPECT_EQ(report.attempts[0].origin, "KVCC_NVRTC");
    EXPECT_TRUE(report.attempts[0].loaded);
    EXPECT_EQ(report.path, path);
    EXPECT_EQ((*loaded)->identity(), nvrtc->identity());
  }

  // A toolkit and a Python environment made of one link each.
  ScopedVariable none("KVCC_NVRTC", nullptr);
  llvm::SmallString<128> root;
  ASSERT_FALSE(llvm::sys::fs::createUniqueDirectory("kvcc-nvrtc-test", root));
  std::string name = "libnvrtc.so." + std::to_string(nvrtc->major());
  std::string toolkit = std::string(root) + "/toolkit/lib64";
  std::string site = std::string(root) + "/env/lib/python3.99/site-packages/nvidia/cuda_nvrtc/lib";
  for (const std::string &directory : {toolkit, site}) {
    ASSERT_FALSE(llvm::sys::fs::create_directories(directory));
    ASSERT_FALSE(llvm::sys::fs::create_link(path, directory + "/" + name));
  }
  std::string toolkitRoot = std::string(root) + "/toolkit", env = std::string(root) + "/env";
  {
    ScopedVariable variable("CUDA_HOME", toolkitRoot.c_str());
    NvrtcReport report;
    auto loaded = Nvrtc::load({}, &report);
    ASSERT_TRUE(bool(loaded)) << llvm::toString(loaded.takeError());
    EXPECT_EQ(report.attempts.back().origin, "CUDA_HOME");
    EXPECT_EQ(report.attempts.back().place, toolkit + "/" + name);
  }
  {
    ScopedVariable home("CUDA_HOME", nullptr), cuda("CUDA_PATH", nullptr);
    ScopedVariable conda("CONDA_PREFIX", nullptr), own("KVCC_PYTHON_ENV", nullptr);
    ScopedVariable variable("VIRTUAL_ENV", env.c_str());
    NvrtcReport report;
    auto loaded = Nvrtc::load({}, &report);
    ASSERT_TRUE(bool(loaded)) << llvm::toString(loaded.takeError());
    // A toolkit or a loader path with NVRTC on this machine comes first, as documented.
    if (report.attempts.back().origin == "VIRTUAL_ENV") {
      EXPECT_EQ(report.attempts.back().place, site + "/" + name);
    }
  }
  (void)llvm::sys::fs::remove_directories(root);
}

} // namespace
