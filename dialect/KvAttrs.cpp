// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Attributes of the kv dialect: assembly, verification and the facts of a format.
#include "dialect/Kv.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"

#include <cmath>

using namespace mlir;
using namespace kvcc::kv;

/// Parses a keyword of an enumeration, whose values are 0, 1, ...
template <typename Enum> static ParseResult parseEnum(AsmParser &parser, Enum &value) {
  SMLoc loc = parser.getCurrentLocation();
  StringRef name;
  if (parser.parseKeyword(&name))
    return failure();
  if (std::optional<Enum> parsed = symbolizeEnum<Enum>(name)) {
    value = *parsed;
    return success();
  }
  SmallVector<StringRef> names;
  for (uint32_t i = 0; !stringifyEnum(Enum(i)).empty(); ++i)
    names.push_back(stringifyEnum(Enum(i)));
  return parser.emitError(loc) << "expected " << llvm::join(ArrayRef(names).drop_back(), ", ")
                               << (names.size() > 1 ? " or " : "") << names.back() << ", but got " << name;
}

template <typename Enum> static void printEnum(AsmPrinter &printer, Enum value) { printer << stringifyEnum(value); }

#define GET_ATTRDEF_CLASSES
#include "dialect/KvAttrs.cpp.inc"

void KvDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialect/KvAttrs.cpp.inc"
      >();
}

/// Parses `AxB` as two integers.
static ParseResult parseExtents(AsmParser &parser, int64_t &first, int64_t &second) {
  SMLoc loc = parser.getCurrentLocation();
  SmallVector<int64_t> extents;
  if (parser.parseDimensionList(extents, /*allowDynamic=*/false, /*withTrailingX=*/false))
    return failure();
  if (extents.size() != 2)
    return parser.emitError(loc) << "expected two extents such as 1x32, but got " << extents.size();
  first = extents[0];
  second = extents[1];
  return success();
}

//===-- #kv.quant ---------------------------------------------------------------------------===//

bool kvcc::kv::isCodeElement(Type element) {
  if (auto integer = dyn_cast<IntegerType>(element))
    return integer.isSignless() && integer.getWidth() >= 2 && integer.getWidth() <= 8;
  return isa<Float8E4M3FNType, Float4E2M1FNType>(element);
}

bool kvcc::kv::isStoredElement(Type element) {
  return isCodeElement(element) || element.isF16() || element.isBF16() || element.isF32();
}

QuantAttr QuantAttr::getPlain(Type element) {
  MLIRContext *context = element.getContext();
  return get(context, element, Map::None, 0, 0, NoneType::get(context), ArrayAttr::get(context, {}), 0, false);
}

bool QuantAttr::isQuantized() const { return isCodeElement(getElement()); }

unsigned QuantAttr::getBits() const { return getElement().getIntOrFloatBitWidth(); }

DiagAttr QuantAttr::getDiag() const {
  auto diag = getTransform<DiagAttr>();
  return diag && !diag.getWeights() ? diag : DiagAttr();
}

double QuantAttr::getBitsPerElement(int64_t headDim) const {
  double bits = getBits();
  if (isQuantized())
    bits += double(getScale().getIntOrFloatBitWidth() * (hasZeros() ? 2 : 1)) / double(getGroupSize());
  if (auto norm = getTransform<TokenNormAttr>())
    bits += double(norm.getType().getIntOrFloatBitWidth()) / double(headDim);
  return bits;
}

static LogicalResult verifyGroup(function_ref<InFlightDiagnostic()> emitError, int64_t tokens, int64_t channels) {
  int64_t extent = std::max(tokens, channels);
  if (std::min(tokens, channels) != 1 || extent < 16 || extent > 256 || (extent != 16 && extent % 32))
    return emitError() << "expected group 1xN or Nx1 with N = 16 or a multiple of 32 up to 256, but got " << tokens
                       << "x" << channels;
  return success();
}

