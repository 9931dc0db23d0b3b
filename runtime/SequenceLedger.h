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
  /// `endWrite`. 0 begins it.
  llvm::Error beginWrite(Slot slot, int64_t before, int64_t rollback);
  void endWrite(Slot slot, int64_t tokens);
  /// `fork`, which is being written, becomes a copy of `slot`: it may take back no more than that.
  void copy(Slot slot, Slot fork);
  /// A call reads `tokens` tokens of the sequence.
  llvm::Error checkRead(Slot slot, int64_t tokens);

private:
  struct Sequence {
    int64_t most = 0, tokens = 0; ///< tokens it has had, and has
    bool isWritten = false;
  };
  std::mutex mutex;
  std::map<Slot, Sequence> sequences;
};

} // namespace kvcc

#endif
