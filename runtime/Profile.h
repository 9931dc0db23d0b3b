// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What was measured on real keys, values and queries of a model: what each format does to each layer, and statistics
// for the writers.
#ifndef KVCC_RUNTIME_PROFILE_H
#define KVCC_RUNTIME_PROFILE_H

#include "dialect/Kv.h"
#include "runtime/CacheContents.h"
#include "runtime/ModelConfig.h"
#include "runtime/Safetensors.h"

namespace kvcc {

struct LayerProfile {
  size_t layer = 0;
  /// The largest over the median root mean square of the key channels, over all KV heads, and the same for values.
  double keyImbalance = 1, valueImbalance = 1;
  /// The largest |mean| of a key channel over the root mean square of the layer's keys: what centring takes away.
  double keyOffset = 0;
  std::vector<kv::MeasuredAttr> measured;
  std::vector<WriterStatistics> statistics; ///< by KV head; key means and query moments
};

struct Profile {
  std::string model; ///< as ModelConfig::name
  std::string shape; ///< as describeShape
  int64_t tokens = 0, queries = 0;
  bool sensitive = false; ///< damage follows what the capture says of the logits' sensitivity
  std::vector<LayerProfile> layers;
};

/// Measures every layer of `model` for which `capture` has q [q_heads, queries, head_dim] and k, v [kv_heads, tokens,
/// head_dim] as "layer.N.q" and so on, the queries being those of the last tokens. "layer.N.g" [q_heads, head_dim,
/// head_dim], of all layers or of none, says how a change of each head's output reaches the logits: the mean over
/// tokens of g g^T, g being the gradient of the log-likelihood of tokens drawn from the model's own predictions. Half
/// of the change's square in it is the KL that the change makes, in nats; without it, damage is the change relative to
/// the output. The last `maxQueries` queries are used, those that read quantized tokens: the first half of them gives
/// the statistics with which some of the others are measured, all together those that writers get. `progress` is called
/// with the layers done.
llvm::Expected<Profile> measureProfile(mlir::MLIRContext &context, const ModelConfig &model,
                                       const SafetensorsFile &capture, int64_t maxQueries, unsigned threads,
                                       llvm::function_ref<void(size_t, size_t)> progress);

std::string printProfile(const Profile &profile);
/// Fails, naming the file, for what is no profile, one of another model, or one that lacks layers.
llvm::Expected<Profile> loadProfile(mlir::MLIRContext &context, llvm::StringRef path, const ModelConfig &model);

/// What must agree between a profile and a model: "llama of 30 layers, 9/3x64 in 0-29".
std::string describeShape(const ModelConfig &model);

/// Whether passes choose how a layer is stored: softmax attention over keys and values of its own.
bool hasCache(const LayerConfig &layer);

} // namespace kvcc

#endif
