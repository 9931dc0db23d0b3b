// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The text of a scheme: what is accepted can be written as parts that give the same scheme.
#include "test/fuzz/FuzzTarget.h"

#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Diagnostics.h"
#include "runtime/Scheme.h"

using namespace kvcc;

static std::string print(mlir::Attribute attribute) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  attribute.print(stream);
  return text;
}

static void run(llvm::StringRef bytes) {
  mlir::MLIRContext &context = fuzz::getContext();
  mlir::ScopedDiagnosticHandler quiet(&context, [](mlir::Diagnostic &) {});
  for (int64_t headDim : {64, 96}) {
    llvm::Expected<Scheme> scheme = parseScheme(bytes, headDim, context);
    if (!scheme) {
      fuzz::require(!toString(scheme.takeError()).empty(), "an error says something");
      continue;
    }
    std::string parts =
        "k = " + print(scheme->key) + "; v = " + print(scheme->value) + "; window = " + print(scheme->window);
    llvm::Expected<Scheme> again = parseScheme(parts, headDim, context);
    fuzz::require(bool(again), "the parts of a scheme are a scheme");
    fuzz::require(again->key == scheme->key && again->value == scheme->value && again->window == scheme->window,
                  "the parts give the same scheme");
    // Whether it fits such heads is the verifier's to say.
    (void)kv::CacheType::getChecked([&] { return mlir::emitError(mlir::UnknownLoc::get(&context)); }, &context,
                                    int64_t(2), headDim, mlir::Type(mlir::Float16Type::get(&context)), scheme->key,
                                    scheme->value, scheme->window);
  }
}

static std::vector<std::string> getSeeds() {
  std::vector<std::string> seeds = {"innerq-small; v = <i4, map = asym, group = 1x32, scale = f16>",
                                    "kvcc-3; window = #kv.window<sink = 0, recent = 64, flush = 64>"};
  for (const SchemePreset &preset : getSchemePresets()) {
    seeds.push_back(preset.name.str());
    seeds.push_back(("k = " + preset.key + "; v = " + preset.value + "; window = " + preset.window).str());
  }
  return seeds;
}

const fuzz::Target fuzz::scheme = {"scheme", run, getSeeds};
