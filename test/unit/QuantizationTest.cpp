// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The meaning of formats, bit for bit, and the layout's worked examples.
#include "dialect/Quantization.h"
#include "dialect/Float16.h"
#include "dialect/Layout.h"
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

TEST_F(QuantizationTest, DiagFactorsAreRootsOfTheMaxima) {
  const float keys[] = {1, -9, 0, -4, 4, 0};
  float factors[3];
  computeDiagFactors(parse<DiagAttr>("#kv.diag<sqrt_max>"), keys, 2, 3, factors);
  EXPECT_EQ(factors[0], 2.0f);
  EXPECT_EQ(factors[1], 3.0f);
  EXPECT_EQ(factors[2], 1.0f); // a channel of zeros
}

TEST_F(LayoutTest, WorkedExamplesOfPackings) {
  // The two examples of #kv.packing's documentation: token 17, channel 6, 3 bits, head_dim 64.
  auto tiles = parse<PackingAttr>("#kv.packing<16x4>");
  EXPECT_EQ(getElementIndex(tiles, 17, 6, 64), 1094);
  std::vector<uint8_t> data(32 * 64 * 3 / 8);
  storeCode(data.data(), tiles, 1094, 3, 5);
  EXPECT_EQ(data[410], 5 << 2);
  auto lanes = parse<PackingAttr>("#kv.packing<32x32, lanes = 32>");
  std::fill(data.begin(), data.end(), uint8_t(0));
  storeCode(data.data(), lanes, getElementIndex(lanes, 17, 6, 64), 3, 7);
  uint32_t word;
  memcpy(&word, data.data() + 4 * 17, 4);
  EXPECT_EQ(word, 7u << 18);
}

TEST_F(LayoutTest, EveryPackingIsABijection) {
  std::mt19937 random(9);
  for (const char *text :
       {"#kv.packing<16x4>", "#kv.packing<32x32, lanes = 32>", "#kv.packing<8x8>", "#kv.packing<1x1>"})
    for (unsigned bits = 2; bits <= 8; ++bits) {
      auto packing = parse<PackingAttr>(text);
      std::vector<uint8_t> data(32 * 64 * bits / 8), codes(32 * 64);
      for (int64_t f = 0; f < 32; ++f)
        for (int64_t r = 0; r < 64; ++r) {
          codes[size_t(f * 64 + r)] = uint8_t(random() % (1u << bits));
          storeCode(data.data(), packing, getElementIndex(packing, f, r, 64), bits, codes[size_t(f * 64 + r)]);
        }
      for (int64_t f = 0; f < 32; ++f)
        for (int64_t r = 0; r < 64; ++r)
          ASSERT_EQ(loadCode(data.data(), packing, getElementIndex(packing, f, r, 64), bits), codes[size_t(f * 64 + r)])
              << text << " " << bits << " bits at " << f << ", " << r;
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
  EXPECT_EQ(layout.page.keyData, 0);
  EXPECT_EQ(layout.page.keyScales, 1536);
  EXPECT_EQ(layout.page.valueData, 1792);
  EXPECT_EQ(layout.page.valueScales, 2816);
  EXPECT_EQ(layout.page.bytes, 3072);
  EXPECT_EQ(layout.pageBytes, 8 * 4 * 3072);
  EXPECT_EQ(layout.window.bytes, 2 * 32 * 128 * 2);
  // 512 bytes of factors, one sink block, (96 + 32) / 32 recent ones.
  EXPECT_EQ(layout.slotHeadBytes, 512 + 5 * layout.window.bytes);
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
