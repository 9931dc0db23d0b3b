// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Which layers today's decode kernels serve, and the words for those that they do not.

#include "runtime/ErrorKind.h"
#include "runtime/ModelConfig.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/FormatVariadic.h"

using namespace llvm;

namespace kvcc {

StringRef stringify(LayerKind kind) {
  switch (kind) {
  case LayerKind::Full:
    return "full";
  case LayerKind::Sliding:
    return "sliding";
  case LayerKind::Chunked:
    return "chunked";
  case LayerKind::Linear:
    return "linear";
  case LayerKind::Latent:
    return "latent";
  case LayerKind::Sparse:
    return "sparse";
  case LayerKind::None:
    return "none";
  }
  llvm_unreachable("unknown layer kind");
}

StringRef stringify(QkNorm norm) {
  switch (norm) {
  case QkNorm::None:
    return "none";
  case QkNorm::PerHead:
    return "per_head";
  case QkNorm::AllHeads:
    return "all_heads";
  case QkNorm::L2:
    return "l2";
  }
  llvm_unreachable("unknown norm");
}

std::string servedReason(const LayerConfig &layer) {
  StringRef mechanism = layer.mechanism;
  switch (layer.kind) {
  case LayerKind::None:
    return "no attention, nothing to cache";
  case LayerKind::Linear:
    return ((mechanism.empty() ? "linear attention" : mechanism) +
            " keeps a recurrent state instead of K and V and is not served")
        .str();
  case LayerKind::Latent:
    return ((mechanism.empty() ? "MLA" : mechanism) +
            " caches one latent per token instead of K and V and is not served")
        .str();
  case LayerKind::Sparse:
    return ((mechanism.empty() ? "sparse attention" : mechanism) + " is not served").str();
  case LayerKind::Full:
  case LayerKind::Sliding:
  case LayerKind::Chunked:
    break;
  }
  // What keeps a layer of softmax attention from being served, all of it: lifting one reason must
  // not hide the next.
  SmallVector<std::string> reasons;
  if (layer.alibi)
    reasons.push_back("an ALiBi bias");
  if (layer.kEqualsV)
    reasons.push_back("K used as V");
  if (layer.sharedCache)
    reasons.push_back("reading the cache of an earlier layer");
  if (layer.headDim % 32 != 0 || layer.headDim < 32 || layer.headDim > 256)
    reasons.push_back(formatv("head_dim {0} (expected a multiple of 32 from 32 to 256)", layer.headDim));
  if (layer.vHeadDim != layer.headDim)
    reasons.push_back(
        formatv("v_head_dim {0} beside head_dim {1} (expected equal ones)", layer.vHeadDim, layer.headDim));
  if (layer.kvHeads < 1 || layer.qHeads % layer.kvHeads != 0)
    reasons.push_back(formatv("{0} query heads over {1} KV heads (expected a multiple)", layer.qHeads, layer.kvHeads));
  if (reasons.empty())
    return "";
  std::string text = llvm::join(ArrayRef(reasons).drop_back(), ", ");
  text += (reasons.size() > 1 ? " and " : "") + reasons.back();
  return text + (reasons.size() > 1 ? " are not served" : " is not served");
}

std::string formatLayerRanges(ArrayRef<size_t> layers) {
  std::string text;
  for (size_t i = 0; i < layers.size();) {
    size_t end = i + 1;
    while (end < layers.size() && layers[end] == layers[end - 1] + 1)
      ++end;
    text += (text.empty() ? "" : ", ") + std::to_string(layers[i]);
    if (end - i > 1)
      text += "-" + std::to_string(layers[end - 1]);
    i = end;
  }
  return text;
}

/// "layers 0-4, 6: reason; layer 5: reason"
static std::string listReasons(const ModelConfig &model) {
  MapVector<StringRef, std::vector<size_t>> groups;
  for (auto [i, layer] : llvm::enumerate(model.layers))
    if (!layer.unsupported.empty() && layer.kind != LayerKind::None)
      groups[layer.unsupported].push_back(i);
  std::string text;
  for (const auto &[reason, layers] : groups)
    text += formatv("{0}layer{1} {2}: {3}", text.empty() ? "" : "; ", layers.size() > 1 ? "s" : "",
                    formatLayerRanges(layers), reason);
  return text;
}

std::string describeUnservedLayers(const ModelConfig &model) {
  std::string text = listReasons(model);
  return text.empty() ? text : text + "; left to the framework";
}

Error checkServable(const ModelConfig &model) {
  if (llvm::any_of(model.layers, [](const LayerConfig &l) { return l.unsupported.empty(); }))
    return Error::success();
  std::string reasons = listReasons(model);
  return withKind(ErrorKind::Unsupported,
                  createStringError(model.name +
                                    ": expected at least one layer of plain softmax attention over "
                                    "K and V, but got none: " +
                                    (reasons.empty() ? "no layer has attention" : reasons)));
}

} // namespace kvcc
