// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Every file of test/models/ parses to the facts of test/models/expected.json, which were written
// from the files and the classes of the models, not from the parser's output; and bad files give
// one clear error each.

#include "runtime/ModelConfig.h"
#include "runtime/JsonText.h"
#include "test/unit/TestPaths.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "gtest/gtest.h"

#include <cmath>

using namespace llvm;
using namespace kvcc;

namespace {

std::string modelsDir() { return testDir() + "/models/"; }

/// "0-2, 5" -> {0, 1, 2, 5}
std::vector<size_t> parseRanges(StringRef text) {
  std::vector<size_t> layers;
  SmallVector<StringRef> parts;
  text.split(parts, ", ", -1, /*KeepEmpty=*/false);
  for (StringRef part : parts) {
    auto [first, last] = part.split('-');
    size_t from = std::stoul(first.str()), to = last.empty() ? from : std::stoul(last.str());
    for (size_t i = from; i <= to; ++i)
      layers.push_back(i);
  }
  return layers;
}

void expectLayer(const LayerConfig &layer, const json::Object &facts) {
  auto integer = [&](StringRef key) { return facts.getInteger(key).value_or(0); };
  auto flag = [&](StringRef key) { return facts.getBoolean(key).value_or(false); };
  auto text = [&](StringRef key) { return facts.getString(key).value_or("").str(); };
  EXPECT_EQ(stringify(layer.kind).str(), text("kind"));
  EXPECT_EQ(layer.qHeads, integer("q_heads"));
  EXPECT_EQ(layer.kvHeads, integer("kv_heads"));
  EXPECT_EQ(layer.headDim, integer("head_dim"));
  EXPECT_EQ(layer.vHeadDim, integer("v_head_dim"));
  EXPECT_EQ(layer.rotaryDim, integer("rotary_dim"));
  EXPECT_EQ(layer.rope, integer("rotary_dim") != 0);
  // scale_dim n says 1/sqrt(n).
  double scale = facts.getNumber("scale").value_or(0);
  if (std::optional<double> dim = facts.getNumber("scale_dim"))
    scale = 1 / std::sqrt(*dim);
  EXPECT_NEAR(layer.scale, scale, 1e-6 * scale);
  if (layer.kind != LayerKind::Sparse) {
    EXPECT_EQ(layer.window, integer("window"));
  }
  EXPECT_EQ(layer.softcap, facts.getNumber("softcap").value_or(0));
  EXPECT_EQ(layer.valueScale, facts.getNumber("value_scale").value_or(1));
  EXPECT_EQ(layer.attentionSinks, flag("sinks"));
  EXPECT_EQ(layer.kEqualsV, flag("k_equals_v"));
  EXPECT_EQ(layer.positionScaledQuery, flag("position_scaled_query"));
  EXPECT_EQ(layer.kBias, flag("k_bias"));
  EXPECT_EQ(stringify(layer.qkNorm), facts.getString("qk_norm").value_or("none"));
  EXPECT_EQ(layer.mechanism, text("mechanism"));
  EXPECT_FALSE(layer.alibi);
  EXPECT_FALSE(layer.sharedCache);
}

void expectModel(const ModelConfig &model, const json::Object &facts, StringRef path) {
  EXPECT_EQ(model.modelType, facts.getString("model_type").value_or(""));
  EXPECT_EQ(model.architecture, facts.getString("architecture").value_or(""));
  EXPECT_EQ(model.name, facts.getString("name").value_or(path));
  EXPECT_EQ(model.dtype, facts.getString("dtype").value_or(""));
  EXPECT_EQ(model.maxContext, facts.getInteger("max_context").value_or(0));
  EXPECT_EQ(model.kvCacheScheme, facts.getString("kv_cache_scheme").value_or(""));
  ASSERT_EQ(int64_t(model.layers.size()), facts.getInteger("layers").value_or(0));
  bool noted = llvm::any_of(model.notes, [](StringRef n) { return n.contains("no dtype"); });
  EXPECT_EQ(noted, facts.getBoolean("assumed_dtype").value_or(false));

  std::vector<bool> seen(model.layers.size());
  for (const json::Value &group : *facts.getArray("groups")) {
    for (size_t i : parseRanges(*group.getAsObject()->getString("layers"))) {
      SCOPED_TRACE("layer " + std::to_string(i));
      ASSERT_LT(i, seen.size());
      EXPECT_FALSE(seen[i]);
      seen[i] = true;
      expectLayer(model.layers[i], *group.getAsObject());
    }
  }
  EXPECT_TRUE(llvm::all_of(seen, [](bool s) { return s; }));

  std::vector<size_t> served;
  for (auto [i, layer] : llvm::enumerate(model.layers)) {
    EXPECT_EQ(layer.unsupported, servedReason(layer));
    if (layer.unsupported.empty())
      served.push_back(i);
  }
  EXPECT_EQ(formatLayerRanges(served), facts.getString("served").value_or("?"));
  std::string error = toString(checkServable(model));
  StringRef refused = facts.getString("refused").value_or("");
  EXPECT_EQ(error.empty(), refused.empty()) << error;
  EXPECT_TRUE(StringRef(error).contains(refused)) << error;
}

TEST(ModelConfig, RealModels) {
  std::string path = modelsDir() + "expected.json";
  auto buffer = MemoryBuffer::getFile(path);
  ASSERT_TRUE(bool(buffer)) << path;
  Expected<json::Value> expected = json::parse((*buffer)->getBuffer());
  ASSERT_TRUE(bool(expected)) << toString(expected.takeError());
  size_t files = 0;
  for (const auto &[name, facts] : *expected->getAsObject()) {
    SCOPED_TRACE(name.str());
    std::string file = modelsDir() + name.str() + ".json";
    Expected<ModelConfig> model = loadModelConfig(file);
    if (!model) {
      ADD_FAILURE() << toString(model.takeError());
      continue;
    }
    expectModel(*model, *facts.getAsObject(), file);
    ++files;
  }
  // Each file has its facts.
  std::error_code ec;
  size_t present = 0;
  for (sys::fs::directory_iterator it(modelsDir(), ec), end; it != end && !ec; it.increment(ec))
    present += StringRef(it->path()).ends_with(".json");
  EXPECT_EQ(files + 1, present);
}

//===----------------------------------------------------------------------===//
// Spellings
//===----------------------------------------------------------------------===//

/// A small model of `type`; `keys` replaces or adds members.
std::string config(StringRef type, StringRef keys = "{}") {
  json::Object object{{"model_type", type},      {"num_attention_heads", 8}, {"num_key_value_heads", 2},
                      {"num_hidden_layers", 4},  {"head_dim", 64},           {"max_position_embeddings", 4096},
                      {"torch_dtype", "float16"}};
  Expected<json::Value> extra = json::parse(keys);
  if (!extra)
    report_fatal_error(extra.takeError());
  for (auto &[key, value] : *extra->getAsObject())
    object[key] = value;
  std::string text;
  raw_string_ostream(text) << json::Value(std::move(object));
  return text;
}

ModelConfig parsed(StringRef text) {
  Expected<ModelConfig> model = parseModelConfig(text, "m.json");
  if (model)
    return std::move(*model);
  ADD_FAILURE() << toString(model.takeError());
  ModelConfig none;
  none.layers.resize(4);
  return none;
}

std::string errorOf(StringRef text) {
  Expected<ModelConfig> model = parseModelConfig(text, "m.json");
  if (model)
    return "(no error)";
  return toString(model.takeError());
}

TEST(ModelConfig, BothSpellingsOfQwen2GiveTheSameModel) {
  ModelConfig a = parsed(config("qwen2", R"({"sliding_window": 1024, "use_sliding_window": false,
    "max_window_layers": 2})"));
  ModelConfig b = parsed(config("qwen2", R"({"torch_dtype": null, "dtype": "float16",
    "sliding_window": null, "rope_parameters": {"rope_type": "default"},
    "layer_types": ["full_attention", "full_attention", "full_attention", "full_attention"]})"));
  EXPECT_EQ(a.dtype, b.dtype);
  for (auto [x, y] : llvm::zip_equal(a.layers, b.layers)) {
    EXPECT_EQ(x.kind, LayerKind::Full);
    EXPECT_EQ(y.kind, LayerKind::Full);
    EXPECT_EQ(x.window, y.window);
    EXPECT_TRUE(x.kBias && y.kBias);
  }
  ModelConfig c = parsed(config("qwen2", R"({"sliding_window": 1024, "use_sliding_window": true,
    "max_window_layers": 2})"));
  EXPECT_EQ(c.layers[1].kind, LayerKind::Full);
  EXPECT_EQ(c.layers[2].kind, LayerKind::Sliding);
  EXPECT_EQ(describeUnservedLayers(c), "");
}

TEST(ModelConfig, AbsentNullAndWideWindows) {
  // Absent: the class's 4096, which holds the whole context here; null: none; small: in effect.
  EXPECT_EQ(parsed(config("mistral")).layers[0].kind, LayerKind::Full);
  EXPECT_EQ(parsed(config("mistral", R"({"max_position_embeddings": 8192})")).layers[0].window, 4096);
  EXPECT_EQ(parsed(config("mistral", R"({"max_position_embeddings": 8192, "sliding_window": null})")).layers[0].kind,
            LayerKind::Full);
  EXPECT_EQ(parsed(config("mistral", R"({"sliding_window": 4095})")).layers[0].window, 4095);
  EXPECT_EQ(parsed(config("mistral", R"({"sliding_window": 4096})")).layers[0].window, 0);
}

TEST(ModelConfig, SoftcapAbsentIsTheDefaultAndNullIsNone) {
  EXPECT_EQ(parsed(config("gemma2")).layers[0].softcap, 50);
  EXPECT_EQ(parsed(config("gemma2", R"({"attn_logit_softcapping": null})")).layers[0].softcap, 0);
  EXPECT_EQ(parsed(config("gemma2", R"({"attn_logit_softcapping": 30})")).layers[0].softcap, 30);
}

TEST(ModelConfig, FalconHeadCounts) {
  std::string grouped = R"({"new_decoder_architecture": true, "num_kv_heads": 4})";
  EXPECT_EQ(parsed(config("falcon", grouped)).layers[0].kvHeads, 4);
  EXPECT_EQ(parsed(config("falcon", R"({"num_kv_heads": 8})")).layers[0].kvHeads, 1);
  EXPECT_EQ(parsed(config("falcon", R"({"multi_query": false})")).layers[0].kvHeads, 8);
  EXPECT_EQ(parsed(config("falcon", R"({"alibi": true})")).layers[0].unsupported, "an ALiBi bias is not served");
}

TEST(ModelConfig, FamilyByArchitectureAlone) {
  ModelConfig model = parsed(config("llama", R"({"model_type": null, "architectures": ["Qwen3ForCausalLM"]})"));
  EXPECT_EQ(model.modelType, "qwen3");
}

TEST(ModelConfig, PredictionLayersInPerLayerLists) {
  ModelConfig model = parsed(config("llama", R"({"num_nextn_predict_layers": 1, "sliding_window": 64,
    "layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention",
                    "full_attention"]})"));
  EXPECT_EQ(model.layers.size(), 4u);
  EXPECT_EQ(model.layers[1].window, 64);
}

