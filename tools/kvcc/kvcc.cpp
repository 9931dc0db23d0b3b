// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc: compiles, runs, measures and explains decode-attention kernels from the command line.
#include "tools/kvcc/Commands.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/Threading.h"
#include "llvm/Support/raw_ostream.h"

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

namespace {
class UsageError : public ErrorInfo<UsageError> {
public:
  static char ID;
  explicit UsageError(std::string text) : text(std::move(text)) {}
  void log(raw_ostream &os) const override { os << text; }
  std::error_code convertToErrorCode() const override { return inconvertibleErrorCode(); }

private:
  std::string text;
};
char UsageError::ID;
} // namespace

Error tool::usageError(const Twine &message) { return make_error<UsageError>(message.str()); }
Error tool::requireOptions(std::initializer_list<const cl::Option *> options) {
  std::string missing;
  for (const cl::Option *option : options)
    if (!option->getNumOccurrences())
      missing +=
          (missing.empty() ? "" : " and ") + std::string(option->ArgStr.size() > 1 ? "--" : "-") + option->ArgStr.str();
  return missing.empty() ? Error::success() : usageError("expected " + missing + ", but got none");
}

Error tool::checkRange(const cl::Option &option, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high)
    return Error::success();
  return usageError("expected --" + option.ArgStr + " from " + Twine(low) + " to " + Twine(high) + ", but got " +
                    Twine(value));
}

bool tool::isUsageError(const Error &error) { return error.isA<UsageError>(); }

KernelOptions::KernelOptions(cl::SubCommand &command)
    : position(cl::Positional, cl::desc("MODEL.json"), cl::sub(command)),
      model("model", cl::desc("a Hugging Face config.json, or a folder with one; the same as MODEL.json"),
            cl::value_desc("file"), cl::sub(command)),
      compute("compute", cl::desc("arithmetic of products with codes: auto, f32, f16, bf16, int16 or int8"),
              cl::init("auto"), cl::sub(command)),
      outDtype("out-dtype", cl::desc("of results: f32, or that of the queries"), cl::init("f32"), cl::sub(command)),
      page("page", cl::desc("quantized tokens per page, a multiple of 32; 0 chooses"), cl::init(0), cl::sub(command)),
      queries("step-queries", cl::desc("of a step, 1 to 16, that share passes on tensor cores; 0 chooses"), cl::init(0),
              cl::sub(command)),
      layer("layer", cl::desc("the layer of the model; default: the first that is served"), cl::init(-1),
            cl::sub(command)) {}

ScheduleOptions KernelOptions::getScheduleOptions() const {
  ScheduleOptions options{compute, page};
  options.queries = queries;
  return options;
}

Expected<ModelConfig> KernelOptions::loadModelFacts() const {
  if (position.empty() == model.empty())
    return usageError(model.empty() ? "expected a model (MODEL.json or --model MODEL.json), but got none"
                                    : "expected one model, but got '" + position + "' and '" + model + "'");
  return loadModelConfig(position.empty() ? model : position);
}

Expected<ModelLayer> KernelOptions::loadLayer() const {
  auto config = loadModelFacts();
  if (!config)
    return config.takeError();
  if (Error error = checkServable(*config))
    return std::move(error);
  auto index = chooseLayer(*config);
  if (!index)
    return index.takeError();
  return ModelLayer{std::move(*config), *index};
}

Expected<size_t> KernelOptions::chooseLayer(const ModelConfig &config) const {
  if (layer == -1)
    for (size_t i = 0; i < config.layers.size(); ++i)
      if (config.layers[i].unsupported.empty())
        return i;
  if (layer < 0 || size_t(layer) >= config.layers.size())
    return createStringError("expected layer from 0 to " + Twine(config.layers.size() - 1) + ", but got " +
                             Twine(layer));
  const std::string &reason = config.layers[size_t(layer)].unsupported;
  if (!reason.empty())
    return createStringError(config.name + ": layer " + Twine(layer) + ": " + reason);
  return size_t(layer);
}

Expected<LayerPlan> KernelOptions::plan(Compiler &compiler, const ModelLayer &of, StringRef scheme,
                                        StringRef targetName, StringRef dtype) const {
  return plan(compiler, of, scheme, targetName, dtype, getScheduleOptions());
}

