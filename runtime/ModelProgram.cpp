// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One program per distinct layer shape.
#include "runtime/ModelProgram.h"

using namespace llvm;
using namespace kvcc;

std::vector<LayerGroup> kvcc::groupLayers(const ModelConfig &model) {
  std::vector<LayerGroup> groups;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    if (!model.layers[i].unsupported.empty())
      continue;
    AttentionShape shape = AttentionShape::of(model.layers[i]);
    auto group = find_if(groups, [&](const LayerGroup &g) { return g.shape == shape; });
    if (group == groups.end())
      group = groups.insert(group, {shape, {}});
    group->layers.push_back(i);
  }
  return groups;
}

Expected<std::unique_ptr<ModelProgram>> ModelProgram::load(Compiler &compiler, ModelConfig model,
                                                           const ModelRequest &request, ThreadPool &pool) {
  if (Error error = checkServable(model))
    return std::move(error);
  auto target = parseTarget(request.target);
  if (!target)
    return target.takeError();
  auto result = std::make_unique<ModelProgram>();
  result->byLayer.resize(model.layers.size());
  for (const LayerGroup &group : groupLayers(model)) {
    auto plan = compiler.plan(group.shape, request.dtype.empty() ? model.dtype : request.dtype, request.scheme, *target,
                              request.options);
    if (!plan)
      return plan.takeError();
    auto program = Program::load(compiler, std::move(*plan), pool);
    if (!program)
      return program.takeError();
    for (size_t layer : group.layers)
      result->byLayer[layer] = program->get();
    result->variants.push_back(std::move(*program));
  }
  result->model = std::move(model);
  return result;
}
