// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Reads JSON that comes from outside (config.json, safetensors headers). llvm::json::parse recurses
// once per bracket, so 100000 '[' overflow the stack, and it lets a repeated key win silently: both
// are checked here first.

#ifndef KVCC_RUNTIME_JSONTEXT_H
#define KVCC_RUNTIME_JSONTEXT_H

#include "llvm/Support/Error.h"
#include "llvm/Support/JSON.h"

#include <string>

namespace kvcc {

struct JsonLimits {
  /// Deepest nesting of arrays and objects that is accepted; real files of both kinds stay
  /// below 10.
  unsigned maxDepth = 64;
  /// Python's json module writes NaN, Infinity and -Infinity. When set, such a token is read as the
  /// string of that name, so that a key nobody asks for does not matter and a key somebody asks for
  /// is named in an error.
  bool allowNonFinite = false;
  /// Refuse an object that holds a key twice (compared after unescaping).
  bool refuseDuplicateKeys = false;
};

/// Parses `text`. `where` begins each message ("<where>: not valid JSON: ...").
llvm::Expected<llvm::json::Value> parseJsonText(llvm::StringRef text, llvm::StringRef where,
                                                const JsonLimits &limits = {});

/// A value for an error message: compact JSON, cut after 48 bytes.
std::string quoteJson(const llvm::json::Value &value);

/// A string from outside for an error message: control characters and bytes that are no UTF-8
/// escaped, cut after 80.
std::string quoteText(llvm::StringRef text);

} // namespace kvcc

#endif // KVCC_RUNTIME_JSONTEXT_H
