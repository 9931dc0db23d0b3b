// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Profiles as JSON.
#include "runtime/Profile.h"

#include "dialect/SmallFloat.h"
#include "mlir/AsmParser/AsmParser.h"
#include "runtime/Diagnostics.h"
#include "runtime/JsonText.h"
#include "runtime/Scheme.h"
#include "llvm/Support/Base64.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cmath>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::kv;

static constexpr int64_t kVersion = 1;

/// Numbers as bf16 (8 bits of precision are plenty for statistics), little-endian, base64.
static std::string encodeNumbers(ArrayRef<float> numbers) {
  std::string bytes;
  for (float number : numbers) {
    uint16_t bits = floatToBfloat(number);
    bytes += {char(bits & 0xff), char(bits >> 8)};
  }
  return encodeBase64(bytes);
}

static bool decodeNumbers(StringRef text, size_t count, std::vector<float> &numbers) {
  std::vector<char> bytes;
  if (Error error = decodeBase64(text, bytes)) {
    consumeError(std::move(error));
    return false;
  }
  if (bytes.size() != 2 * count)
    return false;
  for (size_t i = 0; i < count; ++i)
    numbers.push_back(bfloatToFloat(uint16_t(uint8_t(bytes[2 * i]) | uint16_t(uint8_t(bytes[2 * i + 1])) << 8)));
  return llvm::all_of(numbers, [](float x) { return std::isfinite(x); });
}

std::string kvcc::printProfile(const Profile &profile) {
  json::Array layers;
  for (const LayerProfile &layer : profile.layers) {
    json::Array measured, heads;
    for (MeasuredAttr entry : layer.measured) {
      std::string format;
      raw_string_ostream(format) << entry.getQuant();
      measured.push_back(
          json::Object{{stringifyRole(entry.getRole()), format}, {"damage", entry.getDamage().convertToDouble()}});
    }
    for (const WriterStatistics &head : layer.statistics) {
      // The moment is symmetric.
      auto dim = size_t(std::lround(std::sqrt(double(head.queryMoment.size()))));
      std::vector<float> upper;
      for (size_t a = 0; a < dim; ++a)
        for (size_t b = a; b < dim; ++b)
          upper.push_back(float(head.queryMoment[a * dim + b]));
      heads.push_back(
          json::Object{{"key_means", encodeNumbers(head.keys.means)}, {"query_moment", encodeNumbers(upper)}});
    }
    layers.push_back(json::Object{{"layer", int64_t(layer.layer)},
                                  {"key_imbalance", layer.keyImbalance},
                                  {"value_imbalance", layer.valueImbalance},
                                  {"key_offset", layer.keyOffset},
                                  {"measured", std::move(measured)},
                                  {"heads", std::move(heads)}});
  }
  json::Object root{{"kvcc_profile", kVersion},   {"model", profile.model},     {"shape", profile.shape},
                    {"tokens", profile.tokens},   {"queries", profile.queries}, {"sensitive", profile.sensitive},
                    {"layers", std::move(layers)}};
  return formatv("{0:1}", json::Value(std::move(root))).str() + "\n";
}

namespace {

/// Reads the layers; every message names the file and the layer.
class ProfileReader {
public:
  ProfileReader(mlir::MLIRContext &context, StringRef path, const ModelConfig &model)
      : context(context), path(path), model(model) {}

  Expected<Profile> read(const json::Object &root) {
    std::optional<int64_t> version = root.getInteger("kvcc_profile");
    if (version != kVersion)
      return fail("expected a profile (\"kvcc_profile\": " + Twine(kVersion) + "), but got " +
                  (version ? "version " + Twine(*version) : Twine("none")));
    Profile profile;
    profile.model = root.getString("model").value_or("").str();
    profile.tokens = root.getInteger("tokens").value_or(0);
    profile.queries = root.getInteger("queries").value_or(0);
    profile.sensitive = root.getBoolean("sensitive").value_or(false);
    profile.shape = root.getString("shape").value_or("").str();
    if (profile.shape != describeShape(model))
      return fail("expected a profile of a " + describeShape(model) + ", but got one of " +
                  (profile.shape.empty() ? "no known shape" : "a " + profile.shape));
    std::vector<bool> seen(model.layers.size(), false);
    const json::Array *layers = root.getArray("layers");
    if (!layers)
      return fail("expected layers, but got none");
    for (const json::Value &entry : *layers) {
      const json::Object *object = entry.getAsObject();
      int64_t index = object ? object->getInteger("layer").value_or(-1) : -1;
      if (index < 0 || size_t(index) >= seen.size() || seen[size_t(index)])
        return fail("expected each layer from 0 to " + Twine(seen.size() - 1) + " once, but got " + quoteJson(entry));
      seen[size_t(index)] = true;
      LayerProfile &layer = profile.layers.emplace_back();
      layer.layer = size_t(index);
      if (Error error = readLayer(*object, layer))
        return std::move(error);
    }
    for (size_t i = 0; i < seen.size(); ++i)
      if (hasCache(model.layers[i]) && !seen[i])
        return fail("expected all layers of the model, but got none for layer " + Twine(i));
    return profile;
  }

private:
  Error fail(const Twine &message) const { return createStringError(path + ": " + message); }

