// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc explain: what was chosen for each group of equal layers and why, and what it costs; two schemes side by side.
#include "tools/kvcc/Commands.h"

#include "passes/CostModel.h"
#include "runtime/Bandwidth.h"
#include "runtime/Check.h"
#include "runtime/Diagnostics.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::explainCommand("explain", "show what was chosen for a model, and why");
static KernelOptions kernelOptions(explainCommand);
static SchemeOptions schemeOptions(explainCommand, /*totals=*/true);
static cl::opt<std::string> target("target", cl::desc("cpu, cuda:sm_90, ..."), cl::init("cpu"),
                                   cl::sub(explainCommand));
static cl::opt<std::string> diff("diff", cl::desc("another scheme, to compare with"), cl::sub(explainCommand));
static cl::opt<std::string> outputFormat("o", cl::desc("table, json, or mlir: the layers as a table of schemes"),
                                         cl::init("table"), cl::sub(explainCommand));

namespace {

std::string print(mlir::Attribute attribute) {
  std::string text;
  raw_string_ostream stream(text);
  attribute.print(stream);
  return text;
}

/// Layers that are equal in all that is shown.
struct Group {
  kv::LayerOp layer; ///< the first of them
  std::vector<size_t> layers;
  kv::CacheType cache;
  kv::ScheduleAttr schedule;
  std::optional<Plan> plan;                 ///< of layers that are served
  std::optional<StepCost> cost;             ///< of one layer, where the target is known to the cost model
  double bytes = 0, fp16Bytes = 0;          ///< of one layer, all sequences at the context
  double cachedBits = 0, cachedNumbers = 0; ///< of the quantized format, for the average

