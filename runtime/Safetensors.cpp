// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The reader and the writer of safetensors files.

#include "runtime/Safetensors.h"

#include "runtime/JsonText.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/Process.h"

#include <cstring>

using namespace llvm;

namespace kvcc {

/// The limit of the format's reference implementation.
static constexpr uint64_t maxHeaderBytes = 100'000'000;

static const struct {
  TensorType type;
  StringRef name;
  int64_t bytes;
} tensorTypes[] = {
    {TensorType::I64, "I64", 8},         {TensorType::U64, "U64", 8},         {TensorType::F64, "F64", 8},
    {TensorType::C64, "C64", 8},         {TensorType::I32, "I32", 4},         {TensorType::U32, "U32", 4},
    {TensorType::F32, "F32", 4},         {TensorType::I16, "I16", 2},         {TensorType::U16, "U16", 2},
    {TensorType::F16, "F16", 2},         {TensorType::BF16, "BF16", 2},       {TensorType::I8, "I8", 1},
    {TensorType::U8, "U8", 1},           {TensorType::BOOL, "BOOL", 1},       {TensorType::F8_E4M3, "F8_E4M3", 1},
    {TensorType::F8_E5M2, "F8_E5M2", 1}, {TensorType::F8_E8M0, "F8_E8M0", 1},
};

StringRef stringify(TensorType type) { return tensorTypes[size_t(type)].name; }
int64_t bytesOf(TensorType type) { return tensorTypes[size_t(type)].bytes; }

std::optional<TensorType> parseTensorType(StringRef name) {
  for (const auto &row : tensorTypes)
    if (row.name == name)
      return row.type;
  return std::nullopt;
}

/// Bytes of shape x dtype; none when they do not fit 63 bits, also where a later 0 would hide the
/// overflow.
static std::optional<int64_t> byteSize(ArrayRef<int64_t> shape, TensorType dtype) {
  int64_t bytes = bytesOf(dtype);
  for (int64_t extent : shape)
    if (MulOverflow(bytes, extent, bytes))
      return std::nullopt;
  return bytes;
}

static std::string formatShape(ArrayRef<int64_t> shape) {
  std::string text = "[";
  for (auto [i, extent] : llvm::enumerate(shape.take_front(8)))
    text += (i ? ", " : "") + std::to_string(extent);
  return text + (shape.size() > 8 ? ", ...]" : "]");
}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

static Error tensorError(StringRef file, StringRef tensor, const Twine &message) {
  return createStringError(file + ": tensor " + quoteText(tensor) + ": " + message);
}

/// Reads one entry of the header; `data` is everything behind the header.
static Expected<TensorView> readEntry(StringRef file, StringRef name, const json::Value &value,
                                      ArrayRef<uint8_t> data) {
  auto fail = [&](const Twine &message) { return tensorError(file, name, message); };
  const json::Object *entry = value.getAsObject();
  if (!entry)
    return fail("expected an object, but got " + quoteJson(value));
  auto get = [&](StringRef key) {
    static const json::Value none(nullptr);
    const json::Value *found = entry->get(key);
    return found ? found : &none;
  };

  TensorView view;
  view.name = name.str();
  const json::Value *dtype = get("dtype");
  std::optional<TensorType> type = parseTensorType(dtype->getAsString().value_or(""));
  if (!type) {
    std::vector<StringRef> known;
    for (const auto &row : tensorTypes)
      known.push_back(row.name);
    return fail("expected dtype to be one of " + llvm::join(known, ", ") + ", but got " + quoteJson(*dtype));
  }
  view.dtype = *type;

  const json::Value *shape = get("shape");
  if (!shape->getAsArray())
    return fail("expected shape to be an array, but got " + quoteJson(*shape));
  for (const json::Value &extent : *shape->getAsArray()) {
    std::optional<int64_t> number = extent.getAsInteger();
    if (!number || *number < 0)
      return fail("expected shape to hold integers from 0, but got " + quoteJson(extent));
    view.shape.push_back(*number);
  }
  std::optional<int64_t> bytes = byteSize(view.shape, *type);
  if (!bytes)
    return fail("expected shape x dtype to fit 63 bits, but got " + formatShape(view.shape));

  const json::Value *offsets = get("data_offsets");
  const json::Array *pair = offsets->getAsArray();
  std::optional<int64_t> begin, end;
  if (pair && pair->size() == 2) {
    begin = (*pair)[0].getAsInteger();
    end = (*pair)[1].getAsInteger();
  }
  if (!begin || !end || *begin < 0 || *end < *begin || uint64_t(*end) > data.size())
    return fail("expected data_offsets to be two rising integers from 0 to " + Twine(data.size()) +
                " (the file's data), but got " + quoteJson(*offsets));
  if (*end - *begin != *bytes)
    return fail("expected " + Twine(*bytes) + " bytes of data for shape " + formatShape(view.shape) + " of " +
                stringify(*type) + ", but got " + Twine(*end - *begin));
  view.data = data.slice(*begin, *bytes);
  return view;
}

/// The tensors must cover the data once: an overlap would let one name change another, a hole hide
/// something.
static Error checkCover(StringRef file, ArrayRef<TensorView> views, ArrayRef<uint8_t> data) {
  std::vector<const TensorView *> order;
  for (const TensorView &view : views)
    order.push_back(&view);
  // Ends break ties, so that empty tensors come before the one that begins where they stand.
  llvm::sort(order, [](const TensorView *a, const TensorView *b) {
    return std::pair(a->data.begin(), a->data.end()) < std::pair(b->data.begin(), b->data.end());
  });
  const uint8_t *at = data.begin();
  for (const TensorView *view : order) {
    if (view->data.begin() != at)
      return tensorError(file, view->name,
                         "expected data that begins at byte " + Twine(at - data.begin()) +
                             ", where the one before ends, but got " + Twine(view->data.begin() - data.begin()) +
                             (view->data.begin() < at ? " (an overlap)" : " (a hole)"));
    at = view->data.end();
  }
  if (at != data.end())
    return createStringError(file + ": expected tensors that cover " + Twine(data.size()) + " bytes of data, but got " +
                             Twine(at - data.begin()));
  return Error::success();
}

Expected<SafetensorsFile> SafetensorsFile::read(std::unique_ptr<MemoryBuffer> buffer, StringRef name) {
  StringRef bytes = buffer->getBuffer();
  if (bytes.size() < 8)
    return createStringError(name + ": expected a safetensors file of at least 8 bytes, but got " +
                             Twine(bytes.size()));
  uint64_t headerBytes = support::endian::read64le(bytes.data());
  if (headerBytes > maxHeaderBytes)
    return createStringError(name + ": expected a header of at most " + Twine(maxHeaderBytes) + " bytes, but got " +
                             Twine(headerBytes) + " (not a safetensors file?)");
  if (headerBytes > bytes.size() - 8)
    return createStringError(name + ": expected a header of at most " + Twine(bytes.size() - 8) +
                             " bytes (the rest of the file), but got " + Twine(headerBytes));
  StringRef text = bytes.substr(8, headerBytes);
  ArrayRef<uint8_t> data = arrayRefFromStringRef(bytes.substr(8 + headerBytes));

  JsonLimits limits;
  limits.maxDepth = 8;
  limits.refuseDuplicateKeys = true;
  Expected<json::Value> header = parseJsonText(text, (name + ": header").str(), limits);
  if (!header)
    return header.takeError();
  const json::Object *entries = header->getAsObject();
  if (!entries)
    return createStringError(name + ": header: expected a JSON object, but got " + quoteJson(*header));

  SafetensorsFile result;
  result.file = name.str();
  for (const auto &[key, value] : *entries) {
    if (key.str() != "__metadata__") {
      Expected<TensorView> view = readEntry(name, key, value, data);
      if (!view)
        return view.takeError();
      result.views.push_back(std::move(*view));
      continue;
    }
    const json::Object *pairs = value.getAsObject();
    if (!pairs)
      return createStringError(name + ": header: expected __metadata__ to be an object, but got " + quoteJson(value));
    for (const auto &[word, meaning] : *pairs) {
      std::optional<StringRef> string = meaning.getAsString();
      if (!string)
        return createStringError(name + ": header: expected __metadata__ to hold strings, but got " + quoteText(word) +
                                 ": " + quoteJson(meaning));
      result.meta[word.str()] = string->str();
    }
  }
  // A json::Object iterates in the order of its hash table.
  llvm::sort(result.views, [](const TensorView &a, const TensorView &b) { return a.name < b.name; });
  if (Error error = checkCover(name, result.views, data))
    return std::move(error);
  result.buffer = std::move(buffer);
  return result;
}

Expected<SafetensorsFile> SafetensorsFile::open(StringRef path) {
  sys::fs::file_status status;
  if (std::error_code error = sys::fs::status(path, status))
    return createStringError(path + ": cannot be read: " + error.message());
  if (status.type() != sys::fs::file_type::regular_file)
    return createStringError(path + ": expected a regular file");
  ErrorOr<std::unique_ptr<MemoryBuffer>> buffer =
      MemoryBuffer::getFile(path, /*IsText=*/false, /*RequiresNullTerminator=*/false);
  if (!buffer)
    return createStringError(path + ": cannot be read: " + buffer.getError().message());
  return read(std::move(*buffer), path);
}

const TensorView *SafetensorsFile::find(StringRef name) const {
  auto it = llvm::lower_bound(views, name, [](const TensorView &view, StringRef n) { return view.name < n; });
  return it != views.end() && it->name == name ? &*it : nullptr;
}

Expected<const TensorView *> SafetensorsFile::get(StringRef name) const {
  if (const TensorView *view = find(name))
    return view;
  std::vector<std::string> present;
  for (const TensorView &view : tensors().take_front(16))
    present.push_back(quoteText(view.name));
  return createStringError(file + ": expected a tensor " + quoteText(name) + ", but got " +
                           (present.empty() ? "none" : llvm::join(present, ", ")) + (views.size() > 16 ? ", ..." : ""));
}

std::vector<StringRef> SafetensorsFile::names() const {
  std::vector<StringRef> result;
  for (const TensorView &view : views)
    result.push_back(view.name);
  return result;
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

static std::string buildHeader(ArrayRef<const TensorToWrite *> order,
                               const std::map<std::string, std::string> &metadata) {
  std::string header;
  raw_string_ostream os(header);
  json::OStream writer(os);
  writer.object([&] {
    if (!metadata.empty())
      writer.attributeObject("__metadata__", [&] {
        for (const auto &[key, value] : metadata)
          writer.attribute(key, value);
      });
    int64_t at = 0;
    for (const TensorToWrite *tensor : order)
      writer.attributeObject(tensor->name, [&] {
        writer.attribute("dtype", stringify(tensor->dtype));
        writer.attributeArray("shape", [&] {
          for (int64_t extent : tensor->shape)
            writer.value(extent);
        });
        writer.attributeArray("data_offsets", [&] {
          writer.value(at);
          writer.value(at += tensor->data.size());
        });
      });
  });
  header.append(offsetToAlignment(header.size(), Align(8)), ' ');
  return header;
}

static Error checkWritable(StringRef path, ArrayRef<const TensorToWrite *> order,
                           const std::map<std::string, std::string> &metadata) {
  std::vector<StringRef> names;
  for (const TensorToWrite *tensor : order) {
    names.push_back(tensor->name);
    if (tensor->name == "__metadata__" || !json::isUTF8(tensor->name))
      return tensorError(path, tensor->name, "expected a UTF-8 name other than __metadata__");
    bool negative = llvm::any_of(tensor->shape, [](int64_t extent) { return extent < 0; });
    std::optional<int64_t> bytes = byteSize(tensor->shape, tensor->dtype);
    if (negative || !bytes || uint64_t(*bytes) != tensor->data.size())
      return tensorError(path, tensor->name,
                         "expected data of shape " + formatShape(tensor->shape) + " of " + stringify(tensor->dtype) +
                             ", but got " + Twine(tensor->data.size()) + " bytes");
  }
  llvm::sort(names);
  if (auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    return tensorError(path, *twice, "expected each name once, but got it twice");
  for (const auto &[key, value] : metadata)
    if (!json::isUTF8(key) || !json::isUTF8(value))
      return createStringError(path + ": expected metadata in UTF-8, but got " + quoteText(key) + ": " +
                               quoteText(value));
  return Error::success();
}

/// A new file beside `path`. Not sys::fs::TempFile: it installs signal handlers, which a library
/// must not.
static Expected<int> createBeside(StringRef path, std::string &temporary) {
  for (int attempt = 0;; ++attempt) {
    temporary = (path + ".tmp-" + Twine(sys::Process::getProcessId()) + "-" + Twine(attempt)).str();
    int fd;
    std::error_code error = sys::fs::openFileForWrite(temporary, fd, sys::fs::CD_CreateNew);
    if (!error)
      return fd;
    if (error != std::errc::file_exists || attempt == 1000)
      return createStringError(path + ": cannot be written: " + error.message());
  }
}

Error writeSafetensors(StringRef path, ArrayRef<TensorToWrite> tensors,
                       const std::map<std::string, std::string> &metadata) {
  std::vector<const TensorToWrite *> order;
  for (const TensorToWrite &tensor : tensors)
    order.push_back(&tensor);
  llvm::sort(order, [](const TensorToWrite *a, const TensorToWrite *b) {
    return std::tuple(-bytesOf(a->dtype), StringRef(a->name)) < std::tuple(-bytesOf(b->dtype), StringRef(b->name));
  });
  if (Error error = checkWritable(path, order, metadata))
    return error;
  // A rename would replace a device such as /dev/null.
  if (sys::fs::exists(path) && !sys::fs::is_regular_file(path))
    return createStringError(path + ": cannot be written: expected a regular file");

  std::string temporary;
  Expected<int> fd = createBeside(path, temporary);
  if (!fd)
    return fd.takeError();
  std::string header = buildHeader(order, metadata);
  std::error_code error;
  {
    raw_fd_ostream os(*fd, /*shouldClose=*/true);
    char size[8];
    support::endian::write64le(size, header.size());
    os << StringRef(size, 8) << header;
    for (const TensorToWrite *tensor : order)
      os << toStringRef(tensor->data);
    os.close();
    error = os.error();
    os.clear_error();
  }
  if (!error)
    error = sys::fs::rename(temporary, path);
  if (!error)
    return Error::success();
  sys::fs::remove(temporary);
  return createStringError(path + ": cannot be written: " + error.message());
}

//===----------------------------------------------------------------------===//
// Conversion
//===----------------------------------------------------------------------===//

static float halfToFloat(uint16_t half) {
  uint32_t sign = uint32_t(half & 0x8000) << 16, magnitude = half & 0x7fff;
  if (magnitude >= 0x7c00) // Inf and NaN keep their mantissa.
    return bit_cast<float>(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  if (magnitude >= 0x0400) // Normal: rebias the exponent from 15 to 127.
    return bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  return bit_cast<float>(sign | bit_cast<uint32_t>(float(magnitude) * 0x1p-24f));
}

Expected<std::vector<float>> toFloat32(const TensorView &view) {
  const uint8_t *bytes = view.data.data();
  std::vector<float> out(view.data.size() / bytesOf(view.dtype));
  switch (view.dtype) {
  case TensorType::F16:
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = halfToFloat(support::endian::read16le(bytes + 2 * i));
    return out;
  case TensorType::BF16:
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = bit_cast<float>(uint32_t(support::endian::read16le(bytes + 2 * i)) << 16);
    return out;
  case TensorType::F32:
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = bit_cast<float>(support::endian::read32le(bytes + 4 * i));
    return out;
  default:
    return createStringError("tensor " + quoteText(view.name) + ": expected dtype F16, BF16 or F32, but got " +
                             stringify(view.dtype));
  }
}

Expected<std::vector<int32_t>> toInt32(const TensorView &view) {
  if (view.dtype != TensorType::I32)
    return createStringError("tensor " + quoteText(view.name) + ": expected dtype I32, but got " +
                             stringify(view.dtype));
  std::vector<int32_t> out(view.data.size() / 4);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = support::endian::read32le(view.data.data() + 4 * i);
  return out;
}

} // namespace kvcc