  Error readLayer(const json::Object &object, LayerProfile &layer) {
    std::string where = "layer " + std::to_string(layer.layer) + ": ";
    layer.keyImbalance = object.getNumber("key_imbalance").value_or(1);
    layer.valueImbalance = object.getNumber("value_imbalance").value_or(1);
    layer.keyOffset = object.getNumber("key_offset").value_or(0);
    const json::Array *measured = object.getArray("measured");
    if (!measured || measured->empty())
      return fail(where + "expected measured formats, but got none");
    for (const json::Value &value : *measured) {
      const json::Object *entry = value.getAsObject();
      std::optional<StringRef> key = entry ? entry->getString("key") : std::nullopt;
      std::optional<StringRef> format = key ? key : entry ? entry->getString("value") : std::nullopt;
      std::optional<double> damage = entry ? entry->getNumber("damage") : std::nullopt;
      if (!format || !damage || !std::isfinite(*damage) || *damage < 0)
        return fail(where + "expected a format of key or value with a damage that is not negative, but got " +
                    quoteJson(value));
      if (format->size() > kMaxAttributeText)
        return fail(where + "expected a format of at most " + Twine(kMaxAttributeText) + " characters, but got " +
                    Twine(format->size()));
      Diagnostics diagnostics(context);
      auto quant = dyn_cast_or_null<QuantAttr>(mlir::parseAttribute(*format, &context));
      if (!quant)
        return fail(where + "in '" + *format +
                    "': " + (diagnostics.getText().empty() ? "expected #kv.quant<...>" : diagnostics.getText()));
      layer.measured.push_back(MeasuredAttr::get(&context, key ? Role::Key : Role::Value, quant, APFloat(*damage)));
    }
    const LayerConfig &facts = model.layers[layer.layer];
    const json::Array *heads = object.getArray("heads");
    if (!heads || int64_t(heads->size()) != facts.kvHeads)
      return fail(where + "expected " + Twine(facts.kvHeads) + " heads, but got " + Twine(heads ? heads->size() : 0));
    auto dim = size_t(facts.headDim);
    for (const json::Value &value : *heads) {
      const json::Object *entry = value.getAsObject();
      WriterStatistics &head = layer.statistics.emplace_back();
      std::vector<float> upper;
      if (!entry || !decodeNumbers(entry->getString("key_means").value_or(""), dim, head.keys.means) ||
          !decodeNumbers(entry->getString("query_moment").value_or(""), dim * (dim + 1) / 2, upper))
        return fail(where + "expected key_means and query_moment for head_dim " + Twine(dim) +
                    " in each head, but head " + Twine(layer.statistics.size() - 1) + " has others");
      head.queryMoment.resize(dim * dim);
      for (size_t a = 0, i = 0; a < dim; ++a)
        for (size_t b = a; b < dim; ++b, ++i)
          head.queryMoment[a * dim + b] = head.queryMoment[b * dim + a] = double(upper[i]);
    }
    return Error::success();
  }

  mlir::MLIRContext &context;
  StringRef path;
  const ModelConfig &model;
};

} // namespace

Expected<Profile> kvcc::loadProfile(mlir::MLIRContext &context, StringRef path, const ModelConfig &model) {
  auto buffer = MemoryBuffer::getFile(path);
  if (!buffer)
    return createStringError("cannot read " + path + ": " + buffer.getError().message());
  auto value = parseJsonText((*buffer)->getBuffer(), path);
  if (!value)
    return value.takeError();
  const json::Object *root = value->getAsObject();
  if (!root)
    return createStringError(path + ": expected a JSON object, but got " + quoteJson(*value));
  return ProfileReader(context, path, model).read(*root);
}
