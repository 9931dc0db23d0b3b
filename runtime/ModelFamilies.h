// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the classes of the model families say about attention beyond the keys of a config.json.
// ModelConfig.cpp reads the keys that all files share; a row of the table gives a family's
// defaults, its rule the rest.

#ifndef KVCC_RUNTIME_MODELFAMILIES_H
#define KVCC_RUNTIME_MODELFAMILIES_H

#include "runtime/ConfigReader.h"
#include "runtime/ModelConfig.h"

namespace kvcc {

/// Class defaults for keys that the file leaves out. A file that sets a key to null says "none",
/// not "default".
struct Family {
  llvm::StringRef modelType;
  llvm::StringRef architecture; ///< For files without a model_type.
  int64_t qHeads = 0;           ///< 0: the file must say.
  int64_t kvHeads = 0;          ///< 0: as many as query heads.
  int64_t headDim = 0;          ///< 0: hidden_size / num_attention_heads.
  int64_t maxContext = 0;       ///< 0: the file must say.
  int64_t window = 0;           ///< 0: no sliding window.
  bool useWindow = true;        ///< Default of use_sliding_window.
  bool kBias = false;           ///< Default of attention_bias.
  QkNorm qkNorm = QkNorm::None;
  double rotaryFraction = 1;
  bool latent = false; ///< MLA, even where the file leaves kv_lora_rank out.
  /// Runs after the shared keys were read: `model.layers` holds every layer with the facts that all
  /// layers share and the kinds that layer_types, else sliding_window, give.
  void (*rule)(ConfigReader &reader, ModelConfig &model) = nullptr;
};

/// By the model_type of the text model, else by that of the file (wrappers such as gemma3 stand for
/// gemma3_text), else by the architecture. Null when none is known.
const Family *findFamily(llvm::StringRef textType, llvm::StringRef fileType, llvm::StringRef architecture);

/// All known model types, or all known architectures, the nearest to `name` first.
std::vector<llvm::StringRef> nearestFamilies(llvm::StringRef name, bool byArchitecture);

} // namespace kvcc

#endif // KVCC_RUNTIME_MODELFAMILIES_H
