// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Hashing of kernel cache keys, and encoding and checking of entry files.

#include "runtime/CacheEntry.h"

#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/SHA256.h"

#include <cstring>

using namespace llvm;

namespace kvcc {
namespace {

// Not text, so that no tool that rewrites line ends or encodings can leave it intact.
constexpr char kMagic[8] = {'\x8f', 'k', 'v', 'c', 'c', '\r', '\n', '\0'};
constexpr size_t kDigestOffset = 56;

void hashCounted(SHA256 &hash, StringRef bytes) {
  uint8_t length[8];
  support::endian::write64le(length, bytes.size());
  hash.update(ArrayRef<uint8_t>(length));
  hash.update(bytes);
}

CacheKey::Digest entryDigest(StringRef head, StringRef label, StringRef payload) {
  SHA256 hash;
  hash.update(head.take_front(kDigestOffset));
  hash.update(label);
  hash.update(payload);
  return hash.final();
}

StringRef asString(const CacheKey::Digest &digest) {
  return StringRef(reinterpret_cast<const char *>(digest.data()), digest.size());
}

} // namespace

CacheKey CacheKey::create(const KernelInputs &inputs) {
  SmallVector<CacheKeyPart, 8> parts = {{"kind", inputs.kind},
                                        {"source", inputs.source},
                                        {"compiler", inputs.compiler},
                                        {"architecture", inputs.architecture}};
  for (const std::string &option : inputs.options)
    parts.push_back({"option", option});
  return fromParts(parts);
}

CacheKey CacheKey::fromParts(ArrayRef<CacheKeyPart> parts) {
  SHA256 hash;
  hashCounted(hash, "kvcc kernel cache schema " + std::to_string(kCacheSchemaVersion));
  for (const CacheKeyPart &part : parts) {
    hashCounted(hash, part.name);
    hashCounted(hash, part.value);
  }
  return CacheKey(hash.final());
}

std::optional<CacheKey> CacheKey::fromHex(StringRef hex) {
  Digest digest;
  // One spelling per key: entry files are found by name, so upper case is not accepted.
  if (hex.size() != 2 * digest.size() || hex.find_first_not_of("0123456789abcdef") != StringRef::npos)
    return std::nullopt;
  std::string raw = llvm::fromHex(hex);
  std::memcpy(digest.data(), raw.data(), digest.size());
  return CacheKey(digest);
}

std::string CacheKey::hex() const { return toHex(asString(bytes), /*LowerCase=*/true); }

std::string encodeCacheEntryHead(const CacheKey &key, StringRef label, StringRef payload) {
  label = label.take_front(CacheEntryHeader::kMaxLabel);
  std::string head(CacheEntryHeader::kSize, '\0');
  std::memcpy(head.data(), kMagic, sizeof(kMagic));
  support::endian::write32le(head.data() + 8, kCacheSchemaVersion);
  support::endian::write32le(head.data() + 12, label.size());
  support::endian::write64le(head.data() + 16, payload.size());
  std::memcpy(head.data() + 24, key.digest().data(), key.digest().size());
  CacheKey::Digest digest = entryDigest(head, label, payload);
  std::memcpy(head.data() + kDigestOffset, digest.data(), digest.size());
  head += label;
  return head;
}

Expected<CacheEntryHeader> decodeCacheEntryHeader(StringRef head, uint64_t fileSize, const CacheKey &key) {
  auto fail = [](const Twine &text) { return createStringError(inconvertibleErrorCode(), text); };
  if (fileSize < CacheEntryHeader::kSize || head.size() < CacheEntryHeader::kSize)
    return fail("expected at least " + Twine(CacheEntryHeader::kSize) + " bytes, but got " + Twine(fileSize));
  if (!head.starts_with(StringRef(kMagic, sizeof(kMagic))))
    return fail("expected the magic of a kernel cache entry, but got 0x" +
                toHex(head.take_front(sizeof(kMagic)), /*LowerCase=*/true));
  uint32_t schema = support::endian::read32le(head.data() + 8);
  if (schema != kCacheSchemaVersion)
    return fail("expected schema version " + Twine(kCacheSchemaVersion) + ", but got " + Twine(schema));
  if (head.substr(24, 32) != asString(key.digest()))
    return fail("expected key " + key.hex() + ", but got " + toHex(head.substr(24, 32), /*LowerCase=*/true));

  CacheEntryHeader header;
  header.labelSize = support::endian::read32le(head.data() + 12);
  header.payloadSize = support::endian::read64le(head.data() + 16);
  std::memcpy(header.digest.data(), head.data() + kDigestOffset, header.digest.size());
  // Compared by subtraction: a damaged length must not wrap around into a plausible sum.
  uint64_t rest = fileSize - CacheEntryHeader::kSize;
  if (header.labelSize > CacheEntryHeader::kMaxLabel || header.labelSize > rest ||
      header.payloadSize != rest - header.labelSize)
    return fail("expected a label of " + Twine(header.labelSize) + " and a payload of " + Twine(header.payloadSize) +
                " bytes, but got " + Twine(rest) + " bytes after the header");
  return header;
}

Error checkCacheEntryDigest(const CacheEntryHeader &header, StringRef head, StringRef label, StringRef payload) {
  CacheKey::Digest actual = entryDigest(head, label, payload);
  if (actual == header.digest)
    return Error::success();
  return createStringError(inconvertibleErrorCode(), "expected SHA-256 digest " + toHex(asString(header.digest), true) +
                                                         ", but got " + toHex(asString(actual), true));
}

Expected<CacheEntryView> takeCacheEntry(StringRef &bytes) {
  StringRef head = bytes.take_front(CacheEntryHeader::kSize);
  uint64_t fileSize = head.size();
  CacheKey::Digest digest{};
  if (head.size() == CacheEntryHeader::kSize) {
    // What the lengths say, or all there is if they say more: decoding then names the mismatch.
    uint64_t rest = bytes.size() - head.size(), label = support::endian::read32le(head.data() + 12);
    uint64_t payload = support::endian::read64le(head.data() + 16);
    fileSize += label > rest || payload > rest - label ? rest : label + payload;
    std::memcpy(digest.data(), head.data() + 24, digest.size());
  }
  CacheKey key(digest);
  Expected<CacheEntryHeader> header = decodeCacheEntryHeader(head, fileSize, key);
  if (!header)
    return header.takeError();
  StringRef label = bytes.substr(CacheEntryHeader::kSize, header->labelSize);
  StringRef payload = bytes.substr(CacheEntryHeader::kSize + header->labelSize, header->payloadSize);
  if (Error error = checkCacheEntryDigest(*header, head, label, payload))
    return std::move(error);
  bytes = bytes.drop_front(fileSize);
  return CacheEntryView{key, label, payload};
}

} // namespace kvcc
