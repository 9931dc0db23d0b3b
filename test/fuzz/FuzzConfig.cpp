// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// config.json of a model: what is accepted can be described and has layers within the limits of the reader.
#include "test/fuzz/FuzzTarget.h"

#include "runtime/ModelConfig.h"

using namespace kvcc;

static void run(llvm::StringRef bytes) {
  llvm::Expected<ModelConfig> model = parseModelConfig(bytes, "config.json");
  if (!model) {
    fuzz::require(!toString(model.takeError()).empty(), "an error says something");
    return;
  }
  fuzz::require(!model->layers.empty(), "a model has layers");
  for (const LayerConfig &layer : model->layers) {
    fuzz::require(layer.unsupported == servedReason(layer), "the reason belongs to the layer");
    if (layer.unsupported.empty()) {
      fuzz::require(layer.qHeads > 0 && layer.kvHeads > 0 && layer.headDim > 0, "a served layer has heads");
      fuzz::require(layer.qHeads % layer.kvHeads == 0, "query heads are shared out evenly");
    }
  }
  (void)describeUnservedLayers(*model);
  consumeError(checkServable(*model));
}

const fuzz::Target fuzz::config = {"config", run, [] { return readFiles("models", ".json"); }};
