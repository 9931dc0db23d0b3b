// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Validation of the order of calls.
#include "runtime/SequenceLedger.h"

#include <algorithm>

using namespace llvm;
using namespace kvcc;

static Error isWrittenNow() {
  return createStringError("expected one call at a time that writes a sequence, but got another one");
}

Error SequenceLedger::beginWrite(Slot slot, int64_t before, int64_t rollback) {
  std::lock_guard lock(mutex);
  auto [found, isNew] = sequences.try_emplace(slot);
  Sequence &sequence = found->second;
  if (sequence.isWritten)
    return isWrittenNow();
  // A slot that validation has not seen may have been filled in another way.
  if (before == 0 || isNew) {
    sequence = {before, before, true};
    return Error::success();
  }
  if (before > sequence.tokens)
    return createStringError("expected a sequence of at most " + Twine(sequence.tokens) +
                             " tokens before the new ones, but got " + Twine(before));
  if (sequence.most - before > rollback)
    return createStringError("expected at most " + Twine(rollback) + " tokens taken back, but got " + Twine(before) +
                             " tokens of a sequence that had " + Twine(sequence.most));
  sequence.isWritten = true;
  return Error::success();
}

void SequenceLedger::endWrite(Slot slot, int64_t tokens) {
  std::lock_guard lock(mutex);
  Sequence &sequence = sequences[slot];
  sequence.tokens = tokens;
  sequence.most = std::max(sequence.most, tokens);
  sequence.isWritten = false;
}

void SequenceLedger::copy(Slot slot, Slot fork) {
  std::lock_guard lock(mutex);
  if (auto found = sequences.find(slot); found != sequences.end())
    sequences[fork].most = found->second.most;
}

Error SequenceLedger::checkRead(Slot slot, int64_t tokens) {
  std::lock_guard lock(mutex);
  auto found = sequences.find(slot);
  if (found == sequences.end())
    return Error::success();
  if (found->second.isWritten)
    return isWrittenNow();
  if (tokens > found->second.tokens)
    return createStringError("expected at most the " + Twine(found->second.tokens) +
                             " tokens that the sequence has, but got " + Twine(tokens));
  return Error::success();
}
