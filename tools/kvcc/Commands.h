// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the subcommands of kvcc share: their options and the way from those to a plan.
#ifndef KVCC_TOOLS_KVCC_COMMANDS_H
#define KVCC_TOOLS_KVCC_COMMANDS_H

#include "runtime/ModelProgram.h"
#include "llvm/Support/CommandLine.h"

namespace kvcc::tool {

extern llvm::cl::SubCommand benchCommand, cacheCommand, compileCommand, doctorCommand, explainCommand, profileCommand,
    runCommand, schemesCommand, tuneCommand;

llvm::Error runBench();
llvm::Error runCache();
llvm::Error runCompile();
llvm::Error runDoctor();
llvm::Error runExplain();
llvm::Error runProfile();
llvm::Error runRun();
llvm::Error runSchemes();
llvm::Error runTune();

/// A wrong way to call the tool: exit code 2.
llvm::Error usageError(const llvm::Twine &message);
bool isUsageError(const llvm::Error &error);
/// A usage error that names those of `options` that were not given. (cl::Required prints by itself.)
llvm::Error requireOptions(std::initializer_list<const llvm::cl::Option *> options);

/// The options that say how caches are stored, as the one text that chooseSchemes reads.
class SchemeOptions {
public:
  /// `totals`: the command has a use for --context and --batch whatever the scheme.
  explicit SchemeOptions(llvm::cl::SubCommand &command, bool totals = false);
  /// Fails if nothing is given, or parts that do not go together.
  llvm::Expected<std::string> getText() const;
  int64_t getContext() const { return context; }
  int64_t getBatch() const { return batch; }

private:
  llvm::cl::opt<std::string> scheme, key, value, window, memory, prefer, profile;
  llvm::cl::opt<double> budget, maxKl;
  llvm::cl::opt<int64_t> context, batch, specs;
  bool totals;
};

/// A usage error if the value of an option is outside low .. high.
llvm::Error checkRange(const llvm::cl::Option &option, int64_t value, int64_t low, int64_t high);

/// A layer of a model that is served.
struct ModelLayer {
  ModelConfig model;
  size_t index;
};

/// A plan of one layer, and what its writer may know.
struct LayerPlan {
  Plan plan;
  std::vector<WriterStatistics> statistics;
};

/// The options that say which kernel is meant. Every command that needs them has its own, beside its
/// subcommand: objects of other files may not be constructed yet when options register themselves.
class KernelOptions {
public:
  explicit KernelOptions(llvm::cl::SubCommand &command);

  /// The model, named by position or by --model.
  llvm::Expected<ModelConfig> loadModelFacts() const;
  /// The model, and of it the layer of --layer, else the first one that is served; fails if none is.
  llvm::Expected<ModelLayer> loadLayer() const;
  /// Plans a layer for queries and windows of `dtype`; `scheme` is for chooseSchemes.
  llvm::Expected<LayerPlan> plan(Compiler &compiler, const ModelLayer &layer, llvm::StringRef scheme,
                                 llvm::StringRef target, llvm::StringRef dtype) const;
  llvm::Expected<LayerPlan> plan(Compiler &compiler, const ModelLayer &layer, llvm::StringRef scheme,
                                 llvm::StringRef target, llvm::StringRef dtype, const ScheduleOptions &options) const;

  ScheduleOptions getScheduleOptions() const;
  const std::string &getOutDtype() const { return outDtype; }

private:
  llvm::Expected<size_t> chooseLayer(const ModelConfig &model) const;

  llvm::cl::opt<std::string> position, model, compute, outDtype;
  llvm::cl::opt<int64_t> page, queries;
  llvm::cl::opt<int> layer;
};

/// What the executors of `variants` load, compiled side by side, with a line on standard error for each.
llvm::Expected<std::vector<Artifact>> emitWithProgress(Compiler &compiler,
                                                       llvm::ArrayRef<const ModelVariant *> variants);
/// Writes to a file, or to standard output for "-" and "".
llvm::Error writeOutput(llvm::StringRef path, llvm::StringRef bytes);
/// Fails if what was printed did not reach standard output.
llvm::Error flushOutput();
/// "compiled cold in 81.2 ms" or "loaded from the cache in 3.1 ms".
std::string describeCompile(bool cached, double milliseconds);
std::string formatBytes(double bytes);

} // namespace kvcc::tool

#endif
