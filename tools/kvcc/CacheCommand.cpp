// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc cache: the kernel cache on disk, and bundles of its entries.
#include "tools/kvcc/Commands.h"

#include "llvm/Support/raw_ostream.h"

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::cacheCommand("cache",
                                  "look at or clean the kernel cache; export compiles all kernels of a model for "
                                  "targets into one file, import makes a cache start warm with them");
static cl::opt<std::string> action(cl::Positional, cl::desc("list|stat|verify|clear|export|import"),
                                   cl::sub(cacheCommand));
static cl::opt<std::string> file(cl::Positional, cl::desc("[BUNDLE]"), cl::sub(cacheCommand));
static cl::opt<bool> removeBad("remove", cl::desc("with verify: remove the bad entries"), cl::sub(cacheCommand));
static cl::opt<std::string> model("model", cl::desc("export: a Hugging Face config.json, or a folder with one"),
                                  cl::value_desc("file"), cl::sub(cacheCommand));
static SchemeOptions schemeOptions(cacheCommand);
static cl::list<std::string> targets(
    "targets", cl::CommaSeparated, cl::value_desc("target,..."),
    cl::desc("export: what starts warm, as it is named when kernels are loaded: cuda:sm_90, cpu:x86-64-v3, ...; "
             "a host whose target cpu stands for an exported cpu:LEVEL takes that one, unless it has compiled its own; "
             "cpu and cpu:generic themselves are for processors equal to this one"),
    cl::sub(cacheCommand));
static cl::opt<std::string> dtype("dtype", cl::desc("export: f16, bf16 or f32; default: the model's"),
                                  cl::sub(cacheCommand));
static cl::opt<std::string> compute("compute", cl::desc("export: as for compile"), cl::init("auto"),
                                    cl::sub(cacheCommand));
static cl::opt<int64_t> page("page", cl::desc("export: as for compile"), cl::init(0), cl::sub(cacheCommand));
static cl::opt<std::string> outDtype("out-dtype", cl::desc("export: of results: f32, or that of the queries"),
                                     cl::init("f32"), cl::sub(cacheCommand));
static cl::opt<std::string> output("o", cl::desc("export: the file to write"), cl::value_desc("BUNDLE"),
                                   cl::sub(cacheCommand));

static void printList(const KernelCache &cache) {
  for (const CacheListEntry &entry : cache.list())
    outs() << entry.key << "  " << formatBytes(double(entry.bytes)) << "  " << entry.label << "\n";
}

static void printStat(const KernelCache &cache) {
  CacheStat stat = cache.stat();
  outs() << "directory: " << (stat.directory.empty() ? "none, kernels stay in memory" : stat.directory) << "\n"
         << "mode: " << stringifyCacheMode(stat.mode) << "\n"
         << "entries: " << stat.entries << "\n"
         << "size: " << formatBytes(double(stat.bytes)) << " of " << formatBytes(double(stat.maxBytes)) << "\n";
}

static Error verify(KernelCache &cache) {
  std::vector<CacheBadEntry> bad = cache.verify(removeBad);
  bool removed = removeBad && cache.stat().mode == CacheMode::ReadWrite;
  for (const CacheBadEntry &entry : bad)
    outs() << entry.file << ": " << entry.reason << (removed ? " (removed)" : "") << "\n";
  outs() << cache.stat().entries << " entries, " << bad.size() << " bad\n";
  if (bad.empty() || removed)
    return Error::success();
  outs().flush();
  return createStringError("expected a cache without bad entries, but got " + Twine(bad.size()) +
                           "; kvcc cache verify --remove removes them");
}

static Error exportBundle() {
  if (Error error = requireOptions({&model, std::addressof(targets), &output}))
    return error;
  auto scheme = schemeOptions.getText();
  if (!scheme)
    return scheme.takeError();
  auto config = loadModelConfig(model);
  if (!config)
    return config.takeError();
  Compiler compiler;
  std::vector<ModelPlans> planned;
  for (const std::string &target : targets) {
    ModelRequest request{*scheme, target, dtype, {compute, page}, outDtype};
    request.options.tuned = false; // what kvcc tune found holds for this machine
    auto plans = planModel(compiler, *config, request);
    if (!plans)
      return plans.takeError();
    planned.push_back(std::move(*plans));
  }
  std::vector<const ModelVariant *> variants;
  for (const ModelPlans &plans : planned)
    for (const ModelVariant &variant : plans.variants)
      variants.push_back(&variant);
  auto artifacts = emitWithProgress(compiler, variants);
  if (!artifacts)
    return artifacts.takeError();
  std::vector<CacheRecord> records;
  for (Artifact &artifact : *artifacts)
    append_range(records, artifact.records);
  std::string bundle = encodeCacheBundle(records, getCompilerIdentity());
  if (Error error = writeOutput(output, bundle))
    return error;
  errs() << "kvcc: " << variants.size() << " kernels, " << formatBytes(double(bundle.size())) << ", in " << output
         << "\n";
  return Error::success();
}

static Error importBundle() {
  if (file.empty())
    return usageError("expected cache import BUNDLE, but got no file");
  auto bytes = MemoryBuffer::getFile(file, /*IsText=*/false, /*RequiresNullTerminator=*/false);
  if (!bytes)
    return createStringError("cannot read " + file + ": " + bytes.getError().message());
  auto records = decodeCacheBundle((*bytes)->getBuffer(), getCompilerIdentity());
  if (!records)
    return createStringError(file + ": " + toString(records.takeError()));
  KernelCache cache = KernelCache::open();
  if (Error error = importRecords(cache, *records))
    return error;
  outs() << records->size() << " entries imported into " << cache.stat().directory << "\n";
  return Error::success();
}

Error tool::runCache() {
  if (action == "export")
    return exportBundle();
  if (action == "import")
    return importBundle();
  KernelCache cache = KernelCache::open();
  if (action == "list")
    printList(cache);
  else if (action == "stat")
    printStat(cache);
  else if (action == "verify")
    return verify(cache);
  else if (action == "clear")
    outs() << cache.clear() << " files removed\n";
  else
    return usageError("expected cache list, stat, verify, clear, export or import, but got '" + action + "'");
  return Error::success();
}