  double bytesPerToken() const { return double(layout().pageBytes) / double(schedule.getPage()); }
  double shareOfFp16() const { return bytesPerToken() / double(4 * cache.getKvHeads() * cache.getHeadDim()); }
  kv::CacheLayout layout() const { return kv::CacheLayout(cache, schedule); }
};

/// A scheme on a model.
struct Explanation {
  ModelSchemes schemes;
  Target target;
  std::vector<Group> groups;
  int64_t context = 0, batch = 0;
  double bytes = 0, fp16Bytes = 0, bits = 0, seconds = 0;
  int64_t kernels = 0, timedLayers = 0;
};

Expected<Explanation> explain(Compiler &compiler, const ModelConfig &model, StringRef scheme) {
  Explanation result;
  auto parsed = parseTarget(target);
  if (!parsed)
    return parsed.takeError();
  result.target = *parsed;
  result.context = schemeOptions.getContext();
  result.batch = schemeOptions.getBatch();
  auto schemes = compiler.chooseSchemes(model, model.dtype, *parsed, scheme);
  if (!schemes)
    return schemes.takeError();
  result.schemes = std::move(*schemes);
  std::optional<TargetInfo> info = describeTarget(*parsed, compiler.getCache());

  std::vector<std::string> keys;
  for (auto [i, layer] : enumerate(result.schemes.layers)) {
    if (!layer)
      continue;
    // All attributes but the index, and what was measured of it.
    mlir::NamedAttrList facts(layer->getAttrs());
    for (StringRef own : {"index", "measured", "reasons"})
      facts.erase(own);
    std::string key = print(facts.getDictionary(&compiler.getContext()));
    auto known = find(keys, key);
    if (known != keys.end()) {
      result.groups[size_t(known - keys.begin())].layers.push_back(i);
      continue;
    }
    keys.push_back(key);
    Group &group = result.groups.emplace_back();
    group.layer = layer;
    group.layers.push_back(i);
    group.cache = layer.getCacheType();
    auto qHeads = int64_t(*layer.getQHeads());
    ScheduleOptions options = kernelOptions.getScheduleOptions();
    if (!layer.getUnserved()) {
      auto plan = compiler.plan(AttentionShape::of(model.layers[i]), model.dtype, result.schemes.getScheme(i), *parsed,
                                options);
      if (!plan)
        return plan.takeError();
      group.plan = std::move(*plan);
      group.schedule = group.plan->schedule;
    } else {
      Diagnostics diagnostics(*layer.getContext());
      group.schedule =
          planSchedule([&] { return layer.emitError(); }, group.cache, qHeads, parsed->kind, parsed->arch, options);
      if (!group.schedule)
        return diagnostics.takeError();
    }
    int64_t held = layer.getHeldTokens(result.context);
    kv::CacheLayout layout = group.layout();
    int64_t quantized = group.cache.getWindow().getQuantizedTokens(held);
    double numbers = double(group.cache.getKvHeads() * group.cache.getHeadDim());
    group.bytes = double(result.batch) * (double(divideCeil(quantized, group.schedule.getPage()) * layout.pageBytes) +
                                          double(layout.slotBytes));
    group.fp16Bytes = double(result.batch) * 4 * numbers * double(held);
    group.cachedNumbers = 2 * numbers * double(quantized);
    group.cachedBits = numbers * double(quantized) *
                       (group.cache.getKey().getBitsPerElement(group.cache.getHeadDim()) +
                        group.cache.getValue().getBitsPerElement(group.cache.getHeadDim()));
    if (info && group.plan)
      group.cost = estimateStep(group.cache, qHeads, group.schedule, *info, held, result.batch);
  }
  double cached = 0;
  for (const Group &group : result.groups) {
    double layers = double(group.layers.size());
    result.bytes += layers * group.bytes;
    result.fp16Bytes += layers * group.fp16Bytes;
    result.bits += layers * group.cachedBits;
    cached += layers * group.cachedNumbers;
    result.kernels += group.plan ? 1 : 0;
    if (group.cost) {
      result.seconds += layers * group.cost->seconds;
      result.timedLayers += int64_t(group.layers.size());
    }
  }
  result.bits = cached > 0 ? result.bits / cached : 0;
  return result;
}

StringRef name(Bound bound) {
  switch (bound) {
  case Bound::Memory:
    return "memory";
  case Bound::Issue:
    return "instructions";
  case Bound::Logic:
    return "integer units";
  case Bound::Tensor:
    return "tensor cores";
  case Bound::Latency:
    return "latency";
  }
  llvm_unreachable("unknown bound");
}

std::string describeReach(kv::LayerOp layer) {
  if (!layer.getWindowTokens())
    return "";
  return ", " + kv::stringifyReach(*layer.getReach()).str() + " " + std::to_string(*layer.getWindowTokens());
}

json::Object toJson(const Group &group) {
  json::Array layers, remarks;
  for (size_t layer : group.layers)
    layers.push_back(int64_t(layer));
  if (group.plan)
    for (const std::string &remark : group.plan->remarks)
      remarks.push_back(remark);
  kv::CacheLayout layout = group.layout();
  int64_t headDim = group.cache.getHeadDim();
  json::Object object{{"layers", std::move(layers)},
                      {"q_heads", int64_t(*kv::LayerOp(group.layer).getQHeads())},
                      {"kv_heads", group.cache.getKvHeads()},
                      {"head_dim", headDim},
                      {"served", group.plan.has_value()},
                      {"key", print(group.cache.getKey())},
                      {"value", print(group.cache.getValue())},
                      {"window", print(group.cache.getWindow())},
                      {"schedule", print(group.schedule)},
                      {"key_bits", group.cache.getKey().getBitsPerElement(headDim)},
                      {"value_bits", group.cache.getValue().getBitsPerElement(headDim)},
                      {"bytes_per_token", group.bytesPerToken()},
                      {"share_of_fp16", group.shareOfFp16()},
                      {"page_bytes", layout.pageBytes},
                      {"slot_bytes", layout.slotBytes},
                      {"bytes", group.bytes},
                      {"remarks", std::move(remarks)}};
  json::Object reasons;
  if (auto given = kv::LayerOp(group.layer).getReasons())
    for (mlir::NamedAttribute reason : *given)
      reasons[reason.getName().getValue()] = mlir::cast<mlir::StringAttr>(reason.getValue()).getValue();
  object["reasons"] = std::move(reasons);
  if (group.plan) {
    object["key_scales"] = kv::stringifyPlacement(group.plan->keyPlacement);
    object["value_scales"] = kv::stringifyPlacement(group.plan->valuePlacement);
    object["kernel_error_bound"] = getErrorBound(*group.plan);
  }
  if (group.cost) {
    object["predicted_us"] = group.cost->seconds * 1e6;
    object["bound"] = name(group.cost->bound);
  }
  return object;
}

void printRow(StringRef label, const Twine &value) { outs() << formatv("  {0,-16} ", label) << value << "\n"; }

void printGroup(const Group &group) {
  kv::LayerOp layer = group.layer;
  kv::CacheLayout layout = group.layout();
  kv::WindowAttr window = group.cache.getWindow();
  int64_t headDim = group.cache.getHeadDim();
  outs() << "layers " << formatLayerRanges(group.layers) << ": " << int64_t(*layer.getQHeads()) << " query heads on "
         << group.cache.getKvHeads() << " KV heads of " << headDim << " channels" << describeReach(layer) << "\n";
  auto format = [&](kv::QuantAttr quant) {
    return print(quant) + formatv(" ({0:f2} bits)", quant.getBitsPerElement(headDim)).str();
  };
  printRow("keys", format(group.cache.getKey()));
  printRow("values", format(group.cache.getValue()));
  if (!group.cache.getKey().isQuantized() && !group.cache.getValue().isQuantized())
    printRow("full precision", "all tokens");
  else if (window.getFlush() > 1)
    printRow("full precision", "the first " + Twine(window.getSink()) + " and the last " + Twine(window.getRecent()) +
                                   " to " + Twine(window.getRecent() + window.getFlush() - 1) + " tokens");
  if (group.plan) {
    printRow("scales", "keys at " + kv::stringifyPlacement(group.plan->keyPlacement) + ", values at " +
                           kv::stringifyPlacement(group.plan->valuePlacement));
    printRow("schedule", print(group.schedule));
    printRow("arithmetic", formatv("{0}, relative error of the output at most {1:e0}",
                                   kv::stringifyCompute(group.schedule.getCompute()), getErrorBound(*group.plan))
                               .str());
  }
  printRow("bytes per token",
           formatv("{0:f0}, {1:f1} % of fp16", group.bytesPerToken(), 100 * group.shareOfFp16()).str());
  printRow("page", formatv("{0} tokens, {1}; slot of a sequence {2}", group.schedule.getPage(),
                           formatBytes(double(layout.pageBytes)), formatBytes(double(layout.slotBytes)))
                       .str());
  if (group.cost)
    printRow("predicted",
             formatv("{0:f0} us per step of a layer, bound by {1}", group.cost->seconds * 1e6, name(group.cost->bound))
                 .str());
  if (std::optional<mlir::DictionaryAttr> reasons = layer.getReasons())
    for (mlir::NamedAttribute reason : *reasons)
      printRow("why", reason.getName().getValue() + ": " + mlir::cast<mlir::StringAttr>(reason.getValue()).getValue());
  if (group.plan)
    for (const std::string &remark : group.plan->remarks)
      printRow("why", remark);
}

std::string describeTotals(const Explanation &e) {
  std::string text = formatv("total: {0} for {1} x {2} tokens, {3:f1} % of fp16; {4:f2} bits per quantized number; {5} "
                             "kernel{6}",
                             formatBytes(e.bytes), e.batch, e.context, 100 * e.bytes / e.fp16Bytes, e.bits, e.kernels,
                             e.kernels == 1 ? "" : "s");
  if (e.timedLayers)
    text += formatv("; predicted {0:f0} us per step of {1} layers", e.seconds * 1e6, e.timedLayers);
  return text;
}

json::Object totalsToJson(const Explanation &e) {
  json::Object totals{{"context", e.context},      {"batch", e.batch},          {"bytes", e.bytes},
                      {"fp16_bytes", e.fp16Bytes}, {"bits_per_number", e.bits}, {"kernels", e.kernels}};
  if (e.timedLayers)
    totals["predicted_us"] = e.seconds * 1e6;
  return totals;
}

/// The layers where two schemes differ, and the totals.
void printDiff(const Explanation &a, const Explanation &b) {
  struct Difference {
    std::string text;
    std::vector<size_t> layers;
  };
  std::vector<Difference> differences;
  auto groupOf = [](const Explanation &e, size_t layer) -> const Group & {
    return *find_if(e.groups, [&](const Group &group) { return is_contained(group.layers, layer); });
  };
  for (size_t layer = 0; layer < a.schemes.layers.size(); ++layer) {
    if (!a.schemes.layers[layer])
      continue;
    const Group &left = groupOf(a, layer), &right = groupOf(b, layer);
    if (left.cache == right.cache)
      continue;
    std::string text;
    raw_string_ostream stream(text);
    auto line = [&](StringRef label, mlir::Attribute x, mlir::Attribute y) {
      if (x != y)
        stream << formatv("  {0,-16} ", label) << print(x) << "\n" << formatv("  {0,16} ", "->") << print(y) << "\n";
    };
    line("keys", left.cache.getKey(), right.cache.getKey());
    line("values", left.cache.getValue(), right.cache.getValue());
    line("full precision", left.cache.getWindow(), right.cache.getWindow());
    stream << formatv("  {0,-16} {1:f0} -> {2:f0}\n", "bytes per token", left.bytesPerToken(), right.bytesPerToken());
    if (left.cost && right.cost)
      stream << formatv("  {0,-16} {1:f0} -> {2:f0} us\n", "predicted", left.cost->seconds * 1e6,
                        right.cost->seconds * 1e6);
    auto known = find_if(differences, [&](const Difference &d) { return d.text == text; });
    if (known == differences.end())
      known = differences.insert(known, {text, {}});
    known->layers.push_back(layer);
  }
  for (const Difference &difference : differences)
    outs() << "layers " << formatLayerRanges(difference.layers) << ":\n" << difference.text;
  if (differences.empty())
    outs() << "no layer is stored differently\n";
  outs() << a.schemes.name << " " << describeTotals(a) << "\n" << b.schemes.name << " " << describeTotals(b) << "\n";
}

} // namespace

