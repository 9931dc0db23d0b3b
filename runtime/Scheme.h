// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Named quantization schemes: a preset is a value of the dialect's attributes, never a code path.
#ifndef KVCC_RUNTIME_SCHEME_H
#define KVCC_RUNTIME_SCHEME_H

#include "dialect/Kv.h"
#include "llvm/Support/Error.h"

#include <string>

namespace kvcc {

/// How the keys and values of a cache are stored. Owned by the MLIR context it was parsed in.
struct Scheme {
  std::string name, source;
  kv::QuantAttr key, value;
  kv::WindowAttr window;
};

/// One row of the table of presets; the attributes as IR text.
struct SchemePreset {
  llvm::StringLiteral name, key, value, window, source;
};
llvm::ArrayRef<SchemePreset> getSchemePresets();
/// "fp16, innerq-base, ...", for messages.
std::string getSchemeNames();

/// The preset called `name`, for heads of `headDim` channels; the error offers the names that exist. In the table,
/// `head` stands for the whole head_dim.
llvm::Expected<Scheme> parseScheme(llvm::StringRef name, int64_t headDim, mlir::MLIRContext &context);

} // namespace kvcc

#endif
