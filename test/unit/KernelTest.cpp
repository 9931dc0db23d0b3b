// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Whole kernels against the reference: every scheme on every executor.
#include "test/unit/KernelTestSupport.h"
#include "test/unit/TestPaths.h"

#include "runtime/Safetensors.h"
#include "gtest/gtest.h"

#include <cmath>
#include <random>
#include <set>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::test;

namespace {

/// Every preset.
std::vector<std::string> getPresetNames() {
  std::vector<std::string> names;
  for (const SchemePreset &preset : getSchemePresets())
    names.push_back(preset.name.str());
  return names;
}

/// Executors and arithmetics; the emulator is slow, so it gets the smaller problems.
struct Machine {
  std::string target;
  const char *compute;
  double bound;
};
/// The best level of this host and the portable one; LevelTest has the others.
std::vector<Machine> getCpuMachines() {
  return {{"cpu", "int16", 1e-2}, {"cpu", "auto", 2e-1}, {"cpu", "f32", 1e-3}, {"cpu:generic", "int16", 1e-2}};
}
Machine onLevel(const CpuLevel &level, const char *compute, double bound) {
  return {(cpu::hostHas(level) ? "cpu:" : "cpu-emulated:") + level.name.str(), compute, bound};
}
/// Every level: as it is where this host has it, else emulated. Short vectors are much code: `wide` leaves them out.
std::vector<Machine> getLevels(const char *compute, double bound, bool wide = false) {
  std::vector<Machine> machines;
  for (const CpuLevel &level : getCpuLevels())
    if (!wide || level.vectorBytes >= 32)
      machines.push_back(onLevel(level, compute, bound));
  return machines;
}
/// The level that has products of bf16. A query that is rounded to it has its error, others do not.
Machine getBf16Machine() {
  return onLevel(*llvm::find_if(getCpuLevels(), [](const CpuLevel &level) { return level.hasBf16Products; }), "bf16",
                 2e-2);
}
std::vector<Machine> getAllMachines() {
  std::vector<Machine> machines = getCpuMachines();
  machines.push_back({"cuda-host", "auto", 5e-3});
  return machines;
}

Problem on(const Machine &machine, Problem problem) {
  problem.target = machine.target;
  // Codes of f8E4M3FN take no part in products of bytes.
  bool floats = StringRef(problem.scheme).contains("f8E4M3FN, map") || problem.scheme == "fp8";
  problem.compute = floats && StringRef(machine.compute).starts_with("int") ? "f32" : machine.compute;
  return problem;
}

class SchemeTest : public testing::TestWithParam<std::string> {};

TEST_P(SchemeTest, AgreesOnRandomTensors) {
  Problem problem;
  problem.scheme = GetParam();
  problem.lens = {300, 0, 1, 31, 127, 160, 161, 512};
  Tensors tensors = makeRandomTensors(problem);
  for (const Machine &machine : getAllMachines())
    expectAgrees(on(machine, problem), tensors, machine.bound);
}

TEST_P(SchemeTest, AgreesForAnyHeadDimAndGroup) {
  struct Shape {
    int64_t qHeads, kvHeads, headDim;
  };
  for (Shape shape : {Shape{1, 1, 32}, Shape{7, 1, 96}, Shape{10, 2, 256}}) {
    Problem problem;
    problem.scheme = GetParam();
    problem.qHeads = shape.qHeads;
    problem.kvHeads = shape.kvHeads;
    problem.headDim = shape.headDim;
    problem.lens = {290, 33};
    expectAgrees(on(getCpuMachines().front(), problem), makeRandomTensors(problem), getCpuMachines().front().bound);
  }
}

TEST_P(SchemeTest, AgreesOnEveryLevel) {
  Problem problem;
  problem.scheme = GetParam();
  problem.qHeads = 6;
  problem.kvHeads = 2;
  problem.headDim = 96;
  problem.lens = {321};
  Tensors tensors = makeRandomTensors(problem);
  for (const Machine &machine : getLevels("int16", 1e-2, /*wide=*/true))
    expectAgrees(on(machine, problem), tensors, machine.bound);
  for (std::string dtype : {"f16", "bf16"}) {
    problem.dtype = dtype;
    Machine machine = getBf16Machine();
    expectAgrees(on(machine, problem), makeRandomTensors(problem), machine.bound);
  }
}

TEST_P(SchemeTest, AgreesOnTheEmulatorForOtherShapes) {
  Problem problem;
  problem.scheme = GetParam();
  problem.target = "cuda-host";
  problem.qHeads = 5;
  problem.kvHeads = 1;
  problem.headDim = 96;
  problem.lens = {200, 3};
  expectAgrees(problem, makeRandomTensors(problem), 5e-3);
}

TEST_P(SchemeTest, AgreesForEveryDtype) {
  for (std::string dtype : {"bf16", "f32"}) {
    Problem problem;
    problem.scheme = GetParam();
    problem.dtype = dtype;
    problem.lens = {230};
    Tensors tensors = makeRandomTensors(problem);
    std::vector<Machine> machines = getAllMachines();
    for (const Machine &machine : {machines.front(), dtype == "bf16" ? machines.back() : machines[1]})
      expectAgrees(on(machine, problem), tensors, machine.bound);
  }
}

TEST_P(SchemeTest, SplitsAndThreadsChangeNothingButRounding) {
  Problem problem;
  problem.scheme = GetParam();
  problem.lens = {1000, 64, 0};
  Tensors tensors = makeRandomTensors(problem);
  for (const Machine &machine : getAllMachines())
    for (int64_t splits : {1, 3, 7}) {
      if (machine.target == "cuda-host" && splits == 1)
        continue; // as in all other tests
      Problem split = on(machine, problem);
      split.splits = splits;
      split.threads = unsigned(splits);
      expectAgrees(split, tensors, machine.bound);
    }
}

TEST_P(SchemeTest, AgreesOnAdversarialGroups) {
  struct Pattern {
    const char *name;
    Fill fill;
  };
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const Pattern patterns[] = {
      {"all zero", [](auto...) { return 0.0f; }},
      {"constant", [](auto...) { return 0.75f; }},
      {"negative constant", [](auto...) { return -3.0f; }},
      {"one outlier in each group",
       [&](int64_t, int64_t, int64_t t, int64_t c) { return t % 32 == 7 || c % 32 == 9 ? 500.0f : normal(random); }},
      {"denormals", [&](auto...) { return normal(random) * 1e-7f; }},
      {"alternating signs", [](int64_t, int64_t, int64_t t, int64_t c) { return (t + c) % 2 ? 1.0f : -1.0f; }},
  };
  Problem problem;
  problem.scheme = GetParam();
  problem.lens = {256, 1};
  for (const Pattern &pattern : patterns) {
    SCOPED_TRACE(pattern.name);
    Tensors tensors = makeTensors(problem, [&](auto...) { return normal(random); }, pattern.fill, pattern.fill);
    for (Machine machine : getAllMachines()) {
      if (machine.target == "cuda-host") {
        // Logits of some hundreds, times what rounding to halves leaves; and halves end where these denormals begin.
        machine.bound = 2e-2;
        if (StringRef(pattern.name) == "denormals")
          machine.bound = 2;
      }
      expectAgrees(on(machine, problem), tensors, machine.bound);
    }
  }
}

TEST_P(SchemeTest, AgreesOnTheLargestHalfs) {
  // A rotation may make a number sqrt(head_dim) times larger, which the scale has to hold.
  bool rotates = StringRef(GetParam()).starts_with("kvcc-");
  float largest = rotates ? 8192.0f : 65504.0f;
  // The logits would leave f32's useful range with a query of the same size.
  Problem problem;
  problem.scheme = GetParam();
  problem.lens = {256};
  Tensors tensors = makeTensors(
      problem, [](int64_t, int64_t h, int64_t, int64_t c) { return (c % 2 ? 1e-4f : -1e-4f) * float(h + 1); },
      [=](int64_t, int64_t, int64_t t, int64_t c) { return (t * 7 + c) % 3 ? largest : -largest; },
      [=](int64_t, int64_t, int64_t t, int64_t c) { return (t + c) % 5 ? largest : -largest; });
  for (const Machine &machine : getAllMachines())
    expectAgrees(on(machine, problem), tensors, machine.bound);
}

TEST_P(SchemeTest, AgreesOnCapturedTensors) {
  auto file = SafetensorsFile::open(testDir() + "/data/smollm2-135m.safetensors");
  ASSERT_TRUE(bool(file)) << toString(file.takeError());
  for (int layer : {0, 8, 14, 29}) {
    SCOPED_TRACE("layer " + std::to_string(layer));
    auto load = [&](const char *name) {
      auto view = file->get("layer." + std::to_string(layer) + "." + name);
      return cantFail(toFloat32(*cantFail(std::move(view))));
    };
    Problem problem;
    problem.scheme = GetParam();
    problem.qHeads = 9;
    problem.kvHeads = 3;
    problem.lens = {512};
    Tensors tensors;
    tensors.tokens = 512;
    std::vector<float> queries = load("q");
    for (int64_t head = 0; head < 9; ++head)
      tensors.query.insert(tensors.query.end(), queries.begin() + (head * 32 + 31) * 64,
                           queries.begin() + (head * 32 + 32) * 64);
    tensors.keys = load("k");
    tensors.values = load("v");
    for (const Machine &machine : layer == 14 ? getAllMachines() : getCpuMachines())
      expectAgrees(on(machine, problem), tensors, machine.bound);
  }
}

INSTANTIATE_TEST_SUITE_P(Presets, SchemeTest, testing::ValuesIn(getPresetNames()), [](const auto &info) {
  std::string name = info.param;
  std::replace_if(name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
  return name;
});

/// Formats that no preset has: every map, element, scale type, axis and transform on either side.
constexpr const char *kCombinations[] = {
    "k = <i5, map = hybrid, group = 1x64, scale = bf16>; v = <i6, map = sym_full, group = 16x1, scale = f16>",
    "k = <i7, map = sym_signed, group = 16x1, scale = f8E4M3FN>; v = <i3, map = asym, group = 1x64, scale = bf16>",
    "k = <f4E2M1FN, map = sym, group = 32x1, scale = f16>; v = <f4E2M1FN, map = sym, group = 16x1, scale = bf16>",
    "k = <f8E4M3FN, map = sym, group = 32x1, scale = bf16>; v = <f8E4M3FN, map = sym, group = 32x1, scale = f16>",
    "k = <i8, map = sym_full, group = 1x32, scale = f8E8M0FNU>; v = <i8, map = sym, group = 1x64, scale = f8E8M0FNU>",
    "k = <i4, map = asym, group = 1x32, scale = f16, transforms = [#kv.diag<rms, strength = 0.3>, #kv.center, "
    "#kv.hadamard<32>, #kv.token_norm<f16>], search = 4>; v = <i4, map = asym, group = 32x1, scale = f16, transforms = "
    "[#kv.diag<sqrt_max>, #kv.center, #kv.hadamard<64>, #kv.token_norm<f8E8M0FNU>]>",
    "k = <f16, transforms = [#kv.center, #kv.hadamard<64>]>; v = <bf16, transforms = [#kv.token_norm<f16>]>",
    "k = <i4, map = asym, group = 32x1, scale = f16, transforms = [#kv.center]>; v = <i4, map = asym, group = 1x64, "
    "scale = f16, transforms = [#kv.token_norm<f16>]>; window = <sink = 64, recent = 0, flush = 64>",
    "k = <i2, map = sym_signed, group = 1x16, scale = f16>; v = <i3, map = sym_signed, group = 1x32, scale = bf16>; "
    "window = <sink = 0, recent = 0, flush = 1>",
    "k = <i4, map = sym_signed, group = 1x64, scale = f16, transforms = [#kv.hadamard<16>, "
    "#kv.token_norm<f8E8M0FNU>]>; v = <i2, map = hybrid, group = 32x1, scale = f16, transforms = [#kv.center]>; window "
    "= <sink = 0, recent = 64, flush = 32>",
};

class CombinationTest : public testing::TestWithParam<const char *> {};

TEST_P(CombinationTest, Agrees) {
  Problem problem;
  problem.scheme = GetParam();
  problem.lens = {300, 0, 1, 161};
  Tensors tensors = makeRandomTensors(problem);
  for (const Machine &machine : getAllMachines())
    for (int64_t splits : {1, 5}) {
      Problem split = on(machine, problem);
      split.splits = splits;
      expectAgrees(split, tensors, machine.bound);
    }
}

INSTANTIATE_TEST_SUITE_P(Schemes, CombinationTest, testing::ValuesIn(kCombinations));

TEST_P(CombinationTest, AgreesOnEveryLevel) {
  Problem problem;
  problem.scheme = GetParam();
  problem.lens = {200};
  Tensors tensors = makeRandomTensors(problem);
  for (const Machine &machine : getLevels("int16", 1e-2))
    expectAgrees(on(machine, problem), tensors, machine.bound);
  problem.dtype = "bf16";
  Machine machine = getBf16Machine();
  expectAgrees(on(machine, problem), makeRandomTensors(problem), machine.bound);
}

TEST(KernelTest, Bf16TakesCodesOfEveryWidth) {
  // Queries of bf16 stay what they are: what is left is the rounding of weights. (Codes of 6 and 8 bits take words.)
  for (const char *element : {"i2", "i3", "i4", "i5", "i6", "i8", "f4E2M1FN", "f8E4M3FN"})
    for (std::string map : {"sym", "asym", "hybrid"})
      for (int64_t heads : {1, 5, 8}) {
        if (element[0] == 'f' && map != "sym")
          continue;
        Problem problem;
        problem.dtype = "bf16";
        std::string quant = std::string("<") + element + ", map = " + map + ", group = ";
        // Scales fold into the weights, or not.
        std::string values = heads == 8 || map == "hybrid" ? "16x1" : "1x32";
        problem.scheme = "k = " + quant + "1x16, scale = bf16>; v = " + quant + values + ", scale = bf16>";
        problem.qHeads = heads;
        problem.kvHeads = 1;
        problem.headDim = heads == 5 ? 96 : 64;
        problem.lens = {300, 31};
        // As it is where this host has it, and emulated.
        Machine machine = getBf16Machine();
        for (const std::string &target : std::set<std::string>{machine.target, "cpu-emulated:avx512_bf16"}) {
          machine.target = target;
          expectAgrees(on(machine, problem), makeRandomTensors(problem), 5e-3);
        }
      }
}

/// With numbers instead of codes a transform changes nothing: the output is that of the tensors themselves.
class TransformTest : public testing::TestWithParam<const char *> {};

TEST_P(TransformTest, IsExactInTheLimit) {
  Problem problem;
  std::string list = GetParam();
  problem.scheme = "k = <f32, transforms = [" + list + "]>; v = <f32, transforms = [" + list + "]>";
  problem.lens = {300, 161};
  Tensors tensors = makeRandomTensors(problem);
  for (const Machine &machine : getAllMachines()) {
    Problem here = on(machine, problem);
    auto program = loadProgram(here);
    ASSERT_TRUE(bool(program)) << toString(program.takeError());
    auto step = runStep(**program, here, tensors);
    ASSERT_TRUE(bool(step)) << toString(step.takeError());
    EXPECT_LT(step->totalError, 2e-5) << machine.target;
  }
}

INSTANTIATE_TEST_SUITE_P(Transforms, TransformTest,
                         testing::Values("#kv.diag<sqrt_max>", "#kv.diag<rms, strength = 0.5, tied>",
                                         "#kv.diag<tensor>", "#kv.center", "#kv.hadamard<16>", "#kv.hadamard<64>",
                                         "#kv.token_norm<f16>", "#kv.token_norm<f8E8M0FNU>",
                                         "#kv.diag<sqrt_max>, #kv.center, #kv.hadamard<32>, #kv.token_norm<f16>"));

TEST(KernelTest, ExactOnEveryLevel) {
  // Vectors of every width, codes of every kind, any number of heads.
  for (const char *scheme :
       {"k = <i3, map = asym, group = 1x16, scale = f16>; v = <i5, map = sym, group = 32x1, scale = f16>",
        "k = <f4E2M1FN, map = sym, group = 1x32, scale = f16>; v = <f8E4M3FN, map = sym, group = "
        "16x1, scale = f16>",
        "kvcc-3"})
    for (int64_t heads : {1, 5, 12}) {
      Problem problem;
      problem.scheme = scheme;
      problem.qHeads = heads;
      problem.kvHeads = 1;
      problem.lens = {300};
      Tensors tensors = makeRandomTensors(problem);
      for (const Machine &machine : getLevels("f32", 1e-4))
        expectAgrees(on(machine, problem), tensors, machine.bound);
    }
}

TEST(KernelTest, QueriesInBytes) {
  for (const char *scheme :
       {"innerq-small", "innerq-base", "innerq-hybrid", "q8_0", "q4_0", "int4-token", "kivi-2", "nvfp4", "kvcc-3"}) {
    Problem problem;
    problem.scheme = scheme;
    problem.lens = {300, 161};
    Tensors tensors = makeRandomTensors(problem);
    for (const Machine &machine : getLevels("int8", 5e-2))
      expectAgrees(on(machine, problem), tensors, machine.bound);
  }
}

TEST(KernelTest, LongContexts) {
  Problem problem;
  problem.qHeads = 2;
  problem.kvHeads = 1;
  problem.headDim = 32;
  problem.lens = {131072};
  Tensors tensors = makeRandomTensors(problem);
  for (const Machine &machine : getCpuMachines())
    expectAgrees(on(machine, problem), tensors, machine.bound);
}

TEST(KernelTest, OrderOfExecutionChangesNothing) {
  Problem problem;
  problem.target = "cuda-host";
  problem.lens = {400, 90};
  problem.splits = 3;
  Tensors tensors = makeRandomTensors(problem);
  auto program = loadProgram(problem);
  ASSERT_TRUE(bool(program)) << toString(program.takeError());
  auto first = runStep(**program, problem, tensors);
  ASSERT_TRUE(bool(first)) << toString(first.takeError());
  for (uint64_t seed : {1, 2, 3}) {
    problem.seed = seed;
    auto other = runStep(**program, problem, tensors);
    ASSERT_TRUE(bool(other)) << toString(other.takeError());
    EXPECT_EQ(first->out, other->out);
    EXPECT_EQ(first->lse, other->lse);
  }
}

TEST(KernelTest, TargetsOfOneCacheFormatAgree) {
  // Packing and page size are schedules: the numbers in the cache are the same for every target.
  Problem problem;
  problem.lens = {500};
  Tensors tensors = makeRandomTensors(problem);
  std::vector<float> keys[2], values[2];
  for (int i = 0; i < 2; ++i) {
    problem.target = i ? "cuda-host" : "cpu:generic";
    auto program = loadProgram(problem);
    ASSERT_TRUE(bool(program)) << toString(program.takeError());
    HostCache cache(**program, 1, 500);
    std::vector<uint16_t> k, v;
    for (auto [from, to] : {std::pair(&tensors.keys, &k), std::pair(&tensors.values, &v)})
      for (float number : *from)
        to->push_back(std::bit_cast<uint16_t>(_Float16(number)));
    Error error = cache.prefill(0, {k.data(), 500 * 64}, {v.data(), 500 * 64}, 500, getPool());
    ASSERT_FALSE(bool(error)) << toString(std::move(error));
    keys[i].resize(500 * 64);
    values[i].resize(500 * 64);
    const Plan &plan = (*program)->getPlan();
    readSequence(plan.cache, plan.schedule, cache.getSequence(0), 1, 500, keys[i].data(), values[i].data());
  }
  EXPECT_EQ(keys[0], keys[1]);
  EXPECT_EQ(values[0], values[1]);
}

} // namespace
