// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The table of targets, bytes by hand and by the cache, and costs that move the way they must.
#include "passes/CostModel.h"
#include "dialect/Layout.h"
#include "mlir/AsmParser/AsmParser.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/Pass.h"
#include "mlir/Pass/PassManager.h"
#include "passes/Passes.h"
#include "test/unit/KernelTestSupport.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"
#include "gtest/gtest.h"

using namespace kvcc;
using namespace kvcc::kv;

namespace {

TEST(TargetInfoTest, EveryRowIsComplete) {
  llvm::StringSet<> names;
  llvm::StringMap<int> defaults;
  for (const TargetInfo &info : getGpuTargets()) {
    SCOPED_TRACE(info.name);
    EXPECT_TRUE(names.insert(info.name).second);
    EXPECT_EQ(info.kind, TargetKind::Cuda);
    EXPECT_TRUE(llvm::StringRef(info.arch).starts_with("sm_"));
    EXPECT_TRUE(llvm::StringRef(info.source).starts_with("https://"));
    EXPECT_GT(info.units, 0);
    // Units: Hz, bytes per second, bytes.
    EXPECT_GT(info.clockHz, 1e9);
    EXPECT_LT(info.clockHz, 3e9);
    EXPECT_GT(info.bandwidth, 2e11);
    EXPECT_LT(info.bandwidth, 1e13);
    EXPECT_GT(info.memoryBytes, int64_t(15e9));
    EXPECT_GE(info.cacheBytes, 4 << 20);
    EXPECT_GE(info.sharedBytes, 64 << 10);
    EXPECT_EQ(info.issuePerCycle, 4);
    EXPECT_GE(info.tensorFlopPerCycle, 0);
    EXPECT_EQ(findGpu(info.name), &info);
    defaults[info.arch] += info.isDefault;
  }
  for (const auto &entry : defaults)
    EXPECT_EQ(entry.second, 1) << entry.first().str();
}

TEST(TargetInfoTest, ArchitecturesHaveDefaults) {
  ASSERT_TRUE(getDefaultGpu("sm_90"));
  EXPECT_EQ(getDefaultGpu("sm_90")->name, "h100-sxm");
  EXPECT_EQ(getDefaultGpu("sm_90a"), getDefaultGpu("sm_90"));
  EXPECT_EQ(getDefaultGpu("sm_75")->name, "t4");
  EXPECT_EQ(findGpu("h200")->arch, "sm_90");
  EXPECT_FALSE(getDefaultGpu("sm_70"));
  EXPECT_FALSE(findGpu("h900"));
}

TEST(TargetInfoTest, TensorRatesAgreeWithPublishedFlops) {
  auto teraflops = [](llvm::StringRef name, double hertz) {
    const TargetInfo *info = findGpu(name);
    return double(info->units) * hertz * info->tensorFlopPerCycle / 1e12;
  };
  EXPECT_NEAR(teraflops("t4", 1.59e9), 65, 1);
  EXPECT_NEAR(teraflops("a100-80gb", 1.41e9), 312, 1);
  EXPECT_NEAR(teraflops("a10", 1.695e9), 125, 1);
  EXPECT_NEAR(teraflops("l4", 2.04e9), 121, 1);
  EXPECT_NEAR(teraflops("rtx4090", 2.52e9), 165.2, 1);
  EXPECT_NEAR(teraflops("h100-sxm", 1.83e9), 989.4, 1);
  EXPECT_NEAR(teraflops("rtx5090", 2.407e9), 209.5, 1);
}

class CostModelTest : public testing::Test {
protected:
  CacheType cache(llvm::StringRef key, llvm::StringRef value,
                  llvm::StringRef window = "<sink = 32, recent = 96, flush = 32>", int64_t kvHeads = 8) {
    return mlir::cast<CacheType>(mlir::parseType("!kv.cache<kv_heads = " + std::to_string(kvHeads) +
                                                     ", head_dim = 128, dtype = f16, key = " + key.str() +
                                                     ", value = " + value.str() + ", window = " + window.str() + ">",
                                                 context.get()));
  }
  CacheType symmetric(unsigned keyBits, unsigned valueBits) {
    return cache("<i" + std::to_string(keyBits) + ", map = sym, group = 1x32, scale = f16>",
                 "<i" + std::to_string(valueBits) + ", map = sym, group = 32x1, scale = f16>");
  }
  CacheType innerqSmall() {
    return cache("<i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>",
                 "<i2, map = sym, group = 32x1, scale = f16>");
  }
  CacheType plain() { return cache("<f16>", "<f16>", "<sink = 0, recent = 0, flush = 32>"); }
  StepCost estimate(CacheType cache, int64_t queryHeads, const TargetInfo &target, int64_t tokens, int64_t batch = 1) {
    return estimateStep(cache, queryHeads, {}, target, tokens, batch);
  }

