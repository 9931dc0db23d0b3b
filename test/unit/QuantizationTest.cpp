// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The meaning of formats, bit for bit, and the layout's worked examples.
#include "dialect/Quantization.h"
#include "dialect/Layout.h"
#include "dialect/SmallFloat.h"
#include "dialect/Transforms.h"
#include "mlir/AsmParser/AsmParser.h"
#include "runtime/Plan.h"
#include "gtest/gtest.h"

#include <cmath>
#include <limits>
#include <random>

using namespace kvcc;
using namespace kvcc::kv;

namespace {

class FormatTest : public testing::Test {
protected:
  template <typename T> T parse(llvm::StringRef text) {
    return mlir::cast<T>(mlir::parseAttribute(text, context.get()));
  }
  QuantAttr quant(unsigned bits, llvm::StringRef map) {
    return parse<QuantAttr>("#kv.quant<i" + std::to_string(bits) + ", map = " + map.str() +
                            ", group = 1x32, scale = f16>");
  }
  std::unique_ptr<mlir::MLIRContext> context = createContext();
};

using QuantizationTest = FormatTest;
using LayoutTest = FormatTest;

TEST_F(QuantizationTest, SymEncodesAsInnerQDoes) {
  // 3 bits: scale = 6 / 3 = 2, codes 4 + round(x / 2), half to even.
  Quantizer quantizer(quant(3, "sym"));
  GroupParameters scale = quantizer.choose({6.0f, -1.0f, 3.0f, 0.0f});
  EXPECT_EQ(halfToFloat(scale.scale), 2.0f);
  EXPECT_EQ(quantizer.encode(6, scale), 7);
  EXPECT_EQ(quantizer.encode(-6, scale), 1);
  EXPECT_EQ(quantizer.encode(3, scale), 6);   // 1.5 -> 2
  EXPECT_EQ(quantizer.encode(1, scale), 4);   // 0.5 -> 0
  EXPECT_EQ(quantizer.encode(-5, scale), 2);  // -2.5 -> -2
  EXPECT_EQ(quantizer.encode(100, scale), 7); // clamped
  EXPECT_EQ(quantizer.encode(-100, scale), 1);
  EXPECT_EQ(quantizer.decode(7, scale), 6.0f);
  EXPECT_EQ(quantizer.decode(1, scale), -6.0f);
}

TEST_F(QuantizationTest, TwoBitSymHasThreeCodes) {
  Quantizer quantizer(quant(2, "sym"));
  GroupParameters scale = quantizer.choose({-0.5f, 0.25f});
  EXPECT_EQ(halfToFloat(scale.scale), 0.5f);
  EXPECT_EQ(quantizer.encode(-0.5f, scale), 1);
  EXPECT_EQ(quantizer.encode(0.2f, scale), 2);
  EXPECT_EQ(quantizer.encode(0.5f, scale), 3);
}

TEST_F(QuantizationTest, SymFullUsesAllCodes) {
  Quantizer quantizer(quant(3, "sym_full"));
  GroupParameters scale = quantizer.choose({-4.0f, 4.0f});
  EXPECT_EQ(halfToFloat(scale.scale), 1.0f);
  EXPECT_EQ(quantizer.encode(-4, scale), 0);
  EXPECT_EQ(quantizer.encode(4, scale), 7); // 4 is not representable: clamped to 3
}

TEST_F(QuantizationTest, SymSignedMakesTheExtremeExact) {
  Quantizer quantizer(quant(3, "sym_signed"));
  for (float extreme : {4.0f, -4.0f}) {
    GroupParameters scale = quantizer.choose({extreme, 1.0f});
    EXPECT_EQ(halfToFloat(scale.scale), -extreme / 4);
    EXPECT_EQ(quantizer.decode(quantizer.encode(extreme, scale), scale), extreme);
  }
}

TEST_F(QuantizationTest, EveryCodeIsAFixedPoint) {
  for (const char *map : {"sym", "sym_full", "sym_signed"})
    for (unsigned bits = 2; bits <= 8; ++bits) {
      Quantizer quantizer(quant(bits, map));
      GroupParameters scale{floatToHalf(map == std::string("sym_signed") ? -0.37f : 0.37f)};
      for (int code = map == std::string("sym") ? 1 : 0; code < 1 << bits; ++code)
        EXPECT_EQ(quantizer.encode(quantizer.decode(uint8_t(code), scale), scale), code) << map << bits;
    }
}

TEST_F(QuantizationTest, EdgesAreDefined) {
  for (const char *map : {"sym", "sym_full", "sym_signed"}) {
    Quantizer quantizer(quant(3, map));
    // All zero: a zero scale, and zeros back.
    GroupParameters zero = quantizer.choose({0.0f, -0.0f});
    EXPECT_EQ(halfToFloat(zero.scale), 0.0f);
    EXPECT_EQ(quantizer.decode(quantizer.encode(0, zero), zero), 0.0f);
    // Numbers below the smallest scale vanish instead of dividing by zero.
    GroupParameters tiny = quantizer.choose({1e-9f});
    EXPECT_EQ(quantizer.decode(quantizer.encode(1e-9f, tiny), tiny), 0.0f);
    // The largest half fits, a larger float does not, and says so.
    EXPECT_TRUE(quantizer.isFinite(quantizer.choose({65504.0f})));
    EXPECT_FALSE(quantizer.isFinite(quantizer.choose({1e30f})));
  }
}

TEST_F(QuantizationTest, ErrorIsHalfAStep) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (unsigned bits = 2; bits <= 8; ++bits) {
    Quantizer quantizer(quant(bits, "sym"));
    for (int round = 0; round < 50; ++round) {
      std::vector<float> group(32);
      for (float &x : group)
        x = normal(random);
      GroupParameters scale = quantizer.choose(group);
      for (float x : group)
        EXPECT_LE(std::fabs(quantizer.decode(quantizer.encode(x, scale), scale) - x),
                  halfToFloat(scale.scale) * 0.5001f + 0.002f * std::fabs(x)); // the f16 scale may be a bit small
    }
  }
}

