// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Snapshots: written, and checked before anything is believed.
#include "runtime/Snapshot.h"

#include "mlir/AsmParser/AsmParser.h"
#include "mlir/IR/MLIRContext.h"
#include "passes/TileBuilder.h"
#include "runtime/Diagnostics.h"
#include "runtime/JsonText.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/SHA256.h"
#include "llvm/Support/raw_ostream.h"

#include <cstring>

using namespace llvm;
using namespace kvcc;

static constexpr StringLiteral kMagic = "KVCCSNAP";
static constexpr uint32_t kVersion = 2; // 2: other bits of fragments of three bits
static constexpr size_t kFixedBytes = 16, kDigestBytes = 32, kAlignment = 64;
/// Of a type or an attribute as text. MLIR's parser recurses with brackets and signs, and a snapshot may come from
/// anywhere: what is longer or deeper was not written here.
static constexpr size_t kMaxFormatBytes = 2048, kMaxBrackets = 64, kMaxHeaderBytes = 3 * kMaxFormatBytes;

template <typename T> static std::string printed(T value) {
  std::string text;
  raw_string_ostream stream(text);
  stream << value;
  return text;
}

SnapshotHeader SnapshotHeader::of(kv::CacheType cache, kv::ScheduleAttr schedule, const kv::CacheLayout &layout,
                                  int64_t tokens) {
  // Heads, arithmetic, accumulators and what is asked for early leave no mark in a cache.
  std::string layoutOnly = "#kv.schedule<heads = 1, page = " + std::to_string(schedule.getPage()) +
                           ", compute = f32, key = " + printed(schedule.getKey()) +
                           ", value = " + printed(schedule.getValue()) + ", floats = " + printed(schedule.getFloats()) +
                           ">";
  if (schedule.getPageBytes())
    layoutOnly.insert(layoutOnly.size() - 1, ", page_bytes = " + std::to_string(schedule.getPageBytes()));
  int64_t pages = divideCeil(cache.getWindow().getQuantizedTokens(tokens), schedule.getPage());
  return {printed(cache), layoutOnly, tokens, pages, layout.pageBytes, layout.slotBytes};
}

static std::string toText(const SnapshotHeader &header) {
  json::Object object{{"cache", header.cache}, {"schedule", header.schedule},    {"tokens", header.tokens},
                      {"pages", header.pages}, {"page_bytes", header.pageBytes}, {"slot_bytes", header.slotBytes}};
  return formatv("{0}", json::Value(std::move(object)));
}

static size_t prefixBytes(size_t text) { return alignTo(kFixedBytes + text, kAlignment); }
size_t kvcc::getPrefixBytes(const SnapshotHeader &header) { return prefixBytes(toText(header).size()); }
size_t kvcc::getSnapshotBytes(const SnapshotHeader &header) {
  return getPrefixBytes(header) + header.getPayloadBytes() + kDigestBytes;
}

void kvcc::sealSnapshot(const SnapshotHeader &header, MutableArrayRef<uint8_t> bytes) {
  std::string text = toText(header);
  std::memcpy(bytes.data(), kMagic.data(), kMagic.size());
  support::endian::write32le(bytes.data() + 8, kVersion);
  support::endian::write32le(bytes.data() + 12, uint32_t(text.size()));
  std::memcpy(bytes.data() + kFixedBytes, text.data(), text.size());
  size_t end = kFixedBytes + text.size();
  std::memset(bytes.data() + end, 0, prefixBytes(text.size()) - end);
  auto digest = SHA256::hash(bytes.drop_back(kDigestBytes));
  std::memcpy(bytes.take_back(kDigestBytes).data(), digest.data(), kDigestBytes);
}

