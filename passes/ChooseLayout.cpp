// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-choose-layout: bits, map, group and axis of the keys and values of each layer.
#include "passes/Assignment.h"
#include "passes/Candidates.h"
#include "passes/CostModel.h"
#include "passes/Passes.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/Remarks.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;

namespace kvcc {
#define GEN_PASS_DEF_CHOOSELAYOUTPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

namespace {

/// A pair of layouts for the keys and values of a layer.
struct Pair {
  QuantAttr key, value;
  double damage, bytes, seconds;
  bool isWorthIt = true; ///< nothing that costs less damages less
};

/// Layers that are decided alike: without a profile all of equal facts.
struct LayerClass {
  SmallVector<LayerOp> layers;
  std::vector<Pair> pairs;
};

std::string describe(const Pair &pair, int64_t headDim) {
  return llvm::formatv("keys of {0:f2} and values of {1:f2} bits", pair.key.getBitsPerElement(headDim),
                       pair.value.getBitsPerElement(headDim));
}

struct ChooseLayoutPass : kvcc::impl::ChooseLayoutPassBase<ChooseLayoutPass> {
  void runOnOperation() override {
    ModuleOp module = getOperation();
    FailureOr<ObjectiveAttr> found = kvcc::getObjective(module);
    FailureOr<TargetAttr> target = kvcc::getTarget(module);
    if (failed(found) || failed(target) || failed(kvcc::checkFacts(module)))
      return signalPassFailure();
    objective = *found;
    collect();
    if (classes.empty())
      return;
    for (LayerClass &layers : classes)
      addPairs(layers, *target);
    dropUseless();
    std::optional<Assignment> chosen = choose();
    if (!chosen)
      return signalPassFailure();
    for (auto [layers, pick] : llvm::zip(classes, chosen->picks))
      write(layers, layers.pairs[pick]);
  }

private:
  /// The open layers, those of equal facts together unless a profile tells them apart.
  void collect() {
    llvm::MapVector<Attribute, LayerClass> groups;
    getOperation().walk([&](LayerOp layer) {
      if (layer.getKey() && layer.getValue())
        return;
      if (kvcc::fitsWindows(layer, kvcc::getDefaultWindow(&getContext())))
        return;
      ++openLayers;
      NamedAttrList facts(layer->getAttrs());
      facts.erase("index");
      if (layer.getMeasured())
        facts.append("layer", layer.getIndexAttr());
      LayerClass &group = groups[facts.getDictionary(&getContext())];
      group.layers.push_back(layer);
      elements +=
          2.0 * double(*layer.getKvHeads() * *layer.getHeadDim()) * double(layer.getHeldTokens(objective.getTokens()));
    });
    for (auto &entry : groups)
      classes.push_back(std::move(entry.second));
  }

  /// The best candidate of each layout of a side; a side that is given is the only candidate.
  std::vector<Candidate> getLayouts(LayerOp layer, Role role) {
    if (QuantAttr given = layer.getQuant(role))
      return {{given, 0}};
    llvm::MapVector<Attribute, double> best;
    for (const Candidate &candidate : getCandidates(layer, role, openLayers)) {
      auto [at, isNew] = best.insert({getLayout(candidate.quant), candidate.damage});
      at->second = std::min(at->second, candidate.damage);
    }
    std::vector<Candidate> layouts;
    for (auto [layout, damage] : best)
      layouts.push_back({cast<QuantAttr>(layout), damage});
    return layouts;
  }