  std::unique_ptr<mlir::MLIRContext> context = createContext();
  TargetInfo host = makeHostTarget("avx512_vnni", 2, 2.5e9, 32 << 20, 35e9);
  const TargetInfo &h100 = *findGpu("h100-sxm");
};

TEST_F(CostModelTest, BytesByHand) {
  // A block is 32 tokens x 128 channels of one KV head: 32*128*3/8 = 1536 bytes of key codes, 4 scales per token = 256
  // bytes, 32*128*2/8 = 1024 bytes of value codes, 128 scales = 256 bytes; all multiples of 64.
  constexpr int64_t kBlock = 1536 + 256 + 1024 + 256, kWindowBlock = 2 * 32 * 128 * 2;
  StepCost cost = estimate(innerqSmall(), 32, host, 16384);
  EXPECT_EQ(cost.bytesPerToken, 8 * kBlock / 32);
  // All but 32 sink and 96 recent tokens are quantized.
  EXPECT_EQ(cost.bytes, 8 * ((16384 - 128) / 32 * kBlock + 4 * kWindowBlock));
  EXPECT_EQ(estimate(innerqSmall(), 32, host, 16384, 3).bytes, 3 * cost.bytes);
  // 5 tokens fill one block of the sink window.
  EXPECT_EQ(estimate(innerqSmall(), 32, host, 5).bytes, 8 * kWindowBlock);
  EXPECT_EQ(estimate(innerqSmall(), 32, host, 0).bytes, 0);
  EXPECT_EQ(estimate(plain(), 32, host, 1024).bytes, 1024 * 8 * 128 * 2 * 2);
}

TEST_F(CostModelTest, BytesAreThoseOfTheCache) {
  for (const char *scheme : {"innerq-hybrid", "q4_1", "kivi-2", "fp16"}) {
    SCOPED_TRACE(scheme);
    test::Problem problem;
    problem.scheme = scheme;
    problem.lens = {1, 300, 777};
    auto program = test::loadProgram(problem);
    ASSERT_TRUE(bool(program)) << toString(program.takeError());
    const Plan &plan = (*program)->getPlan();
    HostCache memory(**program, 3, 777);
    std::vector<uint8_t> zeros(size_t(problem.kvHeads * 777 * problem.headDim * 2));
    double bytes = 0;
    for (int64_t i = 0; i < 3; ++i) {
      PrefillTensor tensor{zeros.data(), 777 * problem.headDim};
      llvm::Error error = memory.prefill(i, tensor, tensor, problem.lens[size_t(i)], test::getPool());
      ASSERT_FALSE(bool(error)) << toString(std::move(error));
      bytes += estimateStep(plan.cache, problem.qHeads, plan.schedule, host, problem.lens[size_t(i)]).bytes;
    }
    EXPECT_EQ(bytes, double(memory.getBytesRead()));
  }
}

TEST_F(CostModelTest, MoreBitsAreMoreBytes) {
  double last = 0;
  for (unsigned bits = 2; bits <= 8; ++bits) {
    StepCost cost = estimate(symmetric(bits, bits), 32, host, 8192);
    EXPECT_GT(cost.bytes, last);
    EXPECT_GT(cost.memorySeconds, 0);
    last = cost.bytes;
  }
  EXPECT_GT(estimate(plain(), 32, host, 8192).bytes, last);
}

TEST_F(CostModelTest, MoreHeadsAreMoreInstructions) {
  TargetInfo generic = makeHostTarget("generic", 2, 2.5e9, 32 << 20, 35e9);
  CacheType caches[] = {
      innerqSmall(), symmetric(8, 8), plain(),
      cache("<i2, map = asym, group = 32x1, scale = f16>", "<i2, map = asym, group = 1x32, scale = f16>"),
      cache("<i3, map = sym, group = 1x32, scale = f16>", "<i2, map = hybrid, group = 32x1, scale = f16>")};
  for (const TargetInfo &target : {host, generic, h100})
    for (CacheType type : caches) {
      StepCost last;
      for (int64_t group : {1, 2, 4, 8, 16}) {
        StepCost cost = estimate(type, 8 * group, target, 8192);
        // Tensor cores take eight columns at once, and two times eight share the codes.
        if (target.kind == TargetKind::Cuda && group > 1 && group <= 8)
          EXPECT_EQ(cost.instructionsPerElement, last.instructionsPerElement) << group;
        else
          EXPECT_GT(cost.instructionsPerElement, last.instructionsPerElement) << target.arch << " " << group;
        EXPECT_GE(cost.seconds, last.seconds);
        EXPECT_EQ(cost.bytes, last.bytes ? last.bytes : cost.bytes);
        last = cost;
      }
    }
}

TEST_F(CostModelTest, CountsOfTensorCoresAreThoseOfTheCompiler) {
  // Instructions of a lane per element as ptxas 13.0 makes them for sm_90 (tools/dev bench sass).
  auto perLane = [&](CacheType type) { return 32 * estimate(type, 32, h100, 8192).instructionsPerElement; };
  EXPECT_NEAR(perLane(symmetric(3, 2)), 1.445, 0.08);
  EXPECT_NEAR(perLane(symmetric(2, 2)), 1.391, 0.08);
  EXPECT_NEAR(perLane(symmetric(4, 4)), 1.484, 0.08);
  EXPECT_NEAR(perLane(symmetric(3, 3)), 1.566, 0.08);
  EXPECT_NEAR(perLane(cache("<i2, map = asym, group = 32x1, scale = f16>",
                            "<i2, map = asym, group = 1x32, scale = f16>", "<sink = 0, recent = 128, flush = 32>")),
              1.285, 0.08);
  // Sixteen heads in one pass, and logic alone.
  StepCost sixteen = estimate(symmetric(3, 2), 128, h100, 8192);
  EXPECT_NEAR(32 * sixteen.instructionsPerElement, 1.977, 0.1);
  EXPECT_NEAR(sixteen.logicSeconds / sixteen.issueSeconds, 2 * 181. / 531, 0.1);
}

TEST_F(CostModelTest, MoreWorkIsMoreTime) {
  for (const TargetInfo &target : {host, h100}) {
    StepCost last;
    for (int64_t tokens : {0, 100, 1000, 4096, 32768, 131072}) {
      StepCost cost = estimate(innerqSmall(), 32, target, tokens);
      EXPECT_GT(cost.seconds, last.seconds);
      double busy = std::max({cost.memorySeconds, cost.issueSeconds, cost.logicSeconds, cost.tensorSeconds});
      EXPECT_EQ(cost.seconds, busy + cost.fixedSeconds);
      EXPECT_GT(estimate(innerqSmall(), 32, target, tokens + 4096, 8).seconds, cost.seconds);
      last = cost;
    }
  }
  TargetInfo twice = makeHostTarget("avx512_vnni", 4, 2.5e9, 32 << 20, 70e9);
  EXPECT_LT(estimate(innerqSmall(), 32, twice, 8192).seconds, estimate(innerqSmall(), 32, host, 8192).seconds);
}

TEST_F(CostModelTest, BoundsAreWhereTheyBelong) {
  // One head per KV head: nothing to do but read. Four: the arithmetic of low bits outweighs two cores' memory.
  TargetInfo manyCores = makeHostTarget("avx512_vnni", 16, 2.5e9, 32 << 20, 80e9);
  EXPECT_EQ(estimate(innerqSmall(), 8, manyCores, 16384).bound, Bound::Memory);
  EXPECT_EQ(estimate(innerqSmall(), 32, host, 16384).bound, Bound::Issue);
  EXPECT_EQ(estimate(plain(), 8, h100, 16384).bound, Bound::Memory);
  EXPECT_EQ(estimate(innerqSmall(), 32, h100, 64).bound, Bound::Latency);
  // Sixteen heads share a pass: twice the products, less than twice the instructions. GeForce halves tensor cores'
  // rate.
  StepCost eight = estimate(innerqSmall(), 64, h100, 16384), sixteen = estimate(innerqSmall(), 128, h100, 16384);
  EXPECT_EQ(sixteen.tensorSeconds, 2 * eight.tensorSeconds);
  EXPECT_LT(sixteen.issueSeconds, 1.6 * eight.issueSeconds);
  EXPECT_LT(sixteen.logicSeconds, 1.2 * eight.logicSeconds);
  // Were memory no limit: scales outside of products leave codes to cut out; GeForce halves the rate of tensor cores.
  auto fast = [](TargetInfo target) {
    target.bandwidth *= 100;
    return target;
  };
  CacheType perToken =
      cache("<i3, map = sym, group = 1x128, scale = f16>", "<i3, map = sym, group = 1x128, scale = f16>");
  EXPECT_EQ(estimate(perToken, 64, fast(h100), 1 << 20).bound, Bound::Logic);
  EXPECT_EQ(estimate(innerqSmall(), 64, fast(*findGpu("rtx5090")), 1 << 20).bound, Bound::Tensor);
}

TEST_F(CostModelTest, ByteProductsAreFewerInstructions) {
  auto plan = [&](bool allowsRounding) {
    return planSchedule([] { return mlir::InFlightDiagnostic(); }, innerqSmall(), 32, TargetKind::Cpu, "avx512_vnni",
                        {allowsRounding ? "auto" : "f32"});
  };
  EXPECT_LT(estimateStep(innerqSmall(), 32, plan(true), host, 8192).instructionsPerElement,
            estimateStep(innerqSmall(), 32, plan(false), host, 8192).instructionsPerElement);
  // The default is what the pass plans.
  EXPECT_EQ(estimateStep(innerqSmall(), 32, plan(true), host, 8192).seconds,
            estimate(innerqSmall(), 32, host, 8192).seconds);
}

/// Takes the analysis as passes do.
struct EstimatePass : mlir::PassWrapper<EstimatePass, mlir::OperationPass<mlir::ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(EstimatePass)
  EstimatePass(const TargetInfo &target, std::vector<StepCost> &costs) : target(target), costs(costs) {}
  void runOnOperation() override {
    auto &analysis = getAnalysis<CostAnalysis>();
    for (AttendOp attend : analysis.getAttends())
      costs.push_back(analysis.estimate(attend, target, 4096, 2));
  }
  const TargetInfo &target;
  std::vector<StepCost> &costs;
};

