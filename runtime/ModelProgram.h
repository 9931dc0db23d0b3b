// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The programs of all layers of a model: layers of equal shape share one.
#ifndef KVCC_RUNTIME_MODELPROGRAM_H
#define KVCC_RUNTIME_MODELPROGRAM_H

#include "runtime/Program.h"

namespace kvcc {

struct ModelRequest {
  std::string scheme, target;
  std::string dtype; ///< empty: the model's
  PlanOptions options;
};

/// The distinct shapes among the served layers of a model, each with its layers.
struct LayerGroup {
  AttentionShape shape;
  std::vector<size_t> layers;
};
std::vector<LayerGroup> groupLayers(const ModelConfig &model);

class ModelProgram {
public:
  static llvm::Expected<std::unique_ptr<ModelProgram>> load(Compiler &compiler, ModelConfig model,
                                                            const ModelRequest &request, ThreadPool &pool);

  const ModelConfig &getModel() const { return model; }
  /// Null for a layer that is not served.
  const Program *getProgram(size_t layer) const { return byLayer[layer]; }
  llvm::ArrayRef<std::unique_ptr<Program>> getVariants() const { return variants; }

private:
  ModelConfig model;
  std::vector<std::unique_ptr<Program>> variants;
  std::vector<const Program *> byLayer;
};

} // namespace kvcc

#endif
