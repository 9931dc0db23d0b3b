// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Reads the keys that the config.json files of all families share; ModelFamilies.cpp adds what a
// family's class knows.

#include "runtime/ModelConfig.h"

#include "runtime/JsonText.h"
#include "runtime/ModelFamilies.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

#include <cmath>

using namespace llvm;

namespace kvcc {

static constexpr int64_t maxTokens = 1 << 30;
static constexpr int64_t maxLayers = 1 << 14;

//===----------------------------------------------------------------------===//
// Layers
//===----------------------------------------------------------------------===//

/// partial_rotary_factor stands at the top, in rope_parameters, or there per layer type.
static double rotaryFraction(ConfigReader &reader, StringRef layerType, double fallback) {
  double fraction = fallback;
  if (const json::Object *rope = reader.object("rope_parameters")) {
    if (const json::Object *own = rope->getObject(layerType))
      rope = own;
    fraction = reader.number(*rope, "partial_rotary_factor", fraction);
  }
  fraction = reader.number("partial_rotary_factor", fraction);
  if (fraction > 1)
    reader.fail("expected partial_rotary_factor to be at most 1, but got " + std::to_string(fraction));
  return fraction;
}

static int64_t rotaryChannels(ConfigReader &reader, const LayerConfig &layer, const Family &family) {
  if (reader.has("rotary_dim"))
    return reader.integer({"rotary_dim"}, 0, layer.headDim);
  StringRef type = layer.kind == LayerKind::Sliding ? "sliding_attention" : "full_attention";
  return std::min(1.0, rotaryFraction(reader, type, family.rotaryFraction)) * layer.headDim;
}

/// MLA: what the cache holds per token is the latent and the part of K that RoPE turns. The scale
/// belongs to the projected heads, and YaRN's mscale_all_dim enters it squared.
static void readLatent(ConfigReader &reader, LayerConfig &layer) {
  int64_t rank = reader.integer({"kv_lora_rank"}, 512);
  int64_t rope = reader.integer({"qk_rope_head_dim"}, 64);
  int64_t nope = reader.integer({"qk_nope_head_dim"}, 128);
  layer.kvHeads = 1;
  layer.headDim = rank + rope;
  layer.vHeadDim = rank;
  layer.rotaryDim = rope;
  layer.scale = 1 / std::sqrt(double(rope + nope));
  const json::Object *scaling = reader.object("rope_scaling");
  if (!scaling)
    scaling = reader.object("rope_parameters");
  double mscale = scaling ? scaling->getNumber("mscale_all_dim").value_or(0) : 0;
  double factor = scaling ? reader.number(*scaling, "factor", 1) : 1;
  if (mscale > 0 && std::isfinite(mscale) && factor > 1)
    layer.scale *= std::pow(0.1 * mscale * std::log(factor) + 1, 2);
  layer.mechanism = reader.has("index_topk") ? "MLA with a sparse indexer" : "MLA";
}

static int64_t readHeadDim(ConfigReader &reader, const Family &family, int64_t qHeads) {
  for (StringRef key : {"head_dim", "attention_head_dim", "kv_channels"})
    if (reader.has(key))
      return reader.integer({key}, 0, 1 << 16);
  if (family.headDim)
    return family.headDim;
  int64_t hidden = reader.integer({"hidden_size"}, 0, 1 << 26);
  if (!reader.failed() && hidden % qHeads != 0)
    reader.fail("expected head_dim, or a hidden_size that is a multiple of num_attention_heads " + Twine(qHeads) +
                ", but got hidden_size " + Twine(hidden));
  return std::max<int64_t>(1, hidden / qHeads);
}

static int64_t readWindow(ConfigReader &reader, const Family &family) {
  if (!reader.flag("use_sliding_window", family.useWindow) || reader.writtenNull("sliding_window"))
    return 0;
  return reader.has("sliding_window") ? reader.integer({"sliding_window"}, 0, maxTokens) : family.window;
}

/// The facts that all layers of most models share.
static LayerConfig readSharedFacts(ConfigReader &reader, const Family &family) {
  LayerConfig layer;
  layer.qHeads = reader.integer({"num_attention_heads"}, family.qHeads);
  layer.kBias = reader.flag("attention_bias", family.kBias);
  layer.qkNorm = family.qkNorm;
  if (family.latent || reader.has("kv_lora_rank")) {
    layer.kind = LayerKind::Latent;
    readLatent(reader, layer);
    return layer;
  }
  layer.kvHeads = reader.integer({"num_key_value_heads"}, family.kvHeads ? family.kvHeads : layer.qHeads);
  layer.headDim = readHeadDim(reader, family, layer.qHeads);
  layer.vHeadDim = reader.integer({"v_head_dim"}, layer.headDim, 1 << 16);
  layer.scale = 1 / std::sqrt(double(layer.headDim));
  layer.softcap = reader.number("attn_logit_softcapping", 0);
  layer.valueScale = reader.number("attention_value_scale", 1);
  layer.window = readWindow(reader, family);
  if (layer.window)
    layer.kind = LayerKind::Sliding;
  return layer;
}

static void readLayerTypes(ConfigReader &reader, ModelConfig &model) {
  const json::Array *types = reader.layerArray(reader.textObject(), "layer_types", model.layers.size());
  if (!types)
    return;
  for (auto [i, layer] : llvm::enumerate(model.layers)) {
    const json::Value &type = (*types)[i];
    std::optional<LayerKind> kind = StringSwitch<std::optional<LayerKind>>(type.getAsString().value_or(""))
                                        .Case("full_attention", LayerKind::Full)
                                        .Case("sliding_attention", LayerKind::Sliding)
                                        .Case("chunked_attention", LayerKind::Chunked)
                                        .Case("linear_attention", LayerKind::Linear)
                                        .Default(std::nullopt);
    if (!kind) {
      reader.fail("expected layer_types[" + Twine(i) +
                  "] to be full_attention, sliding_attention, chunked_attention or "
                  "linear_attention, but got " +
                  quoteJson(type));
      return;
    }
    if (layer.kind == LayerKind::Latent && *kind == LayerKind::Full)
      continue;
    layer.kind = *kind;
    if (layer.kind == LayerKind::Linear)
      layer.mechanism = "linear attention";
    if (layer.kind == LayerKind::Chunked)
      layer.window = reader.integer({"attention_chunk_size"}, 0, maxTokens);
  }
}

/// Settles what the kinds imply, after all rules.
static void finishLayer(ConfigReader &reader, const Family &family, size_t index, int64_t maxContext,
                        LayerConfig &layer) {
  if (layer.kind == LayerKind::Linear || layer.kind == LayerKind::None) {
    LayerConfig bare;
    bare.kind = layer.kind;
    bare.rope = false;
    bare.mechanism = layer.mechanism;
    layer = bare;
  } else {
    bool windowed = layer.kind == LayerKind::Sliding || layer.kind == LayerKind::Chunked;
    if (windowed && layer.window == 0)
      reader.fail("expected sliding_window to be an integer from 1 to " + Twine(maxTokens) + " for sliding layer " +
                  Twine(index) + ", but got none");
    // A window that holds the whole context is none.
    if (windowed && layer.window >= maxContext)
      layer.kind = LayerKind::Full;
    if (layer.kind == LayerKind::Full || layer.kind == LayerKind::Latent)
      layer.window = 0;
    if (!layer.rope)
      layer.rotaryDim = 0;
    else if (layer.kind != LayerKind::Latent)
      layer.rotaryDim = rotaryChannels(reader, layer, family);
  }
  layer.unsupported = servedReason(layer);
}

//===----------------------------------------------------------------------===//
// The file
//===----------------------------------------------------------------------===//

static void readDtype(ConfigReader &reader, ModelConfig &model) {
  const json::Value *value = reader.findAnywhere("dtype");
  if (!value)
    value = reader.findAnywhere("torch_dtype");
  if (!value) {
    model.dtype = "bf16";
    model.notes.push_back("the file names no dtype; bf16 is assumed");
    return;
  }
  StringRef name = value->getAsString().value_or("");
  name.consume_front("torch.");
  model.dtype = StringSwitch<StringRef>(name)
                    .Case("float16", "f16")
                    .Case("bfloat16", "bf16")
                    .Case("float32", "f32")
                    .Default("")
                    .str();
  if (model.dtype.empty())
    reader.fail("expected dtype to be float16, bfloat16 or float32, but got " + quoteJson(*value));
}

static void readCacheScheme(ConfigReader &reader, ModelConfig &model) {
  const json::Value *value = reader.findAnywhere("quantization_config");
  const json::Object *weights = value ? value->getAsObject() : nullptr;
  const json::Object *cache = weights ? weights->getObject("kv_cache_scheme") : nullptr;
  std::optional<int64_t> bits = cache ? cache->getInteger("num_bits") : std::nullopt;
  if (!bits)
    return;
  model.kvCacheScheme = std::to_string(*bits) + "-bit " + cache->getString("type").value_or("").str();
  model.notes.push_back("the checkpoint asks for a KV cache of " + model.kvCacheScheme);
}

static std::string architectureOf(const json::Object &object) {
  const json::Array *names = object.getArray("architectures");
  return names && !names->empty() ? names->front().getAsString().value_or("").str() : "";
}

static Expected<const Family *> chooseFamily(const json::Object &root, const json::Object *text, StringRef architecture,
                                             StringRef file) {
  StringRef fileType = root.getString("model_type").value_or("");
  StringRef textType = text ? text->getString("model_type").value_or("") : "";
  if (const Family *family = findFamily(textType, fileType, architecture))
    return family;
  bool byArchitecture = textType.empty() && fileType.empty();
  StringRef name = byArchitecture ? architecture : textType.empty() ? fileType : textType;
  if (name.empty())
    return createStringError(file + ": expected model_type or architectures to name the model, "
                                    "but got neither");
  return createStringError(file + ": expected " + (byArchitecture ? "architectures" : "model_type") + " to be one of " +
                           llvm::join(nearestFamilies(name, byArchitecture), ", ") + ", but got " + quoteText(name));
}

Expected<ModelConfig> parseModelConfig(StringRef text, StringRef fileName) {
  text.consume_front("\xef\xbb\xbf"); // A byte order mark is no JSON, but editors add it.
  if (text.size() > (16u << 20))
    return createStringError(fileName + ": expected a config.json of at most 16 MiB, but got " + Twine(text.size()) +
                             " bytes");
  JsonLimits limits;
  limits.allowNonFinite = true;
  Expected<json::Value> value = parseJsonText(text, fileName, limits);
  if (!value)
    return value.takeError();
  const json::Object *root = value->getAsObject();
  if (!root)
    return createStringError(fileName + ": expected a JSON object, but got " + quoteJson(*value));
  const json::Value *nested = root->get("text_config");
  const json::Object *inner = nested ? nested->getAsObject() : nullptr;
  if (nested && !inner && nested->kind() != json::Value::Null)
    return createStringError(fileName + ": expected text_config to be an object, but got " + quoteJson(*nested));

  ModelConfig model;
  model.architecture = architectureOf(*root);
  if (model.architecture.empty() && inner)
    model.architecture = architectureOf(*inner);
  Expected<const Family *> family = chooseFamily(*root, inner, model.architecture, fileName);
  if (!family)
    return family.takeError();
  model.modelType = (*family)->modelType.str();
  model.name = root->getString("_name_or_path").value_or("").str();
  if (model.name.empty())
    model.name = fileName.str();

  ConfigReader reader(*root, inner, fileName);
  readDtype(reader, model);
  readCacheScheme(reader, model);
  model.maxContext = reader.integer({"max_position_embeddings", "seq_length"}, (*family)->maxContext, maxTokens);
  int64_t count = reader.integer({"num_hidden_layers", "num_layers"}, 0, maxLayers);
  LayerConfig shared = readSharedFacts(reader, **family);
  if (reader.failed())
    return reader.takeError();
  model.layers.assign(count, shared);
  readLayerTypes(reader, model);
  if ((*family)->rule)
    (*family)->rule(reader, model);
  if (reader.failed())
    return reader.takeError();
  for (auto [i, layer] : llvm::enumerate(model.layers))
    finishLayer(reader, **family, i, model.maxContext, layer);
  if (Error error = reader.takeError())
    return std::move(error);
  return model;
}

Expected<ModelConfig> loadModelConfig(StringRef path) {
  SmallString<256> file(path);
  if (sys::fs::is_directory(path))
    sys::path::append(file, "config.json");
  if (!sys::fs::exists(file))
    return createStringError("expected a config.json or a folder that holds one, but got '" + file +
                             "', which does not exist");
  // A pipe or a device has no end to wait for.
  if (!sys::fs::is_regular_file(file) && file != "/dev/stdin")
    return createStringError(file + ": expected a regular file");
  ErrorOr<std::unique_ptr<MemoryBuffer>> buffer = MemoryBuffer::getFile(file);
  if (!buffer)
    return createStringError(file + ": cannot be read: " + buffer.getError().message());
  return parseModelConfig((*buffer)->getBuffer(), file);
}

} // namespace kvcc