  void addPairs(LayerClass &layers, TargetAttr target) {
    LayerOp layer = layers.layers.front();
    int64_t tokens = layer.getHeldTokens(objective.getTokens());
    std::vector<Candidate> values = getLayouts(layer, Role::Value);
    for (const Candidate &key : getLayouts(layer, Role::Key))
      for (const Candidate &value : values)
        layers.pairs.push_back({key.quant, value.quant, key.damage + value.damage,
                                getPageBytes(layer, key.quant, tokens) + getPageBytes(layer, value.quant, tokens), 0});
    int64_t headDim = int64_t(*layer.getHeadDim());
    llvm::sort(layers.pairs, [&](const Pair &a, const Pair &b) {
      return std::tuple(a.bytes, a.damage, a.key.getBitsPerElement(headDim)) <
             std::tuple(b.bytes, b.damage, b.key.getBitsPerElement(headDim));
    });
    double least = INFINITY;
    for (Pair &pair : layers.pairs) {
      pair.isWorthIt = pair.damage < least;
      least = std::min(least, pair.damage);
    }
    if (objective.getPrefer() == Prefer::Speed)
      for (Pair &pair : layers.pairs)
        pair.seconds = kvcc::estimateSeconds(layer, pair.key, pair.value, target, objective);
  }

  /// Drops pairs that are worth their bytes in no class. (Those that are in one may be what all can share.)
  void dropUseless() {
    llvm::DenseSet<std::pair<Attribute, Attribute>> useful;
    for (const LayerClass &layers : classes)
      for (const Pair &pair : layers.pairs)
        if (pair.isWorthIt)
          useful.insert({pair.key, pair.value});
    for (LayerClass &layers : classes)
      llvm::erase_if(layers.pairs, [&](const Pair &pair) { return !useful.contains({pair.key, pair.value}); });
  }

  /// One item per class; `loss` and `cost` of a pair in a layer.
  std::vector<Item> makeItems(function_ref<double(const Pair &)> loss, function_ref<double(const Pair &)> cost) {
    llvm::MapVector<std::pair<Attribute, Attribute>, int64_t> kinds;
    std::vector<Item> items;
    for (const LayerClass &layers : classes) {
      Item &item = items.emplace_back();
      item.weight = double(layers.layers.size());
      for (const Pair &pair : layers.pairs) {
        auto kind = kinds.insert({std::pair<Attribute, Attribute>(pair.key, pair.value), int64_t(kinds.size())});
        item.choices.push_back({loss(pair), cost(pair), kind.first->second});
      }
    }
    return items;
  }

  /// Solves, or reports what cannot be.
  std::optional<Assignment> choose() {
    auto damage = [](const Pair &pair) { return pair.damage; };
    auto bytes = [](const Pair &pair) { return pair.bytes; };
    auto seconds = [](const Pair &pair) { return pair.seconds; };
    auto kinds = size_t(objective.getSpecs());
    double maxKl = objective.getMaxKl().convertToDouble();
    std::vector<Item> items = makeItems(damage, bytes);
    double least = 0, most = 0;
    for (const LayerClass &layers : classes) {
      least += double(layers.layers.size()) * layers.pairs.front().bytes;
      most += double(layers.layers.size()) * layers.pairs.back().bytes;
    }
    double limit = INFINITY, bitsPerByte = 8 / elements;
    if (double budget = objective.getBudget().convertToDouble()) {
      limit = budget / bitsPerByte;
      if (limit < least || limit > most * (1 + 1e-9)) {
        getOperation().emitError() << llvm::formatv("expected a budget from {0:f2} to {1:f2} bits, but got {2:f2}",
                                                    std::ceil(least * bitsPerByte * 100) / 100,
                                                    std::floor(most * bitsPerByte * 100) / 100, budget)
                                          .str();
        return std::nullopt;
      }
    }
    if (int64_t memory = objective.getMemory()) {
      double other = kvcc::getOtherBytes(getOperation(), objective), batch = double(objective.getBatch());
      double available = (double(memory) - other * batch) / batch;
      if (available < least) {
        getOperation().emitError() << llvm::formatv(
                                          "expected memory of at least {0:f0} bytes for {1} sequences of {2} tokens, "
                                          "but got {3}",
                                          std::ceil((least + other) * batch), objective.getBatch(),
                                          objective.getTokens(), memory)
                                          .str();
        return std::nullopt;
      }
      limit = std::min(limit, available);
    }
    if (std::isinf(limit) || objective.getPrefer() == Prefer::Memory) {
      // The fewest bytes for an accepted damage.
      double accepted = maxKl ? maxKl : kvcc::kAcceptedKl;
      std::optional<Assignment> result = assign(makeItems(bytes, damage), accepted, kinds);
      if (result && result->loss <= limit)
        return finish(std::move(result), items);
      return refuse(limit, bitsPerByte, accepted, result ? result->loss : most);
    }
    std::optional<Assignment> best = assign(items, limit, kinds);
    if (maxKl && best && best->loss > maxKl) {
      std::optional<Assignment> needed = assign(makeItems(bytes, damage), maxKl, kinds);
      return refuse(limit, bitsPerByte, maxKl, needed ? needed->loss : most);
    }
    if (objective.getPrefer() == Prefer::Speed && best) {
      // The least time for at most twice the damage, or what max_kl accepts.
      std::optional<Assignment> fast = assign(makeItems(seconds, damage), maxKl ? maxKl : 2 * best->loss, kinds);
      if (fast) {
        Assignment inBytes = *finish(fast, items);
        if (inBytes.cost <= limit)
          return inBytes;
      }
    }
    return best;
  }

