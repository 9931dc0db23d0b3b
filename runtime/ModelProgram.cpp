// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One program per distinct layer shape.
#include "runtime/ModelProgram.h"

#include "runtime/ErrorKind.h"

using namespace llvm;
using namespace kvcc;

std::vector<LayerGroup> kvcc::groupLayers(const ModelConfig &model, const ModelSchemes &schemes) {
  std::vector<LayerGroup> groups;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    if (!model.layers[i].unsupported.empty())
      continue;
    AttentionShape shape = AttentionShape::of(model.layers[i]);
    Scheme scheme = schemes.getScheme(i);
    auto group = find_if(groups, [&](const LayerGroup &g) {
      return g.shape == shape && g.scheme.key == scheme.key && g.scheme.value == scheme.value &&
             g.scheme.window == scheme.window;
    });
    if (group == groups.end())
      group = groups.insert(group, {shape, scheme, {}});
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
  StringRef dtype = request.dtype.empty() ? model.dtype : request.dtype;
  auto schemes = compiler.chooseSchemes(model, dtype, *target, request.scheme);
  if (!schemes)
    return schemes.takeError();
  auto result = std::make_unique<ModelProgram>();
  result->byLayer.resize(model.layers.size());
  result->statistics = std::move(schemes->statistics);
  for (const LayerGroup &group : groupLayers(model, *schemes)) {
    auto plan = compiler.plan(group.shape, dtype, group.scheme, *target, request.options);
    if (!plan)
      return plan.takeError();
    auto program = Program::load(compiler, std::move(*plan), pool);
    if (!program)
      return program.takeError();
    for (size_t layer : group.layers)
      result->byLayer[layer] = program->get();
    result->variants.push_back(std::move(*program));
  }
  result->given.resize(model.layers.size());
  for (size_t i = 0; i < result->given.size(); ++i) {
    const Program *program = result->byLayer[i];
    if (!program)
      continue;
    auto vectors = makeGivenVectors(program->getPlan().cache, result->getStatistics(i));
    if (!vectors)
      return createStringError("layer " + Twine(i) + ": " + toString(vectors.takeError()));
    if (vectors->numbers.empty())
      continue;
    auto uploaded = program->getBackend().upload(vectors->numbers);
    if (!uploaded)
      return withKind(ErrorKind::Failed, uploaded.takeError());
    result->given[i] = {std::move(*uploaded), vectors->gives};
  }
  result->model = std::move(model);
  return result;
}
