// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc compile: one form of a model's kernel, written to a file.
#include "tools/kvcc/Commands.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

#include <chrono>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::compileCommand("compile", "compile a model's kernel and write one of its forms");
static KernelOptions kernelOptions(compileCommand);
static SchemeOptions schemeOptions(compileCommand);
static cl::opt<std::string> target("target", cl::desc("cpu, cpu:generic, cuda:sm_90, ..."), cl::sub(compileCommand));
static cl::opt<std::string>
    form("emit",
         cl::desc("kv, tile, target; llvm, asm, object (cpu); cuda, ptx, cubin, host-object (cuda); "
                  "default: object or cubin"),
         cl::sub(compileCommand));
static cl::opt<std::string> dtype("dtype", cl::desc("f16, bf16 or f32; default: the model's"), cl::sub(compileCommand));
static cl::opt<std::string> output("o", cl::desc("where to write; default: standard output"), cl::value_desc("file"),
                                   cl::init("-"), cl::sub(compileCommand));

static cl::opt<bool> all("all", cl::desc("compile the kernels of all layers into the cache, and write none"),
                         cl::sub(compileCommand));

/// Every kernel of the model, as loading it would compile them.
static Error compileAll(const std::string &scheme) {
  for (const cl::Option *option : {static_cast<cl::Option *>(&form), static_cast<cl::Option *>(&output)})
    if (option->getNumOccurrences())
      return usageError("expected --all without --emit and -o, but got " +
                        Twine(option->ArgStr.size() > 1 ? "--" : "-") + option->ArgStr);
  auto model = kernelOptions.loadModelFacts();
  if (!model)
    return model.takeError();
  std::string unserved = describeUnservedLayers(*model);
  if (!unserved.empty())
    errs() << "kvcc: note: " << unserved << "\n";
  auto start = std::chrono::steady_clock::now();
  Compiler compiler;
  auto plans = planModel(compiler, *model,
                         {scheme, target, dtype, kernelOptions.getScheduleOptions(), kernelOptions.getOutDtype()});
  if (!plans)
    return plans.takeError();
  std::vector<const ModelVariant *> variants;
  for (const ModelVariant &variant : plans->variants)
    variants.push_back(&variant);
  auto artifacts = emitWithProgress(compiler, variants);
  if (!artifacts)
    return artifacts.takeError();
  double milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  size_t cold = size_t(count_if(*artifacts, [](const Artifact &artifact) { return !artifact.cached; }));
  errs() << formatv("kvcc: {0} kernel{1}, {2} compiled, in {3:f1} ms\n", artifacts->size(),
                    artifacts->size() == 1 ? "" : "s", cold, milliseconds);
  return Error::success();
}

Error tool::runCompile() {
  if (Error error = requireOptions({&target}))
    return error;
  auto scheme = schemeOptions.getText();
  if (!scheme)
    return scheme.takeError();
  if (all)
    return compileAll(*scheme);
  auto layer = kernelOptions.loadLayer();
  if (!layer)
    return layer.takeError();
  std::string unserved = describeUnservedLayers(layer->model);
  if (!unserved.empty())
    errs() << "kvcc: note: " << unserved << "\n";

  auto start = std::chrono::steady_clock::now();
  Compiler compiler;
  auto planned = kernelOptions.plan(compiler, *layer, *scheme, target, dtype.empty() ? layer->model.dtype : dtype);
  if (!planned)
    return planned.takeError();
  Plan *plan = &planned->plan;
  auto emit = form.empty() ? Expected<Emit>(Compiler::getExecutableForm(*plan)) : parseEmit(form, plan->target);
  if (!emit)
    return emit.takeError();
  auto artifact = compiler.emit(*plan, *emit);
  if (!artifact)
    return artifact.takeError();
  double milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  if (!artifact->note.empty())
    errs() << "kvcc: note: " << artifact->note << "\n";
  if (Error error = writeOutput(output, artifact->bytes->getBuffer()))
    return error;
  errs() << "kvcc: " << plan->scheme << " for " << plan->target.name << ": "
         << describeCompile(artifact->cached, milliseconds) << "\n";
  return Error::success();
}
