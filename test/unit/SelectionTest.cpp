// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Assignment, priors, profiles, and what a scheme's text makes of a model.
#include "passes/Assignment.h"
#include "passes/Candidates.h"
#include "runtime/ModelSchemes.h"
#include "runtime/Plan.h"
#include "test/unit/TestPaths.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/raw_ostream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include <random>

using namespace llvm;
using namespace kvcc;
using testing::HasSubstr;

namespace {

/// The least loss by trying everything.
double bruteForce(ArrayRef<Item> items, double limit) {
  double best = INFINITY;
  std::vector<size_t> picks(items.size(), 0);
  for (;;) {
    double loss = 0, cost = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      loss += items[i].weight * items[i].choices[picks[i]].loss;
      cost += items[i].weight * items[i].choices[picks[i]].cost;
    }
    if (cost <= limit)
      best = std::min(best, loss);
    size_t i = 0;
    while (i < items.size() && ++picks[i] == items[i].choices.size())
      picks[i++] = 0;
    if (i == items.size())
      return best;
  }
}

std::vector<Item> makeItems(unsigned seed, size_t count) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(0.1, 1);
  std::vector<Item> items(count);
  for (Item &item : items) {
    item.weight = 1 + double(random() % 3);
    double loss = uniform(random);
    for (int64_t kind = 0; kind < 4; ++kind)
      item.choices.push_back({loss /= 2 + uniform(random), 1.0 + double(kind), kind});
  }
  return items;
}

TEST(AssignmentTest, IsNearTheBestAndKeepsTheLimit) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::vector<Item> items = makeItems(seed, 7);
    double weight = 0, largest = 0;
    for (const Item &item : items) {
      weight += item.weight;
      for (size_t i = 1; i < item.choices.size(); ++i)
        largest = std::max(largest, item.weight * (item.choices[i - 1].loss - item.choices[i].loss));
    }
    std::optional<Assignment> found = assign(items, 2.5 * weight, 64);
    ASSERT_TRUE(found);
    EXPECT_LE(found->cost, 2.5 * weight);
    EXPECT_LE(found->loss, bruteForce(items, 2.5 * weight) + largest) << seed;
  }
}

TEST(AssignmentTest, FailsOnlyIfTheCheapestDoesNotFit) {
  std::vector<Item> items = makeItems(3, 5);
  double weight = 0;
  for (const Item &item : items)
    weight += item.weight;
  EXPECT_FALSE(assign(items, weight * 0.99, 64));
  EXPECT_TRUE(assign(items, weight, 64));
}

TEST(AssignmentTest, BoundsTheKinds) {
  std::vector<Item> items = makeItems(5, 12);
  double weight = 0, before = 0;
  for (const Item &item : items)
    weight += item.weight;
  for (size_t kinds : {4, 3, 2, 1}) {
    std::optional<Assignment> found = assign(items, 2.5 * weight, kinds);
    ASSERT_TRUE(found);
    EXPECT_LE(found->kinds, kinds);
    EXPECT_LE(found->cost, 2.5 * weight);
    EXPECT_GE(found->loss, before - 1e-12) << "fewer kinds cannot be better";
    before = found->loss;
  }
}

class ModelSchemesTest : public testing::Test {
protected:
  Expected<ModelSchemes> choose(StringRef model, StringRef text) {
    auto config = loadModelConfig(testDir() + "/models/" + model.str() + ".json");
    if (!config)
      return config.takeError();
    return chooseSchemes(*context, *config, config->dtype, cantFail(parseTarget("cpu:generic")), text);
  }
  std::string messageOf(StringRef model, StringRef text) {
    auto result = choose(model, text);
    return result ? "" : toString(result.takeError());
  }
  std::unique_ptr<mlir::MLIRContext> context = createContext();
};

