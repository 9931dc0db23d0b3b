// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc explain: the choices for each group of equal layers, and the remarks that say why.
#include "tools/kvcc/Commands.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::explainCommand("explain", "show what was chosen for a model, and why");
static KernelOptions kernelOptions(explainCommand);
static cl::opt<std::string> scheme("scheme", cl::desc("quantization scheme, such as innerq-base"),
                                   cl::sub(explainCommand));
static cl::opt<std::string> target("target", cl::desc("cpu, cuda:sm_90, ..."), cl::init("cpu"),
                                   cl::sub(explainCommand));
static cl::opt<std::string> outputFormat("o", cl::desc("table or json"), cl::init("table"), cl::sub(explainCommand));

namespace {

std::string print(mlir::Attribute attribute) {
  std::string text;
  raw_string_ostream stream(text);
  attribute.print(stream);
  return text;
}

/// Bytes of a quantized token of one layer, scales and padding included.
double bytesPerToken(const Plan &plan) {
  kv::CacheLayout layout(plan.cache, plan.schedule);
  return double(layout.pageBytes) / double(plan.schedule.getPage());
}
double plainBytesPerToken(const Plan &plan) { return double(plan.shape.kvHeads * plan.shape.headDim * 2 * 2); }

json::Object toJson(const Plan &plan, const LayerGroup &group) {
  kv::CacheLayout layout(plan.cache, plan.schedule);
  json::Array layers, remarks;
  for (size_t layer : group.layers)
    layers.push_back(int64_t(layer));
  for (const std::string &remark : plan.remarks)
    remarks.push_back(remark);
  return json::Object{{"layers", std::move(layers)},
                      {"q_heads", plan.shape.qHeads},
                      {"kv_heads", plan.shape.kvHeads},
                      {"head_dim", plan.shape.headDim},
                      {"key", print(plan.cache.getKey())},
                      {"value", print(plan.cache.getValue())},
                      {"window", print(plan.cache.getWindow())},
                      {"schedule", print(plan.schedule)},
                      {"key_scales", kv::stringifyPlacement(plan.keyPlacement)},
                      {"value_scales", kv::stringifyPlacement(plan.valuePlacement)},
                      {"key_bits", plan.cache.getKey().getBitsPerElement(plan.shape.headDim)},
                      {"value_bits", plan.cache.getValue().getBitsPerElement(plan.shape.headDim)},
                      {"bytes_per_token", bytesPerToken(plan)},
                      {"share_of_fp16", bytesPerToken(plan) / plainBytesPerToken(plan)},
                      {"page_bytes", layout.pageBytes},
                      {"slot_bytes", layout.slotBytes},
                      {"remarks", std::move(remarks)}};
}

void printGroup(const Plan &plan, const LayerGroup &group) {
  kv::CacheLayout layout(plan.cache, plan.schedule);
  kv::WindowAttr window = plan.cache.getWindow();
  auto row = [](StringRef name, const Twine &value) { outs() << formatv("  {0,-16} ", name) << value << "\n"; };
  outs() << "layers " << formatLayerRanges(group.layers) << ": " << plan.shape.qHeads << " query heads on "
         << plan.shape.kvHeads << " KV heads of " << plan.shape.headDim << " channels\n";
  row("keys", print(plan.cache.getKey()) +
                  formatv(" ({0:f2} bits)", plan.cache.getKey().getBitsPerElement(plan.shape.headDim)).str());
  row("values", print(plan.cache.getValue()) +
                    formatv(" ({0:f2} bits)", plan.cache.getValue().getBitsPerElement(plan.shape.headDim)).str());
  row("full precision", "the first " + Twine(window.getSink()) + " and the last " + Twine(window.getRecent()) + " to " +
                            Twine(window.getRecent() + window.getFlush() - 1) + " tokens");
  row("scales", "keys at " + kv::stringifyPlacement(plan.keyPlacement) + ", values at " +
                    kv::stringifyPlacement(plan.valuePlacement));
  row("schedule", print(plan.schedule));
  row("bytes per token",
      formatv("{0:f0}, {1:f1} % of fp16", bytesPerToken(plan), 100 * bytesPerToken(plan) / plainBytesPerToken(plan))
          .str());
  row("page", formatv("{0} tokens, {1}; slot of a sequence {2}", plan.schedule.getPage(),
                      formatBytes(double(layout.pageBytes)), formatBytes(double(layout.slotBytes)))
                  .str());
  for (const std::string &remark : plan.remarks)
    row("why", remark);
}

} // namespace

Error tool::runExplain() {
  if (Error error = requireOptions({&scheme}))
    return error;
  if (outputFormat != "table" && outputFormat != "json")
    return usageError("expected -o table or json, but got '" + outputFormat + "'");
  auto model = kernelOptions.loadModel();
  if (!model)
    return model.takeError();
  auto parsed = parseTarget(target);
  if (!parsed)
    return parsed.takeError();
  Compiler compiler;
  json::Array groups;
  std::string source;
  std::vector<LayerGroup> layerGroups = groupLayers(*model);
  if (auto preset = parseScheme(scheme, layerGroups[0].shape.headDim, compiler.getContext()))
    source = preset->source;
  else
    return preset.takeError();
  // All plans before the first line: a scheme that does not fit prints nothing but the error.
  std::vector<Plan> plans;
  for (const LayerGroup &group : layerGroups) {
    auto plan = kernelOptions.plan(compiler, *model, group.layers[0], scheme, target, model->dtype);
    if (!plan)
      return plan.takeError();
    plans.push_back(std::move(*plan));
  }
  if (outputFormat == "table")
    outs() << model->name << " (" << model->modelType << "), scheme " << scheme << " (" << source << ") on "
           << parsed->name << "\n";
  for (auto [plan, group] : llvm::zip_equal(plans, layerGroups)) {
    if (outputFormat == "table")
      printGroup(plan, group);
    else
      groups.push_back(toJson(plan, group));
  }
  std::string unserved = describeUnservedLayers(*model);
  if (outputFormat == "json") {
    json::Object result{{"model", model->name}, {"model_type", model->modelType}, {"scheme", scheme.getValue()},
                        {"source", source},     {"target", parsed->name},         {"groups", std::move(groups)},
                        {"unserved", unserved}};
    outs() << formatv("{0:2}", json::Value(std::move(result))) << "\n";
    return Error::success();
  }
  if (!unserved.empty())
    outs() << unserved << "\n";
  return Error::success();
}