Expected<LayerPlan> KernelOptions::plan(Compiler &compiler, const ModelLayer &of, StringRef scheme,
                                        StringRef targetName, StringRef dtype, const ScheduleOptions &options) const {
  auto target = parseTarget(targetName);
  if (!target)
    return target.takeError();
  auto schemes = compiler.chooseSchemes(of.model, dtype, *target, scheme);
  if (!schemes)
    return schemes.takeError();
  auto rounds = roundsOut(outDtype, dtype);
  if (!rounds)
    return rounds.takeError();
  AttentionShape shape = AttentionShape::of(of.model.layers[of.index]);
  shape.roundsOut = *rounds;
  auto plan = compiler.plan(shape, dtype, schemes->getScheme(of.index), *target, options);
  if (!plan)
    return plan.takeError();
  LayerPlan result{std::move(*plan), {}};
  if (!schemes->statistics.empty())
    result.statistics = std::move(schemes->statistics[of.index]);
  return result;
}

SchemeOptions::SchemeOptions(cl::SubCommand &command, bool totals)
    : scheme("scheme", cl::desc("a preset such as innerq-base, 'auto', or a table of layers (FILE.mlir)"),
             cl::sub(command)),
      key("k", cl::desc("format of the keys as IR, #kv.quant<...>"), cl::sub(command)),
      value("v", cl::desc("format of the values as IR, #kv.quant<...>"), cl::sub(command)),
      window("window", cl::desc("tokens in full precision as IR, #kv.window<...>"), cl::sub(command)),
      memory("memory", cl::desc("auto: bytes for all sequences, such as 8GiB"), cl::sub(command)),
      prefer("prefer", cl::desc("auto: quality, speed or memory"), cl::sub(command)),
      profile("profile", cl::desc("what 'kvcc profile' measured: for auto, and for writers"), cl::value_desc("P.json"),
              cl::sub(command)),
      budget("budget", cl::desc("auto: average bits per cached element; default 4"), cl::sub(command)),
      maxKl("max-kl", cl::desc("auto: the estimated KL that is accepted"), cl::sub(command)),
      context("context", cl::desc("auto: tokens of a sequence; default 32768"), cl::init(32768), cl::sub(command)),
      batch("batch", cl::desc("auto: sequences; default 1"), cl::init(1), cl::sub(command)),
      specs("specs", cl::desc("auto: the most distinct pairs of formats; default 8"), cl::sub(command)),
      totals(totals) {}

Expected<std::string> SchemeOptions::getText() const {
  std::string text = scheme;
  auto add = [&](const cl::Option &option, StringRef name, const Twine &given) {
    if (option.getNumOccurrences())
      text += (text.empty() ? "" : "; ") + (name + " = " + given).str();
  };
  auto print = [](double number) {
    std::string digits;
    raw_string_ostream(digits) << format("%.9g", number);
    return digits;
  };
  bool isAuto = StringRef(scheme).trim().starts_with("auto");
  const cl::Option *parts[] = {&key, &value, &window};
  const cl::Option *limits[] = {&budget, &memory, &maxKl, &context, &batch, &prefer, &specs};
  for (const cl::Option *option : limits)
    if (option->getNumOccurrences() && !isAuto && !(totals && (option == &context || option == &batch)))
      return usageError("expected --" + option->ArgStr + " with --scheme auto, but got " +
                        (scheme.empty() ? "no scheme" : "--scheme " + scheme.getValue()));
  for (const cl::Option *option : parts)
    if (option->getNumOccurrences() && (isAuto || StringRef(scheme).ends_with(".mlir")))
      return usageError("expected --" + option->ArgStr + " with a preset or alone, but got --scheme " +
                        scheme.getValue());
  add(key, "k", key);
  add(value, "v", value);
  add(window, "window", window);
  if (budget.getNumOccurrences())
    add(budget, "budget", print(budget));
  add(memory, "memory", memory);
  if (maxKl.getNumOccurrences())
    add(maxKl, "max_kl", print(maxKl));
  if (isAuto) {
    add(context, "context", Twine(context));
    add(batch, "batch", Twine(batch));
  }
  add(prefer, "prefer", prefer);
  add(specs, "specs", Twine(specs));
  if (!text.empty())
    add(profile, "profile", profile);
  if (text.empty())
    return usageError("expected --scheme, or --k and --v, but got none");
  return text;
}

