// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Typed, range-checked access to the keys of a config.json.

#include "runtime/ConfigReader.h"

#include "runtime/JsonText.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"

#include <cmath>

using namespace llvm;

namespace kvcc {

static const json::Value *findIn(const json::Object &object, StringRef key) {
  const json::Value *value = object.get(key);
  return value && value->kind() != json::Value::Null ? value : nullptr;
}

const json::Value *ConfigReader::find(StringRef key) const { return findIn(text, key); }

const json::Value *ConfigReader::findAnywhere(StringRef key) const {
  const json::Value *value = findIn(text, key);
  return value ? value : findIn(root, key);
}

void ConfigReader::fail(const Twine &message) {
  if (firstError.empty())
    firstError = (file + ": " + message).str();
}

Error ConfigReader::takeError() const { return failed() ? createStringError(firstError) : Error::success(); }

int64_t ConfigReader::checkInteger(StringRef key, const json::Value &value, int64_t lo, int64_t hi) {
  // getAsInteger takes 32.0 as well, which is how some exporters write integers.
  std::optional<int64_t> number = value.getAsInteger();
  if (number && *number >= lo && *number <= hi)
    return *number;
  fail("expected " + key + " to be an integer from " + Twine(lo) + " to " + Twine(hi) + ", but got " +
       quoteJson(value));
  return lo;
}

int64_t ConfigReader::integer(ArrayRef<StringRef> keys, int64_t fallback, int64_t max) {
  for (StringRef key : keys)
    if (const json::Value *value = find(key))
      return checkInteger(key, *value, 1, max);
  if (fallback > 0)
    return fallback;
  fail("expected " + llvm::join(keys, " or ") + " to be an integer from 1 to " + Twine(max) + ", but got no such key");
  return 1;
}

int64_t ConfigReader::integerOrZero(StringRef key, int64_t max) {
  const json::Value *value = find(key);
  return value ? checkInteger(key, *value, 0, max) : 0;
}

double ConfigReader::number(const json::Object &object, StringRef key, double fallback) {
  const json::Value *value = findIn(object, key);
  if (!value)
    return fallback;
  std::optional<double> number = value->getAsNumber();
  if (number && std::isfinite(*number) && *number > 0)
    return *number;
  fail("expected " + key + " to be a finite number above 0, but got " + quoteJson(*value));
  return fallback;
}

double ConfigReader::number(StringRef key, double fallback) { return number(text, key, fallback); }

bool ConfigReader::flag(StringRef key, bool fallback) {
  const json::Value *value = find(key);
  if (!value)
    return fallback;
  if (std::optional<bool> flag = value->getAsBoolean())
    return *flag;
  fail("expected " + key + " to be true or false, but got " + quoteJson(*value));
  return fallback;
}

std::string ConfigReader::string(StringRef key, StringRef fallback) {
  const json::Value *value = find(key);
  if (!value)
    return fallback.str();
  if (std::optional<StringRef> string = value->getAsString())
    return string->str();
  fail("expected " + key + " to be a string, but got " + quoteJson(*value));
  return fallback.str();
}

const json::Object *ConfigReader::object(StringRef key) {
  const json::Value *value = find(key);
  if (!value)
    return nullptr;
  if (!value->getAsObject())
    fail("expected " + key + " to be an object, but got " + quoteJson(*value));
  return value->getAsObject();
}

const json::Array *ConfigReader::layerArray(const json::Object &from, StringRef key, int64_t layers) {
  const json::Value *value = findIn(from, key);
  if (!value)
    return nullptr;
  const json::Array *array = value->getAsArray();
  if (!array) {
    fail("expected " + key + " to be an array, but got " + quoteJson(*value));
    return nullptr;
  }
  // Some files list the layers of multi-token prediction behind those of the model.
  int64_t extra = integerOrZero("num_nextn_predict_layers");
  int64_t size = array->size();
  if (size == layers || size == layers + extra)
    return array;
  fail("expected " + key + " to have one entry for each of the " + Twine(layers) + " layers, but got " + Twine(size));
  return nullptr;
}

std::optional<std::vector<int64_t>> ConfigReader::perLayer(const json::Object &from, StringRef key, int64_t layers,
                                                           int64_t max) {
  const json::Array *array = layerArray(from, key, layers);
  if (!array)
    return std::nullopt;
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < layers; ++i)
    numbers.push_back(checkInteger((key + "[" + Twine(i) + "]").str(), (*array)[i], 0, max));
  return numbers;
}

} // namespace kvcc