Attribute QuantAttr::parse(AsmParser &parser, Type) {
  Type element, scale;
  Map map = Map::None;
  int64_t tokens = 0, channels = 0;
  ArrayAttr transforms = ArrayAttr::get(parser.getContext(), {});
  int64_t search = 0;
  bool feedback = false;
  SmallVector<StringRef> keys;
  SMLoc start = parser.getCurrentLocation();
  if (parser.parseLess() || parser.parseType(element))
    return {};
  while (succeeded(parser.parseOptionalComma())) {
    SMLoc loc = parser.getCurrentLocation();
    StringRef key;
    if (parser.parseKeyword(&key) || (key != "feedback" && parser.parseEqual()))
      return {};
    if (llvm::is_contained(keys, key)) {
      parser.emitError(loc) << "expected " << key << " at most once, but got it again";
      return {};
    }
    keys.push_back(key);
    if (key == "map") {
      SMLoc mapLoc = parser.getCurrentLocation();
      StringRef name;
      if (parser.parseKeyword(&name))
        return {};
      std::optional<Map> parsed = symbolizeMap(name);
      if (!parsed || *parsed == Map::None) {
        parser.emitError(mapLoc) << "expected map sym, sym_full, sym_signed, asym or hybrid, but got " << name;
        return {};
      }
      map = *parsed;
    } else if (key == "group") {
      // Here too, because 0x0 is what stands for no group.
      if (parseExtents(parser, tokens, channels) ||
          failed(verifyGroup([&] { return parser.emitError(loc); }, tokens, channels)))
        return {};
    } else if (key == "scale") {
      if (parser.parseType(scale))
        return {};
    } else if (key == "transforms") {
      if (parser.parseAttribute(transforms))
        return {};
    } else if (key == "search") {
      if (parser.parseInteger(search))
        return {};
    } else if (key == "feedback") {
      feedback = true;
    } else {
      parser.emitError(loc) << "expected map, group, scale, transforms, search or feedback, but got " << key;
      return {};
    }
  }
  if (parser.parseGreater())
    return {};
  if (!scale)
    scale = NoneType::get(parser.getContext());
  return parser.getChecked<QuantAttr>(start, parser.getContext(), element, map, tokens, channels, scale, transforms,
                                      search, feedback);
}

void QuantAttr::print(AsmPrinter &printer) const {
  printer << "<" << getElement();
  if (getMap() != Map::None)
    printer << ", map = " << stringifyMap(getMap());
  if (getGroupTokens() || getGroupChannels())
    printer << ", group = " << getGroupTokens() << "x" << getGroupChannels();
  if (!isa<NoneType>(getScale()))
    printer << ", scale = " << getScale();
  if (!getTransforms().empty())
    printer << ", transforms = " << getTransforms();
  if (getSearch())
    printer << ", search = " << getSearch();
  if (getFeedback())
    printer << ", feedback";
  printer << ">";
}