Error tool::runExplain() {
  auto scheme = schemeOptions.getText();
  if (!scheme)
    return scheme.takeError();
  if (outputFormat != "table" && outputFormat != "json" && outputFormat != "mlir")
    return usageError("expected -o table, json or mlir, but got '" + outputFormat + "'");
  if (!diff.empty() && outputFormat != "table")
    return usageError("expected -o table with --diff, but got '" + outputFormat + "'");
  auto model = kernelOptions.loadModelFacts();
  if (!model)
    return model.takeError();
  if (none_of(model->layers, hasCache))
    if (Error error = checkServable(*model))
      return error;
  Compiler compiler;
  auto result = explain(compiler, *model, *scheme);
  if (!result)
    return result.takeError();
  if (outputFormat == "mlir") {
    outs() << result->schemes.print();
    return Error::success();
  }
  if (!diff.empty()) {
    auto other = explain(compiler, *model, diff);
    if (!other)
      return other.takeError();
    outs() << model->name << " (" << model->modelType << ") on " << result->target.name << "\n";
    printDiff(*result, *other);
    return Error::success();
  }
  std::string unserved = describeUnservedLayers(*model);
  if (outputFormat == "json") {
    json::Array groups;
    for (const Group &group : result->groups)
      groups.push_back(toJson(group));
    json::Object object{{"model", model->name},
                        {"model_type", model->modelType},
                        {"scheme", result->schemes.name},
                        {"source", result->schemes.source},
                        {"target", result->target.name},
                        {"groups", std::move(groups)},
                        {"totals", totalsToJson(*result)},
                        {"unserved", unserved}};
    outs() << formatv("{0:2}", json::Value(std::move(object))) << "\n";
    return Error::success();
  }
  outs() << model->name << " (" << model->modelType << "), scheme " << result->schemes.name << " ("
         << result->schemes.source << ") on " << result->target.name << "\n";
  for (const Group &group : result->groups)
    printGroup(group);
  outs() << describeTotals(*result) << "\n";
  if (!unserved.empty())
    outs() << unserved << "\n";
  return Error::success();
}