TEST(ModelConfig, SharedCachesOfGemma4) {
  ModelConfig model = parsed(config("gemma4_text", R"({"num_kv_shared_layers": 1,
    "sliding_window": null, "global_head_dim": 256, "attention_k_eq_v": false})"));
  EXPECT_EQ(describeUnservedLayers(model),
            "layer 3: reading the cache of an earlier layer is not served; left to the framework");
}

TEST(ModelConfig, NonFiniteTokensAndByteOrderMark) {
  std::string text = config("llama");
  text.insert(1, R"("time_step_limit": [0.0, Infinity, -Infinity, NaN], "s": "NaN \" Infinity",)");
  EXPECT_EQ(parsed("\xef\xbb\xbf" + text).layers.size(), 4u);
  std::string bad = config("llama", R"({"head_dim": null})");
  bad.insert(1, R"("hidden_size": Infinity,)");
  EXPECT_EQ(errorOf(bad), "m.json: expected hidden_size to be an integer from 1 to 67108864, but got "
                          "\"Infinity\"");
}

//===----------------------------------------------------------------------===//
// What is served
//===----------------------------------------------------------------------===//

TEST(ModelConfig, ServedRule) {
  LayerConfig plain;
  plain.qHeads = 6;
  plain.kvHeads = 2;
  plain.headDim = plain.vHeadDim = 96;
  EXPECT_EQ(servedReason(plain), "");
  auto reason = [&](auto change) {
    LayerConfig layer = plain;
    change(layer);
    return servedReason(layer);
  };
  for (int64_t dim : {32, 64, 160, 256})
    EXPECT_EQ(reason([&](LayerConfig &l) { l.headDim = l.vHeadDim = dim; }), "");
  for (int64_t dim : {16, 80, 288, 512})
    EXPECT_EQ(reason([&](LayerConfig &l) { l.headDim = l.vHeadDim = dim; }),
              "head_dim " + std::to_string(dim) + " (expected a multiple of 32 from 32 to 256) is not served");
  EXPECT_EQ(reason([](LayerConfig &l) { l.vHeadDim = 64; }),
            "v_head_dim 64 beside head_dim 96 (expected equal ones) is not served");
  EXPECT_EQ(reason([](LayerConfig &l) { l.kvHeads = 4; }),
            "6 query heads over 4 KV heads (expected a multiple) is not served");
  EXPECT_EQ(reason([](LayerConfig &l) {
              l.softcap = 50, l.attentionSinks = true, l.kind = LayerKind::Sliding, l.window = 128;
            }),
            "");
  EXPECT_EQ(reason([](LayerConfig &l) { l.kEqualsV = true; }), "K used as V is not served");
  EXPECT_EQ(reason([](LayerConfig &l) { l.kEqualsV = l.alibi = true; }),
            "an ALiBi bias and K used as V are not served");
  // Norms, biases, NoPE and position-scaled queries are over before the cache is written or read.
  EXPECT_EQ(reason([](LayerConfig &l) {
              l.qkNorm = QkNorm::L2, l.kBias = true, l.rope = false, l.positionScaledQuery = true;
            }),
            "");
}