TEST_F(QuantizationTest, FloatFormatsRoundToNearestEven) {
  mlir::Type f16 = mlir::Float16Type::get(context.get()), bf16 = mlir::BFloat16Type::get(context.get());
  EXPECT_EQ(encodeFloat(f16, 1.0f), 0x3c00u);
  EXPECT_EQ(encodeFloat(f16, 1.0f + 1.0f / 2048), 0x3c00u); // halfway, to even
  EXPECT_EQ(encodeFloat(f16, 1.0f + 3.0f / 2048), 0x3c02u);
  EXPECT_EQ(encodeFloat(f16, 65520.0f), 0x7c00u);
  EXPECT_EQ(encodeFloat(bf16, 1.0f + 1.0f / 256), 0x3f80u);
  EXPECT_EQ(encodeFloat(bf16, 1.0f + 3.0f / 256), 0x3f82u);
  EXPECT_EQ(encodeFloat(bf16, -0.0f), 0x8000u);
  EXPECT_TRUE(std::isnan(decodeFloat(bf16, encodeFloat(bf16, std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(decodeFloat(f16, 0x0001u), std::ldexp(1.0f, -24));
}

TEST_F(QuantizationTest, AsymSpansTheGroup) {
  Quantizer quantizer(quant(2, "asym"));
  GroupParameters group = quantizer.choose({-1.0f, 2.0f, 0.4f});
  EXPECT_EQ(halfToFloat(group.scale), 1.0f);
  EXPECT_EQ(halfToFloat(group.zero), -1.0f);
  EXPECT_EQ(quantizer.encode(-1, group), 0);
  EXPECT_EQ(quantizer.encode(2, group), 3);
  EXPECT_EQ(quantizer.encode(0.4f, group), 1); // 1.4
  EXPECT_EQ(quantizer.encode(9, group), 3);
  EXPECT_EQ(quantizer.decode(1, group), 0.0f);
  // A constant group is exact whatever the scale.
  GroupParameters constant = quantizer.choose({0.75f, 0.75f});
  EXPECT_EQ(quantizer.decode(quantizer.encode(0.75f, constant), constant), 0.75f);
}

TEST_F(QuantizationTest, HybridTakesTheSmallerErrorAndMarksIt) {
  Quantizer quantizer(quant(2, "hybrid"));
  // One-sided numbers want a zero point, centred ones and ties do not.
  GroupParameters oneSided = quantizer.choose({1.0f, 1.5f, 2.0f, 2.5f});
  EXPECT_TRUE(oneSided.scale & 0x8000);
  EXPECT_EQ(quantizer.decode(quantizer.encode(2.5f, oneSided), oneSided), 2.5f);
  GroupParameters centred = quantizer.choose({-2.0f, -1.0f, 0.0f, 1.0f});
  EXPECT_FALSE(centred.scale & 0x8000);
  EXPECT_EQ(quantizer.decode(quantizer.encode(-2, centred), centred), -2.0f);
  GroupParameters zero = quantizer.choose({0.0f, 0.0f});
  EXPECT_FALSE(zero.scale & 0x8000);
}

TEST_F(QuantizationTest, SearchNeverMakesTheSquaredErrorLarger) {
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  for (const char *map : {"sym", "sym_full", "sym_signed", "asym", "hybrid"}) {
    auto plain = quant(3, map);
    auto searched =
        parse<QuantAttr>("#kv.quant<i3, map = " + std::string(map) + ", group = 1x32, scale = f16, search = 4>");
    double sums[2] = {0, 0};
    for (int round = 0; round < 40; ++round) {
      std::vector<float> group(32);
      for (float &x : group)
        x = normal(random);
      double errors[2] = {0, 0};
      for (int i = 0; i < 2; ++i) {
        Quantizer quantizer(i ? searched : plain);
        GroupParameters parameters = quantizer.choose(group);
        for (float x : group)
          errors[i] += std::pow(double(quantizer.decode(quantizer.encode(x, parameters), parameters) - x), 2);
        sums[i] += errors[i];
      }
      EXPECT_LE(errors[1], errors[0]) << map;
    }
    EXPECT_LT(sums[1], 0.97 * sums[0]) << map;
  }
}

TEST_F(QuantizationTest, FloatCodesRoundToNearestEven) {
  Quantizer fp4(parse<QuantAttr>("#kv.quant<f4E2M1FN, map = sym, group = 1x32, scale = f8E8M0FNU>"));
  // max 5: the scale 5/6 is rounded up to 1.
  GroupParameters group = fp4.choose({5.0f, -0.5f});
  EXPECT_EQ(group.scale, 127);
  const std::pair<float, float> cases[] = {{0.25f, 0}, {0.26f, 0.5f}, {0.75f, 1}, {1.25f, 1}, {1.75f, 2},
                                           {2.5f, 2},  {3.5f, 4},     {5, 4},     {5.1f, 6},  {-1.75f, -2}};
  for (auto [from, to] : cases)
    EXPECT_EQ(fp4.decode(fp4.encode(from, group), group), to) << from;

  Quantizer fp8(parse<QuantAttr>("#kv.quant<f8E4M3FN, map = sym, group = 1x32, scale = f16>"));
  GroupParameters one = fp8.choose({448.0f});
  EXPECT_EQ(halfToFloat(one.scale), 1.0f);
  for (auto [from, to] :
       {std::pair(17.0f, 16.0f), {19.0f, 20.0f}, {0.0009f, 0.0f}, {0.001f, 0x1p-9f}, {-448.0f, -448.0f}})
    EXPECT_EQ(fp8.decode(fp8.encode(from, one), one), to) << from;
  // Every code but NaN is a fixed point.
  for (int code = 0; code < 256; ++code)
    if ((code & 0x7f) != 0x7f)
      EXPECT_EQ(fp8.encode(fp8.decode(uint8_t(code), one), one), code);
}

TEST_F(QuantizationTest, ScalesOfEightBitsRoundUpOrToNearest) {
  mlir::Type e8m0 = mlir::Float8E8M0FNUType::get(context.get()), e4m3 = mlir::Float8E4M3FNType::get(context.get());
  EXPECT_EQ(decodeFloat(e8m0, encodeFloat(e8m0, 1.0f)), 1.0f);
  EXPECT_EQ(decodeFloat(e8m0, encodeFloat(e8m0, 1.01f)), 2.0f);
  EXPECT_EQ(decodeFloat(e8m0, encodeFloat(e8m0, 0x1p-100f)), 0x1p-100f);
  EXPECT_EQ(decodeFloat(e4m3, encodeFloat(e4m3, 1.06f)), 1.0f);
  EXPECT_EQ(decodeFloat(e4m3, encodeFloat(e4m3, 460.0f)), 448.0f);
  EXPECT_TRUE(std::isnan(decodeFloat(e4m3, encodeFloat(e4m3, 470.0f))));
}

TEST_F(QuantizationTest, DiagFactors) {
  const float keys[] = {1, -9, 0, -4, 4, 0};
  auto factors = [&](llvm::StringRef diag) {
    auto quant = parse<QuantAttr>("#kv.quant<f32, transforms = [" + diag.str() + "]>");
    // Without pairs of channels to tie: four channels, the last one zero.
    std::vector<float> padded = {keys[0], keys[1], keys[2], 0, keys[3], keys[4], keys[5], 0};
    return SideTransform(quant, 4, padded.data(), 2, {}).getVectors().factors;
  };
  EXPECT_EQ(factors("#kv.diag<sqrt_max>"), (std::vector<float>{2, 3, 1, 1}));
  EXPECT_EQ(factors("#kv.diag<sqrt_max, tied>"), (std::vector<float>{2, 3, 2, 3}));
  EXPECT_NEAR(factors("#kv.diag<rms>")[0], std::sqrt(17.0 / 2), 1e-6);
  EXPECT_NEAR(factors("#kv.diag<rms, strength = 0.5>")[0], std::pow(17.0 / 2, 0.25), 1e-6);
  EXPECT_EQ(factors("#kv.diag<tensor>"), (std::vector<float>{9, 9, 9, 9}));
}

TEST_F(QuantizationTest, TransformsUndoThemselves) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  const int64_t headDim = 96, tokens = 20;
  std::vector<float> numbers(size_t(headDim * tokens));
  for (float &x : numbers)
    x = normal(random) + 2;
  for (const char *transforms :
       {"#kv.diag<sqrt_max>", "#kv.center", "#kv.hadamard<32>", "#kv.token_norm<f16>", "#kv.token_norm<f8E8M0FNU>",
        "#kv.diag<rms, strength = 0.3, tied>, #kv.center, #kv.hadamard<16>, #kv.token_norm<f16>"}) {
    auto quant = parse<QuantAttr>("#kv.quant<f32, transforms = [" + std::string(transforms) + "]>");
    SideTransform transform(quant, headDim, numbers.data(), tokens, {});
    std::vector<float> token(numbers.begin(), numbers.begin() + headDim);
    uint16_t norm = transform.apply(token.data());
    EXPECT_NE(token[5], numbers[5]) << transforms;
    transform.undo(token.data(), norm);
    for (int64_t c = 0; c < headDim; ++c)
      EXPECT_NEAR(token[size_t(c)], numbers[size_t(c)], 1e-5) << transforms;
  }
}

TEST_F(QuantizationTest, HadamardKeepsLengthsAndSpreadsOutliers) {
  std::vector<float> spike(64, 0.0f);
  spike[3] = 8;
  rotate(spike.data(), 64, 64);
  for (float x : spike)
    EXPECT_EQ(std::fabs(x), 1.0f);
  EXPECT_EQ(spike[0], 1.0f);
  EXPECT_EQ(spike[1], -1.0f); // Sylvester's order: the sign is the parity of 3 & i
}

TEST_F(QuantizationTest, FeedbackLowersTheErrorThatQueriesSee) {
  // Correlated queries; the error is e^T H e.
  const int64_t n = 32;
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  std::vector<double> moment(size_t(n * n), 0.0);
  for (int sample = 0; sample < 200; ++sample) {
    std::vector<double> q(n);
    double shared = double(normal(random));
    for (double &x : q)
      x = shared + 0.3 * double(normal(random));
    for (int64_t i = 0; i < n * n; ++i)
      moment[size_t(i)] += q[size_t(i / n)] * q[size_t(i % n)] / 200;
  }
  Feedback feedback(moment, n);
  Quantizer quantizer(quant(3, "sym_signed"));
  double plainError = 0, feedbackError = 0;
  for (int token = 0; token < 50; ++token) {
    std::vector<float> numbers(n);
    for (float &x : numbers)
      x = normal(random);
    GroupParameters group = quantizer.choose(numbers);
    std::vector<double> plain, fed;
    for (int64_t c = 0; c < n; ++c) {
      float x = numbers[size_t(c)], target = x;
      plain.push_back(x - quantizer.decode(quantizer.encode(x, group), group));
      for (int64_t j = 0; j < c; ++j)
        target += float(fed[size_t(j)]) * feedback.getWeights(c)[j];
      fed.push_back(x - quantizer.decode(quantizer.encode(target, group), group));
    }
    for (int64_t i = 0; i < n * n; ++i) {
      plainError += plain[size_t(i / n)] * moment[size_t(i)] * plain[size_t(i % n)];
      feedbackError += fed[size_t(i / n)] * moment[size_t(i)] * fed[size_t(i % n)];
    }
  }
  EXPECT_LT(feedbackError, 0.5 * plainError);
}

TEST_F(LayoutTest, WorkedExamplesOfPackings) {
  // The examples of #kv.packing's documentation: token 17, channel 6, 3 bits, head_dim 64.
  ElementOrder tiles(parse<PackingAttr>("#kv.packing<16x4>"), 32, 64, 3);
  EXPECT_EQ(tiles.getIndex(17, 6), 1094);
  std::vector<uint8_t> data(32 * 128 * 3 / 8);
  tiles.storeCode(data.data(), 1094, 5);
  EXPECT_EQ(data[410], 5 << 2);
  ElementOrder lanes(parse<PackingAttr>("#kv.packing<32x32, lanes = 32>"), 32, 64, 3);
  std::fill(data.begin(), data.end(), uint8_t(0));
  lanes.storeCode(data.data(), lanes.getIndex(17, 6), 7);
  uint32_t word;
  memcpy(&word, data.data() + 4 * 17, 4);
  EXPECT_EQ(word, 7u << 18);
  // Token 9, channel 70, head_dim 128.
  ElementOrder fragments(parse<PackingAttr>("#kv.packing<fragments>"), 32, 128, 3);
  std::fill(data.begin(), data.end(), uint8_t(0));
  fragments.storeCode(data.data(), fragments.getIndex(9, 70), 5);
  memcpy(&word, data.data() + 784, 4);
  EXPECT_EQ(word, 5u << 26);
}

TEST_F(LayoutTest, EveryPackingIsABijection) {
  std::mt19937 random(9);
  for (const char *text : {"#kv.packing<16x4>", "#kv.packing<32x32, lanes = 32>", "#kv.packing<8x8>",
                           "#kv.packing<1x1>", "#kv.packing<fragments>"})
    for (auto [free, reduce] : {std::pair<int64_t, int64_t>(32, 64), {32, 32}, {96, 32}, {32, 224}, {128, 32}})
      for (unsigned bits = 2; bits <= 8; ++bits) {
        ElementOrder order(parse<PackingAttr>(text), free, reduce, bits);
        auto size = size_t(free * reduce);
        std::vector<uint8_t> data(size * bits / 8), codes(size);
        for (int64_t f = 0; f < free; ++f)
          for (int64_t r = 0; r < reduce; ++r) {
            codes[size_t(f * reduce + r)] = uint8_t(random() % (1u << bits));
            order.storeCode(data.data(), order.getIndex(f, r), codes[size_t(f * reduce + r)]);
          }
        for (int64_t f = 0; f < free; ++f)
          for (int64_t r = 0; r < reduce; ++r)
            ASSERT_EQ(order.loadCode(data.data(), order.getIndex(f, r)), codes[size_t(f * reduce + r)])
                << text << " " << bits << " bits at " << f << ", " << r;
      }
}

TEST_F(LayoutTest, NumbersAndScalesHavePlacesOfTheirOwn) {
  for (const char *text : {"#kv.packing<fragments>", "#kv.packing<fragment_rows>", "#kv.packing<fragment_columns>"})
    for (auto [free, reduce] : {std::pair<int64_t, int64_t>(32, 32), {32, 96}, {128, 32}, {256, 32}}) {
      ElementOrder order(parse<PackingAttr>(text), free, reduce, 16);
      std::vector<bool> seen(size_t(free * reduce));
      for (int64_t f = 0; f < free; ++f)
        for (int64_t r = 0; r < reduce; ++r) {
          int64_t at = order.getIndex(f, r);
          ASSERT_TRUE(at >= 0 && at < free * reduce && !seen[size_t(at)]) << text << " at " << f << ", " << r;
          seen[size_t(at)] = true;
        }
    }
}

TEST_F(LayoutTest, SizesOfACache) {
  auto type = mlir::cast<CacheType>(mlir::parseType(
      "!kv.cache<kv_heads = 8, head_dim = 128, dtype = f16, key = <i3, map = sym, group = 1x32, scale = f16>, "
      "value = <i2, map = sym, group = 32x1, scale = f16>, window = <sink = 32, recent = 96, flush = 32>>",
      context.get()));
  auto schedule = parse<ScheduleAttr>("#kv.schedule<heads = 4, page = 128, compute = int8, key = <16x4>, "
                                      "value = <16x4>, floats = <16x1>>");
  CacheLayout layout(type, schedule);
  // Keys: 32 * 128 * 3 bits = 1536, 32 * 4 scales = 256; values: 1024 and 128 scales = 256.
  EXPECT_EQ(layout.page.key.data, 0);
  EXPECT_EQ(layout.page.key.scales, 1536);
  EXPECT_EQ(layout.page.value.data, 1792);
  EXPECT_EQ(layout.page.value.scales, 2816);
  EXPECT_EQ(layout.page.bytes, 3072);
  EXPECT_EQ(layout.pageBytes, 8 * 4 * 3072);
  EXPECT_EQ(layout.window.bytes, 2 * 32 * 128 * 2);
  // One block of sinks; 96 + 32 recent tokens, and as many as 96 that may be taken back.
  EXPECT_EQ(layout.slotHeadBytes, (1 + 7) * layout.window.bytes);
}

TEST_F(LayoutTest, TransformsHaveTheirPlaces) {
  auto type = mlir::cast<CacheType>(mlir::parseType(
      "!kv.cache<kv_heads = 1, head_dim = 64, dtype = f16, key = <i4, map = asym, group = 1x32, scale = f16, "
      "transforms = [#kv.diag<sqrt_max>, #kv.center, #kv.token_norm<f16>]>, value = <f4E2M1FN, map = sym, group = "
      "1x16, scale = f8E4M3FN, transforms = [#kv.center, #kv.token_norm<f8E8M0FNU>]>, window = <sink = 0, recent = 0, "
      "flush = 1>>",
      context.get()));
  auto schedule = parse<ScheduleAttr>("#kv.schedule<heads = 4, page = 32, compute = int8, key = <16x4>, "
                                      "value = <16x4>, floats = <16x1>>");
  CacheLayout layout(type, schedule);
  // Keys: 1024 of codes, 128 of scales, 128 of zeros, 64 of norms; values: 1024, 128 scales, 32 norms (64).
  EXPECT_EQ(layout.page.key.zeros, 1152);
  EXPECT_EQ(layout.page.key.norms, 1280);
  EXPECT_EQ(layout.page.value.data, 1344);
  EXPECT_EQ(layout.page.value.norms, 2496);
  EXPECT_EQ(layout.page.bytes, 2560);
  EXPECT_EQ(layout.keyVectors.factors, 0);
  EXPECT_EQ(layout.keyVectors.means, 256);
  EXPECT_EQ(layout.valueVectors.factors, -1);
  EXPECT_EQ(layout.valueVectors.means, 512);
  EXPECT_EQ(layout.sinkOffset, 768);
  EXPECT_DOUBLE_EQ(type.getKey().getBitsPerElement(64), 4 + 32.0 / 32 + 16.0 / 64);
}

TEST_F(LayoutTest, WindowsKeepWhatTheyPromise) {
  auto window = parse<WindowAttr>("#kv.window<sink = 32, recent = 96, flush = 32>");
  EXPECT_EQ(window.getQuantizedTokens(0), 0);
  EXPECT_EQ(window.getQuantizedTokens(128), 0);
  EXPECT_EQ(window.getQuantizedTokens(159), 0);
  EXPECT_EQ(window.getQuantizedTokens(160), 32);
  for (int64_t tokens = 0; tokens < 1000; ++tokens) {
    int64_t quantized = window.getQuantizedTokens(tokens), recent = tokens - std::min<int64_t>(tokens, 32) - quantized;
    EXPECT_EQ(quantized % 32, 0);
    EXPECT_TRUE(recent <= 127) << tokens;
    EXPECT_TRUE(quantized == 0 || recent >= 96) << tokens;
  }
}

} // namespace
