// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The programs of all layers of a model: layers of equal shape share one.
#ifndef KVCC_RUNTIME_MODELPROGRAM_H
#define KVCC_RUNTIME_MODELPROGRAM_H

#include "runtime/Program.h"

namespace kvcc {

struct ModelRequest {
  std::string scheme; ///< see chooseSchemes
  std::string target;
  std::string dtype; ///< empty: the model's
  ScheduleOptions options;
  std::string outDtype; ///< of results: empty or "f32", or the dtype
};

/// Layers that share a kernel: the same shape, stored alike.
struct LayerGroup {
  AttentionShape shape;
  Scheme scheme;
  std::vector<size_t> layers;
};
/// The groups of the layers that are served.
std::vector<LayerGroup> groupLayers(const ModelConfig &model, const ModelSchemes &schemes);

/// What AttentionShape::roundsOut is for results of `outDtype`: empty, "f32" or `dtype`.
llvm::Expected<bool> roundsOut(llvm::StringRef outDtype, llvm::StringRef dtype);

/// A kernel of a model: the layers that share it, and its plan.
struct ModelVariant {
  std::vector<size_t> layers;
  Plan plan;
};
struct ModelPlans {
  std::vector<ModelVariant> variants;
  std::vector<std::vector<WriterStatistics>> statistics; ///< see ModelSchemes
};
/// Plans all kernels of the layers that are served; fails if there are none.
llvm::Expected<ModelPlans> planModel(Compiler &compiler, const ModelConfig &model, const ModelRequest &request);

class ModelProgram {
public:
  /// Compiles and loads every kernel of the model, side by side on as many threads as `pool` has: none is left for
  /// the first step.
  static llvm::Expected<std::unique_ptr<ModelProgram>> load(Compiler &compiler, ModelConfig model,
                                                            const ModelRequest &request, ThreadPool &pool);

  const ModelConfig &getModel() const { return model; }
  /// Null for a layer that is not served.
  const Program *getProgram(size_t layer) const { return byLayer[layer]; }
  llvm::ArrayRef<std::unique_ptr<Program>> getVariants() const { return variants; }
  /// What the writer of a layer may know, by KV head; empty without a profile.
  llvm::ArrayRef<WriterStatistics> getStatistics(size_t layer) const {
    return statistics.empty() ? llvm::ArrayRef<WriterStatistics>()
                              : llvm::ArrayRef<WriterStatistics>(statistics[layer]);
  }
  /// The same as the append kernel takes it, in memory of the target; nothing without a profile.
  struct Given {
    std::shared_ptr<const float> numbers;
    int64_t gives = 0;
  };
  const Given &getGiven(size_t layer) const { return given[layer]; }

private:
  ModelConfig model;
  std::vector<std::unique_ptr<Program>> variants;
  std::vector<const Program *> byLayer;
  std::vector<std::vector<WriterStatistics>> statistics;
  std::vector<Given> given;
};

} // namespace kvcc

#endif
