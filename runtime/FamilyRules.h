// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The rules that rows of the family table point to. Each runs after the shared keys were read and
// changes the layers.

#ifndef KVCC_RUNTIME_FAMILYRULES_H
#define KVCC_RUNTIME_FAMILYRULES_H

#include "runtime/ConfigReader.h"
#include "runtime/ModelConfig.h"

namespace kvcc {

void chatglmRule(ConfigReader &reader, ModelConfig &model);
void deepseek4Rule(ConfigReader &reader, ModelConfig &model);
void falconRule(ConfigReader &reader, ModelConfig &model);
void gemma2Rule(ConfigReader &reader, ModelConfig &model);
void gemma3Rule(ConfigReader &reader, ModelConfig &model);
void gemma4Rule(ConfigReader &reader, ModelConfig &model);
void gptOssRule(ConfigReader &reader, ModelConfig &model);
void graniteRule(ConfigReader &reader, ModelConfig &model);
void kimiLinearRule(ConfigReader &reader, ModelConfig &model);
void llama4Rule(ConfigReader &reader, ModelConfig &model);
void mimoRule(ConfigReader &reader, ModelConfig &model);
void minimaxRule(ConfigReader &reader, ModelConfig &model);
void ministral3Rule(ConfigReader &reader, ModelConfig &model);
void nemotronHRule(ConfigReader &reader, ModelConfig &model);
void olmo3Rule(ConfigReader &reader, ModelConfig &model);
void qkNormKeyRule(ConfigReader &reader, ModelConfig &model);
void qwen2Rule(ConfigReader &reader, ModelConfig &model);
void qwenHybridRule(ConfigReader &reader, ModelConfig &model);
void qwenRule(ConfigReader &reader, ModelConfig &model);
void nopeRule(ConfigReader &reader, ModelConfig &model);
void starcoder2Rule(ConfigReader &reader, ModelConfig &model);

} // namespace kvcc

#endif // KVCC_RUNTIME_FAMILYRULES_H