TEST_F(CostModelTest, IsAnAnalysisOfModules) {
  constexpr llvm::StringLiteral kText = R"(
    !cache = !kv.cache<kv_heads = 8, head_dim = 128, dtype = f16,
      key = <i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>,
      value = <i2, map = sym, group = 32x1, scale = f16>, window = <sink = 32, recent = 96, flush = 32>>
    func.func @attend(%q: tensor<?x32x128xf16>, %cache: !cache) -> (tensor<?x32x128xf32>, tensor<?x32xf32>) {
      %out, %lse = kv.attend %q, %cache {scale = 0.0883 : f64}
        : tensor<?x32x128xf16>, !cache -> tensor<?x32x128xf32>, tensor<?x32xf32>
      return %out, %lse : tensor<?x32x128xf32>, tensor<?x32xf32>
    })";
  auto module = mlir::parseSourceString<mlir::ModuleOp>(kText, context.get());
  ASSERT_TRUE(module);
  std::vector<StepCost> costs;
  mlir::PassManager manager(context.get());
  manager.addPass(std::make_unique<EstimatePass>(h100, costs));
  ASSERT_TRUE(succeeded(manager.run(*module)));
  ASSERT_EQ(costs.size(), 1u);
  EXPECT_EQ(costs[0].seconds, estimate(innerqSmall(), 32, h100, 4096, 2).seconds);
  EXPECT_EQ(costs[0].bytes, estimate(innerqSmall(), 32, h100, 4096, 2).bytes);
}

} // namespace
