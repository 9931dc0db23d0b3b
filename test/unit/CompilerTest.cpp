// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Kernels compiled side by side: the same bytes as one after the other, and all of a model's at load.

#include "runtime/ModelProgram.h"
#include "test/unit/TestPaths.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"

#include "gtest/gtest.h"

#include <atomic>
#include <fstream>
#include <thread>

using namespace kvcc;

namespace {

CacheOptions noCache() {
  CacheOptions options;
  options.mode = CacheMode::Off;
  options.maxMemoryBytes = 0;
  return options;
}

TEST(CompilerTest, SideBySideGivesTheSameBytes) {
  Compiler compiler(noCache());
  std::vector<Plan> plans;
  for (llvm::StringRef target : {"cpu:generic", "cuda-host"})
    for (llvm::StringRef scheme : {"fp16", "int4-token", "innerq-small", "kvcc-3"})
      plans.push_back(cantFail(compiler.plan({2, 1, 32, 0.125}, "f16", scheme, cantFail(parseTarget(target)))));
  auto emit = [&](size_t i) {
    Emit form = plans[i].target.executor == Executor::Cpu ? Emit::Object : Emit::Cuda;
    return cantFail(compiler.emit(plans[i], form)).bytes->getBuffer().str();
  };
  std::vector<std::string> alone;
  for (size_t i = 0; i < plans.size(); ++i)
    alone.push_back(emit(i));
  std::atomic<unsigned> wrong{0};
  // Twice as many jobs as plans, so that equal ones meet; and plans are made meanwhile.
  ASSERT_FALSE(bool(runSideBySide(2 * plans.size(), 8, [&](size_t i) {
    (void)cantFail(compiler.plan({2, 1, 64, 0.125}, "f16", "q8_0", cantFail(parseTarget("cpu:generic"))));
    wrong += emit(i % plans.size()) != alone[i % plans.size()];
    return llvm::Error::success();
  })));
  EXPECT_EQ(wrong, 0u);
}

TEST(CompilerTest, CodeIsGeneratedWithoutLoopStrengthReduction) {
  // An option of LLVM's that another release may call otherwise; nothing else would notice.
  Compiler compiler(noCache());
  Plan plan = cantFail(compiler.plan({2, 1, 32, 0.125}, "f16", "fp16", cantFail(parseTarget("cpu:generic"))));
  auto object = compiler.emit(plan, Emit::Object);
  ASSERT_TRUE(bool(object)) << toString(object.takeError());
  llvm::cl::Option *option = llvm::cl::getRegisteredOptions().lookup("disable-lsr");
  ASSERT_TRUE(option);
  EXPECT_TRUE(static_cast<llvm::cl::opt<bool> *>(option)->getValue());
}

TEST(CompilerTest, TheFirstErrorIsReported) {
  for (unsigned threads : {1u, 4u}) {
    std::atomic<unsigned> calls{0};
    llvm::Error error = runSideBySide(6, threads, [&](size_t i) -> llvm::Error {
      ++calls;
      return i % 3 == 2 ? llvm::createStringError("item " + llvm::Twine(i)) : llvm::Error::success();
    });
    EXPECT_EQ(toString(std::move(error)), "item 2");
    EXPECT_EQ(calls, 6u);
  }
  EXPECT_FALSE(bool(runSideBySide(0, 4, [](size_t) { return llvm::createStringError("never called"); })));
}

TEST(ModelProgramTest, LoadsEveryVariant) {
  llvm::SmallString<128> folder;
  ASSERT_FALSE(llvm::sys::fs::createUniqueDirectory("kvcc-model", folder));
  std::string table = (folder + "/table.mlir").str();
  {
    std::ofstream text(table);
    const char *formats[] = {"<bf16>", "<i4, map = asym, group = 1x64, scale = f16>",
                             "<i8, map = asym, group = 1x64, scale = f16>"};
    for (int layer = 0; layer < 30; ++layer)
      text << "kv.layer " << layer << " {key = #kv.quant" << formats[layer % 3] << ", value = #kv.quant" << formats[0]
           << ", window = #kv.window<sink = 0, recent = 0, flush = 32>}\n";
  }
  CacheOptions options;
  options.directory = (folder + "/cache").str();
  options.mode = CacheMode::ReadWrite;
  ThreadPool pool(3);
  for (bool cached : {false, true}) {
    Compiler compiler(options);
    auto model = cantFail(loadModelConfig(testDir() + "/models/smollm2-135m-instruct.json"));
    auto program = ModelProgram::load(compiler, std::move(model), {table, "cpu:generic", "", {}, ""}, pool);
    ASSERT_TRUE(bool(program)) << toString(program.takeError());
    ASSERT_EQ((*program)->getVariants().size(), 3u);
    for (const auto &variant : (*program)->getVariants())
      EXPECT_EQ(variant->wasCached(), cached);
    for (size_t layer = 0; layer < 30; ++layer)
      EXPECT_EQ((*program)->getProgram(layer), (*program)->getVariants()[layer % 3].get());
    EXPECT_EQ(compiler.getCache().stat().entries, 3u) << "each kernel is one entry";
  }
  (void)llvm::sys::fs::remove_directories(folder);
}

} // namespace
