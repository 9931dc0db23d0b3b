// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Typed, range-checked access to the keys of a config.json. The first error sticks and later reads
// return their fallback, so that the family rules read straight through and ask once, at the end.

#ifndef KVCC_RUNTIME_CONFIGREADER_H
#define KVCC_RUNTIME_CONFIGREADER_H

#include "llvm/Support/Error.h"
#include "llvm/Support/JSON.h"

#include <optional>
#include <string>
#include <vector>

namespace kvcc {

/// Looks a key up in the innermost object first (text_config, where there is one), then in the
/// file's top level. A key that is null counts as absent.
class ConfigReader {
public:
  ConfigReader(const llvm::json::Object &root, const llvm::json::Object *text, llvm::StringRef file)
      : root(root), text(text ? *text : root), file(file) {}

  /// Text-model keys come from the inner object only: the outer one may describe a vision tower.
  const llvm::json::Value *find(llvm::StringRef key) const;
  /// Keys of the whole checkpoint (dtype, quantization_config): inner, then outer.
  const llvm::json::Value *findAnywhere(llvm::StringRef key) const;
  bool has(llvm::StringRef key) const { return find(key) != nullptr; }
  /// The key stands in the file, be it as null: "sliding_window": null means none, not the class's
  /// default.
  bool written(llvm::StringRef key) const { return text.get(key) != nullptr; }
  bool writtenNull(llvm::StringRef key) const { return written(key) && !has(key); }

  /// The first of `keys` that is there, as an integer in [1, max]; else `fallback`, where 0 says
  /// that there is no default and the key is required.
  int64_t integer(llvm::ArrayRef<llvm::StringRef> keys, int64_t fallback, int64_t max = 1 << 20);
  /// As integer(), but an absent key gives 0.
  int64_t integerOrZero(llvm::StringRef key, int64_t max = 1 << 20);
  /// A finite number > 0.
  double number(llvm::StringRef key, double fallback);
  double number(const llvm::json::Object &object, llvm::StringRef key, double fallback);
  bool flag(llvm::StringRef key, bool fallback);
  std::string string(llvm::StringRef key, llvm::StringRef fallback);
  const llvm::json::Object *object(llvm::StringRef key);
  /// An array of integers in [0, max], one per layer (or one more per prediction layer: those are
  /// dropped).
  std::optional<std::vector<int64_t>> perLayer(const llvm::json::Object &from, llvm::StringRef key, int64_t layers,
                                               int64_t max);
  std::optional<std::vector<int64_t>> perLayer(llvm::StringRef key, int64_t layers, int64_t max) {
    return perLayer(text, key, layers, max);
  }
  /// The array `key`, its length checked against the layers in the same way; null when absent or
  /// wrong.
  const llvm::json::Array *layerArray(const llvm::json::Object &from, llvm::StringRef key, int64_t layers);
  const llvm::json::Object &textObject() const { return text; }

  void fail(const llvm::Twine &message);
  bool failed() const { return !firstError.empty(); }
  llvm::Error takeError() const;

private:
  int64_t checkInteger(llvm::StringRef key, const llvm::json::Value &value, int64_t lo, int64_t hi);

  const llvm::json::Object &root;
  const llvm::json::Object &text;
  llvm::StringRef file;
  std::string firstError;
};

} // namespace kvcc

#endif // KVCC_RUNTIME_CONFIGREADER_H
