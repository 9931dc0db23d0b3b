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

/// Characters of an attribute's text that are parsed. MLIR's parser recurses once per bracket or sign, so that a longer
/// text from outside could overflow the stack.
constexpr size_t kMaxAttributeText = 1024;

/// One row of the table of presets; the attributes as IR text, see parseScheme.
struct SchemePreset {
  llvm::StringLiteral name, key, value, window, source;
};
llvm::ArrayRef<SchemePreset> getSchemePresets();
/// "fp16, innerq-base, ...", for messages.
std::string getSchemeNames();

/// A preset by name, or with parts changed, or made of parts:
///   innerq-small
///   innerq-small; v = <i4, map = asym, group = 1x32, scale = f16>
///   k = #kv.quant<...>; v = #kv.quant<...>; window = #kv.window<...>
/// for heads of `headDim` channels. Without a preset the window is that of innerq-small unless it is given. In the IR
/// text {head} stands for head_dim and {rotation} for the largest power of two that divides it, up to 256.
llvm::Expected<Scheme> parseScheme(llvm::StringRef text, int64_t headDim, mlir::MLIRContext &context);

} // namespace kvcc

#endif