TEST(ModelConfig, LayerRanges) {
  EXPECT_EQ(formatLayerRanges({}), "");
  EXPECT_EQ(formatLayerRanges({3}), "3");
  EXPECT_EQ(formatLayerRanges({0, 1, 2, 5, 7, 8}), "0-2, 5, 7-8");
}

TEST(ModelConfig, UnservedNoteAndRefusal) {
  Expected<ModelConfig> gemma = loadModelConfig(modelsDir() + "gemma-4-26b-a4b.json");
  ASSERT_TRUE(bool(gemma)) << toString(gemma.takeError());
  EXPECT_EQ(describeUnservedLayers(*gemma),
            "layers 5, 11, 17, 23, 29: K used as V and head_dim 512 (expected a multiple of 32 from 32 to 256) are not "
            "served; left to the framework");
  EXPECT_EQ(describeUnservedLayers(parsed(config("llama"))), "");
  EXPECT_EQ(toString(checkServable(parsed(config("llama", R"({"head_dim": 80})")))),
            "m.json: expected at least one layer of plain softmax attention over K and V, but got none: "
            "layers 0-3: head_dim 80 (expected a multiple of 32 from 32 to 256) is not served");
  EXPECT_EQ(toString(checkServable(parsed(config("nemotron_h", R"({"hybrid_override_pattern":
            "----"})")))),
            "m.json: expected at least one layer of plain softmax attention over K and V, but got none: "
            "no layer has attention");
}

//===----------------------------------------------------------------------===//
// Bad files
//===----------------------------------------------------------------------===//

TEST(ModelConfig, BadValues) {
  struct {
    StringRef keys, message;
  } cases[] = {
      {R"({"num_attention_heads": null})",
       "expected num_attention_heads to be an integer from 1 to 1048576, but got no such key"},
      {R"({"num_attention_heads": 0})", "expected num_attention_heads to be an integer from 1 to 1048576, but got 0"},
      {R"({"num_key_value_heads": -8})", "expected num_key_value_heads to be an integer from 1 to 1048576, but got -8"},
      {R"({"num_attention_heads": 1048577})",
       "expected num_attention_heads to be an integer from 1 to 1048576, but got 1048577"},
      {R"({"num_attention_heads": 1e30})",
       "expected num_attention_heads to be an integer from 1 to 1048576, but got 1e+30"},
      {R"({"head_dim": 64.5})", "expected head_dim to be an integer from 1 to 65536, but got 64.5"},
      {R"({"head_dim": "64"})", "expected head_dim to be an integer from 1 to 65536, but got \"64\""},
      {R"({"head_dim": [64]})", "expected head_dim to be an integer from 1 to 65536, but got [64]"},
      {R"({"head_dim": true})", "expected head_dim to be an integer from 1 to 65536, but got true"},
      {R"({"num_hidden_layers": 9999999})",
       "expected num_hidden_layers to be an integer from 1 to 16384, but got 9999999"},
      {R"({"num_hidden_layers": null})", "expected num_hidden_layers or num_layers to be an "
                                         "integer from 1 to 16384, but got no such key"},
      {R"({"max_position_embeddings": 0})",
       "expected max_position_embeddings to be an integer from 1 to 1073741824, but got 0"},
      {R"({"head_dim": null, "hidden_size": 100})",
       "expected head_dim, or a hidden_size that is a multiple of num_attention_heads 8, but got "
       "hidden_size 100"},
      {R"({"head_dim": null})", "expected hidden_size to be an integer from 1 to 67108864, but got no such key"},
      {R"({"torch_dtype": "float8_e4m3fn"})",
       "expected dtype to be float16, bfloat16 or float32, but got \"float8_e4m3fn\""},
      {R"({"torch_dtype": 16})", "expected dtype to be float16, bfloat16 or float32, but got 16"},
      {R"({"attention_bias": 1})", "expected attention_bias to be true or false, but got 1"},
      {R"({"attn_logit_softcapping": -1})",
       "expected attn_logit_softcapping to be a finite number above 0, but got -1"},
      {R"({"sliding_window": 0})", "expected sliding_window to be an integer from 1 to 1073741824, but got 0"},
      {R"({"partial_rotary_factor": 1.5})", "expected partial_rotary_factor to be at most 1, but got 1.5"},
      {R"({"rotary_dim": 65})", "expected rotary_dim to be an integer from 1 to 64, but got 65"},
      {R"({"layer_types": ["full_attention"]})",
       "expected layer_types to have one entry for each of the 4 layers, but got 1"},
      {R"({"layer_types": "full_attention"})", "expected layer_types to be an array, but got \"full_attention\""},
      {R"({"layer_types": ["full_attention", "none", 1, 2]})",
       "expected layer_types[1] to be full_attention, sliding_attention, chunked_attention or "
       "linear_attention, but got \"none\""},
      {R"({"layer_types": ["full_attention", "full_attention", 7, 2]})",
       "expected layer_types[2] to be full_attention, sliding_attention, chunked_attention or "
       "linear_attention, but got 7"},
      {R"({"layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"]})",
       "expected sliding_window to be an integer from 1 to 1073741824 for sliding layer 1, but got "
       "none"},
      {R"({"rope_parameters": 1})", "expected rope_parameters to be an object, but got 1"},
      {R"({"text_config": []})", "expected text_config to be an object, but got []"},
      {R"({"model_type": null})", "expected model_type or architectures to name the model, but got neither"},
  };
  for (const auto &c : cases) {
    SCOPED_TRACE(c.keys.str());
    EXPECT_TRUE(StringRef(errorOf(config("llama", c.keys))).starts_with(("m.json: " + c.message).str()))
        << errorOf(config("llama", c.keys));
  }
}

TEST(ModelConfig, BadValuesOfFamilies) {
  EXPECT_EQ(errorOf(config("nemotron_h", R"({"hybrid_override_pattern": "M*"})")),
            "m.json: expected hybrid_override_pattern to have one character for each of the 4 layers, "
            "but got 2");
  EXPECT_EQ(errorOf(config("nemotron_h", R"({"hybrid_override_pattern": "M*X-"})")),
            "m.json: expected hybrid_override_pattern to hold M, *, - and E only, but got 'X'");
  EXPECT_EQ(errorOf(config("kimi_linear", R"({"linear_attn_config": {"kda_layers": [1, 5]}})")),
            "m.json: expected kda_layers to hold integers from 1 to 4, but got 5");
  EXPECT_EQ(errorOf(config("smollm3", R"({"no_rope_layers": [1, 0, 2, 1]})")),
            "m.json: expected no_rope_layers[2] to be an integer from 0 to 1, but got 2");
  EXPECT_EQ(errorOf(config("gemma3_text", R"({"sliding_window_pattern": 0})")),
            "m.json: expected sliding_window_pattern to be an integer from 1 to 1048576, but got 0");
  EXPECT_EQ(errorOf(config("gemma3_text", R"({"query_pre_attn_scalar": 0})")),
            "m.json: expected query_pre_attn_scalar to be a finite number above 0, but got 0");
  EXPECT_EQ(errorOf(config("minimax_m2", R"({"qk_norm_type": "x"})")),
            "m.json: expected qk_norm_type to be per_layer or per_head, but got 'x'");
}

TEST(ModelConfig, UnknownModelsAreRefusedNearestFirst) {
  StringRef start = "m.json: expected model_type to be one of llama, ";
  EXPECT_TRUE(StringRef(errorOf(config("lama"))).starts_with(start)) << errorOf(config("lama"));
  EXPECT_TRUE(StringRef(errorOf(config("lama"))).ends_with(", but got 'lama'"));
  EXPECT_TRUE(StringRef(errorOf(config("qwen9"))).contains("one of qwen2, qwen3, "));
  std::string text = errorOf(config("x", R"({"model_type": null, "architectures": ["LamaForCausalLM"]})"));
  EXPECT_TRUE(StringRef(text).starts_with("m.json: expected architectures to be one of LlamaForCausalLM, ")) << text;
  // A known wrapper does not vouch for an unknown text model.
  text = errorOf(config("gemma3", R"({"text_config": {"model_type": "gemma9_text"}})"));
  EXPECT_TRUE(StringRef(text).ends_with("but got 'gemma9_text'")) << text;
  EXPECT_LT(errorOf(config(std::string(100000, 'x'))).size(), 2000u);
}

TEST(ModelConfig, NotJson) {
  EXPECT_TRUE(StringRef(errorOf("")).starts_with("m.json: not valid JSON: "));
  EXPECT_TRUE(StringRef(errorOf("{\"a\": ")).starts_with("m.json: not valid JSON: "));
  EXPECT_TRUE(StringRef(errorOf("{\"a\": \"\\")).starts_with("m.json: not valid JSON: "));
  EXPECT_TRUE(StringRef(errorOf(StringRef("\x7f"
                                          "ELF\0\1\2\xff",
                                          8)))
                  .starts_with("m.json: not valid"));
  EXPECT_TRUE(StringRef(errorOf("{\"a\": \"\xff\"}")).contains("UTF-8"));
  EXPECT_EQ(errorOf("[1]"), "m.json: expected a JSON object, but got [1]");
  EXPECT_EQ(errorOf("12"), "m.json: expected a JSON object, but got 12");
  std::string deep = "expected at most 64 nested arrays and objects, but got more at byte ";
  EXPECT_TRUE(StringRef(errorOf(std::string(100000, '['))).contains(deep));
  std::string objects;
  for (int i = 0; i < 100000; ++i)
    objects += "{\"a\":";
  EXPECT_TRUE(StringRef(errorOf(objects)).contains(deep));
  EXPECT_EQ(errorOf(std::string((16 << 20) + 1, ' ')),
            "m.json: expected a config.json of at most 16 MiB, but got 16777217 bytes");
}

TEST(ModelConfig, EveryTruncationOfARealFileIsAnError) {
  auto buffer = MemoryBuffer::getFile(modelsDir() + "llama-3.1-8b.json");
  ASSERT_TRUE(bool(buffer));
  StringRef text = (*buffer)->getBuffer().rtrim();
  for (size_t size = 0; size < text.size(); ++size)
    EXPECT_NE(errorOf(text.take_front(size)), "(no error)") << size;
}

TEST(ModelConfig, MissingFiles) {
  Expected<ModelConfig> model = loadModelConfig("/nonexistent/config.json");
  ASSERT_FALSE(bool(model));
  EXPECT_EQ(toString(model.takeError()), "expected a config.json or a folder that holds one, but got "
                                         "'/nonexistent/config.json', which does not exist");
  model = loadModelConfig(testDir()); // A folder without one.
  ASSERT_FALSE(bool(model));
  EXPECT_TRUE(StringRef(toString(model.takeError())).contains("config.json', which does not exist"));
}

TEST(ModelConfig, FolderOfAModel) {
  SmallString<128> dir;
  ASSERT_FALSE(sys::fs::createUniqueDirectory("kvcc-model", dir));
  SmallString<128> file(dir);
  sys::path::append(file, "config.json");
  std::error_code ec;
  {
    raw_fd_ostream(file, ec) << config("llama");
  }
  Expected<ModelConfig> model = loadModelConfig(dir);
  ASSERT_TRUE(bool(model)) << toString(model.takeError());
  EXPECT_EQ(model->name, file.str());
  sys::fs::remove_directories(dir);
}

} // namespace
