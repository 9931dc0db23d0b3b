// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Builds the module of a model's layers, fills in what the user gives, and lets the selection passes do the rest.
#include "runtime/ModelSchemes.h"

#include "mlir/AsmParser/AsmParser.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "runtime/Plan.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

using namespace llvm;
using namespace kvcc;
using mlir::MLIRContext;
using mlir::ModuleOp;
using mlir::OwningOpRef;

namespace {

/// The layers of a model as facts.
class ModuleBuilder {
public:
  ModuleBuilder(MLIRContext &context, const ModelConfig &model, StringRef dtype) : b(&context), model(model) {
    element = dtype == "f16" ? b.getF16Type() : dtype == "bf16" ? mlir::Type(b.getBF16Type()) : b.getF32Type();
  }

  OwningOpRef<ModuleOp> build(std::vector<kv::LayerOp> &layers) {
    OwningOpRef<ModuleOp> module(ModuleOp::create(b.getUnknownLoc()));
    b.setInsertionPointToEnd(module->getBody());
    for (auto [i, layer] : enumerate(model.layers))
      layers.push_back(hasCache(layer) ? addLayer(i, layer) : kv::LayerOp());
    return module;
  }

private:
  kv::LayerOp addLayer(size_t index, const LayerConfig &layer) {
    auto reach = [&](kv::Reach value) { return kv::ReachAttr::get(b.getContext(), value); };
    auto integer = [&](int64_t value) { return b.getI64IntegerAttr(value); };
    mlir::NamedAttrList attributes;
    attributes.set("index", integer(int64_t(index)));
    attributes.set("q_heads", integer(layer.qHeads));
    attributes.set("kv_heads", integer(layer.kvHeads));
    attributes.set("head_dim", integer(layer.headDim));
    attributes.set("dtype", mlir::TypeAttr::get(element));
    if (layer.kind != LayerKind::Full) {
      attributes.set("reach", reach(layer.kind == LayerKind::Sliding ? kv::Reach::Sliding : kv::Reach::Chunked));
      attributes.set("window_tokens", integer(layer.window));
    }
    attributes.set("scale", b.getF64FloatAttr(layer.scale));
    if (layer.softcap != 0)
      attributes.set("softcap", b.getF64FloatAttr(layer.softcap));
    if (layer.attentionSinks)
      attributes.set("sink_logits", b.getUnitAttr());
    if (!layer.rope)
      attributes.set("no_rope", b.getUnitAttr());
    if (layer.kBias)
      attributes.set("key_bias", b.getUnitAttr());
    if (layer.qkNorm != QkNorm::None)
      attributes.set("qk_norm", b.getUnitAttr());
    if (!layer.unsupported.empty())
      attributes.set("unserved", b.getStringAttr(layer.unsupported));
    return kv::LayerOp::create(b, b.getUnknownLoc(), mlir::TypeRange(), mlir::ValueRange(), attributes.getAttrs());
  }

