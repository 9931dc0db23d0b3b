// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The key of a compiled kernel and the bytes of one entry file of the kernel cache: what is hashed,
// what the header says, and how an entry is checked. No file is opened here; see KernelCache.h.

#ifndef KVCC_RUNTIME_CACHEENTRY_H
#define KVCC_RUNTIME_CACHEENTRY_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace kvcc {

/// Part of every key and of every entry header. Raise it whenever the meaning of cached bytes
/// changes (entry layout, kernel parameters, how a module is loaded).
inline constexpr uint32_t kCacheSchemaVersion = 1;

/// One named part of a key, for example {"source", text}. A name may be repeated (one part per
/// compiler option); the order of the parts matters.
struct CacheKeyPart {
  llvm::StringRef name;
  llvm::StringRef value;
};

/// Everything that decides the bytes of a compiled kernel. Paths and times have no place in it.
struct KernelInputs {
  llvm::StringRef kind;                ///< what is stored: "cubin", "ptx", "object", "host", ...
  llvm::StringRef source;              ///< the emitted source or printed module
  llvm::StringRef compiler;            ///< Nvrtc::identity(), or the LLVM version
  llvm::ArrayRef<std::string> options; ///< compiler options, in order
  llvm::StringRef architecture;        ///< "sm_90", or the host's CPU and features
};

/// A SHA-256 over length-prefixed parts. Because each length is hashed before its bytes, two
/// different part lists never feed the hash the same stream: ("ab","c") and ("a","bc") differ.
class CacheKey {
public:
  using Digest = std::array<uint8_t, 32>;

  static CacheKey create(const KernelInputs &inputs);
  static CacheKey fromParts(llvm::ArrayRef<CacheKeyPart> parts);
  /// Reads back what hex() wrote: exactly 64 lower-case hexadecimal digits.
  static std::optional<CacheKey> fromHex(llvm::StringRef hex);
  explicit CacheKey(const Digest &digest) : bytes(digest) {}

  const Digest &digest() const { return bytes; }
  std::string hex() const;
  friend bool operator==(const CacheKey &a, const CacheKey &b) { return a.bytes == b.bytes; }

private:
  Digest bytes;
};

/// The fixed head of an entry file, little endian, followed by the label and then the payload:
///
///     offset  0   8 bytes   magic
///             8   uint32    schema version
///            12   uint32    label length in bytes
///            16   uint64    payload length in bytes
///            24   32 bytes  key
///            56   32 bytes  SHA-256 of bytes 0..55, the label and the payload
struct CacheEntryHeader {
  static constexpr size_t kSize = 88;
  static constexpr size_t kMaxLabel = 1024;

  uint32_t labelSize = 0;
  uint64_t payloadSize = 0;
  CacheKey::Digest digest = {};

  uint64_t fileSize() const { return kSize + labelSize + payloadSize; }
};

/// Header and label of an entry; the payload follows. Labels longer than kMaxLabel are cut.
std::string encodeCacheEntryHead(const CacheKey &key, llvm::StringRef label, llvm::StringRef payload);

/// Checks magic, schema version and key, and that the lengths add up to `fileSize` bytes.
/// `head` holds at least the first min(kSize, fileSize) bytes of the file.
llvm::Expected<CacheEntryHeader> decodeCacheEntryHeader(llvm::StringRef head, uint64_t fileSize, const CacheKey &key);

/// Checks the digest of a header that decodeCacheEntryHeader accepted.
llvm::Error checkCacheEntryDigest(const CacheEntryHeader &header, llvm::StringRef head, llvm::StringRef label,
                                  llvm::StringRef payload);

/// One entry in a row of them.
struct CacheEntryView {
  CacheKey key;
  llvm::StringRef label, payload; ///< parts of what was read
};
/// Takes the entry at the front of `bytes`, completely checked.
llvm::Expected<CacheEntryView> takeCacheEntry(llvm::StringRef &bytes);

} // namespace kvcc

#endif // KVCC_RUNTIME_CACHEENTRY_H
