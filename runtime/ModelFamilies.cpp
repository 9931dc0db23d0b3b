// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One row per model family. To add one: a row here, a rule in FamilyRules.cpp if its class does
// something that the shared keys do not say, a file in test/models/ and its facts in
// test/models/expected.json.

#include "runtime/ModelFamilies.h"

#include "runtime/FamilyRules.h"

#include "llvm/ADT/STLExtras.h"

using namespace llvm;

namespace kvcc {

// Defaults are those of the classes in transformers (4.5x to 5.x) or, for remote-code models, of
// their own files.
static const Family families[] = {
    {.modelType = "chatglm", .architecture = "ChatGLMModel", .rotaryFraction = 0.5, .rule = chatglmRule},
    {.modelType = "deepseek_v2", .architecture = "DeepseekV2ForCausalLM", .latent = true},
    {.modelType = "deepseek_v3", .architecture = "DeepseekV3ForCausalLM", .latent = true},
    {.modelType = "deepseek_v32", .architecture = "DeepseekV32ForCausalLM", .latent = true},
    {.modelType = "deepseek_v4",
     .architecture = "DeepseekV4ForCausalLM",
     .kvHeads = 1,
     .headDim = 512,
     .window = 128,
     .rule = deepseek4Rule},
    {.modelType = "falcon", .architecture = "FalconForCausalLM", .maxContext = 2048, .rule = falconRule},
    {.modelType = "gemma", .architecture = "GemmaForCausalLM", .headDim = 256, .maxContext = 8192},
    {.modelType = "gemma2",
     .architecture = "Gemma2ForCausalLM",
     .qHeads = 8,
     .kvHeads = 4,
     .headDim = 256,
     .maxContext = 8192,
     .window = 4096,
     .rule = gemma2Rule},
    {.modelType = "gemma3_text",
     .architecture = "Gemma3ForCausalLM",
     .qHeads = 8,
     .kvHeads = 4,
     .headDim = 256,
     .maxContext = 131072,
     .window = 4096,
     .qkNorm = QkNorm::PerHead,
     .rule = gemma3Rule},
    {.modelType = "gemma4_text",
     .architecture = "Gemma4ForCausalLM",
     .qHeads = 8,
     .kvHeads = 4,
     .headDim = 256,
     .maxContext = 131072,
     .window = 512,
     .qkNorm = QkNorm::PerHead,
     .rule = gemma4Rule},
    {.modelType = "glm",
     .architecture = "GlmForCausalLM",
     .kvHeads = 2,
     .headDim = 128,
     .maxContext = 131072,
     .rotaryFraction = 0.5},
    {.modelType = "glm4",
     .architecture = "Glm4ForCausalLM",
     .kvHeads = 2,
     .headDim = 128,
     .maxContext = 131072,
     .rotaryFraction = 0.5},
    {.modelType = "glm4_moe",
     .architecture = "Glm4MoeForCausalLM",
     .kvHeads = 8,
     .maxContext = 131072,
     .rotaryFraction = 0.5,
     .rule = qkNormKeyRule},
    {.modelType = "glm_moe_dsa", .architecture = "GlmMoeDsaForCausalLM", .latent = true},
    {.modelType = "gpt_oss",
     .architecture = "GptOssForCausalLM",
     .kvHeads = 8,
     .headDim = 64,
     .maxContext = 131072,
     .window = 128,
     .kBias = true,
     .rule = gptOssRule},
    {.modelType = "granite", .architecture = "GraniteForCausalLM", .maxContext = 2048, .rule = graniteRule},
    {.modelType = "granitemoe", .architecture = "GraniteMoeForCausalLM", .maxContext = 2048, .rule = graniteRule},
    {.modelType = "kimi_k2", .architecture = "KimiK2ForCausalLM", .latent = true},
    {.modelType = "kimi_linear", .architecture = "KimiLinearForCausalLM", .latent = true, .rule = kimiLinearRule},
    {.modelType = "llama", .architecture = "LlamaForCausalLM", .maxContext = 2048},
    {.modelType = "llama4_text",
     .architecture = "Llama4ForCausalLM",
     .kvHeads = 8,
     .headDim = 128,
     .maxContext = 131072,
     .rule = llama4Rule},
    {.modelType = "mimo_v2_flash", .architecture = "MiMoV2FlashForCausalLM", .rule = mimoRule},
    {.modelType = "minimax_m2", .architecture = "MiniMaxM2ForCausalLM", .rule = minimaxRule},
    {.modelType = "minimax_m3", .architecture = "MiniMaxM3ForCausalLM", .rule = minimaxRule},
    {.modelType = "ministral3",
     .architecture = "Ministral3ForCausalLM",
     .kvHeads = 8,
     .headDim = 128,
     .maxContext = 262144,
     .rule = ministral3Rule},
    {.modelType = "mistral", .architecture = "MistralForCausalLM", .kvHeads = 8, .maxContext = 131072, .window = 4096},
    {.modelType = "mixtral", .architecture = "MixtralForCausalLM", .kvHeads = 8, .maxContext = 131072},
    {.modelType = "nemotron_h",
     .architecture = "NemotronHForCausalLM",
     .kvHeads = 8,
     .headDim = 128,
     .maxContext = 4096,
     .rule = nemotronHRule},
    {.modelType = "olmo2", .architecture = "Olmo2ForCausalLM", .maxContext = 2048, .qkNorm = QkNorm::AllHeads},
    {.modelType = "olmo3",
     .architecture = "Olmo3ForCausalLM",
     .maxContext = 2048,
     .window = 4096,
     .qkNorm = QkNorm::AllHeads,
     .rule = olmo3Rule},
    {.modelType = "phi3", .architecture = "Phi3ForCausalLM", .maxContext = 4096},
    {.modelType = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .kvHeads = 32,
     .maxContext = 32768,
     .window = 4096,
     .useWindow = false,
     .rule = qwen2Rule},
    {.modelType = "qwen2_moe",
     .architecture = "Qwen2MoeForCausalLM",
     .kvHeads = 16,
     .maxContext = 32768,
     .window = 4096,
     .useWindow = false,
     .rule = qwen2Rule},
    {.modelType = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .kvHeads = 32,
     .headDim = 128,
     .maxContext = 32768,
     .window = 4096,
     .useWindow = false,
     .qkNorm = QkNorm::PerHead,
     .rule = qwenRule},
    {.modelType = "qwen3_5_text",
     .architecture = "Qwen3_5ForCausalLM",
     .kvHeads = 4,
     .headDim = 256,
     .maxContext = 32768,
     .useWindow = false,
     .qkNorm = QkNorm::PerHead,
     .rotaryFraction = 0.25,
     .rule = qwenHybridRule},
    // The class of Qwen3-MoE has no default for head_dim: it falls back to hidden_size /
    // num_attention_heads.
    {.modelType = "qwen3_moe",
     .architecture = "Qwen3MoeForCausalLM",
     .kvHeads = 4,
     .maxContext = 32768,
     .window = 4096,
     .useWindow = false,
     .qkNorm = QkNorm::PerHead,
     .rule = qwenRule},
    {.modelType = "qwen3_next",
     .architecture = "Qwen3NextForCausalLM",
     .kvHeads = 2,
     .headDim = 256,
     .maxContext = 32768,
     .useWindow = false,
     .qkNorm = QkNorm::PerHead,
     .rotaryFraction = 0.25,
     .rule = qwenHybridRule},
    {.modelType = "smollm3",
     .architecture = "SmolLM3ForCausalLM",
     .kvHeads = 4,
     .maxContext = 32768,
     .useWindow = false,
     .rule = nopeRule},
    {.modelType = "starcoder2",
     .architecture = "Starcoder2ForCausalLM",
     .kvHeads = 2,
     .maxContext = 4096,
     .rule = starcoder2Rule},
    {.modelType = "step3p7", .architecture = "Step3p7FlashForCausalLM"},
};

/// Files that wrap a text model; most of them name it again in text_config.
static const struct {
  StringRef modelType, architecture, text;
} wrappers[] = {
    {"gemma3", "Gemma3ForConditionalGeneration", "gemma3_text"},
    {"gemma4", "Gemma4ForConditionalGeneration", "gemma4_text"},
    {"kimi_k3", "KimiK3ForConditionalGeneration", "kimi_linear"},
    {"llama4", "Llama4ForConditionalGeneration", "llama4_text"},
    {"mistral3", "Mistral3ForConditionalGeneration", "mistral"},
    {"qwen3_5", "Qwen3_5ForConditionalGeneration", "qwen3_5_text"},
};

static const Family *findRow(StringRef name, bool byArchitecture) {
  if (name.empty())
    return nullptr;
  for (const auto &wrapper : wrappers)
    if (name == (byArchitecture ? wrapper.architecture : wrapper.modelType))
      return findRow(wrapper.text, /*byArchitecture=*/false);
  for (const Family &family : families)
    if (name == (byArchitecture ? family.architecture : family.modelType))
      return &family;
  return nullptr;
}

const Family *findFamily(StringRef textType, StringRef fileType, StringRef architecture) {
  if (!textType.empty())
    return findRow(textType, false);
  return fileType.empty() ? findRow(architecture, true) : findRow(fileType, false);
}

std::vector<StringRef> nearestFamilies(StringRef name, bool byArchitecture) {
  std::vector<StringRef> names;
  for (const Family &family : families)
    names.push_back(byArchitecture ? family.architecture : family.modelType);
  for (const auto &wrapper : wrappers)
    names.push_back(byArchitecture ? wrapper.architecture : wrapper.modelType);
  StringRef start = name.take_front(64); // The distance is quadratic in a name from outside.
  llvm::sort(names, [&](StringRef a, StringRef b) {
    return std::pair(start.edit_distance(a), a) < std::pair(start.edit_distance(b), b);
  });
  return names;
}

} // namespace kvcc