LogicalResult QuantAttr::verify(function_ref<InFlightDiagnostic()> emitError, Type element, Map map, int64_t tokens,
                                int64_t channels, Type scale, ArrayAttr transforms, int64_t search, bool feedback) {
  // quant_c1
  if (!isStoredElement(element))
    return emitError() << "expected element i2 to i8, f8E4M3FN, f4E2M1FN, f16, bf16 or f32, but got " << element;
  bool codes = isCodeElement(element);
  bool hasGroup = tokens != 0 || channels != 0, hasScale = !isa<NoneType>(scale);
  // quant_c2
  if (codes && (map == Map::None || !hasGroup || !hasScale))
    return emitError() << "expected map, group and scale with element " << element << ", but got no "
                       << (map == Map::None ? "map"
                           : !hasGroup      ? "group"
                                            : "scale");
  // quant_c3
  if (!codes && (map != Map::None || hasGroup || hasScale || search || feedback))
    return emitError() << "expected element " << element << " without codes, but got a "
                       << (map != Map::None ? "map"
                           : hasGroup       ? "group"
                           : hasScale       ? "scale"
                           : search         ? "search"
                                            : "feedback")
                       << " with it";
  // quant_c6
  int order = -1;
  for (Attribute transform : transforms) {
    int kind = isa<DiagAttr>(transform)        ? 0
               : isa<CenterAttr>(transform)    ? 1
               : isa<HadamardAttr>(transform)  ? 2
               : isa<TokenNormAttr>(transform) ? 3
                                               : -1;
    if (kind < 0)
      return emitError() << "expected transform #kv.diag, #kv.center, #kv.hadamard or #kv.token_norm, but got "
                         << transform;
    if (kind <= order)
      return emitError() << "expected transforms in the order diag, center, hadamard, token_norm, each at most once, "
                            "but got "
                         << transforms;
    order = kind;
  }
  if (!codes)
    return success();
  // quant_c4
  if (failed(verifyGroup(emitError, tokens, channels)))
    return failure();
  // quant_c5
  bool zeros = map == Map::Asym || map == Map::Hybrid, powers = map == Map::Sym || map == Map::SymFull;
  if (!scale.isF16() && !scale.isBF16() && !(isa<Float8E4M3FNType>(scale) && !zeros) &&
      !(isa<Float8E8M0FNUType>(scale) && powers))
    return emitError() << "expected scale f16"
                       << (zeros    ? " or bf16"
                           : powers ? ", bf16, f8E4M3FN or f8E8M0FNU"
                                    : ", bf16 or f8E4M3FN")
                       << " with map " << stringifyMap(map) << ", but got " << scale;
  // quant_c7
  if (!isa<IntegerType>(element) && map != Map::Sym)
    return emitError() << "expected map sym with element " << element << ", but got " << stringifyMap(map);
  // quant_c8
  if (search < 0 || search > 16)
    return emitError() << "expected search from 0 to 16, but got " << search;
  return success();
}

//===-- transforms --------------------------------------------------------------------------===//

Attribute DiagAttr::parse(AsmParser &parser, Type) {
  SMLoc start = parser.getCurrentLocation();
  DiagStat stat;
  double strength = 1;
  bool tied = false, weights = false;
  SmallVector<StringRef> keys;
  if (parser.parseLess() || parseEnum(parser, stat))
    return {};
  while (succeeded(parser.parseOptionalComma())) {
    SMLoc loc = parser.getCurrentLocation();
    StringRef key;
    if (parser.parseKeyword(&key))
      return {};
    if (llvm::is_contained(keys, key)) {
      parser.emitError(loc) << "expected " << key << " at most once, but got it again";
      return {};
    }
    keys.push_back(key);
    if (key == "strength") {
      if (parser.parseEqual() || parser.parseFloat(strength))
        return {};
    } else if (key == "tied") {
      tied = true;
    } else if (key == "weights") {
      weights = true;
    } else {
      parser.emitError(loc) << "expected strength, tied or weights, but got " << key;
      return {};
    }
  }
  if (parser.parseGreater())
    return {};
  return parser.getChecked<DiagAttr>(start, parser.getContext(), stat, llvm::APFloat(strength), tied, weights);
}

/// The fewest digits that are parsed as the same number.
static std::string printShortest(const llvm::APFloat &number) {
  for (unsigned digits = 1;; ++digits) {
    SmallString<32> text;
    number.toString(text, digits, /*FormatMaxPadding=*/3, /*TruncateZero=*/true);
    if (llvm::APFloat(number.getSemantics(), text) == number)
      return text.str().str();
  }
}

void DiagAttr::print(AsmPrinter &printer) const {
  printer << "<" << stringifyDiagStat(getStat());
  if (getStrength().convertToDouble() != 1)
    printer << ", strength = " << printShortest(getStrength());
  if (getTied())
    printer << ", tied";
  if (getWeights())
    printer << ", weights";
  printer << ">";
}

