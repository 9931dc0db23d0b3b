// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The content-addressed cache of compiled kernels: a map in this process in front of a private
// directory on disk that any number of processes read and write without locks.

#ifndef KVCC_RUNTIME_KERNELCACHE_H
#define KVCC_RUNTIME_KERNELCACHE_H

#include "runtime/CacheEntry.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kvcc {

enum class CacheMode {
  Off,      ///< no disk access at all; kernels are kept in this process only
  ReadOnly, ///< entries on disk are used, never written, touched or removed
  ReadWrite ///< the default
};

/// "off", "ro" or "rw".
llvm::StringRef stringifyCacheMode(CacheMode mode);

/// How to open a cache. What is left empty is taken from the environment.
struct CacheOptions {
  /// Default: $KVCC_CACHE_DIR, else $XDG_CACHE_HOME/kvcc, else $HOME/.cache/kvcc.
  std::string directory;
  /// Default: $KVCC_CACHE ("off", "ro", "rw"), else ReadWrite.
  std::optional<CacheMode> mode;
  /// Bound on the bytes of all entry files. Default: $KVCC_CACHE_MAX_BYTES, else 512 MiB.
  std::optional<uint64_t> maxBytes;
  /// Bound on the payload bytes kept in this process; 0 keeps nothing in memory, which makes
  /// every lookup go to disk.
  uint64_t maxMemoryBytes = 128ull << 20;
  /// Receives one line of text per warning, without prefix or final period. May be called from
  /// any thread that uses the cache, never under a lock of the cache. Default: standard error,
  /// as "kvcc: warning: <text>".
  std::function<void(llvm::StringRef)> warn;
};

/// One entry on disk, as KernelCache::list() reports it.
struct CacheListEntry {
  std::string key;   ///< 64 hexadecimal digits
  std::string label; ///< what publish() was given: a name for people
  uint64_t bytes;    ///< size of the entry file
};

/// One entry on disk that must not be used, as KernelCache::verify() reports it.
struct CacheBadEntry {
  std::string file; ///< file name inside the cache directory
  std::string reason;
};

struct CacheStat {
  std::string directory; ///< empty if no directory is in use
  CacheMode mode;        ///< the mode in effect, which may be weaker than the one asked for
  uint64_t maxBytes;
  uint64_t entries = 0; ///< entry files on disk
  uint64_t bytes = 0;   ///< bytes of the entry files
  uint64_t memoryEntries = 0;
  uint64_t memoryBytes = 0;
  uint64_t hits = 0;       ///< lookups of this process that found a kernel, in memory or on disk
  uint64_t memoryHits = 0; ///< those of `hits` that did not touch the disk
  uint64_t misses = 0;
};

/// A cache of compiled kernels. All member functions may be called from several threads at once,
/// and several processes may use one directory. Nothing here fails: whatever goes wrong with the
/// disk turns into a miss or into an entry that lives in this process only, and one warning.
///
/// An entry is used only if it is a regular file owned by the effective user whose magic, schema
/// version, key, lengths and SHA-256 digest are right. Time stamps order removals (least recently
/// used first) and never decide whether an entry is valid.
class KernelCache {
public:
  /// The directory is created with mode 0700. One that belongs to another user or that its group
  /// or others may write is refused; so is one that cannot be created. The cache then works in
  /// memory. A directory that can be read but not written is used read-only.
  static KernelCache open(CacheOptions options = {});

  KernelCache(KernelCache &&) noexcept;
  KernelCache &operator=(KernelCache &&) noexcept;
  ~KernelCache();

  /// The bytes published under `key`, or null on a miss. The buffer is immutable, aligned to 16
  /// bytes, followed by a zero byte, and stays valid as long as the caller holds it.
  std::shared_ptr<const llvm::MemoryBuffer> lookup(const CacheKey &key);

  /// Stores `bytes` in memory and on disk. `label` names the kernel for people (at most 1024
  /// bytes are kept). Returns true if the entry reached the disk.
  bool publish(const CacheKey &key, llvm::StringRef bytes, llvm::StringRef label);

  /// The entries on disk, sorted by key. Only headers are read; verify() reads everything.
  std::vector<CacheListEntry> list() const;
  CacheStat stat() const;
  /// Checks every entry on disk completely. Removes the bad ones if asked to and if the mode is
  /// ReadWrite.
  std::vector<CacheBadEntry> verify(bool removeBad = false);
  /// Removes this cache's entry and temporary files, and nothing else, from the directory, and
  /// forgets what is in memory. Returns the number of files removed: 0 unless the mode is
  /// ReadWrite.
  size_t clear();

private:
  class Impl;
  explicit KernelCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl;
};

} // namespace kvcc

#endif // KVCC_RUNTIME_KERNELCACHE_H