TEST_F(ModelSchemesTest, EveryBudgetIsKept) {
  for (const char *budget : {"2.5", "3", "3.3", "4", "5", "8", "16"}) {
    auto schemes = choose("llama-3.1-8b", std::string("auto; budget = ") + budget);
    ASSERT_TRUE(bool(schemes)) << toString(schemes.takeError());
    double bits = 0;
    for (kv::LayerOp layer : schemes->layers)
      bits += (layer.getKey()->getBitsPerElement(128) + layer.getValue()->getBitsPerElement(128)) / 2 / 32;
    EXPECT_LE(bits, std::stod(budget) + 1e-9);
    EXPECT_GT(bits, std::stod(budget) / 2);
  }
}

TEST_F(ModelSchemesTest, AnswersFollowTheModel) {
  auto llama = choose("llama-3.1-8b", "auto"), qwen = choose("qwen2.5-7b-instruct", "auto"),
       oss = choose("gpt-oss-20b", "auto");
  ASSERT_TRUE(llama && qwen && oss);
  EXPECT_LT(llama->layers[0].getKey()->getBits(), qwen->layers[0].getKey()->getBits()) << "biased keys";
  // Layers of 128 tokens never leave the windows.
  EXPECT_FALSE(oss->layers[0].getKey()->isQuantized());
  EXPECT_TRUE(oss->layers[1].getKey()->isQuantized());
  for (kv::LayerOp layer : llama->layers)
    EXPECT_TRUE(layer.getReasons() && layer.getReasons()->contains("layout"));
}

TEST_F(ModelSchemesTest, PresetsAreForAllLayers) {
  auto schemes = choose("gemma-3-1b-it", "innerq-small; window = <sink = 0, recent = 64, flush = 32>");
  ASSERT_TRUE(bool(schemes)) << toString(schemes.takeError());
  for (kv::LayerOp layer : schemes->layers) {
    EXPECT_EQ(layer.getKey()->getBits(), 3u);
    EXPECT_EQ(layer.getWindow()->getRecent(), 64);
  }
}

TEST_F(ModelSchemesTest, RefusesWhatIsWrong) {
  const char *llama = "llama-3.1-8b";
  EXPECT_THAT(messageOf(llama, "innerq-smal"), HasSubstr("the nearest is innerq-small"));
  EXPECT_THAT(messageOf(llama, "auto; budget = 1"),
              HasSubstr("expected a budget from 2.13 to 16.00 bits, but got 1.00"));
  EXPECT_THAT(messageOf(llama, "auto; budget = 17"), HasSubstr("but got 17.00"));
  EXPECT_THAT(messageOf(llama, "auto; budget = x"), HasSubstr("expected budget as a number over 0, but got 'x'"));
  EXPECT_THAT(messageOf(llama, "auto; speed = 1"), HasSubstr("but got 'speed = 1'"));
  EXPECT_THAT(messageOf(llama, "auto; budget = 3; budget = 4"), HasSubstr("each once"));
  EXPECT_THAT(messageOf(llama, "auto; memory = 10MiB"), HasSubstr("expected memory of at least"));
  EXPECT_THAT(messageOf(llama, "auto; memory = 8 apples"), HasSubstr("a size such as 8GiB"));
  EXPECT_THAT(messageOf(llama, "auto; prefer = fun"), HasSubstr("quality, speed or memory"));
  EXPECT_THAT(messageOf(llama, "auto; context = 0"), HasSubstr("expected context from 1 to 2147483647, but got 0"));
  EXPECT_THAT(messageOf(llama, "auto; budget = 3; max_kl = 0.00001"), HasSubstr("expected limits that go together"));
  EXPECT_THAT(messageOf(llama, "fp16; profile = /no/such.json"), HasSubstr("cannot read /no/such.json"));
  EXPECT_THAT(messageOf(llama, "/no/such.mlir"), HasSubstr("/no/such.mlir"));
  EXPECT_THAT(messageOf(llama, "k = <i4, map = sym, group = 1x96, scale = f16>; v = <f16>"),
              HasSubstr("expected key group channels that divide head_dim = 128, but got 96"));
}

