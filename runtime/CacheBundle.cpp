// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Writing, checking and importing of bundles.

#include "runtime/CacheBundle.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/SHA256.h"

using namespace llvm;

namespace kvcc {
namespace {

// As that of an entry, with another letter.
constexpr char kMagic[8] = {'\x8f', 'k', 'v', 'c', 'b', '\r', '\n', '\0'};
constexpr size_t kHeadSize = 24, kDigestSize = 32;

Error fail(const Twine &text) { return createStringError(inconvertibleErrorCode(), text); }

std::string digestOf(StringRef bytes) {
  auto digest = SHA256::hash(arrayRefFromStringRef(bytes));
  return std::string(digest.begin(), digest.end());
}

uint64_t entryBytes(const CacheRecord &record) {
  return CacheEntryHeader::kSize + std::min(record.label.size(), CacheEntryHeader::kMaxLabel) +
         record.bytes->getBufferSize();
}

} // namespace

std::string encodeCacheBundle(ArrayRef<CacheRecord> records, StringRef producer) {
  std::vector<const CacheRecord *> sorted;
  for (const CacheRecord &record : records)
    sorted.push_back(&record);
  llvm::sort(sorted, [](auto *a, auto *b) { return a->key.digest() < b->key.digest(); });
  sorted.erase(std::unique(sorted.begin(), sorted.end(), [](auto *a, auto *b) { return a->key == b->key; }),
               sorted.end());

  std::string bundle(kHeadSize, '\0');
  std::copy(std::begin(kMagic), std::end(kMagic), bundle.begin());
  support::endian::write32le(bundle.data() + 8, kCacheSchemaVersion);
  support::endian::write32le(bundle.data() + 12, uint32_t(producer.size()));
  support::endian::write64le(bundle.data() + 16, sorted.size());
  bundle += producer;
  for (const CacheRecord *record : sorted) {
    bundle += encodeCacheEntryHead(record->key, record->label, record->bytes->getBuffer());
    bundle += record->bytes->getBuffer();
  }
  return bundle + digestOf(bundle);
}

Expected<std::vector<CacheRecord>> decodeCacheBundle(StringRef bytes, StringRef producer) {
  if (!bytes.starts_with(StringRef(kMagic, sizeof(kMagic))))
    return fail("expected a bundle of kvcc cache export, but got something else");
  if (bytes.size() < kHeadSize + kDigestSize)
    return fail("expected a bundle of at least " + Twine(kHeadSize + kDigestSize) + " bytes, but got " +
                Twine(bytes.size()));
  uint32_t schema = support::endian::read32le(bytes.data() + 8);
  if (schema != kCacheSchemaVersion)
    return fail("expected a bundle of schema version " + Twine(kCacheSchemaVersion) + ", but got " + Twine(schema));
  StringRef digest = bytes.take_back(kDigestSize);
  StringRef content = bytes.drop_back(kDigestSize);
  if (std::string actual = digestOf(content); digest != actual)
    return fail("expected a whole bundle with SHA-256 digest " + toHex(digest, true) + ", but got " +
                toHex(actual, true) + "; it is damaged or cut off");

  // From here on a problem is one of the writer; it is met all the same.
  uint32_t producerSize = support::endian::read32le(bytes.data() + 12);
  uint64_t count = support::endian::read64le(bytes.data() + 16);
  StringRef rest = content.drop_front(kHeadSize);
  if (producerSize > rest.size())
    return fail("expected a producer of " + Twine(producerSize) + " bytes, but got " + Twine(rest.size()));
  StringRef writer = rest.take_front(producerSize);
  rest = rest.drop_front(producerSize);
  if (writer != producer)
    return fail("expected a bundle that this compiler (" + producer + ") exported, but got one of " + writer);

  std::vector<CacheRecord> records;
  for (uint64_t i = 0; i < count; ++i) {
    auto entry = takeCacheEntry(rest);
    if (!entry)
      return fail("entry " + Twine(i) + ": " + toString(entry.takeError()));
    records.push_back({entry->key, entry->label.str(), MemoryBuffer::getMemBufferCopy(entry->payload, entry->label)});
  }
  if (!rest.empty())
    return fail("expected " + Twine(count) + " entries, but got " + Twine(rest.size()) + " bytes more");
  return records;
}

Error importRecords(KernelCache &cache, ArrayRef<CacheRecord> records) {
  CacheStat stat = cache.stat();
  if (stat.directory.empty() || stat.mode != CacheMode::ReadWrite)
    return fail(
        "expected a kernel cache on disk that can be written (mode rw), but got " +
        (stat.directory.empty() ? "none" : "'" + stat.directory + "' in mode " + stringifyCacheMode(stat.mode)));
  uint64_t total = 0;
  for (const CacheRecord &record : records)
    total += entryBytes(record);
  // A trim goes down to nine tenths: what is imported must survive the first one.
  uint64_t room = stat.maxBytes - stat.maxBytes / 10;
  if (total > room)
    return fail("expected entries of at most " + Twine(room) +
                " bytes (nine tenths of KVCC_CACHE_MAX_BYTES), but got " + Twine(total));
  for (const CacheRecord &record : records)
    if (!cache.publish(record.key, record.bytes->getBuffer(), record.label))
      return fail("cannot store '" + record.label + "' in '" + stat.directory + "'");
  return Error::success();
}

} // namespace kvcc