LogicalResult DiagAttr::verify(function_ref<InFlightDiagnostic()> emitError, DiagStat stat, llvm::APFloat strength,
                               bool, bool weights) {
  // diag_c1
  double power = strength.convertToDouble();
  if (!(power > 0 && power <= 1) || (power != 1 && stat != DiagStat::Rms))
    return emitError() << "expected strength over 0 and at most 1, and 1 with " << stringifyDiagStat(stat)
                       << ", but got " << power;
  // diag_c2
  if (weights && stat != DiagStat::Given)
    return emitError() << "expected given factors with weights, but got " << stringifyDiagStat(stat);
  return success();
}

LogicalResult HadamardAttr::verify(function_ref<InFlightDiagnostic()> emitError, int64_t size) {
  // hadamard_c1
  if (size < 16 || size > 256 || !llvm::isPowerOf2_64(size))
    return emitError() << "expected hadamard size a power of two from 16 to 256, but got " << size;
  return success();
}

LogicalResult TokenNormAttr::verify(function_ref<InFlightDiagnostic()> emitError, Type type) {
  // token_norm_c1
  if (!type.isF16() && !isa<Float8E8M0FNUType>(type))
    return emitError() << "expected token_norm f16 or f8E8M0FNU, but got " << type;
  return success();
}

//===-- selection ---------------------------------------------------------------------------===//

Attribute MeasuredAttr::parse(AsmParser &parser, Type) {
  SMLoc start = parser.getCurrentLocation();
  Role role;
  QuantAttr quant;
  double damage;
  if (parser.parseLess() || parseEnum(parser, role) || parser.parseComma() ||
      parser.parseCustomAttributeWithFallback(quant) || parser.parseComma() || parser.parseKeyword("damage") ||
      parser.parseEqual() || parser.parseFloat(damage) || parser.parseGreater())
    return {};
  return parser.getChecked<MeasuredAttr>(start, parser.getContext(), role, quant, llvm::APFloat(damage));
}

void MeasuredAttr::print(AsmPrinter &printer) const {
  printer << "<" << stringifyRole(getRole()) << ", ";
  printer.printStrippedAttrOrType(getQuant());
  printer << ", damage = " << llvm::formatv("{0:e6}", getDamage().convertToDouble()).str() << ">";
}

LogicalResult MeasuredAttr::verify(function_ref<InFlightDiagnostic()> emitError, Role, QuantAttr,
                                   llvm::APFloat damage) {
  // measured_c1
  if (!damage.isFinite() || damage.isNegative())
    return emitError() << "expected damage that is not negative, but got " << damage.convertToDouble();
  return success();
}

Attribute ObjectiveAttr::parse(AsmParser &parser, Type) {
  SMLoc start = parser.getCurrentLocation();
  double budget = 0, maxKl = 0;
  int64_t memory = 0, context = 32768, batch = 1, specs = 8;
  Prefer prefer = Prefer::Quality;
  if (parser.parseLess())
    return {};
  bool first = true;
  while (failed(parser.parseOptionalGreater())) {
    SMLoc loc = parser.getCurrentLocation();
    StringRef key;
    if ((!first && parser.parseComma()) || parser.parseKeyword(&key) || parser.parseEqual())
      return {};
    first = false;
    // Numbers may be written without a fraction.
    auto parseNumber = [&](double &value) -> ParseResult {
      int64_t integer;
      OptionalParseResult whole = parser.parseOptionalInteger(integer);
      if (!whole.has_value())
        return parser.parseFloat(value);
      value = double(integer);
      return *whole;
    };
    ParseResult parsed =
        key == "budget"    ? parseNumber(budget)
        : key == "max_kl"  ? parseNumber(maxKl)
        : key == "memory"  ? parser.parseInteger(memory)
        : key == "context" ? parser.parseInteger(context)
        : key == "batch"   ? parser.parseInteger(batch)
        : key == "specs"   ? parser.parseInteger(specs)
        : key == "prefer"
            ? parseEnum(parser, prefer)
            : ParseResult(parser.emitError(loc) << "expected budget, memory, max_kl, context, batch, prefer or "
                                                   "specs, but got "
                                                << key);
    if (parsed)
      return {};
  }
  return parser.getChecked<ObjectiveAttr>(start, parser.getContext(), llvm::APFloat(budget), memory,
                                          llvm::APFloat(maxKl), context, batch, prefer, specs);
}

