// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A sequence of a cache as bytes.
#ifndef KVCC_RUNTIME_SNAPSHOT_H
#define KVCC_RUNTIME_SNAPSHOT_H

#include "dialect/Layout.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/Support/Error.h"

#include <string>

namespace kvcc {

/// What a snapshot says of itself. The bytes are: "KVCCSNAP", version and length of the text below as uint32, the text
/// in JSON, zeros up to a multiple of 64, the pages in the order of their tokens, the slot, and the SHA-256 of all of
/// it. Numbers are little-endian.
struct SnapshotHeader {
  std::string cache, schedule; ///< IR text of the type, and of a schedule with its packings and page
  int64_t tokens = 0, pages = 0, pageBytes = 0, slotBytes = 0;

  /// Creates nothing in the context of its arguments, so that any thread may call it.
  static SnapshotHeader of(kv::CacheType cache, kv::ScheduleAttr schedule, const kv::CacheLayout &layout,
                           int64_t tokens);
  bool hasFormatOf(const SnapshotHeader &other) const { return cache == other.cache && schedule == other.schedule; }
  size_t getPayloadBytes() const { return size_t(pages * pageBytes + slotBytes); }
};

/// Bytes of a whole snapshot, and of what stands before its pages.
size_t getSnapshotBytes(const SnapshotHeader &header);
size_t getPrefixBytes(const SnapshotHeader &header);
/// Writes all but the payload around it: `bytes` has getSnapshotBytes, the payload is there.
void sealSnapshot(const SnapshotHeader &header, llvm::MutableArrayRef<uint8_t> bytes);

struct Snapshot {
  SnapshotHeader header;
  llvm::ArrayRef<uint8_t> pages, slot;
};
/// Checks everything, the checksum too. The result points into `bytes`.
llvm::Expected<Snapshot> openSnapshot(llvm::ArrayRef<uint8_t> bytes);
/// Its format in a context that is to hold it.
llvm::Expected<std::pair<kv::CacheType, kv::ScheduleAttr>> parseFormat(const SnapshotHeader &header,
                                                                       mlir::MLIRContext &context);

} // namespace kvcc

#endif
