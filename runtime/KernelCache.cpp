// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Policy of the kernel cache: where it lives, what it may do, how large it grows, what it warns of.

#include "runtime/KernelCache.h"

#include "runtime/CacheDirectory.h"

#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/raw_ostream.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <tuple>

using namespace llvm;

namespace kvcc {
namespace {

constexpr uint64_t kDefaultMaxBytes = 512ull << 20;
constexpr int64_t kStaleTemporaryNs = 3600ll * 1000000000;

/// An unset and an empty variable mean the same.
std::string environment(StringRef name) { return sys::Process::GetEnv(name).value_or(std::string()); }

/// Empty if there is no place for a cache.
std::string defaultDirectory() {
  std::string own = environment("KVCC_CACHE_DIR");
  if (!own.empty())
    return own;
  SmallString<128> path(environment("XDG_CACHE_HOME"));
  // The XDG specification has relative paths ignored.
  if (path.empty() || !sys::path::is_absolute(path)) {
    path.clear();
    if (!sys::path::home_directory(path) || path.empty())
      return "";
    sys::path::append(path, ".cache");
  }
  sys::path::append(path, "kvcc");
  return std::string(path);
}

int64_t nowNs() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
}

} // namespace

StringRef stringifyCacheMode(CacheMode mode) {
  switch (mode) {
  case CacheMode::Off:
    return "off";
  case CacheMode::ReadOnly:
    return "ro";
  case CacheMode::ReadWrite:
    return "rw";
  }
  llvm_unreachable("all modes are handled");
}

class KernelCache::Impl {
public:
  explicit Impl(CacheOptions options);

  std::shared_ptr<const MemoryBuffer> lookup(const CacheKey &key);
  bool publish(const CacheKey &key, StringRef bytes, StringRef label);
  std::vector<CacheListEntry> list() const;
  CacheStat stat() const;
  std::vector<CacheBadEntry> verify(bool removeBad);
  size_t clear();

private:
  struct Slot {
    std::shared_ptr<const MemoryBuffer> buffer;
    uint64_t lastUse;
  };

  void warn(const Twine &text) const;
  void openDirectory();
  void keep(const CacheKey &key, std::shared_ptr<const MemoryBuffer> buffer);
  void trim(StringRef justWritten);
  bool writable() const { return directory && mode == CacheMode::ReadWrite; }

  CacheOptions options;
  CacheMode mode;
  uint64_t maxBytes = kDefaultMaxBytes;
  std::unique_ptr<CacheDirectory> directory; // null: nothing on disk

  // Bytes on disk as of the last scan plus what this process wrote since. Other processes add to
  // the folder too, so it is scanned again after every sixteenth of the bound at the latest.
  std::atomic<uint64_t> estimatedBytes{0};
  std::atomic<uint64_t> writtenSinceScan{0};
  std::atomic<uint64_t> hits{0}, memoryHits{0}, misses{0};
  std::atomic<bool> warnedOfWriting{false};

  mutable std::mutex mutex; // guards what follows; never held during file access or a callback
  StringMap<Slot> memory;
  uint64_t memoryBytes = 0;
  uint64_t clock = 0;
  StringSet<> warnedFiles;
};

KernelCache::Impl::Impl(CacheOptions given) : options(std::move(given)) {
  mode = options.mode.value_or(CacheMode::ReadWrite);
  if (!options.mode) {
    std::string text = environment("KVCC_CACHE");
    if (text == "off")
      mode = CacheMode::Off;
    else if (text == "ro")
      mode = CacheMode::ReadOnly;
    else if (!text.empty() && text != "rw")
      warn("expected KVCC_CACHE to be 'off', 'ro' or 'rw', but got '" + text + "'; using 'rw'");
  }
  if (options.maxBytes) {
    maxBytes = *options.maxBytes;
  } else if (std::string text = environment("KVCC_CACHE_MAX_BYTES"); !text.empty()) {
    uint64_t value = 0;
    if (StringRef(text).getAsInteger(10, value) || value == 0)
      warn("expected KVCC_CACHE_MAX_BYTES to be a positive number of bytes, but got '" + text + "'; using " +
           Twine(maxBytes));
    else
      maxBytes = value;
  }
  if (mode != CacheMode::Off)
    openDirectory();
}

