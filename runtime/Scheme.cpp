// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The table of presets.
#include "runtime/Scheme.h"

#include "mlir/AsmParser/AsmParser.h"
#include "llvm/ADT/StringExtras.h"

using namespace llvm;
using namespace kvcc;

static constexpr StringLiteral kPlainWindow = "<sink = 0, recent = 0, flush = 32>";
static constexpr StringLiteral kEveryToken = "<sink = 0, recent = 0, flush = 1>";
static constexpr StringLiteral kSinkWindow = "<sink = 32, recent = 96, flush = 32>";
static constexpr StringLiteral kKiviWindow = "<sink = 0, recent = 128, flush = 32>";

static constexpr StringLiteral kFp8 = "<f8E4M3FN, map = sym, group = 1x{head}, scale = f16>";
static constexpr StringLiteral kInt8Token = "<i8, map = asym, group = 1x{head}, scale = f16>";
static constexpr StringLiteral kInt4Token = "<i4, map = asym, group = 1x{head}, scale = f16>";
static constexpr StringLiteral kQ8 = "<i8, map = sym_signed, group = 1x32, scale = f16>";
static constexpr StringLiteral kQ4 = "<i4, map = sym_signed, group = 1x32, scale = f16>";
static constexpr StringLiteral kQ4Asym = "<i4, map = asym, group = 1x32, scale = f16>";
static constexpr StringLiteral kKivi2Keys = "<i2, map = asym, group = 32x1, scale = f16>";
static constexpr StringLiteral kKivi2Values = "<i2, map = asym, group = 1x32, scale = f16>";
static constexpr StringLiteral kInnerqKeys =
    "<i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>";
static constexpr StringLiteral kMx = "<f4E2M1FN, map = sym, group = 1x32, scale = f8E8M0FNU>";
static constexpr StringLiteral kNv =
    "<f4E2M1FN, map = sym, group = 1x16, scale = f8E4M3FN, transforms = [#kv.diag<tensor>]>";

static constexpr StringLiteral kPerToken = "one scale per token and head, as in vLLM and TensorRT-LLM",
                               kLlama = "llama.cpp", kKivi = "KIVI, arXiv 2402.02750",
                               kInnerq = "InnerQ, arXiv 2602.23200", kOwn = "kvcc, recipe T",
                               kUnquantized = "the unquantized cache";

// Keys and values of recipe T: one signed scale per token, rotated; the keys centred and written with feedback.
#define KVCC_T_KEYS(bits)                                                                                              \
  "<i" #bits                                                                                                           \
  ", map = sym_signed, group = 1x{head}, scale = f16, transforms = [#kv.center, #kv.hadamard<{rotation}>], "           \
  "feedback>"
#define KVCC_T_VALUES(bits)                                                                                            \
  "<i" #bits ", map = sym_signed, group = 1x{head}, scale = f16, transforms = [#kv.hadamard<{rotation}>]>"

static constexpr SchemePreset kPresets[] = {
    {"fp16", "<f16>", "<f16>", kPlainWindow, kUnquantized},
    {"bf16", "<bf16>", "<bf16>", kPlainWindow, kUnquantized},
    {"fp8", kFp8, kFp8, kEveryToken, kPerToken},
    {"int8-token", kInt8Token, kInt8Token, kEveryToken, kPerToken},
    {"int4-token", kInt4Token, kInt4Token, kEveryToken, kPerToken},
    {"q8_0", kQ8, kQ8, kEveryToken, kLlama},
    {"q4_0", kQ4, kQ4, kEveryToken, kLlama},
    {"q4_1", kQ4Asym, kQ4Asym, kEveryToken, kLlama},
    {"kivi-2", kKivi2Keys, kKivi2Values, kKiviWindow, kKivi},
    {"kivi-4", "<i4, map = asym, group = 32x1, scale = f16>", kQ4Asym, kKiviWindow, kKivi},
    {"kivi-2-sink", kKivi2Keys, kKivi2Values, kSinkWindow, kKivi},
    {"innerq-base", kInnerqKeys, "<i3, map = sym, group = 32x1, scale = f16>", kSinkWindow, kInnerq},
    {"innerq-small", kInnerqKeys, "<i2, map = sym, group = 32x1, scale = f16>", kSinkWindow, kInnerq},
    {"innerq-hybrid", kInnerqKeys, "<i2, map = hybrid, group = 32x1, scale = f16>", kSinkWindow, kInnerq},
    {"mxfp4", kMx, kMx, kEveryToken, "OCP Microscaling Formats 1.0"},
    {"nvfp4", kNv, kNv, kEveryToken, "NVIDIA Blackwell"},
    {"kvcc-2.5", KVCC_T_KEYS(2), KVCC_T_VALUES(2), kSinkWindow, kOwn},
    {"kvcc-3", KVCC_T_KEYS(3), KVCC_T_VALUES(2), kSinkWindow, kOwn},
    {"kvcc-3.5", KVCC_T_KEYS(3), KVCC_T_VALUES(3), kSinkWindow, kOwn},
    {"kvcc-4", KVCC_T_KEYS(4), KVCC_T_VALUES(3), kSinkWindow, kOwn},
    {"kvcc-4.5", KVCC_T_KEYS(4), KVCC_T_VALUES(4), kSinkWindow, kOwn},
    {"kvcc-5", KVCC_T_KEYS(5), KVCC_T_VALUES(4), kSinkWindow, kOwn},
};
#undef KVCC_T_KEYS
#undef KVCC_T_VALUES