Expected<std::vector<Artifact>> tool::emitWithProgress(Compiler &compiler, ArrayRef<const ModelVariant *> variants) {
  std::vector<const Plan *> plans;
  for (const ModelVariant *variant : variants)
    plans.push_back(&variant->plan);
  return compiler.emitExecutables(plans, hardware_concurrency().compute_thread_count(),
                                  [&](size_t i, const Artifact &artifact) {
                                    if (!artifact.note.empty())
                                      errs() << "kvcc: note: " << artifact.note << "\n";
                                    errs() << "kvcc: " << plans[i]->scheme << " for " << plans[i]->target.name
                                           << ", layers " << formatLayerRanges(variants[i]->layers) << ": "
                                           << describeCompile(artifact.cached, artifact.milliseconds) << "\n";
                                  });
}

Error tool::writeOutput(StringRef path, StringRef bytes) {
  if (path.empty() || path == "-") {
    outs() << bytes;
    return flushOutput();
  }
  std::error_code code;
  raw_fd_ostream stream(path, code);
  if (!code) {
    stream << bytes;
    stream.close();
    code = stream.error();
    stream.clear_error();
  }
  return code ? createStringError("cannot write " + path + ": " + code.message()) : Error::success();
}

Error tool::flushOutput() {
  outs().flush();
  std::error_code code = outs().error();
  outs().clear_error(); // or LLVM aborts at exit
  return code ? createStringError("cannot write the output: " + code.message()) : Error::success();
}

std::string tool::describeCompile(bool cached, double milliseconds) {
  return formatv(cached ? "loaded from the cache in {0:f1} ms" : "compiled cold in {0:f1} ms", milliseconds);
}

std::string tool::formatBytes(double bytes) {
  const char *units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit)
    bytes /= 1024;
  return formatv(unit ? "{0:f2} {1}" : "{0:f0} {1}", bytes, units[unit]);
}

/// What LLVM's option parser says, as one message like all others.
static std::string toOneLine(StringRef problems) {
  std::string line;
  SmallVector<StringRef> parts;
  problems.split(parts, '\n', -1, /*KeepEmpty=*/false);
  for (StringRef part : parts) {
    part = part.trim();
    part.consume_front("kvcc: ");
    auto [text, advice] = part.split("  Try: ");
    line += (line.empty() ? "" : " ") + text.str();
  }
  return line;
}

int main(int argc, char **argv) {
  InitLLVM init(argc, argv);
  cl::SetVersionPrinter([](raw_ostream &os) { os << "kvcc " KVCC_VERSION "\n"; });
  struct Command {
    cl::SubCommand &command;
    Error (*run)();
  };
  const Command commands[] = {{benchCommand, runBench},   {cacheCommand, runCache},     {compileCommand, runCompile},
                              {doctorCommand, runDoctor}, {explainCommand, runExplain}, {profileCommand, runProfile},
                              {runCommand, runRun},       {schemesCommand, runSchemes}, {tuneCommand, runTune}};
  // LLVM brings options of its own; users of kvcc have no use for them.
  for (auto &entry : cl::getRegisteredOptions())
    entry.second->setHiddenFlag(cl::ReallyHidden);

  std::string problems;
  raw_string_ostream stream(problems);
  if (!cl::ParseCommandLineOptions(argc, argv, "kernel compiler for decode attention over quantized KV caches\n",
                                   &stream)) {
    // A value that is no number has been reported by its parser already, to standard error.
    if (!problems.empty())
      errs() << "kvcc: error: " << toOneLine(problems) << "\n";
    return 2;
  }
  for (const Command &entry : commands) {
    if (!entry.command)
      continue;
    Error error = entry.run();
    if (Error unwritten = flushOutput())
      error = error ? joinErrors(std::move(error), std::move(unwritten)) : std::move(unwritten);
    if (!error)
      return 0;
    bool usage = isUsageError(error);
    errs() << "kvcc: error: " << toString(std::move(error)) << "\n";
    return usage ? 2 : 1;
  }
  errs()
      << "kvcc: error: expected a command (bench, cache, compile, doctor, explain, profile, run, schemes or tune), but "
         "got none; "
         "see kvcc --help\n";
  return 2;
}
