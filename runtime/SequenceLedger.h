// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What validation remembers of sequences, to find calls that do not follow each other.
#ifndef KVCC_RUNTIME_SEQUENCELEDGER_H
#define KVCC_RUNTIME_SEQUENCELEDGER_H

#include "llvm/Support/Error.h"

#include <map>
#include <mutex>

namespace kvcc {

/// Sequences by the address of their slot. Thread-safe.
class SequenceLedger {
public:
  using Slot = const void *;

  /// A call writes the sequence, which has `before` tokens of which up to `rollback` may have been taken back, until
  /// endWrite or cancelWrite. 0 begins it.
  llvm::Error beginWrite(Slot slot, int64_t before, int64_t rollback);
  /// It has grown from `before` to `tokens` tokens. Of a copy, `most` is what the other one has had.
  void endWrite(Slot slot, int64_t before, int64_t tokens, int64_t most = 0);
  /// Somebody else has filled the slot: what is known of it holds no more.
  llvm::Error forget(Slot slot);
  /// It is as it was.
  void cancelWrite(Slot slot);
  /// A call reads `tokens` tokens of the sequence, of which up to `rollback` may have been taken back. Returns the most
  /// that it has had, as far as is known.
  llvm::Expected<int64_t> checkRead(Slot slot, int64_t tokens, int64_t rollback);

private:
  struct Sequence {
    int64_t most = -1, tokens = -1; ///< tokens it has had, and has; not known: -1
    bool isWritten = false;
  };
  std::mutex mutex;
  std::map<Slot, Sequence> sequences;
};

} // namespace kvcc

#endif
