// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a Hugging Face config.json says about attention, layer by layer: the facts that a KV cache
// and a decode kernel depend on, with the defaults of the model's class filled in for the keys that
// the file leaves out.

#ifndef KVCC_RUNTIME_MODELCONFIG_H
#define KVCC_RUNTIME_MODELCONFIG_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <cstdint>
#include <string>
#include <vector>

namespace kvcc {

enum class LayerKind {
  Full,    ///< Softmax attention over all earlier tokens.
  Sliding, ///< Over the last `window` tokens, the current one included.
  Chunked, ///< Over the tokens of the current chunk of `window` tokens only.
  Linear,  ///< A recurrent state instead of K and V: linear attention, state-space layers.
  Latent,  ///< MLA: one compressed latent per token, shared by all heads.
  Sparse,  ///< Softmax over tokens or blocks that an indexer picks, or over compressed ones.
  None,    ///< No token mixing at all (the MLP layers of hybrid patterns): nothing to cache.
};

/// Where the class normalizes q and k. Serving does not depend on it (the cache holds what
/// attention reads); the selection of a scheme does.
enum class QkNorm {
  None,
  PerHead,  ///< RMS norm over head_dim.
  AllHeads, ///< RMS norm over the whole projection.
  L2,       ///< Weightless L2 norm, after RoPE.
};

llvm::StringRef stringify(LayerKind kind);
llvm::StringRef stringify(QkNorm norm);

/// One layer. Linear and None layers keep zeros in the numbers. A Latent layer is described as its
/// cache is read, with the up-projections absorbed: one KV head, K = latent + rope part, V =
/// latent.
struct LayerConfig {
  LayerKind kind = LayerKind::Full;
  int64_t qHeads = 0;
  int64_t kvHeads = 0;
  int64_t headDim = 0;   ///< Channels of q and K per head.
  int64_t vHeadDim = 0;  ///< Channels of V per head.
  double scale = 0;      ///< score = scale * q.k
  int64_t window = 0;    ///< Tokens, for Sliding and Chunked; else 0.
  double softcap = 0;    ///< score = softcap * tanh(score / softcap); 0: none.
  double valueScale = 1; ///< The model multiplies V by this before it is cached.
  int64_t rotaryDim = 0; ///< Channels that RoPE turns; 0 in NoPE layers.
  bool rope = true;
  bool attentionSinks = false;      ///< One learned logit per query head joins the softmax.
  bool alibi = false;               ///< A bias linear in the distance is added to the scores.
  bool kEqualsV = false;            ///< K is used as V: one cache instead of two.
  bool sharedCache = false;         ///< Reads the cache of an earlier layer and writes none.
  bool positionScaledQuery = false; ///< q is scaled by a function of its position, before the kernel.
  bool kBias = false;               ///< The K projection has a bias.
  QkNorm qkNorm = QkNorm::None;
  std::string mechanism; ///< For layers that are not softmax attention over K and V: what they are,
                         ///< in words.
  /// Why the decode kernels do not serve this layer, in words; empty when they do. Filled from
  /// servedReason().
  std::string unsupported;
};

struct ModelConfig {
  std::string name; ///< `_name_or_path` of the file, else the file's name.
  std::string modelType;
  std::string architecture; ///< Empty when the file has none.
  std::string dtype;        ///< Of the activations: "f16", "bf16" or "f32".
  int64_t maxContext = 0;
  /// The KV cache type that the checkpoint asks for ("8-bit float"), from its quantization_config;
  /// empty: none.
  std::string kvCacheScheme;
  std::vector<LayerConfig> layers;
  std::vector<std::string> notes; ///< One line for each assumption a user may want to know of.
};

/// The one place that says what today's kernels serve: empty for a layer they serve, else the
/// reason.
std::string servedReason(const LayerConfig &layer);

/// `fileName` is used in messages only. Every message names the file, the key, the value and the
/// legal ones.
llvm::Expected<ModelConfig> parseModelConfig(llvm::StringRef text, llvm::StringRef fileName);

/// `path` is a config.json or a folder that holds one.
llvm::Expected<ModelConfig> loadModelConfig(llvm::StringRef path);

/// Fails when no layer is served, with the layers and the reasons. A hybrid is served for its other
/// layers.
llvm::Error checkServable(const ModelConfig &model);

/// One line: "layers 0-4, 6-10: sliding window 1024 is not served; left to the framework". Several
/// reasons are joined by "; ". Empty when every layer is served; layers without attention are not
/// mentioned.
std::string describeUnservedLayers(const ModelConfig &model);

/// {0, 1, 2, 5} -> "0-2, 5"
std::string formatLayerRanges(llvm::ArrayRef<size_t> layers);

} // namespace kvcc

#endif // KVCC_RUNTIME_MODELCONFIG_H