void KernelCache::Impl::openDirectory() {
  std::string path = options.directory.empty() ? defaultDirectory() : options.directory;
  if (path.empty())
    return warn("no directory for the kernel cache, keeping kernels in memory; set KVCC_CACHE_DIR");
  bool create = mode == CacheMode::ReadWrite;
  // A read-only cache that nobody has filled yet is empty, not broken.
  if (!create && !sys::fs::exists(path))
    return;
  auto opened = CacheDirectory::open(path, create);
  if (!opened)
    return warn(toString(opened.takeError()) +
                "; keeping kernels in memory, set KVCC_CACHE_DIR to a private directory");
  directory = std::move(*opened);
  if (mode != CacheMode::ReadWrite)
    return;
  if (std::string why = directory->whyNotWritable(); !why.empty()) {
    mode = CacheMode::ReadOnly;
    return warn("cannot write kernel cache directory '" + path + "': " + why + "; keeping new kernels in memory");
  }
  trim("");
}

void KernelCache::Impl::warn(const Twine &text) const {
  if (options.warn)
    return options.warn(text.str());
  // One write, so that lines of several threads do not mix.
  errs() << ("kvcc: warning: " + text + "\n").str();
}

/// Puts `buffer` in front of the disk and drops the least recently used ones beyond the bound.
void KernelCache::Impl::keep(const CacheKey &key, std::shared_ptr<const MemoryBuffer> buffer) {
  uint64_t size = buffer->getBufferSize();
  if (size > options.maxMemoryBytes || options.maxMemoryBytes == 0)
    return;
  std::lock_guard<std::mutex> lock(mutex);
  Slot &slot = memory[key.hex()];
  if (slot.buffer)
    memoryBytes -= slot.buffer->getBufferSize();
  slot = {std::move(buffer), ++clock};
  memoryBytes += size;
  while (memoryBytes > options.maxMemoryBytes) {
    auto oldest = std::min_element(memory.begin(), memory.end(),
                                   [](auto &a, auto &b) { return a.second.lastUse < b.second.lastUse; });
    memoryBytes -= oldest->second.buffer->getBufferSize();
    memory.erase(oldest);
  }
}

std::shared_ptr<const MemoryBuffer> KernelCache::Impl::lookup(const CacheKey &key) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (auto found = memory.find(key.hex()); found != memory.end()) {
      found->second.lastUse = ++clock;
      ++hits;
      ++memoryHits;
      return found->second.buffer;
    }
  }
  if (!directory) {
    ++misses;
    return nullptr;
  }
  using Read = CacheDirectory::Read;
  auto entry = directory->read(key, writable() ? Read::PayloadAndTouch : Read::Payload);
  if (entry && *entry) {
    ++hits;
    std::shared_ptr<const MemoryBuffer> buffer = std::move((*entry)->payload);
    keep(key, buffer);
    return buffer;
  }
  ++misses;
  if (!entry) {
    std::string name = CacheDirectory::fileName(key);
    bool badEntry;
    std::string reason = CacheDirectory::explain(entry.takeError(), badEntry);
    bool removed = badEntry && writable() && directory->remove(name);
    bool first;
    {
      std::lock_guard<std::mutex> lock(mutex);
      first = warnedFiles.insert(name).second;
    }
    if (first)
      warn("ignoring kernel cache entry '" + directory->path() + "/" + name + "': " + reason +
           (removed ? "; removed it" : ""));
  }
  return nullptr;
}

bool KernelCache::Impl::publish(const CacheKey &key, StringRef bytes, StringRef label) {
  keep(key, MemoryBuffer::getMemBufferCopy(bytes, label));
  if (!writable())
    return false;

  std::string failure;
  uint64_t fileBytes = CacheEntryHeader::kSize + label.size() + bytes.size();
  if (fileBytes > maxBytes)
    failure = ("its " + Twine(fileBytes) + " bytes exceed the bound of " + Twine(maxBytes)).str();
  else if (Error error = directory->write(key, label, bytes))
    failure = toString(std::move(error));
  if (!failure.empty()) {
    if (!warnedOfWriting.exchange(true))
      warn("cannot store kernel '" + label + "' in '" + directory->path() + "': " + failure + "; keeping it in memory");
    return false;
  }

  uint64_t total = estimatedBytes += fileBytes;
  uint64_t written = writtenSinceScan += fileBytes;
  if (total > maxBytes || written > maxBytes / 16)
    trim(CacheDirectory::fileName(key));
  return true;
}

