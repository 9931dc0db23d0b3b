// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Entry files of the kernel cache: an accepted one is exactly what the writer writes for its label and payload.
#include "test/fuzz/FuzzTarget.h"

#include "runtime/CacheEntry.h"
#include "llvm/ADT/StringExtras.h"

using namespace kvcc;

/// The payload of a file that is accepted.
static std::optional<llvm::StringRef> decode(llvm::StringRef file, const CacheKey &key) {
  llvm::Expected<CacheEntryHeader> header =
      decodeCacheEntryHeader(file.take_front(CacheEntryHeader::kSize), file.size(), key);
  if (!header) {
    fuzz::require(!toString(header.takeError()).empty(), "an error says something");
    return std::nullopt;
  }
  fuzz::require(header->fileSize() == file.size(), "the lengths add up");
  llvm::StringRef label = file.substr(CacheEntryHeader::kSize, header->labelSize);
  llvm::StringRef payload = file.substr(CacheEntryHeader::kSize + header->labelSize);
  fuzz::require(payload.size() == header->payloadSize, "the payload is the rest of the file");
  if (llvm::Error error = checkCacheEntryDigest(*header, file.take_front(CacheEntryHeader::kSize), label, payload)) {
    consumeError(std::move(error));
    return std::nullopt;
  }
  fuzz::require(encodeCacheEntryHead(key, label, payload) + payload.str() == file, "the writer writes the same");
  return payload;
}

static void run(llvm::StringRef bytes) {
  // As a file: the key is the file's own, since no fuzzer guesses one.
  std::optional<CacheKey> key =
      CacheKey::fromHex(llvm::toHex(bytes.substr(24, 32), /*LowerCase=*/true)); // none: 32 bytes are not there
  if (!key)
    key = CacheKey::fromParts({{"source", bytes}});
  (void)decode(bytes, *key);
  // As label and payload of an entry, since no fuzzer guesses a digest; one changed byte of it is always noticed.
  auto [label, payload] = bytes.split('\0');
  std::string file = encodeCacheEntryHead(*key, label, payload) + payload.str();
  std::optional<llvm::StringRef> read = decode(file, *key);
  fuzz::require(read && *read == payload, "what is written is read");
  size_t changed = size_t(llvm::hash_value(bytes)) % file.size();
  file[changed] = char(file[changed] ^ 1);
  fuzz::require(!decode(file, *key), "a changed byte is noticed");
}

static std::vector<std::string> getSeeds() {
  std::vector<std::string> seeds = {"", std::string("label\0payload", 13)};
  CacheKey key = CacheKey::fromParts({{"source", "seed"}});
  for (llvm::StringRef label : {"", "cpu: kernel"})
    for (size_t size : {size_t(0), size_t(1), size_t(300)}) {
      std::string payload(size, 'x');
      seeds.push_back(encodeCacheEntryHead(key, label, payload) + payload);
    }
  return seeds;
}

const fuzz::Target fuzz::cacheEntry = {"cache-entry", run, getSeeds};
