// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Entries of the kernel cache as one file, to start warm on a machine that has not compiled them or cannot.

#ifndef KVCC_RUNTIME_CACHEBUNDLE_H
#define KVCC_RUNTIME_CACHEBUNDLE_H

#include "runtime/KernelCache.h"

namespace kvcc {

/// An entry of the cache, outside of any directory.
struct CacheRecord {
  CacheKey key;
  std::string label;
  std::shared_ptr<const llvm::MemoryBuffer> bytes;
};

/// A bundle, little endian. `producer` names the compiler whose keys these are; a key that comes again is left out, and
/// the rest is ordered by key, so that the same entries give the same bytes:
///
///     8 bytes   magic
///     uint32    schema version (kCacheSchemaVersion)
///     uint32    length of the producer
///     uint64    number of entries
///     bytes     producer
///     entries   as the files of the cache directory, one after the other
///     32 bytes  SHA-256 of all bytes before
std::string encodeCacheBundle(llvm::ArrayRef<CacheRecord> records, llvm::StringRef producer);

/// Checks everything (magic, versions, lengths, all digests) before it returns anything. Fails for a bundle of another
/// producer, whose entries would never be looked up.
llvm::Expected<std::vector<CacheRecord>> decodeCacheBundle(llvm::StringRef bytes, llvm::StringRef producer);

/// Stores all records, or says which one could not be; fails before the first if the cache is not written to disk or
/// if the records are more than its bound holds.
llvm::Error importRecords(KernelCache &cache, llvm::ArrayRef<CacheRecord> records);

} // namespace kvcc

#endif // KVCC_RUNTIME_CACHEBUNDLE_H