/// Removes old temporary files and, if the bound is exceeded, the least recently used entries down
/// to nine tenths of it, so that the next publish does not trim again. `justWritten` stays.
void KernelCache::Impl::trim(StringRef justWritten) {
  writtenSinceScan = 0;
  std::vector<CacheDirectory::File> files = directory->scan();
  uint64_t total = 0;
  int64_t now = nowNs();
  for (const CacheDirectory::File &file : files) {
    if (!file.temporary)
      total += file.bytes;
    // A younger one may belong to a process that is writing it; an old one was abandoned.
    else if (now - file.modifiedNs > kStaleTemporaryNs)
      directory->remove(file.name);
  }
  if (total > maxBytes) {
    llvm::sort(files, [](const CacheDirectory::File &a, const CacheDirectory::File &b) {
      return std::tie(a.modifiedNs, a.name) < std::tie(b.modifiedNs, b.name);
    });
    uint64_t goal = maxBytes - maxBytes / 10;
    for (const CacheDirectory::File &file : files) {
      if (total <= goal)
        break;
      if (file.temporary || file.name == justWritten)
        continue;
      // Counted as gone even if another process was faster.
      directory->remove(file.name);
      total -= file.bytes;
    }
  }
  estimatedBytes = total;
}

std::vector<CacheListEntry> KernelCache::Impl::list() const {
  std::vector<CacheListEntry> result;
  if (!directory)
    return result;
  for (const CacheDirectory::File &file : directory->scan()) {
    std::optional<CacheKey> key = CacheDirectory::keyOfFileName(file.name);
    if (!key)
      continue;
    auto entry = directory->read(*key, CacheDirectory::Read::HeaderOnly);
    if (!entry) {
      // Listed all the same: it takes room, and its name is what verify() will report.
      result.push_back({key->hex(), "(bad: " + toString(entry.takeError()) + ")", file.bytes});
      continue;
    }
    if (*entry)
      result.push_back({key->hex(), std::move((*entry)->label), (*entry)->fileBytes});
  }
  llvm::sort(result, [](auto &a, auto &b) { return a.key < b.key; });
  return result;
}

CacheStat KernelCache::Impl::stat() const {
  CacheStat result;
  result.mode = mode;
  result.maxBytes = maxBytes;
  result.hits = hits;
  result.memoryHits = memoryHits;
  result.misses = misses;
  if (directory) {
    result.directory = directory->path();
    for (const CacheDirectory::File &file : directory->scan()) {
      if (file.temporary)
        continue;
      ++result.entries;
      result.bytes += file.bytes;
    }
  }
  std::lock_guard<std::mutex> lock(mutex);
  result.memoryEntries = memory.size();
  result.memoryBytes = memoryBytes;
  return result;
}

std::vector<CacheBadEntry> KernelCache::Impl::verify(bool removeBad) {
  std::vector<CacheBadEntry> bad;
  if (!directory)
    return bad;
  for (const CacheDirectory::File &file : directory->scan()) {
    std::optional<CacheKey> key = CacheDirectory::keyOfFileName(file.name);
    if (!key)
      continue;
    auto entry = directory->read(*key, CacheDirectory::Read::Payload);
    if (entry)
      continue;
    bool badEntry;
    bad.push_back({file.name, CacheDirectory::explain(entry.takeError(), badEntry)});
    if (badEntry && removeBad && writable())
      directory->remove(file.name);
  }
  llvm::sort(bad, [](auto &a, auto &b) { return a.file < b.file; });
  return bad;
}

size_t KernelCache::Impl::clear() {
  {
    std::lock_guard<std::mutex> lock(mutex);
    memory.clear();
    memoryBytes = 0;
  }
  if (!writable())
    return 0;
  size_t removed = 0;
  for (const CacheDirectory::File &file : directory->scan())
    removed += directory->remove(file.name);
  estimatedBytes = 0;
  writtenSinceScan = 0;
  return removed;
}

KernelCache KernelCache::open(CacheOptions options) { return KernelCache(std::make_unique<Impl>(std::move(options))); }
KernelCache::KernelCache(std::unique_ptr<Impl> impl) : impl(std::move(impl)) {}
KernelCache::KernelCache(KernelCache &&) noexcept = default;
KernelCache &KernelCache::operator=(KernelCache &&) noexcept = default;
KernelCache::~KernelCache() = default;

std::shared_ptr<const MemoryBuffer> KernelCache::lookup(const CacheKey &key) { return impl->lookup(key); }
bool KernelCache::publish(const CacheKey &key, StringRef bytes, StringRef label) {
  return impl->publish(key, bytes, label);
}
std::vector<CacheListEntry> KernelCache::list() const { return impl->list(); }
CacheStat KernelCache::stat() const { return impl->stat(); }
std::vector<CacheBadEntry> KernelCache::verify(bool removeBad) { return impl->verify(removeBad); }
size_t KernelCache::clear() { return impl->clear(); }

} // namespace kvcc
