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

static constexpr SchemePreset kPresets[] = {
    {"fp16", "#kv.quant<f16>", "#kv.quant<f16>", "#kv.window<sink = 0, recent = 0, flush = 32>",
     "the unquantized cache"},
    {"innerq-base", kInnerqKeys, "#kv.quant<i3, map = sym, group = 32x1, scale = f16>", kInnerqWindow,
     "InnerQ, arXiv 2602.23200"},
    {"innerq-small", kInnerqKeys, "#kv.quant<i2, map = sym, group = 32x1, scale = f16>", kInnerqWindow,
     "InnerQ, arXiv 2602.23200"},
};

ArrayRef<SchemePreset> kvcc::getSchemePresets() { return kPresets; }

std::string kvcc::getSchemeNames() {
  return join(map_range(kPresets, [](const SchemePreset &preset) { return preset.name; }), ", ");
}

Expected<Scheme> kvcc::parseScheme(StringRef name, mlir::MLIRContext &context) {
  const SchemePreset *preset = find_if(kPresets, [&](const SchemePreset &p) { return p.name == name; });
  if (preset == std::end(kPresets))
    return createStringError("expected scheme " + getSchemeNames() + ", but got '" + name.str() + "'");
  auto parse = [&](StringRef text) { return mlir::parseAttribute(text, &context); };
  return Scheme{preset->name.str(), preset->source.str(), cast<kv::QuantAttr>(parse(preset->key)),
                cast<kv::QuantAttr>(parse(preset->value)), cast<kv::WindowAttr>(parse(preset->window))};
}