Expected<Snapshot> kvcc::openSnapshot(ArrayRef<uint8_t> bytes) {
  if (bytes.size() < kFixedBytes || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()))
    return createStringError(
        "expected a snapshot that begins with " + kMagic + ", but got " +
        (bytes.size() < kFixedBytes ? std::to_string(bytes.size()) + " bytes" : std::string("other bytes")));
  uint32_t version = support::endian::read32le(bytes.data() + 8), length = support::endian::read32le(bytes.data() + 12);
  if (version != kVersion)
    return createStringError("expected a snapshot of version " + std::to_string(kVersion) + ", but got " +
                             std::to_string(version));
  if (bytes.size() < prefixBytes(length) + kDigestBytes)
    return createStringError("expected a whole snapshot, but got its first " + std::to_string(bytes.size()) + " bytes");
  StringRef text(reinterpret_cast<const char *>(bytes.data()) + kFixedBytes, length);
  Snapshot snapshot;
  SnapshotHeader &header = snapshot.header;
  auto damaged = [](const Twine &what) { return createStringError("expected an undamaged snapshot, but got " + what); };
  // The length comes first: it says whether there is a checksum to be looked at.
  if (length > kMaxHeaderBytes)
    return damaged("a header of " + Twine(length) + " bytes");
  auto parsed = parseJsonText(text, "snapshot");
  const json::Object *object = parsed ? parsed->getAsObject() : nullptr;
  if (!parsed)
    consumeError(parsed.takeError());
  if (!object)
    return damaged("a header that is not JSON");
  for (auto [name, target] : {std::pair("cache", &header.cache), std::pair("schedule", &header.schedule)}) {
    auto value = object->getString(name);
    if (!value)
      return damaged(Twine("a header without ") + name);
    if (value->size() > kMaxFormatBytes ||
        size_t(llvm::count_if(*value, [](char c) { return StringRef("<[{(").contains(c); })) > kMaxBrackets)
      return damaged(Twine("a header whose ") + name + " is not a format");
    *target = value->str();
  }
  for (auto [name, target, most] : {std::tuple("tokens", &header.tokens, int64_t(INT32_MAX)),
                                    {"pages", &header.pages, int64_t(INT32_MAX)},
                                    {"page_bytes", &header.pageBytes, int64_t(1) << 40},
                                    {"slot_bytes", &header.slotBytes, int64_t(1) << 40}}) {
    auto value = object->getInteger(name);
    if (!value || *value < 0 || *value > most)
      return damaged(Twine("a header without ") + name + " from 0 to " + Twine(most));
    *target = *value;
  }
  int64_t pageBytes = 0, payload = 0;
  if (MulOverflow(header.pages, header.pageBytes, pageBytes) || AddOverflow(pageBytes, header.slotBytes, payload) ||
      size_t(payload) != bytes.size() - prefixBytes(length) - kDigestBytes)
    return damaged(std::to_string(bytes.size()) + " bytes for " + std::to_string(header.pages) + " pages of " +
                   std::to_string(header.pageBytes) + " and a slot of " + std::to_string(header.slotBytes));
  auto digest = SHA256::hash(bytes.drop_back(kDigestBytes));
  if (std::memcmp(digest.data(), bytes.take_back(kDigestBytes).data(), kDigestBytes))
    return damaged("one whose checksum is another");
  snapshot.pages = bytes.slice(prefixBytes(length), size_t(pageBytes));
  snapshot.slot = bytes.slice(prefixBytes(length) + size_t(pageBytes), size_t(header.slotBytes));
  return snapshot;
}

Expected<std::pair<kv::CacheType, kv::ScheduleAttr>> kvcc::parseFormat(const SnapshotHeader &header,
                                                                       mlir::MLIRContext &context) {
  Diagnostics diagnostics(context);
  auto cache = dyn_cast_or_null<kv::CacheType>(mlir::parseType(header.cache, &context));
  auto schedule = dyn_cast_or_null<kv::ScheduleAttr>(mlir::parseAttribute(header.schedule, &context));
  // Packings say where readers look: they have to be those of blocks.
  auto emitError = [&] { return mlir::emitError(mlir::UnknownLoc::get(&context)); };
  if (!cache || !schedule || failed(kv::chooseBlockTypes(emitError, cache, schedule)))
    return createStringError("expected a snapshot of a format that this version knows, but got " + header.cache +
                             " with " + header.schedule +
                             (diagnostics.getText().empty() ? "" : ": " + diagnostics.getText()));
  SnapshotHeader expected = SnapshotHeader::of(cache, schedule, kv::CacheLayout(cache, schedule), header.tokens);
  if (expected.pages != header.pages || expected.pageBytes != header.pageBytes ||
      expected.slotBytes != header.slotBytes)
    return createStringError("expected a snapshot with the layout of this version, but got pages of " +
                             std::to_string(header.pageBytes) + " bytes");
  return std::pair(cache, schedule);
}
