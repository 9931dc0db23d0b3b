// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Validation of the order of calls.
#include "runtime/SequenceLedger.h"

#include <algorithm>

using namespace llvm;
using namespace kvcc;

static Error isWrittenNow() {
  return createStringError("expected one call at a time that writes a sequence, but got another one");
}

static Error wasTakenBack(int64_t tokens, int64_t most, int64_t rollback) {
  return createStringError("expected at most " + Twine(rollback) + " tokens taken back, but got " + Twine(tokens) +
                           " tokens of a sequence that had " + Twine(most));
}

Error SequenceLedger::beginWrite(Slot slot, int64_t before, int64_t rollback) {
  std::lock_guard lock(mutex);
  Sequence &sequence = sequences[slot];
  if (sequence.isWritten)
    return isWrittenNow();
  // A slot that validation has not seen may have been filled in another way.
  if (before > 0 && sequence.tokens >= 0) {
    if (before > sequence.tokens)
      return createStringError("expected a sequence of at most " + Twine(sequence.tokens) +
                               " tokens before the new ones, but got " + Twine(before));
    if (sequence.most - before > rollback)
      return wasTakenBack(before, sequence.most, rollback);
  }
  sequence.isWritten = true;
  return Error::success();
}

void SequenceLedger::endWrite(Slot slot, int64_t before, int64_t tokens, int64_t most) {
  std::lock_guard lock(mutex);
  Sequence &sequence = sequences[slot];
  sequence = {std::max({before > 0 ? sequence.most : 0, tokens, most}), tokens, false};
}

Error SequenceLedger::forget(Slot slot) {
  std::lock_guard lock(mutex);
  auto found = sequences.find(slot);
  if (found == sequences.end())
    return Error::success();
  if (found->second.isWritten)
    return isWrittenNow();
  sequences.erase(found);
  return Error::success();
}

void SequenceLedger::cancelWrite(Slot slot) {
  std::lock_guard lock(mutex);
  sequences[slot].isWritten = false;
}

Expected<int64_t> SequenceLedger::checkRead(Slot slot, int64_t tokens, int64_t rollback) {
  std::lock_guard lock(mutex);
  auto found = sequences.find(slot);
  if (found == sequences.end())
    return tokens;
  const Sequence &sequence = found->second;
  if (sequence.isWritten)
    return isWrittenNow();
  if (sequence.tokens < 0)
    return tokens;
  if (tokens > sequence.tokens)
    return createStringError("expected at most the " + Twine(sequence.tokens) +
                             " tokens that the sequence has, but got " + Twine(tokens));
  // An empty one is not read.
  if (tokens > 0 && sequence.most - tokens > rollback)
    return wasTakenBack(tokens, sequence.most, rollback);
  return sequence.most;
}
