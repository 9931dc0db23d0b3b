// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// POSIX file access of the kernel cache. LLVM's file functions take paths; the *at calls used here
// stay inside the folder that was checked, whatever happens to its path.

#include "runtime/CacheDirectory.h"

#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Errno.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Process.h"

#include <atomic>
#include <cerrno>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace llvm;

namespace kvcc {
namespace {

constexpr StringLiteral kEntrySuffix = ".kvcc";
constexpr StringLiteral kTempPrefix = "kvcc-tmp-";

/// What was found is not what belongs there.
Error fail(const Twine &text) { return createStringError(inconvertibleErrorCode(), text); }
/// A system call failed. Carries the error code, so that explain() tells the two apart.
Error failErrno(const Twine &what, int error) {
  return createStringError(std::error_code(error, std::generic_category()), what + ": " + sys::StrError(error));
}

/// Reads exactly `size` bytes at the current position.
Error readAll(int fd, char *data, size_t size) {
  while (size > 0) {
    ssize_t got = sys::RetryAfterSignal(-1, ::read, fd, data, size);
    if (got < 0)
      return failErrno("cannot read it", errno);
    if (got == 0)
      return fail("expected " + Twine(size) + " more bytes, but got the end of the file");
    data += got;
    size -= got;
  }
  return Error::success();
}

Error writeAll(int fd, StringRef bytes) {
  while (!bytes.empty()) {
    ssize_t put = sys::RetryAfterSignal(-1, ::write, fd, bytes.data(), bytes.size());
    if (put < 0)
      return failErrno("cannot write a temporary file", errno);
    bytes = bytes.drop_front(put);
  }
  return Error::success();
}

/// Unique among threads by the counter, among processes by the process id, and among machines that
/// share a file system by the random number; O_EXCL catches what is left.
std::string temporaryName() {
  static std::atomic<unsigned> counter{0};
  return (kTempPrefix + Twine(sys::Process::getProcessId()) + "-" + Twine(counter++) + "-" +
          utohexstr(sys::Process::GetRandomNumber(), /*LowerCase=*/true))
      .str();
}

} // namespace

Expected<std::unique_ptr<CacheDirectory>> CacheDirectory::open(StringRef path, bool create) {
  std::string name = path.str();
  if (create)
    if (std::error_code ec = sys::fs::create_directories(path, true, sys::fs::owner_all))
      return fail("cannot create kernel cache directory '" + path + "': " + ec.message());
  int fd = sys::RetryAfterSignal(-1, ::open, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return failErrno("cannot open kernel cache directory '" + path + "'", errno);
  std::unique_ptr<CacheDirectory> result(new CacheDirectory(name, fd));

  struct stat status;
  if (::fstat(fd, &status) != 0)
    return failErrno("cannot examine kernel cache directory '" + path + "'", errno);
  if (status.st_uid != ::geteuid())
    return fail("expected kernel cache directory '" + path + "' to be owned by user " + Twine(::geteuid()) +
                ", but got owner " + Twine(status.st_uid));
  if (status.st_mode & (S_IWGRP | S_IWOTH))
    return fail("expected kernel cache directory '" + path +
                "' to be writable by its owner only (mode 0700), but got mode 0" + utostr((status.st_mode >> 6) & 7) +
                utostr((status.st_mode >> 3) & 7) + utostr(status.st_mode & 7));
  if (create)
    result->makePrivate(status.st_mode);
  return std::move(result);
}

CacheDirectory::~CacheDirectory() { ::close(fd); }

// Only a folder that holds nothing but our files is closed to readers: the variable may name a
// folder with another purpose (/opt, a home), which must keep its mode. Entries are 0600 anyway. Rights
// are only taken away: an owner who may not write wants it so.
void CacheDirectory::makePrivate(unsigned mode) const {
  if ((mode & 0077) == 0)
    return;
  int copy = ::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *stream = copy < 0 ? nullptr : ::fdopendir(copy);
  if (!stream) {
    if (copy >= 0)
      ::close(copy);
    return;
  }
  bool onlyOurs = true;
  while (dirent *item = ::readdir(stream)) {
    StringRef name(item->d_name);
    onlyOurs &= name == "." || name == ".." || name.starts_with(kTempPrefix) || keyOfFileName(name).has_value();
  }
  ::closedir(stream);
  if (onlyOurs)
    (void)::fchmod(fd, mode & 0700);
}

std::string CacheDirectory::whyNotWritable() const {
  // Asks the kernel instead of creating a probe file; sees read-only file systems as well.
  if (::faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) == 0)
    return "";
  return sys::StrError(errno);
}

std::string CacheDirectory::fileName(const CacheKey &key) { return key.hex() + kEntrySuffix.str(); }

std::optional<CacheKey> CacheDirectory::keyOfFileName(StringRef name) {
  if (!name.consume_back(kEntrySuffix))
    return std::nullopt;
  return CacheKey::fromHex(name);
}

Expected<std::optional<CacheDirectory::Entry>> CacheDirectory::read(const CacheKey &key, Read what) const {
  // Neither a symbolic link nor a pipe may lead out of the folder or block.
  int file = ::openat(fd, fileName(key).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) {
    if (errno == ENOENT)
      return std::nullopt;
    if (errno == ELOOP)
      return fail("expected a regular file, but got a symbolic link");
    return failErrno("cannot open it", errno);
  }
  scope_exit closeFile([&] { ::close(file); });

  struct stat status;
  if (::fstat(file, &status) != 0)
    return failErrno("cannot examine it", errno);
  if (!S_ISREG(status.st_mode))
    return fail("expected a regular file");
  if (status.st_uid != ::geteuid())
    return fail("expected owner " + Twine(::geteuid()) + ", but got " + Twine(status.st_uid));
  if (status.st_mode & (S_IWGRP | S_IWOTH))
    return fail("expected a file that only its owner may write");

  uint64_t fileSize = status.st_size;
  char head[CacheEntryHeader::kSize];
  size_t headSize = std::min<uint64_t>(fileSize, sizeof(head));
  if (Error error = readAll(file, head, headSize))
    return std::move(error);
  StringRef headRef(head, headSize);
  Expected<CacheEntryHeader> header = decodeCacheEntryHeader(headRef, fileSize, key);
  if (!header)
    return header.takeError();

  Entry entry;
  entry.fileBytes = fileSize;
  entry.label.resize(header->labelSize);
  if (Error error = readAll(file, entry.label.data(), entry.label.size()))
    return std::move(error);
  if (what == Read::HeaderOnly)
    return std::optional<Entry>(std::move(entry));

  // Copied, not mapped: a mapping would fault if the file were cut while it is in use.
  auto payload = WritableMemoryBuffer::getNewUninitMemBuffer(header->payloadSize, entry.label);
  if (!payload)
    return failErrno("cannot hold " + Twine(header->payloadSize) + " bytes", ENOMEM);
  if (Error error = readAll(file, payload->getBufferStart(), payload->getBufferSize()))
    return std::move(error);
  StringRef bytes(payload->getBufferStart(), payload->getBufferSize());
  if (Error error = checkCacheEntryDigest(*header, headRef, entry.label, bytes))
    return std::move(error);
  entry.payload = std::move(payload);
  if (what == Read::PayloadAndTouch)
    (void)::futimens(file, nullptr); // only a hint for trimming
  return std::optional<Entry>(std::move(entry));
}

std::string CacheDirectory::explain(Error error, bool &badEntry) {
  badEntry = false;
  std::string text;
  handleAllErrors(std::move(error), [&](const ErrorInfoBase &info) {
    badEntry = info.convertToErrorCode() == inconvertibleErrorCode();
    text = info.message();
  });
  return text;
}

Error CacheDirectory::write(const CacheKey &key, StringRef label, StringRef payload) const {
  std::string head = encodeCacheEntryHead(key, label, payload);
  // A second attempt is for someone else's clear() between our create and our rename.
  for (unsigned attempt = 0;; ++attempt) {
    std::string temporary;
    int file = -1;
    for (unsigned tries = 0; tries < 16 && file < 0; ++tries) {
      temporary = temporaryName();
      file = ::openat(fd, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
      if (file < 0 && errno != EEXIST && errno != EINTR)
        break;
    }
    if (file < 0)
      return failErrno("cannot create a temporary file", errno);

    Error error = writeAll(file, head);
    if (!error)
      error = writeAll(file, payload);
    // The data must be on disk before the name is: after a crash the entry is whole or absent. The
    // folder itself needs no fsync, because losing the name is only a miss.
    if (!error && ::fsync(file) != 0)
      error = failErrno("cannot flush a temporary file", errno);
    if (::close(file) != 0 && !error && errno != EINTR)
      error = failErrno("cannot close a temporary file", errno);
    if (error) {
      remove(temporary);
      return error;
    }
    if (::renameat(fd, temporary.c_str(), fd, fileName(key).c_str()) == 0)
      return Error::success();
    int renameError = errno;
    remove(temporary);
    if (renameError != ENOENT || attempt == 1)
      return failErrno("cannot rename a temporary file", renameError);
  }
}

std::vector<CacheDirectory::File> CacheDirectory::scan() const {
  std::vector<File> files;
  // A descriptor of its own: a duplicate would share its position with every other scan.
  int copy = ::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0)
    return files;
  DIR *stream = ::fdopendir(copy);
  if (!stream) {
    ::close(copy);
    return files;
  }
  while (dirent *item = ::readdir(stream)) {
    StringRef name(item->d_name);
    bool temporary = name.starts_with(kTempPrefix);
    if (!temporary && !keyOfFileName(name))
      continue;
    struct stat status;
    if (::fstatat(fd, item->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 || S_ISDIR(status.st_mode))
      continue;
    int64_t modified = int64_t(status.st_mtim.tv_sec) * 1000000000 + status.st_mtim.tv_nsec;
    files.push_back({name.str(), uint64_t(status.st_size), modified, temporary});
  }
  ::closedir(stream);
  return files;
}

bool CacheDirectory::remove(StringRef name) const { return ::unlinkat(fd, name.str().c_str(), 0) == 0; }

} // namespace kvcc
