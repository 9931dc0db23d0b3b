// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc cache: the kernel cache on disk.
#include "tools/kvcc/Commands.h"

#include "llvm/Support/raw_ostream.h"

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::cacheCommand("cache", "look at or clean the kernel cache");
static cl::opt<std::string> action(cl::Positional, cl::desc("list|stat|verify|clear"), cl::sub(cacheCommand));
static cl::opt<bool> removeBad("remove", cl::desc("with verify: remove the bad entries"), cl::sub(cacheCommand));

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

Error tool::runCache() {
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
    return usageError("expected cache list, stat, verify or clear, but got '" + action + "'");
  return Error::success();
}
