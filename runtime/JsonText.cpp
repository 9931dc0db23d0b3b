// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A flat scan (no recursion) in front of llvm::json::parse; see JsonText.h for what it guards
// against.

#include "runtime/JsonText.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"

#include <vector>

using namespace llvm;

namespace kvcc {

namespace {

/// Walks the tokens once. It does not validate: whatever it lets pass wrongly, the parser behind it
/// refuses.
class Scanner {
public:
  Scanner(StringRef text, StringRef where, const JsonLimits &limits) : text(text), where(where), limits(limits) {}

  /// The text to parse: the input with its non-finite tokens quoted.
  Expected<std::string> run() {
    while (pos < text.size()) {
      char c = text[pos];
      if (c == '"') {
        if (Error error = scanString())
          return std::move(error);
      } else if (c == '[' || c == '{') {
        if (open.size() == limits.maxDepth)
          return fail("expected at most " + Twine(limits.maxDepth) +
                      " nested arrays and objects, but got more at byte " + Twine(pos));
        open.push_back({c == '{', {}});
        copy(1);
      } else if (c == ']' || c == '}') {
        if (!open.empty())
          open.pop_back();
        copy(1);
      } else if (!limits.allowNonFinite || !quoteNonFinite()) {
        copy(1);
      }
    }
    return std::move(out);
  }

private:
  struct Scope {
    bool isObject;
    StringSet<> keys;
  };

  Error fail(const Twine &message) { return createStringError(where + ": not valid JSON: " + message); }

  void copy(size_t n) {
    out += text.substr(pos, n);
    pos += n;
  }

  Error scanString() {
    size_t end = pos + 1;
    while (end < text.size() && text[end] != '"')
      end += text[end] == '\\' ? 2 : 1;
    end = std::min(end + 1, text.size());
    StringRef token = text.slice(pos, end);
    copy(token.size());
    if (!limits.refuseDuplicateKeys || open.empty() || !open.back().isObject)
      return Error::success();
    size_t next = text.find_first_not_of(" \t\r\n", end);
    if (next == StringRef::npos || text[next] != ':')
      return Error::success();
    // "a" and "\u0061" are the same key.
    Expected<json::Value> key = json::parse(token);
    if (!key) {
      consumeError(key.takeError());
      return Error::success();
    }
    std::optional<StringRef> name = key->getAsString();
    if (name && !open.back().keys.insert(*name).second)
      return createStringError(where + ": expected each key once, but got " + quoteText(*name) + " twice");
    return Error::success();
  }

  bool quoteNonFinite() {
    if (pos > 0 && (isAlnum(text[pos - 1]) || text[pos - 1] == '-' || text[pos - 1] == '_'))
      return false;
    for (StringRef token : {"NaN", "Infinity", "-Infinity"}) {
      if (!text.substr(pos).starts_with(token))
        continue;
      out += ("\"" + token + "\"").str();
      pos += token.size();
      return true;
    }
    return false;
  }

  StringRef text, where;
  const JsonLimits &limits;
  size_t pos = 0;
  std::string out;
  std::vector<Scope> open;
};

} // namespace

Expected<json::Value> parseJsonText(StringRef text, StringRef where, const JsonLimits &limits) {
  Expected<std::string> scanned = Scanner(text, where, limits).run();
  if (!scanned)
    return scanned.takeError();
  Expected<json::Value> value = json::parse(*scanned);
  if (!value)
    return createStringError(where + ": not valid JSON: " + toString(value.takeError()));
  return value;
}

std::string quoteJson(const json::Value &value) {
  if (const json::Array *array = value.getAsArray(); array && array->size() > 8)
    return "an array of " + std::to_string(array->size());
  if (const json::Object *object = value.getAsObject(); object && object->size() > 4)
    return "an object of " + std::to_string(object->size());
  std::string text;
  raw_string_ostream(text) << value;
  if (text.size() > 48) {
    text.resize(48);
    text = json::fixUTF8(text) + "...";
  }
  return text;
}

std::string quoteText(StringRef text) {
  std::string out = "'";
  for (char c : json::fixUTF8(text.take_front(80))) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += "\\x" + utohexstr(static_cast<unsigned char>(c), /*LowerCase=*/true, 2);
    else
      out += c;
  }
  return out + (text.size() > 80 ? "...'" : "'");
}

} // namespace kvcc
