// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the classes of some model families do that no key of the file spells out, one function each.

#include "runtime/FamilyRules.h"

#include "runtime/JsonText.h"

#include "llvm/ADT/STLExtras.h"

#include <cmath>

using namespace llvm;

namespace kvcc {

//===----------------------------------------------------------------------===//
// Patterns over layers
//===----------------------------------------------------------------------===//

/// Unless the file has layer_types: layer i is Full where `isFull(i)`, else `other`. No window, no
/// sliding layer.
static void setPattern(ConfigReader &reader, ModelConfig &model, LayerKind other, function_ref<bool(int64_t)> isFull,
                       StringRef mechanism = "") {
  for (auto [i, layer] : llvm::enumerate(model.layers)) {
    if (!reader.has("layer_types"))
      layer.kind = isFull(i) || (other == LayerKind::Sliding && layer.window == 0) ? LayerKind::Full : other;
    if (layer.kind == LayerKind::Linear && !mechanism.empty())
      layer.mechanism = mechanism.str();
  }
}

static void everyNthFull(ConfigReader &reader, ModelConfig &model, StringRef key, int64_t n, LayerKind other,
                         StringRef mechanism = "") {
  int64_t period = reader.integer({key}, n);
  setPattern(reader, model, other, [&](int64_t i) { return (i + 1) % period == 0; }, mechanism);
}

/// no_rope_layers says 1 where RoPE is applied; an empty or absent list means all but every fourth
/// layer.
void nopeRule(ConfigReader &reader, ModelConfig &model) {
  const json::Value *list = reader.find("no_rope_layers");
  if (list && list->getAsArray() && list->getAsArray()->empty())
    list = nullptr;
  int64_t period = reader.integer({"no_rope_layer_interval"}, 4);
  std::optional<std::vector<int64_t>> ropes;
  if (list)
    ropes = reader.perLayer("no_rope_layers", model.layers.size(), 1);
  for (auto [i, layer] : llvm::enumerate(model.layers))
    layer.rope = ropes ? (*ropes)[i] != 0 : (int64_t(i) + 1) % period != 0;
}

//===----------------------------------------------------------------------===//
// Rules
//===----------------------------------------------------------------------===//

void falconRule(ConfigReader &reader, ModelConfig &model) {
  // num_kv_heads counts for the newer decoder only; Falcon-7B writes 71 there and has one KV head.
  bool grouped = reader.flag("new_decoder_architecture", false);
  bool multiQuery = reader.flag("multi_query", true);
  bool alibi = reader.flag("alibi", false), bias = reader.flag("bias", false);
  for (LayerConfig &layer : model.layers) {
    layer.kvHeads = grouped ? reader.integer({"num_kv_heads"}, layer.qHeads) : multiQuery ? 1 : layer.qHeads;
    layer.alibi = alibi;
    layer.rope = !alibi;
    layer.kBias = bias;
  }
}

void chatglmRule(ConfigReader &reader, ModelConfig &model) {
  bool grouped = reader.flag("multi_query_attention", false);
  bool bias = reader.flag("add_qkv_bias", false) || reader.flag("add_bias_linear", false);
  for (LayerConfig &layer : model.layers) {
    layer.kvHeads = grouped ? reader.integer({"multi_query_group_num"}, 1) : layer.qHeads;
    layer.kBias = bias;
  }
}

void llama4Rule(ConfigReader &reader, ModelConfig &model) {
  nopeRule(reader, model);
  bool l2 = reader.flag("use_qk_norm", true);
  const json::Value *tuningKey = reader.find("attn_temperature_tuning");
  // Early files write the flag as 4, meaning true.
  bool tuning = !tuningKey || tuningKey->getAsInteger() || reader.flag("attn_temperature_tuning", true);
  bool noChunks = reader.writtenNull("attention_chunk_size");
  int64_t chunk = reader.integer({"attention_chunk_size"}, 8192, 1 << 30);
  for (LayerConfig &layer : model.layers) {
    if (!reader.has("layer_types"))
      layer.kind = layer.rope && !noChunks ? LayerKind::Chunked : LayerKind::Full;
    if (layer.kind == LayerKind::Chunked)
      layer.window = chunk;
    layer.qkNorm = layer.rope && l2 ? QkNorm::L2 : QkNorm::None;
    layer.positionScaledQuery = !layer.rope && tuning;
  }
}

void ministral3Rule(ConfigReader &reader, ModelConfig &model) {
  const json::Object *rope = reader.object("rope_parameters");
  for (LayerConfig &layer : model.layers)
    layer.positionScaledQuery = rope && rope->get("llama_4_scaling_beta");
}

/// The classes of Qwen2 and Qwen3 window the layers from max_window_layers on, when
/// use_sliding_window is set.
void qwenRule(ConfigReader &reader, ModelConfig &model) {
  int64_t first = reader.has("max_window_layers") ? reader.integerOrZero("max_window_layers") : 28;
  setPattern(reader, model, LayerKind::Sliding, [&](int64_t i) { return i < first; });
}

void qwen2Rule(ConfigReader &reader, ModelConfig &model) {
  qwenRule(reader, model);
  for (LayerConfig &layer : model.layers)
    layer.kBias = true; // Hard-wired in the class, whatever the file says.
}

void qwenHybridRule(ConfigReader &reader, ModelConfig &model) {
  everyNthFull(reader, model, "full_attention_interval", 4, LayerKind::Linear, "Gated DeltaNet");
}

/// Gemma 2 and 3 scale by query_pre_attn_scalar, which is not always head_dim (Gemma-3-27B).
static void gemmaScale(ConfigReader &reader, ModelConfig &model) {
  double scale = 1 / std::sqrt(reader.number("query_pre_attn_scalar", 256));
  for (LayerConfig &layer : model.layers)
    layer.scale = scale;
}

void gemma2Rule(ConfigReader &reader, ModelConfig &model) {
  gemmaScale(reader, model);
  setPattern(reader, model, LayerKind::Sliding, [](int64_t i) { return i % 2 != 0; });
  if (!reader.written("attn_logit_softcapping"))
    for (LayerConfig &layer : model.layers)
      layer.softcap = 50;
}

void gemma3Rule(ConfigReader &reader, ModelConfig &model) {
  gemmaScale(reader, model);
  everyNthFull(reader, model, "sliding_window_pattern", 6, LayerKind::Sliding);
}

/// Full layers have their own head_dim and KV head count, and may use K as V; q.k is not scaled at
/// all.
void gemma4Rule(ConfigReader &reader, ModelConfig &model) {
  everyNthFull(reader, model, "sliding_window_pattern", 6, LayerKind::Sliding);
  bool kEqualsV = reader.flag("attention_k_eq_v", false);
  int64_t globalDim = reader.integer({"global_head_dim"}, 512);
  int64_t shared = reader.integerOrZero("num_kv_shared_layers");
  for (auto [i, layer] : llvm::enumerate(model.layers)) {
    layer.scale = 1;
    layer.sharedCache = int64_t(i) >= int64_t(model.layers.size()) - shared;
    if (layer.kind != LayerKind::Full)
      continue;
    layer.headDim = layer.vHeadDim = globalDim;
    layer.kEqualsV = kEqualsV;
    if (kEqualsV)
      layer.kvHeads = reader.integer({"num_global_key_value_heads"}, layer.kvHeads);
  }
}

void gptOssRule(ConfigReader &reader, ModelConfig &model) {
  setPattern(reader, model, LayerKind::Sliding, [](int64_t i) { return i % 2 != 0; });
  for (LayerConfig &layer : model.layers)
    layer.attentionSinks = true; // In the weights; no key says so.
}

void olmo3Rule(ConfigReader &reader, ModelConfig &model) {
  setPattern(reader, model, LayerKind::Sliding, [](int64_t i) { return (i + 1) % 4 == 0; });
}

void graniteRule(ConfigReader &reader, ModelConfig &model) {
  double scale = reader.number("attention_multiplier", 1); // It is the scale, not a factor of it.
  for (LayerConfig &layer : model.layers)
    layer.scale = scale;
}

void starcoder2Rule(ConfigReader &reader, ModelConfig &model) {
  bool bias = reader.flag("use_bias", true);
  for (LayerConfig &layer : model.layers)
    layer.kBias = bias;
}

void qkNormKeyRule(ConfigReader &reader, ModelConfig &model) {
  bool norm = reader.flag("use_qk_norm", false);
  for (LayerConfig &layer : model.layers)
    layer.qkNorm = norm ? QkNorm::PerHead : QkNorm::None;
}

void minimaxRule(ConfigReader &reader, ModelConfig &model) {
  bool norm = reader.flag("use_qk_norm", true);
  std::string type = reader.string("qk_norm_type", "per_layer");
  if (type != "per_layer" && type != "per_head")
    reader.fail("expected qk_norm_type to be per_layer or per_head, but got " + quoteText(type));
  for (LayerConfig &layer : model.layers)
    layer.qkNorm = !norm ? QkNorm::None : type == "per_head" ? QkNorm::PerHead : QkNorm::AllHeads;
  const json::Object *sparse = reader.object("sparse_attention_config");
  if (!sparse || !sparse->getBoolean("use_sparse_attention").value_or(true))
    return;
  auto sparseLayers = reader.perLayer(*sparse, "sparse_attention_freq", model.layers.size(), 1);
  for (auto [i, layer] : llvm::enumerate(model.layers)) {
    if (sparseLayers && !(*sparseLayers)[i])
      continue;
    layer.kind = LayerKind::Sparse;
    layer.mechanism = "block-sparse attention";
  }
}

void mimoRule(ConfigReader &reader, ModelConfig &model) {
  auto pattern = reader.perLayer("hybrid_layer_pattern", model.layers.size(), 1);
  if (pattern)
    setPattern(reader, model, LayerKind::Sliding, [&](int64_t i) { return (*pattern)[i] == 0; });
  bool fullSinks = reader.flag("add_full_attention_sink_bias", false);
  bool slidingSinks = reader.flag("add_swa_attention_sink_bias", false);
  for (LayerConfig &layer : model.layers) {
    bool sliding = layer.kind == LayerKind::Sliding;
    layer.attentionSinks = sliding ? slidingSinks : fullSinks;
    if (!sliding)
      continue;
    layer.qHeads = reader.integer({"swa_num_attention_heads"}, layer.qHeads);
    layer.kvHeads = reader.integer({"swa_num_key_value_heads"}, layer.kvHeads);
    layer.headDim = reader.integer({"swa_head_dim"}, layer.headDim);
    layer.vHeadDim = reader.integer({"swa_v_head_dim"}, layer.vHeadDim);
    layer.scale = 1 / std::sqrt(double(layer.headDim));
  }
}

void nemotronHRule(ConfigReader &reader, ModelConfig &model) {
  std::string pattern = reader.string("hybrid_override_pattern", "");
  if (pattern.size() != model.layers.size()) {
    reader.fail("expected hybrid_override_pattern to have one character for each of the " + Twine(model.layers.size()) +
                " layers, but got " + Twine(pattern.size()));
    return;
  }
  for (auto [symbol, layer] : llvm::zip(pattern, model.layers)) {
    layer.rope = false;
    if (symbol == 'M') {
      layer.kind = LayerKind::Linear;
      layer.mechanism = "Mamba";
    } else if (symbol == '-' || symbol == 'E') {
      layer.kind = LayerKind::None;
    } else if (symbol != '*') {
      reader.fail("expected hybrid_override_pattern to hold M, *, - and E only, but got " +
                  quoteText(StringRef(&symbol, 1)));
    }
  }
}

void kimiLinearRule(ConfigReader &reader, ModelConfig &model) {
  bool nope = reader.flag("mla_use_nope", false);
  for (LayerConfig &layer : model.layers)
    layer.rope = !nope;
  const json::Object *linear = reader.object("linear_attn_config");
  const json::Array *list = linear ? linear->getArray("kda_layers") : nullptr;
  if (!list)
    return;
  int64_t count = model.layers.size();
  for (const json::Value &entry : *list) {
    std::optional<int64_t> number = entry.getAsInteger(); // Counted from 1.
    if (!number || *number < 1 || *number > count) {
      reader.fail("expected kda_layers to hold integers from 1 to " + Twine(count) + ", but got " + quoteJson(entry));
      return;
    }
    model.layers[*number - 1].kind = LayerKind::Linear;
    model.layers[*number - 1].mechanism = "Kimi delta attention";
  }
}

/// Ratio 0: the sliding window alone; else the window and compressed tokens that an indexer picks.
void deepseek4Rule(ConfigReader &reader, ModelConfig &model) {
  auto ratios = reader.perLayer("compress_ratios", model.layers.size(), 1 << 20);
  for (auto [i, layer] : llvm::enumerate(model.layers)) {
    if (ratios && (*ratios)[i] == 0 && layer.window)
      continue;
    layer.kind = LayerKind::Sparse;
    layer.mechanism = "attention over compressed tokens";
  }
}

} // namespace kvcc
