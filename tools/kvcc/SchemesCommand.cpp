// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc schemes: the presets, as a table. The README's table is what this prints.
#include "tools/kvcc/Commands.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::schemesCommand("schemes", "list the presets");
static cl::opt<int64_t> headDim("head-dim", cl::desc("channels per head that {head} and bits are of"), cl::init(128),
                                cl::sub(schemesCommand));
static cl::opt<std::string> outputFormat("o", cl::desc("md or json"), cl::init("md"), cl::sub(schemesCommand));

Error tool::runSchemes() {
  if (outputFormat != "md" && outputFormat != "json")
    return usageError("expected -o md or json, but got '" + outputFormat + "'");
  if (headDim < 32 || headDim > 256 || headDim % 32)
    return usageError("expected --head-dim a multiple of 32 from 32 to 256, but got " + Twine(headDim));
  auto context = createContext();
  json::Array list;
  if (outputFormat == "md")
    outs() << formatv("| name | keys | values | sink, recent, flush | bits at head_dim {0} | source |\n"
                      "|---|---|---|---|---|---|\n",
                      headDim.getValue());
  for (const SchemePreset &preset : getSchemePresets()) {
    auto scheme = parseScheme(preset.name, headDim, *context);
    if (!scheme)
      return scheme.takeError();
    double keyBits = scheme->key.getBitsPerElement(headDim), valueBits = scheme->value.getBitsPerElement(headDim);
    kv::WindowAttr window = scheme->window;
    if (outputFormat == "md") {
      StringRef values = preset.value == preset.key ? StringRef("the same") : StringRef(preset.value);
      auto code = [](StringRef text) { return text.starts_with("<") ? ("`" + text + "`").str() : text.str(); };
      outs() << formatv("| `{0}` | {1} | {2} | {3}, {4}, {5} | {6:f2} / {7:f2} | {8} |\n", preset.name,
                        code(preset.key), code(values), window.getSink(), window.getRecent(), window.getFlush(),
                        keyBits, valueBits, preset.source);
      continue;
    }
    auto print = [](mlir::Attribute attribute) {
      std::string text;
      raw_string_ostream(text) << attribute;
      return text;
    };
    list.push_back(json::Object{{"name", preset.name},
                                {"key", print(scheme->key)},
                                {"value", print(scheme->value)},
                                {"window", print(window)},
                                {"key_bits", keyBits},
                                {"value_bits", valueBits},
                                {"source", preset.source}});
  }
  if (outputFormat == "json")
    outs() << formatv("{0:2}", json::Value(std::move(list))) << "\n";
  return Error::success();
}