  mlir::OpBuilder b;
  const ModelConfig &model;
  mlir::Type element;
};

/// The first error that MLIR reports while it lives, without the name of the operation and, if that is in a text of our
/// own, without its place.
class FirstError {
public:
  explicit FirstError(MLIRContext &context, bool places = true)
      : handler(&context, [this, places](mlir::Diagnostic &diagnostic) {
          if (!text.empty() || diagnostic.getSeverity() != mlir::DiagnosticSeverity::Error)
            return;
          if (auto loc = mlir::dyn_cast<mlir::FileLineColLoc>(diagnostic.getLocation()); loc && places)
            text =
                (loc.getFilename().getValue() + ":" + Twine(loc.getLine()) + ":" + Twine(loc.getColumn()) + ": ").str();
          std::string message = diagnostic.str();
          StringRef plain = message;
          plain.consume_front("'kv.layer' op ");
          text += plain;
        }) {}
  Error take(StringRef fallback) { return createStringError(text.empty() ? fallback : text); }

private:
  std::string text;
  mlir::ScopedDiagnosticHandler handler;
};

/// A size such as 8GiB, 512MB or 4096.
std::optional<int64_t> parseBytes(StringRef text) {
  const std::pair<StringRef, double> units[] = {{"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
                                                {"TiB", 0x1p40}, {"KB", 1e3},     {"MB", 1e6},
                                                {"GB", 1e9},     {"TB", 1e12},    {"B", 1}};
  double factor = 1, number;
  for (auto [name, value] : units)
    if (text.consume_back_insensitive(name)) {
      factor = value;
      break;
    }
  if (text.trim().getAsDouble(number) || !(number > 0) || number * factor > 9e18)
    return std::nullopt;
  return int64_t(number * factor);
}

/// Takes `profile = PATH` out of a scheme's text.
Expected<std::string> takeProfile(std::string &text) {
  SmallVector<StringRef> parts, rest;
  StringRef(text).split(parts, ';');
  std::string path;
  for (StringRef part : parts) {
    auto [name, value] = part.split('=');
    if (name.trim() != "profile") {
      rest.push_back(part);
      continue;
    }
    if (value.trim().empty() || !path.empty())
      return createStringError("expected one 'profile = P.json', but got '" + part.trim().str() + "'");
    path = value.trim().str();
  }
  text = join(rest, ";");
  return path;
}

/// What follows `auto`, as the text of an objective.
Expected<std::string> parseAuto(StringRef text) {
  std::string objective = "#kv.objective<";
  SmallVector<StringRef> parts, seen;
  text.split(parts, ';', -1, /*KeepEmpty=*/false);
  bool limited = false, first = true;
  for (StringRef part : drop_begin(parts)) {
    auto [name, value] = part.split('=');
    name = name.trim();
    value = value.trim();
    std::string given = value.str();
    if (!is_contained({"budget", "memory", "max_kl", "context", "batch", "prefer", "specs"}, name) || value.empty() ||
        is_contained(seen, name))
      return createStringError("expected auto with budget, memory, max_kl, context, batch, prefer, specs or profile, "
                               "each once as 'name = value', but got '" +
                               part.trim().str() + "'");
    seen.push_back(name);
    double number;
    if (name == "memory") {
      std::optional<int64_t> bytes = parseBytes(value);
      if (!bytes)
        return createStringError("expected memory as a size such as 8GiB, but got '" + given + "'");
      given = std::to_string(*bytes);
    } else if (name == "prefer") {
      if (!is_contained({"quality", "speed", "memory"}, value))
        return createStringError("expected prefer quality, speed or memory, but got '" + given + "'");
    } else if (name == "budget" || name == "max_kl") {
      if (value.getAsDouble(number) || !(number > 0) || number > 1e6)
        return createStringError("expected " + name.str() + " as a number over 0, but got '" + given + "'");
      given = formatv("{0:e9}", number);
    } else {
      int64_t integer;
      if (value.getAsInteger(10, integer))
        return createStringError("expected " + name.str() + " as an integer, but got '" + given + "'");
    }
    limited |= name == "budget" || name == "memory" || name == "max_kl" || given == "memory";
    objective += (first ? "" : ", ") + name.str() + " = " + given;
    first = false;
  }
  if (!limited)
    objective += std::string(first ? "" : ", ") + "budget = 4";
  return objective + ">";
}

/// Copies key, value and window of a table's layers to those of the model.
Error applyTable(MLIRContext &context, StringRef path, ArrayRef<kv::LayerOp> layers) {
  FirstError errors(context);
  OwningOpRef<ModuleOp> table = mlir::parseSourceFile<ModuleOp>(path, &context);
  if (!table)
    return errors.take(("cannot read " + path).str());
  auto fail = [&](mlir::Operation *op, const Twine &message) {
    std::string place = path.str();
    if (auto loc = mlir::dyn_cast<mlir::FileLineColLoc>(op->getLoc()))
      place += ":" + std::to_string(loc.getLine()) + ":" + std::to_string(loc.getColumn());
    return createStringError(place + ": " + message);
  };
  std::vector<bool> seen(layers.size(), false);
  for (mlir::Operation &op : *table->getBody()) {
    auto entry = dyn_cast<kv::LayerOp>(op);
    if (!entry)
      return fail(&op, "expected kv.layer, but got " + Twine(op.getName().getStringRef()));
    auto index = size_t(entry.getIndex());
    if (index >= layers.size() || !layers[index] || seen[index])
      return fail(entry, "expected each layer with keys and values once, but got layer " + Twine(index) +
                             (index < layers.size() && seen[index] ? " again" : ""));
    seen[index] = true;
    if (!entry.getKey() || !entry.getValue() || !entry.getWindow())
      return fail(entry, "expected key, value and window for layer " + Twine(index));
    kv::LayerOp layer = layers[index];
    for (StringRef fact : {"q_heads", "kv_heads", "head_dim"})
      if (mlir::Attribute given = entry->getAttr(fact); given && given != layer->getAttr(fact))
        return fail(entry, "expected " + fact + " of the model, " +
                               Twine(mlir::cast<mlir::IntegerAttr>(layer->getAttr(fact)).getInt()) + ", but got " +
                               Twine(mlir::cast<mlir::IntegerAttr>(given).getInt()));
    layer.setKeyAttr(*entry.getKey());
    layer.setValueAttr(*entry.getValue());
    layer.setWindowAttr(*entry.getWindow());
  }
  for (size_t i = 0; i < layers.size(); ++i)
    if (layers[i] && !seen[i])
      return createStringError(
          path + ": expected an entry for each layer with keys and values, but got none for layer " + Twine(i));
  return Error::success();
}

} // namespace

Scheme ModelSchemes::getScheme(size_t layer) const {
  kv::LayerOp op = layers[layer];
  return {name, source, *op.getKey(), *op.getValue(), *op.getWindow()};
}

std::string ModelSchemes::print() const { return printModule(module.get()); }

Expected<ModelSchemes> kvcc::chooseSchemes(MLIRContext &context, const ModelConfig &model, StringRef dtype,
                                           const Target &target, StringRef given) {
  if (!is_contained({"f16", "bf16", "f32"}, dtype))
    return createStringError("expected dtype f16, bf16 or f32, but got '" + dtype.str() + "'");
  ModelSchemes result;
  result.module = ModuleBuilder(context, model, dtype).build(result.layers);
  ModuleOp module = result.module.get();
  module->setAttr(kTargetAttrName, target.getAttr(context));
  std::string objective = "#kv.objective<>";
  std::string whole = given.str();
  auto profilePath = takeProfile(whole);
  if (!profilePath)
    return profilePath.takeError();
  StringRef text = StringRef(whole).trim();
  bool isAuto = text == "auto" || text.starts_with("auto;") || text.starts_with("auto ");
  if (!profilePath->empty()) {
    auto profile = loadProfile(context, *profilePath, model);
    if (!profile)
      return profile.takeError();
    result.statistics.resize(model.layers.size());
    for (LayerProfile &layer : profile->layers) {
      SmallVector<mlir::Attribute> measured(layer.measured.begin(), layer.measured.end());
      if (kv::LayerOp op = result.layers[layer.layer]; op && isAuto)
        op.setMeasuredAttr(mlir::ArrayAttr::get(&context, measured));
      result.statistics[layer.layer] = std::move(layer.statistics);
    }
  }

  if (isAuto) {
    auto request = parseAuto(text);
    if (!request)
      return request.takeError();
    objective = *request;
    result.name = "auto";
    result.source = profilePath->empty() ? "chosen by priors" : "chosen from a profile";
  } else if (text.ends_with(".mlir")) {
    if (Error error = applyTable(context, text, result.layers))
      return std::move(error);
    result.name = text.str();
    result.source = "a table";
  } else {
    for (kv::LayerOp layer : result.layers) {
      if (!layer)
        continue;
      auto scheme = parseScheme(text, int64_t(*layer.getHeadDim()), context);
      if (!scheme)
        return scheme.takeError();
      result.name = scheme->name;
      result.source = scheme->source;
      layer.setKeyAttr(scheme->key);
      layer.setValueAttr(scheme->value);
      layer.setWindowAttr(scheme->window);
    }
  }
  FirstError errors(context, /*places=*/false);
  auto parsed = dyn_cast_or_null<kv::ObjectiveAttr>(mlir::parseAttribute(objective, &context));
  if (!parsed || failed(mlir::verify(module)))
    return errors.take("invalid objective " + objective);
  module->setAttr(kObjectiveAttrName, parsed);
  if (Error error = runSelection(module, result.remarks))
    return std::move(error);
  for (kv::LayerOp layer : result.layers)
    if (layer && failed(mlir::verify(layer)))
      return errors.take("invalid choice");
  return result;
}