void ObjectiveAttr::print(AsmPrinter &printer) const {
  printer << "<";
  if (!getBudget().isZero())
    printer << "budget = " << printShortest(getBudget()) << ", ";
  if (getMemory())
    printer << "memory = " << getMemory() << ", ";
  if (!getMaxKl().isZero())
    printer << "max_kl = " << printShortest(getMaxKl()) << ", ";
  printer << "context = " << getTokens() << ", batch = " << getBatch() << ", prefer = " << stringifyPrefer(getPrefer())
          << ", specs = " << getSpecs() << ">";
}

LogicalResult ObjectiveAttr::verify(function_ref<InFlightDiagnostic()> emitError, llvm::APFloat budget, int64_t memory,
                                    llvm::APFloat maxKl, int64_t context, int64_t batch, Prefer, int64_t specs) {
  // objective_c1
  for (auto [name, value] : {std::pair("budget", budget.convertToDouble()),
                             std::pair("max_kl", maxKl.convertToDouble()), std::pair("memory", double(memory))})
    if (!(value >= 0) || std::isinf(value)) // an infinity has no text that could be read back
      return emitError() << "expected " << name << " that is finite and not negative, but got " << value;
  // objective_c2
  for (auto [name, value, limit] :
       {std::tuple("context", context, int64_t(INT32_MAX)), std::tuple("batch", batch, int64_t(65536)),
        std::tuple("specs", specs, int64_t(64))})
    if (value < 1 || value > limit)
      return emitError() << "expected " << name << " from 1 to " << limit << ", but got " << value;
  return success();
}

//===-- #kv.window --------------------------------------------------------------------------===//

int64_t WindowAttr::getQuantizedTokens(int64_t tokens) const {
  int64_t outside = tokens - getSink() - getRecent();
  return outside < 0 ? 0 : outside / getFlush() * getFlush();
}

LogicalResult WindowAttr::verify(function_ref<InFlightDiagnostic()> emitError, int64_t sink, int64_t recent,
                                 int64_t flush) {
  // window_c1
  for (auto [name, value] : {std::pair("sink", sink), std::pair("recent", recent)})
    if (value < 0 || value > 4096)
      return emitError() << "expected " << name << " from 0 to 4096, but got " << value;
  // window_c2
  if (flush != 1 && (flush <= 0 || flush % kBlockTokens || flush > 4096))
    return emitError() << "expected flush 1 or a multiple of " << kBlockTokens << " from " << kBlockTokens
                       << " to 4096, but got " << flush;
  // window_c3
  if (flush == 1 && recent)
    return emitError() << "expected recent 0 with flush = 1, but got " << recent;
  if (recent % flush)
    return emitError() << "expected recent a multiple of flush = " << flush << ", but got " << recent;
  return success();
}

//===-- #kv.packing -------------------------------------------------------------------------===//

