// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the files of the C interface share: handles, statuses, checks of arguments.
#ifndef KVCC_RUNTIME_CAPISUPPORT_H
#define KVCC_RUNTIME_CAPISUPPORT_H

#ifndef KVCC_BUILD
#define KVCC_BUILD
#endif
#include "runtime/kvcc.h"

#include "runtime/ErrorKind.h"
#include "runtime/ModelProgram.h"
#include "runtime/SequenceLedger.h"

#include <cstring>

/// Owned by its handle and by the programs compiled with it.
struct kvcc_context : std::enable_shared_from_this<kvcc_context> {
  kvcc_context(kvcc::CacheOptions options, const kvcc_context_options &given);
  kvcc::Compiler compiler;
  kvcc::ThreadPool pool;
  bool validates;
  std::shared_ptr<kvcc_context> handle; ///< itself, until kvcc_context_destroy
};

struct kvcc_program {
  std::shared_ptr<kvcc_context> context; // before what lives in it
  std::unique_ptr<kvcc::ModelProgram> model;
  double milliseconds = 0;
  std::unique_ptr<kvcc::SequenceLedger> ledger; ///< with validation, of sequences on CPU targets
};

namespace kvcc::capi {

/// The status of an error, whose message the thread keeps.
kvcc_status report(llvm::Error error);

llvm::Error expected(const llvm::Twine &what, const llvm::Twine &got);
llvm::Error notNull(const void *pointer, llvm::StringRef name);
llvm::Error notNegative(int64_t value, llvm::StringRef name);

/// The structure of a caller, who may have been built with an older version of it, from `oldest` bytes on: what that
/// lacks is zero in `full`.
template <typename T>
llvm::Error readStruct(const T *structure, llvm::StringRef name, T &full, size_t oldest = sizeof(T)) {
  if (llvm::Error error = notNull(structure, name))
    return error;
  if (structure->size < oldest || structure->size > sizeof(T) || structure->size % alignof(T))
    return expected(name + ".size of " + llvm::Twine(sizeof(T)), llvm::Twine(structure->size));
  full = T();
  std::memcpy(static_cast<void *>(&full), structure, structure->size);
  return llvm::Error::success();
}

llvm::Expected<const Program *> getLayer(const kvcc_program *program, int32_t layer);
llvm::Error checkMemory(const kvcc_memory &memory);
/// The part of a block table that a sequence uses: its length, and with `entries` what stands there.
llvm::Error checkTable(const Program &program, const int32_t *table, int64_t length, int64_t tokens,
                       const kvcc_memory &memory, bool entries);
llvm::Error checkSlot(int32_t slot, const kvcc_memory &memory);

llvm::Error checkTokens(int64_t tokens);
/// With a size of splits, `maxTokens` is no mere hint.
llvm::Error checkSplitTokens(int64_t splitTokens, int64_t maxTokens);

/// A question about a sequence of `tokens` tokens in a layer, whose answer is a number.
template <typename T>
kvcc_status answer(const kvcc_program *handle, int32_t layer, int64_t tokens, T *result, llvm::StringRef name,
                   llvm::function_ref<llvm::Expected<T>(const Program &)> compute) {
  return report([&]() -> llvm::Error {
    auto program = getLayer(handle, layer);
    if (!program)
      return program.takeError();
    if (llvm::Error error = notNull(result, name))
      return error;
    if (llvm::Error error = checkTokens(tokens))
      return error;
    auto computed = compute(**program);
    if (!computed)
      return computed.takeError();
    *result = *computed;
    return llvm::Error::success();
  }());
}

inline uint8_t *slotOf(const Program &program, const kvcc_memory &memory, int32_t slot) {
  return static_cast<uint8_t *>(memory.slots) + slot * program.getLayout().slotBytes;
}
inline uint8_t *pageOf(const Program &program, const kvcc_memory &memory, int32_t page) {
  return static_cast<uint8_t *>(memory.pages) + page * program.getLayout().pageBytes;
}

} // namespace kvcc::capi

#endif
