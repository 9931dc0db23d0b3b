// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The folder behind the kernel cache: opening it safely, and reading, writing, listing and removing
// entry files in it. Policy (modes, bounds, warnings, memory) is in KernelCache.cpp.

#ifndef KVCC_RUNTIME_CACHEDIRECTORY_H
#define KVCC_RUNTIME_CACHEDIRECTORY_H

#include "runtime/CacheEntry.h"

#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kvcc {

/// An open, private folder. Every access goes through the descriptor that was checked when it was
/// opened, so that swapping the folder afterwards cannot redirect one. Thread safe: it has no
/// mutable state, and every change on disk is one atomic rename or unlink.
class CacheDirectory {
public:
  /// A file of ours: "<64 hex digits>.kvcc" or "kvcc-tmp-<...>". Others are never listed.
  struct File {
    std::string name;
    uint64_t bytes;
    int64_t modifiedNs; ///< since the epoch; for ordering and for the age of temporary files only
    bool temporary;
  };
  struct Entry {
    std::string label;
    uint64_t fileBytes;
    std::unique_ptr<llvm::MemoryBuffer> payload; ///< null if only the header was asked for
  };
  enum class Read { HeaderOnly, Payload, PayloadAndTouch };

  /// Opens `path`, creating it and its parents with mode 0700 if `create` is set. An error says
  /// why the folder must not be used; a folder that does not exist is an error too.
  static llvm::Expected<std::unique_ptr<CacheDirectory>> open(llvm::StringRef path, bool create);
  ~CacheDirectory();
  CacheDirectory(const CacheDirectory &) = delete;
  CacheDirectory &operator=(const CacheDirectory &) = delete;

  const std::string &path() const { return directory; }
  /// Empty if files can be created here, else the reason why not.
  std::string whyNotWritable() const;

  static std::string fileName(const CacheKey &key);
  static std::optional<CacheKey> keyOfFileName(llvm::StringRef name);

  /// No value if there is no such entry; an error if there is one that must not be used.
  /// PayloadAndTouch also sets the time stamp that orders removals.
  llvm::Expected<std::optional<Entry>> read(const CacheKey &key, Read what) const;
  /// The text of an error of read(). `badEntry` is false if a system call failed (too many open
  /// files, no memory): such an entry may be sound and must not be removed.
  static std::string explain(llvm::Error error, bool &badEntry);
  /// Temporary file, write, fsync, rename. On failure nothing is left behind.
  llvm::Error write(const CacheKey &key, llvm::StringRef label, llvm::StringRef payload) const;
  /// Our files, in no particular order. Files that vanish meanwhile are left out.
  std::vector<File> scan() const;
  /// True if this call removed the file, false if it was gone or could not be removed.
  bool remove(llvm::StringRef name) const;

private:
  CacheDirectory(std::string path, int fd) : directory(std::move(path)), fd(fd) {}
  void makePrivate(unsigned mode) const;

  std::string directory;
  int fd;
};

} // namespace kvcc

#endif // KVCC_RUNTIME_CACHEDIRECTORY_H