Attribute PackingAttr::parse(AsmParser &parser, Type) {
  SMLoc start = parser.getCurrentLocation();
  int64_t freeTile = 0, reduceTile = 0, lanes = 1;
  if (parser.parseLess())
    return {};
  StringRef name;
  if (succeeded(parser.parseOptionalKeyword(&name))) {
    std::optional<Order> order = symbolizeOrder(name);
    if (!order || *order == Order::Tiles) {
      parser.emitError(start) << "expected tile extents, fragments, fragment_rows or fragment_columns, but got "
                              << name;
      return {};
    }
    return parser.parseGreater() ? PackingAttr() : PackingAttr::get(parser.getContext(), *order);
  }
  if (parseExtents(parser, freeTile, reduceTile))
    return {};
  if (succeeded(parser.parseOptionalComma()) &&
      (parser.parseKeyword("lanes") || parser.parseEqual() || parser.parseInteger(lanes)))
    return {};
  if (parser.parseGreater())
    return {};
  return parser.getChecked<PackingAttr>(start, parser.getContext(), freeTile, reduceTile, lanes, Order::Tiles);
}

void PackingAttr::print(AsmPrinter &printer) const {
  if (getOrder() != Order::Tiles) {
    printer << "<" << stringifyOrder(getOrder()) << ">";
    return;
  }
  printer << "<" << getFreeTile() << "x" << getReduceTile();
  if (getLanes() != 1)
    printer << ", lanes = " << getLanes();
  printer << ">";
}

LogicalResult PackingAttr::verify(function_ref<InFlightDiagnostic()> emitError, int64_t freeTile, int64_t reduceTile,
                                  int64_t lanes, Order) {
  // packing_c1
  for (int64_t extent : {freeTile, reduceTile})
    if (extent < 1 || extent > 256 || !llvm::isPowerOf2_64(extent))
      return emitError() << "expected tile extents that are powers of two from 1 to 256, but got " << freeTile << "x"
                         << reduceTile;
  // packing_c2
  int64_t codes = freeTile * reduceTile;
  if (lanes != 1 && (lanes < freeTile || lanes % freeTile || (codes != 8 * lanes && codes != 32 * lanes)))
    return emitError() << "expected lanes = 1, or a multiple of " << freeTile
                       << " that leaves each lane 8 or 32 codes of the tile, but got lanes = " << lanes << " with "
                       << freeTile << "x" << reduceTile;
  return success();
}

//===-- #kv.schedule ------------------------------------------------------------------------===//

LogicalResult ScheduleAttr::verify(function_ref<InFlightDiagnostic()> emitError, int64_t heads, int64_t page,
                                   Compute compute, PackingAttr, PackingAttr, PackingAttr, int64_t accumulators,
                                   int64_t pageBytes, int64_t warps, int64_t stages, int64_t queries, int64_t ahead) {
  // schedule_c1
  if (heads < 1 || heads > 16)
    return emitError() << "expected heads from 1 to 16, but got " << heads;
  // schedule_c2
  if (page <= 0 || page % kBlockTokens || page > 65536)
    return emitError() << "expected page a multiple of " << kBlockTokens << " from " << kBlockTokens
                       << " to 65536, but got " << page;
  // schedule_c3
  if (accumulators < 0 || accumulators > 32)
    return emitError() << "expected accumulators from 0 to 32, but got " << accumulators;
  // schedule_c4
  if (pageBytes < 0 || pageBytes % 64)
    return emitError() << "expected page_bytes of 0 or a positive multiple of 64, but got " << pageBytes;
  // schedule_c5
  if (warps < 1 || warps > 32)
    return emitError() << "expected warps from 1 to 32, but got " << warps;
  if (stages < 0 || stages > 16)
    return emitError() << "expected stages from 0 to 16, but got " << stages;
  // schedule_c6
  if (queries < 1 || queries > kMaxQueries || (queries > 1 && compute != Compute::F16))
    return emitError() << "expected queries from 1 to " << kMaxQueries << ", and 1 unless compute is f16, but got "
                       << queries;
  // schedule_c7
  if (ahead < 0 || ahead > 16 || (ahead && (stages || warps > 1)))
    return emitError() << "expected ahead from 0 to 16, and 0 with stages or several warps, but got " << ahead;
  return success();
}
