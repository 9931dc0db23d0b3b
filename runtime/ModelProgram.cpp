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

Expected<bool> kvcc::roundsOut(StringRef outDtype, StringRef dtype) {
  if (outDtype.empty() || outDtype == "f32")
    return false;
  if (outDtype == dtype)
    return true;
  return createStringError("expected out_dtype f32 or that of the queries, " + dtype + ", but got '" + outDtype + "'");
}

Expected<ModelPlans> kvcc::planModel(Compiler &compiler, const ModelConfig &model, const ModelRequest &request) {
  if (Error error = checkServable(model))
    return std::move(error);
  auto target = parseTarget(request.target);
  if (!target)
    return target.takeError();
  StringRef dtype = request.dtype.empty() ? model.dtype : request.dtype;
  auto rounds = roundsOut(request.outDtype, dtype);
  if (!rounds)
    return rounds.takeError();
  auto schemes = compiler.chooseSchemes(model, dtype, *target, request.scheme);
  if (!schemes)
    return schemes.takeError();
  ModelPlans result;
  for (LayerGroup &group : groupLayers(model, *schemes)) {
    group.shape.roundsOut = *rounds;
    auto plan = compiler.plan(group.shape, dtype, group.scheme, *target, request.options);
    if (!plan)
      return plan.takeError();
    result.variants.push_back({std::move(group.layers), std::move(*plan)});
  }
  result.statistics = std::move(schemes->statistics);
  return result;
}

Expected<std::unique_ptr<ModelProgram>> ModelProgram::load(Compiler &compiler, ModelConfig model,
                                                           const ModelRequest &request, ThreadPool &pool) {
  auto plans = planModel(compiler, model, request);
  if (!plans)
    return plans.takeError();
  std::vector<ModelVariant> &planned = plans->variants;
  auto result = std::make_unique<ModelProgram>();
  result->variants.resize(planned.size());
  if (Error error = runSideBySide(planned.size(), pool.size(), [&](size_t i) -> Error {
        auto program = Program::load(compiler, std::move(planned[i].plan), pool);
        if (!program)
          return program.takeError();
        result->variants[i] = std::move(*program);
        return Error::success();
      }))
    return std::move(error);
  result->byLayer.resize(model.layers.size());
  for (size_t i = 0; i < planned.size(); ++i)
    for (size_t layer : planned[i].layers)
      result->byLayer[layer] = result->variants[i].get();
  result->statistics = std::move(plans->statistics);
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
