// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What kind of thing went wrong, for callers that see a status rather than a message.
#ifndef KVCC_RUNTIME_ERRORKIND_H
#define KVCC_RUNTIME_ERRORKIND_H

#include "llvm/Support/Error.h"

#include <string>

namespace kvcc {

/// See kvcc_status. Errors that say nothing are InvalidArgument: most of what can fail is input.
enum class ErrorKind { InvalidArgument, Unsupported, Unavailable, Failed };

/// The same message, marked with a kind; a mark that is there already stays.
llvm::Error withKind(ErrorKind kind, llvm::Error error);
/// Takes an error apart.
std::pair<ErrorKind, std::string> takeKind(llvm::Error error);

} // namespace kvcc

#endif