/// The captured layer 14 of SmolLM2-135M as a model of its own.
class ProfileTest : public testing::Test {
protected:
  void SetUp() override {
    full.emplace(cantFail(SafetensorsFile::open(testDir() + "/data/smollm2-135m.safetensors")));
    model = cantFail(loadModelConfig(testDir() + "/models/smollm2-135m-instruct.json"));
    model.layers.resize(1);
    for (const char *name : {"q", "k", "v"}) {
      const TensorView *view = full->find(std::string("layer.14.") + name);
      ASSERT_TRUE(view);
      // One KV head is enough, and faster.
      int64_t heads = view->shape[0] / 3;
      tensors.push_back({std::string("layer.0.") + name,
                         view->dtype,
                         {heads, view->shape[1], view->shape[2]},
                         view->data.slice(0, view->data.size() / 3)});
    }
    model.layers[0].qHeads = 3;
    model.layers[0].kvHeads = 1;
    SmallString<128> path;
    ASSERT_FALSE(sys::fs::createTemporaryFile("kvcc-capture", "safetensors", path));
    capturePath = path.str().str();
    ASSERT_FALSE(bool(writeSafetensors(capturePath, tensors)));
    ASSERT_FALSE(sys::fs::createTemporaryFile("kvcc-profile", "json", path));
    profilePath = path.str().str();
    auto measured = measureProfile(*context, model, cantFail(SafetensorsFile::open(capturePath)), INT64_MAX, 2,
                                   [](size_t, size_t) {});
    ASSERT_TRUE(bool(measured)) << toString(measured.takeError());
    profile = std::move(*measured);
    write(printProfile(profile));
  }
  void TearDown() override {
    sys::fs::remove(capturePath);
    sys::fs::remove(profilePath);
  }
  void write(StringRef text) {
    std::error_code code;
    raw_fd_ostream(profilePath, code) << text;
    ASSERT_FALSE(code);
  }
  std::string loadError() {
    auto loaded = loadProfile(*context, profilePath, model);
    return loaded ? "" : toString(loaded.takeError());
  }

  std::unique_ptr<mlir::MLIRContext> context = createContext();
  ModelConfig model;
  std::optional<SafetensorsFile> full;
  std::vector<TensorToWrite> tensors; ///< views of `full`
  std::string capturePath, profilePath;
  Profile profile;
};

TEST_F(ProfileTest, MoreBitsDamageLess) {
  for (kv::Role role : {kv::Role::Key, kv::Role::Value}) {
    double previous = INFINITY;
    for (unsigned bits : {2, 3, 4, 5, 6}) {
      double best = INFINITY;
      for (kv::MeasuredAttr measured : profile.layers[0].measured)
        if (measured.getRole() == role && measured.getQuant().getBits() == bits)
          best = std::min(best, measured.getDamage().convertToDouble());
      EXPECT_LT(best, previous / 2) << bits;
      previous = best;
    }
    EXPECT_LT(previous, 1e-3);
  }
  EXPECT_GT(profile.layers[0].keyImbalance, 1);
}

TEST_F(ProfileTest, SensitivitiesWeighTheOutput) {
  const int64_t dim = 64;
  // The metric of each head: a scale times the identity, or times a matrix of ones.
  auto capture = [&](std::array<float, 3> heads, bool ones) {
    std::vector<float> g(size_t(3 * dim * dim), 0.0f);
    for (int64_t head = 0; head < 3; ++head)
      for (int64_t i = 0; i < dim; ++i)
        for (int64_t j = 0; j < dim; ++j)
          if (ones || i == j)
            g[size_t((head * dim + i) * dim + j)] = heads[size_t(head)];
    ArrayRef<uint8_t> bytes(reinterpret_cast<const uint8_t *>(g.data()), g.size() * sizeof(float));
    std::vector<TensorToWrite> all = tensors;
    all.push_back({"layer.0.g", TensorType::F32, {3, dim, dim}, bytes});
    cantFail(writeSafetensors(capturePath, all));
    return measureProfile(*context, model, cantFail(SafetensorsFile::open(capturePath)), INT64_MAX, 2,
                          [](size_t, size_t) {});
  };
  auto measure = [&](std::array<float, 3> heads, bool ones = false) {
    auto measured = cantFail(capture(heads, ones));
    EXPECT_TRUE(measured.sensitive);
    std::vector<double> damages;
    for (kv::MeasuredAttr entry : measured.layers[0].measured)
      damages.push_back(entry.getDamage().convertToDouble());
    return *std::max_element(damages.begin(), damages.end());
  };
  // Damage goes with the metric, and the heads add up.
  double first = measure({1, 0, 0}), second = measure({0, 1, 0}), third = measure({0, 0, 1}), all = measure({1, 1, 1});
  EXPECT_GT(std::min({first, second, third}), 0);
  EXPECT_LE(all, 1.0001 * (first + second + third));
  EXPECT_GT(all, std::max({first, second, third}));
  EXPECT_NEAR(measure({2, 0, 0}) / first, 2, 1e-3);
  // Directions count: the square of a sum is not the sum of squares.
  EXPECT_GT(std::abs(measure({1, 1, 1}, /*ones=*/true) / all - 1), 0.01);
  // And wrong ones are refused.
  EXPECT_THAT(toString(capture({-1, -1, -1}, false).takeError()), HasSubstr("without negative directions"));
  EXPECT_THAT(toString(capture({NAN, 1, 1}, false).takeError()), HasSubstr("expected tensors of finite numbers"));
}

