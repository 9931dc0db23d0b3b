// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Candidates and priors.
#include "passes/Candidates.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/StringExtras.h"

#include <cmath>

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;

namespace {

/// What a format is made of, for code that makes many.
struct FormatBuilder {
  MLIRContext *context;
  int64_t headDim;

  QuantAttr codes(unsigned bits, Map map, int64_t tokens, int64_t channels, ArrayRef<Attribute> transforms = {},
                  int64_t search = 0, bool feedback = false) const {
    return QuantAttr::get(context, IntegerType::get(context, bits), map, tokens, channels, Float16Type::get(context),
                          ArrayAttr::get(context, transforms), search, feedback);
  }
  Attribute center() const { return CenterAttr::get(context); }
  Attribute hadamard() const { return HadamardAttr::get(context, std::min<int64_t>(headDim & -headDim, 256)); }
  Attribute sqrtMax() const {
    return DiagAttr::get(context, DiagStat::SqrtMax, llvm::APFloat(1.0), /*tied=*/false, /*weights=*/false);
  }
  Attribute norm() const { return TokenNormAttr::get(context, Float8E8M0FNUType::get(context)); }
};

/// KL(exact || quantized) of SmolLM2-135M (head_dim 64, 3 query heads per KV head, no bias) with one side in recipe
/// T and the other exact, sink 32, recent 96: measured up to 4 bits, extrapolated by a factor of four per bit above.
struct MeasuredBits {
  unsigned bits;
  double keys, values;
};
constexpr MeasuredBits kMeasured[] = {{2, 3.8e-2, 7.5e-3}, {3, 4.4e-3, 1.4e-3}, {4, 8e-4, 3e-4},
                                      {5, 2e-4, 8e-5},     {6, 5e-5, 2e-5},     {8, 3e-6, 1.2e-6}};

} // namespace

Prior kvcc::getPrior(LayerOp layer, Role role) {
  Prior prior;
  SmallVector<std::string> words;
  auto apply = [&](double factor, std::string why) {
    prior.factor *= factor;
    words.push_back(std::move(why));
  };
  if (role == Role::Key) {
    int64_t headDim = int64_t(*layer.getHeadDim()), group = int64_t(*layer.getQHeads() / *layer.getKvHeads());
    if (headDim > 64)
      apply(0.5, "head_dim " + std::to_string(headDim) + " averages more rounding errors in a logit than 64");
    else if (headDim < 64)
      apply(2, "head_dim " + std::to_string(headDim) + " averages few rounding errors in a logit");
    if (group > 4)
      apply(double(group) / 4, std::to_string(group) + " query heads share each key");
    if (layer.getKeyBias())
      apply(50, "biased keys have large channels");
    if (layer.getQkNorm())
      apply(0.5, "normalized keys have even channels");
  }
  prior.words = llvm::join(words, ", ");
  return prior;
}

std::vector<Candidate> kvcc::getCandidates(LayerOp layer, Role role, int64_t layers) {
  std::vector<Candidate> candidates;
  if (layer.getMeasured())
    for (auto measured : layer.getMeasured()->getAsRange<MeasuredAttr>())
      if (measured.getRole() == role)
        candidates.push_back({measured.getQuant(), measured.getDamage().convertToDouble()});
  if (candidates.empty()) {
    FormatBuilder format{layer.getContext(), int64_t(*layer.getHeadDim())};
    double factor = getPrior(layer, role).factor / double(layers);
    for (const MeasuredBits &row : kMeasured) {
      bool isKey = role == Role::Key;
      QuantAttr quant = isKey ? format.codes(row.bits, Map::SymSigned, 1, format.headDim,
                                             {format.center(), format.hadamard()}, 0, /*feedback=*/true)
                              : format.codes(row.bits, Map::SymSigned, 1, format.headDim, {format.hadamard()});
      candidates.push_back({quant, factor * (isKey ? row.keys : row.values)});
    }
  }
  candidates.push_back({QuantAttr::getPlain(*layer.getDtype()), 0});
  return candidates;
}

std::vector<QuantAttr> kvcc::getProfileCandidates(MLIRContext &context, Role role, int64_t headDim) {
  FormatBuilder format{&context, headDim};
  std::vector<QuantAttr> result;
  Attribute center = format.center(), hadamard = format.hadamard(), sqrtMax = format.sqrtMax(), norm = format.norm();
  SmallVector<int64_t> groups = {headDim};
  if (headDim > 32)
    groups.push_back(32);
  for (unsigned bits : {2u, 3u, 4u, 5u, 6u, 8u}) {
    for (int64_t group : groups) {
      auto add = [&](ArrayRef<Attribute> transforms, bool feedback = false) {
        result.push_back(format.codes(bits, Map::SymSigned, 1, group, transforms, 0, feedback));
      };
      add({});
      add({hadamard});
      if (role == Role::Key) {
        add({sqrtMax});
        add({center, hadamard});
        add({center}, true);
        add({center, hadamard}, true);
      }
    }
    if (bits > 5)
      continue;
    // With a zero point, and along the other axis.
    if (role == Role::Key) {
      result.push_back(format.codes(bits, Map::Asym, 32, 1, {center}));
      result.push_back(format.codes(bits, Map::Asym, 1, headDim, {center, hadamard}));
    } else {
      result.push_back(format.codes(bits, Map::SymSigned, 32, 1, {norm}, 4));
      result.push_back(format.codes(bits, Map::SymSigned, 32, 1, {hadamard, norm}, 4));
      result.push_back(format.codes(bits, Map::SymSigned, 32, 1, {}, 4));
      result.push_back(format.codes(bits, Map::Hybrid, 32, 1));
      result.push_back(format.codes(bits, Map::Asym, 32, 1));
      result.push_back(format.codes(bits, Map::Asym, 1, headDim));
    }
  }
  return result;
}

QuantAttr kvcc::getLayout(QuantAttr quant) {
  if (!quant.isQuantized())
    return QuantAttr::getPlain(quant.getElement());
  SmallVector<Attribute> stored;
  if (auto norm = quant.getTransform<TokenNormAttr>())
    stored.push_back(norm);
  bool floats = !isa<IntegerType>(quant.getElement());
  Map map = floats ? quant.getMap() : quant.hasZeros() ? Map::Asym : Map::SymFull;
  return QuantAttr::get(quant.getContext(), quant.getElement(), map, quant.getGroupTokens(), quant.getGroupChannels(),
                        quant.getScale(), ArrayAttr::get(quant.getContext(), stored), 0, false);
}

double kvcc::getPageBytes(LayerOp layer, QuantAttr quant, int64_t tokens) {
  int64_t headDim = int64_t(*layer.getHeadDim());
  return quant.getBitsPerElement(headDim) / 8 * double(headDim) * double(*layer.getKvHeads()) * double(tokens);
}