ArrayRef<SchemePreset> kvcc::getSchemePresets() { return kPresets; }

std::string kvcc::getSchemeNames() {
  return join(map_range(kPresets, [](const SchemePreset &preset) { return preset.name; }), ", ");
}

/// `text` with the placeholders of the table replaced for heads of `headDim` channels.
static std::string substitute(StringRef text, int64_t headDim) {
  std::string result = text.str();
  for (auto [name, value] :
       {std::pair<std::string, int64_t>("{head}", headDim), {"{rotation}", std::min<int64_t>(headDim & -headDim, 256)}})
    for (size_t at; (at = result.find(name)) != std::string::npos;)
      result.replace(at, name.size(), std::to_string(value));
  return result;
}

/// Parses `#kv.MNEMONIC<...>` or just `<...>`; errors name the part and the column.
template <typename T>
static Expected<T> parsePart(StringRef part, StringRef mnemonic, StringRef text, int64_t headDim,
                             mlir::MLIRContext &context) {
  std::string whole = substitute(text, headDim);
  if (whole.size() > kMaxAttributeText)
    return createStringError("expected " + part + " of at most " + Twine(kMaxAttributeText) + " characters, but got " +
                             Twine(whole.size()));
  if (StringRef(whole).starts_with("<"))
    whole = ("#kv." + mnemonic).str() + whole;
  std::string message;
  mlir::ScopedDiagnosticHandler handler(&context, [&](mlir::Diagnostic &diagnostic) {
    if (!message.empty())
      return;
    message = diagnostic.str();
    if (auto loc = dyn_cast<mlir::FileLineColLoc>(diagnostic.getLocation()))
      message = "column " + std::to_string(loc.getColumn()) + ": " + message;
  });
  mlir::Attribute attribute = mlir::parseAttribute(whole, &context);
  if (auto result = dyn_cast_or_null<T>(attribute))
    return result;
  return createStringError("in " + part.str() + " '" + whole +
                           "': " + (message.empty() ? "expected #kv." + mnemonic.str() + "<...>" : message));
}

/// The preset whose name is nearest.
static const SchemePreset &findNearest(StringRef name) {
  return *llvm::min_element(kPresets, [&](const SchemePreset &a, const SchemePreset &b) {
    return a.name.edit_distance(name) < b.name.edit_distance(name);
  });
}

Expected<Scheme> kvcc::parseScheme(StringRef text, int64_t headDim, mlir::MLIRContext &context) {
  StringRef name, key, value, window;
  SmallVector<StringRef> parts;
  text.split(parts, ';', -1, /*KeepEmpty=*/false);
  for (auto [i, part] : llvm::enumerate(parts)) {
    part = part.trim();
    auto [left, right] = part.split('=');
    left = left.trim();
    StringRef *target = left == "k" ? &key : left == "v" ? &value : left == "window" ? &window : nullptr;
    if (target && target->empty() && !right.trim().empty())
      *target = right.trim();
    else if (i == 0 && part.size() == left.size())
      name = part;
    else
      return createStringError("expected a scheme such as 'innerq-small; k = #kv.quant<...>; v = #kv.quant<...>; "
                               "window = #kv.window<...>', each part once, but got '" +
                               part.str() + "'");
  }
  const SchemePreset *preset = find_if(kPresets, [&](const SchemePreset &p) { return p.name == name; });
  if (preset == std::end(kPresets)) {
    if (!name.empty() || (key.empty() && value.empty() && window.empty()))
      return createStringError("expected scheme " + getSchemeNames() + ", but got '" + text.str() + "'" +
                               (name.empty() ? "" : "; the nearest is " + findNearest(name).name.str()));
    if (key.empty() || value.empty())
      return createStringError("expected a preset, or both k and v, but got only " + std::string(!key.empty() ? "k"
                                                                                                 : !value.empty()
                                                                                                     ? "v"
                                                                                                     : "a window"));
    preset = nullptr;
  }
  auto quantKey = parsePart<kv::QuantAttr>("k", "quant", key.empty() ? StringRef(preset->key) : key, headDim, context);
  if (!quantKey)
    return quantKey.takeError();
  auto quantValue =
      parsePart<kv::QuantAttr>("v", "quant", value.empty() ? StringRef(preset->value) : value, headDim, context);
  if (!quantValue)
    return quantValue.takeError();
  StringRef windowText = !window.empty() ? window : preset ? StringRef(preset->window) : StringRef(kSinkWindow);
  auto windowAttr = parsePart<kv::WindowAttr>("window", "window", windowText, headDim, context);
  if (!windowAttr)
    return windowAttr.takeError();
  bool changed = !key.empty() || !value.empty() || !window.empty();
  return Scheme{preset ? preset->name.str() + (changed ? " (changed)" : "") : "custom",
                preset && !changed ? preset->source.str() : "given by hand", *quantKey, *quantValue, *windowAttr};
}