  std::optional<Assignment> refuse(double limit, double bitsPerByte, double accepted, double needed) {
    getOperation().emitError() << llvm::formatv("expected limits that go together, but max_kl = {0:e2} needs {1:f2} "
                                                "bits and the budget or memory allows {2:f2}",
                                                accepted, needed * bitsPerByte, limit * bitsPerByte)
                                      .str();
    return std::nullopt;
  }

  /// Damage and bytes of picks that were made for other losses and costs.
  std::optional<Assignment> finish(std::optional<Assignment> picks, ArrayRef<Item> items) {
    picks->loss = picks->cost = 0;
    for (auto [item, pick] : llvm::zip(items, picks->picks)) {
      picks->loss += item.weight * item.choices[pick].loss;
      picks->cost += item.weight * item.choices[pick].cost;
    }
    return picks;
  }

  void write(LayerClass &layers, const Pair &pair) {
    for (LayerOp layer : layers.layers) {
      int64_t headDim = int64_t(*layer.getHeadDim());
      SmallVector<Attribute> open;
      Builder b(&getContext());
      for (auto [role, quant] : {std::pair(Role::Key, pair.key), std::pair(Role::Value, pair.value)})
        if (!layer.getQuant(role)) {
          layer.setQuant(role, quant);
          open.push_back(b.getStringAttr(stringifyRole(role)));
        }
      layer.setOpenAttr(b.getArrayAttr(open));
      std::string reason = describe(pair, headDim) + ": ";
      if (layer.getMeasured()) {
        reason += llvm::formatv("the profile's damage is {0:e2}", pair.damage);
      } else {
        reason += llvm::formatv("a prior, damage {0:e2}", pair.damage);
        if (std::string words = getPrior(layer, Role::Key).words; !words.empty())
          reason += " (" + words + ")";
      }
      if (const Pair *other = findRunnerUp(layers, pair))
        reason += llvm::formatv("; the runner-up, {0}, has damage {1:e2} for {2}{3:f2} bits", describe(*other, headDim),
                                other->damage, other->bytes < pair.bytes ? "-" : "+",
                                std::fabs(other->bytes - pair.bytes) * 8 * double(openLayers) / elements);
      layer.addReason("layout", reason);
      remark::passed(layer.getLoc(), remark::RemarkOpts::name("layout").category("kv-choose-layout"))
          << "layer " << std::to_string(layer.getIndex()) << ": " << reason;
    }
  }

  /// The pair nearest in bytes among those that are worth their bytes.
  static const Pair *findRunnerUp(const LayerClass &layers, const Pair &chosen) {
    const Pair *best = nullptr;
    auto distance = [&](const Pair &pair) { return std::fabs(pair.bytes - chosen.bytes); };
    for (const Pair &pair : layers.pairs)
      if (&pair != &chosen && pair.isWorthIt && (!best || distance(pair) < distance(*best)))
        best = &pair;
    return best;
  }

  ObjectiveAttr objective;
  std::vector<LayerClass> classes;
  int64_t openLayers = 0;
  double elements = 0; ///< cached numbers of the open layers for one sequence
};
} // namespace
