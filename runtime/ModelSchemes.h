// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How the cache of every layer of a model is stored: what a user asks for, applied to the layers or chosen by passes.
#ifndef KVCC_RUNTIME_MODELSCHEMES_H
#define KVCC_RUNTIME_MODELSCHEMES_H

#include "dialect/Kv.h"
#include "mlir/IR/OwningOpRef.h"
#include "runtime/ModelConfig.h"
#include "runtime/Profile.h"
#include "runtime/Scheme.h"
#include "runtime/Target.h"

#include <optional>

namespace kvcc {

struct ModelSchemes {
  mlir::OwningOpRef<mlir::ModuleOp> module; ///< a kv.layer for each layer with keys and values
  std::string name, source;                 ///< of the scheme
  std::vector<kv::LayerOp> layers;          ///< by layer of the model; null where there is nothing to store
  std::vector<std::string> remarks;
  /// What writers may know, by layer and KV head; empty without a profile.
  std::vector<std::vector<WriterStatistics>> statistics;

  bool has(size_t layer) const { return bool(layers[layer]); }
  Scheme getScheme(size_t layer) const;
  std::string print() const;
};

/// `text` is one of
/// - what parseScheme understands: the same for all layers;
/// - `auto`, or `auto; budget = 3.5; memory = 8GiB; context = 131072; batch = 16; max_kl = 0.01; prefer = speed;
///   specs = 4; profile = P.json` with any of these parts: the selection passes choose per layer. Without budget,
///   memory and max_kl the budget is 4 bits;
/// - a path that ends in `.mlir`: a module of kv.layer, one for each layer of the model that has keys and values.
/// `; profile = P.json` may follow any of them: writers then use its statistics for centring and feedback.
/// Sliding layers that see no more than their windows stay unquantized.
llvm::Expected<ModelSchemes> chooseSchemes(mlir::MLIRContext &context, const ModelConfig &model, llvm::StringRef dtype,
                                           const Target &target, llvm::StringRef text);

} // namespace kvcc

#endif
