// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The table of presets.
#include "runtime/Scheme.h"

#include "mlir/AsmParser/AsmParser.h"
#include "llvm/ADT/StringExtras.h"

using namespace llvm;
using namespace kvcc;

static constexpr StringLiteral kInnerqKeys =
    "#kv.quant<i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>";
static constexpr StringLiteral kInnerqWindow = "#kv.window<sink = 32, recent = 96, flush = 32>";

static constexpr StringLiteral kEveryToken = "#kv.window<sink = 0, recent = 0, flush = 1>";
static constexpr StringLiteral kInt8Token = "#kv.quant<i8, map = asym, group = 1xhead, scale = f16>";
static constexpr StringLiteral kInt4Token = "#kv.quant<i4, map = asym, group = 1xhead, scale = f16>";
static constexpr StringLiteral kQ8 = "#kv.quant<i8, map = sym_signed, group = 1x32, scale = f16>";
static constexpr StringLiteral kQ4 = "#kv.quant<i4, map = sym_signed, group = 1x32, scale = f16>";
static constexpr StringLiteral kQ4Asym = "#kv.quant<i4, map = asym, group = 1x32, scale = f16>";
static constexpr StringLiteral kKivi = "KIVI, arXiv 2402.02750", kInnerq = "InnerQ, arXiv 2602.23200",
                               kLlama = "llama.cpp's block formats", kPerToken = "per-token integer caches";

static constexpr SchemePreset kPresets[] = {
    {"fp16", "#kv.quant<f16>", "#kv.quant<f16>", "#kv.window<sink = 0, recent = 0, flush = 32>",
     "the unquantized cache"},
    {"bf16", "#kv.quant<bf16>", "#kv.quant<bf16>", "#kv.window<sink = 0, recent = 0, flush = 32>",
     "the unquantized cache"},
    {"int8-token", kInt8Token, kInt8Token, kEveryToken, kPerToken},
    {"int4-token", kInt4Token, kInt4Token, kEveryToken, kPerToken},
    {"q8_0", kQ8, kQ8, kEveryToken, kLlama},
    {"q4_0", kQ4, kQ4, kEveryToken, kLlama},
    {"q4_1", kQ4Asym, kQ4Asym, kEveryToken, kLlama},
    {"kivi-2", "#kv.quant<i2, map = asym, group = 32x1, scale = f16>",
     "#kv.quant<i2, map = asym, group = 1x32, scale = f16>", "#kv.window<sink = 0, recent = 128, flush = 32>", kKivi},
    {"kivi-4", "#kv.quant<i4, map = asym, group = 32x1, scale = f16>",
     "#kv.quant<i4, map = asym, group = 1x32, scale = f16>", "#kv.window<sink = 0, recent = 128, flush = 32>", kKivi},
    {"kivi-2-sink", "#kv.quant<i2, map = asym, group = 32x1, scale = f16>",
     "#kv.quant<i2, map = asym, group = 1x32, scale = f16>", kInnerqWindow, kKivi},
    {"innerq-base", kInnerqKeys, "#kv.quant<i3, map = sym, group = 32x1, scale = f16>", kInnerqWindow, kInnerq},
    {"innerq-small", kInnerqKeys, "#kv.quant<i2, map = sym, group = 32x1, scale = f16>", kInnerqWindow, kInnerq},
    {"innerq-hybrid", kInnerqKeys, "#kv.quant<i2, map = hybrid, group = 32x1, scale = f16>", kInnerqWindow, kInnerq},
};

ArrayRef<SchemePreset> kvcc::getSchemePresets() { return kPresets; }

std::string kvcc::getSchemeNames() {
  return join(map_range(kPresets, [](const SchemePreset &preset) { return preset.name; }), ", ");
}

Expected<Scheme> kvcc::parseScheme(StringRef name, int64_t headDim, mlir::MLIRContext &context) {
  const SchemePreset *preset = find_if(kPresets, [&](const SchemePreset &p) { return p.name == name; });
  if (preset == std::end(kPresets))
    return createStringError("expected scheme " + getSchemeNames() + ", but got '" + name.str() + "'");
  auto parse = [&](StringRef text) {
    auto [before, after] = text.split("head");
    return mlir::parseAttribute(after.empty() ? text.str() : (before + Twine(headDim) + after).str(), &context);
  };
  return Scheme{preset->name.str(), preset->source.str(), cast<kv::QuantAttr>(parse(preset->key)),
                cast<kv::QuantAttr>(parse(preset->value)), cast<kv::WindowAttr>(parse(preset->window))};
}