TEST_F(ProfileTest, FilesKeepEverything) {
  auto loaded = loadProfile(*context, profilePath, model);
  ASSERT_TRUE(bool(loaded)) << toString(loaded.takeError());
  ASSERT_EQ(loaded->layers.size(), 1u);
  ASSERT_EQ(loaded->layers[0].measured.size(), profile.layers[0].measured.size());
  for (auto [a, b] : zip(loaded->layers[0].measured, profile.layers[0].measured)) {
    EXPECT_EQ(a.getQuant(), b.getQuant());
    EXPECT_NEAR(a.getDamage().convertToDouble(), b.getDamage().convertToDouble(),
                1e-6 * b.getDamage().convertToDouble());
  }
  const WriterStatistics &a = loaded->layers[0].statistics[0], &b = profile.layers[0].statistics[0];
  ASSERT_EQ(a.queryMoment.size(), b.queryMoment.size());
  for (size_t i = 0; i < a.queryMoment.size(); ++i)
    EXPECT_NEAR(a.queryMoment[i], b.queryMoment[i], 0.005 * std::fabs(b.queryMoment[i]));
  for (size_t i = 0; i < a.keys.means.size(); ++i)
    EXPECT_NEAR(a.keys.means[i], b.keys.means[i], 0.005 * std::fabs(b.keys.means[i]));

  // And wrong ones are refused.
  std::string text = printProfile(profile);
  auto replaced = [&](StringRef from, StringRef to) {
    std::string changed = text;
    size_t at = changed.find(from.str());
    EXPECT_NE(at, std::string::npos) << from.str();
    changed.replace(at, from.size(), to.str());
    return changed;
  };
  write(replaced("\"kvcc_profile\": 1", "\"kvcc_profile\": 7"));
  EXPECT_THAT(loadError(), HasSubstr("version 7"));
  write(replaced("llama of 1 layers", "llama of 9 layers"));
  EXPECT_THAT(loadError(), HasSubstr("expected a profile of a llama of 1 layers, 3/1x64 in 0, but got one of a llama"));
  write(replaced("\"layer\": 0", "\"layer\": 3"));
  EXPECT_THAT(loadError(), HasSubstr("expected each layer from 0 to 0 once"));
  write(replaced("#kv.quant<i", "#kv.quant<j"));
  EXPECT_THAT(loadError(), HasSubstr("layer 0: in '#kv.quant<j"));
  write(replaced("\"key_means\": \"", "\"key_means\": \"AAAA"));
  EXPECT_THAT(loadError(), HasSubstr("expected key_means and query_moment for head_dim 64"));
  write("[1]");
  EXPECT_THAT(loadError(), HasSubstr("expected a JSON object"));
  write(text.substr(0, text.size() / 2));
  EXPECT_THAT(loadError(), HasSubstr("not valid JSON"));
}

} // namespace
