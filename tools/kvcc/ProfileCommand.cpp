// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc profile: what each format does to each layer of a model, measured on captured tensors.
#include "tools/kvcc/Commands.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/raw_ostream.h"

#include <mutex>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::profileCommand("profile", "measure what each format does to each layer, for --scheme auto");
static KernelOptions kernelOptions(profileCommand);
static cl::opt<std::string> input("input", cl::desc("captured layer.N.q, layer.N.k, layer.N.v; optional .g"),
                                  cl::value_desc("file.safetensors"), cl::sub(profileCommand));
static cl::opt<std::string> output("o", cl::desc("where to write the profile; default: standard output"),
                                   cl::value_desc("P.json"), cl::init("-"), cl::sub(profileCommand));
static cl::opt<int> threads("threads", cl::desc("threads; 0: one per processor"), cl::init(0), cl::sub(profileCommand));

static cl::opt<int64_t> queries("queries", cl::desc("use the last so many captured queries; 0: all"), cl::init(0),
                                cl::sub(profileCommand));

Error tool::runProfile() {
  if (Error error = requireOptions({&input}))
    return error;
  if (Error error = checkRange(threads, threads, 0, 1024))
    return error;
  if (queries < 0 || queries == 1)
    return usageError("expected --queries of at least 2, or 0, but got " + Twine(queries));
  auto model = kernelOptions.loadModelFacts();
  if (!model)
    return model.takeError();
  auto capture = SafetensorsFile::open(input);
  if (!capture)
    return capture.takeError();
  Compiler compiler;
  bool terminal = sys::Process::StandardErrIsDisplayed();
  std::mutex mutex;
  auto profile = measureProfile(compiler.getContext(), *model, *capture, queries ? queries : INT64_MAX,
                                unsigned(threads), [&](size_t done, size_t layers) {
                                  std::lock_guard lock(mutex);
                                  if (terminal)
                                    errs() << "\rkvcc: " << done << " of " << layers << " layers"
                                           << (done == layers ? "\n" : "");
                                });
  if (!profile)
    return profile.takeError();
  if (Error error = writeOutput(output, printProfile(*profile)))
    return error;
  errs() << formatv("kvcc: {0} formats measured on {1} layers of {2}, {3} tokens, {4} queries each{5}\n",
                    profile->layers.front().measured.size(), profile->layers.size(), profile->model, profile->tokens,
                    profile->queries, profile->sensitive ? ", with sensitivities" : "");
  return Error::success();
}
