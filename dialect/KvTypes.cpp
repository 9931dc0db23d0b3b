// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Types of the kv dialect: assembly and verification.
#include "dialect/Kv.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace kvcc::kv;

#define GET_TYPEDEF_CLASSES
#include "dialect/KvTypes.cpp.inc"

void KvDialect::registerTypes() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "dialect/KvTypes.cpp.inc"
      >();
}

LogicalResult CacheType::verify(function_ref<InFlightDiagnostic()> emitError, int64_t kvHeads, int64_t headDim,
                                Type dtype, QuantAttr key, QuantAttr value, WindowAttr window) {
  // cache_c1
  if (kvHeads < 1)
    return emitError() << "expected kv_heads of at least 1, but got " << kvHeads;
  // cache_c2
  if (headDim < 32 || headDim > 256 || headDim % 32)
    return emitError() << "expected head_dim a multiple of 32 from 32 to 256, but got " << headDim;
  // cache_c3
  if (!dtype.isF16() && !dtype.isBF16() && !dtype.isF32())
    return emitError() << "expected dtype f16, bf16 or f32, but got " << dtype;
  for (auto [name, quant, role] : {std::tuple("key", key, Role::Key), std::tuple("value", value, Role::Value)}) {
    // cache_c6
    if (auto rotation = quant.getTransform<HadamardAttr>(); rotation && headDim % rotation.getSize())
      return emitError() << "expected a " << name << " hadamard size that divides head_dim = " << headDim
                         << ", but got " << rotation.getSize();
    if (!quant.isQuantized())
      continue;
    // cache_c8
    if (quant.getMap() == Map::Hybrid && quant.getReducedExtent(role) == 1)
      return emitError() << "expected " << name << " groups along the " << (role == Role::Key ? "channels" : "tokens")
                         << " with map hybrid, but got " << quant.getGroupTokens() << "x" << quant.getGroupChannels();
    // cache_c4
    if (headDim % quant.getGroupChannels())
      return emitError() << "expected " << name << " group channels that divide head_dim = " << headDim << ", but got "
                         << quant.getGroupChannels();
    // cache_c5
    if (kBlockTokens % quant.getGroupTokens())
      return emitError() << "expected " << name << " group tokens that divide " << kBlockTokens << ", but got "
                         << quant.getGroupTokens();
    if (window.getFlush() == 1 && quant.getGroupTokens() != 1)
      return emitError() << "expected " << name << " groups of one token with flush = 1, but got "
                         << quant.getGroupTokens() << " tokens";
  }
  // cache_c7
  if (auto diag = key.getTransform<DiagAttr>(); diag && diag.getWeights() && !diag.getTied())
    return emitError() << "expected a key diagonal that is tied when it is folded into weights, but got " << diag;
  // cache_c9
  if (value.getFeedback())
    return emitError() << "expected values without feedback, but got " << value;
  return success();
}

int64_t BlockType::getBytes() const { return getTokens() * getChannels() * getElement().getIntOrFloatBitWidth() / 8; }

Type BlockType::parse(AsmParser &parser) {
  StringRef name;
  SmallVector<int64_t> extents;
  Type element;
  PackingAttr packing;
  SMLoc loc = parser.getCurrentLocation();
  if (parser.parseLess() || parser.parseKeyword(&name) || parser.parseComma() ||
      parser.parseDimensionList(extents, /*allowDynamic=*/false) || parser.parseType(element) || parser.parseComma() ||
      parser.parseKeyword("packing") || parser.parseEqual() || parser.parseCustomAttributeWithFallback(packing) ||
      parser.parseGreater())
    return {};
  std::optional<Role> role = symbolizeRole(name);
  if (!role || extents.size() != 2) {
    parser.emitError(loc) << "expected key or value and tokens x channels, but got " << name << " and "
                          << extents.size() << " extents";
    return {};
  }
  return parser.getChecked<BlockType>(loc, parser.getContext(), *role, extents[0], extents[1], element, packing);
}

void BlockType::print(AsmPrinter &printer) const {
  printer << "<" << stringifyRole(getRole()) << ", " << getTokens() << "x" << getChannels() << "x" << getElement()
          << ", packing = ";
  printer.printStrippedAttrOrType(getPacking());
  printer << ">";
}

LogicalResult BlockType::verify(function_ref<InFlightDiagnostic()> emitError, Role role, int64_t tokens,
                                int64_t channels, Type element, PackingAttr packing) {
  // block_c1
  int64_t freeExtent = role == Role::Key ? tokens : channels;
  int64_t reduceExtent = role == Role::Key ? channels : tokens;
  if (freeExtent % packing.getFreeTile() || reduceExtent % packing.getReduceTile())
    return emitError() << "expected a packing whose tile divides " << freeExtent << "x" << reduceExtent
                       << " (free x reduced), but got " << packing;
  // block_c2
  if (tokens < 1 || channels < 1)
    return emitError() << "expected positive extents, but got " << tokens << "x" << channels;
  // block_c3
  if (!isStoredElement(element) && !isa<Float8E8M0FNUType>(element))
    return emitError() << "expected element i2 to i8, f8E4M3FN, f8E8M0FNU, f4E2M1FN, f16, bf16 or f32, but got "
                       << element;
  return success();
}

Type StateType::parse(AsmParser &parser) {
  SmallVector<int64_t> extents;
  SMLoc loc = parser.getCurrentLocation();
  if (parser.parseLess() || parser.parseDimensionList(extents, /*allowDynamic=*/false, /*withTrailingX=*/false) ||
      parser.parseGreater())
    return {};
  if (extents.size() != 2) {
    parser.emitError(loc) << "expected heads x head_dim such as 4x128, but got " << extents.size() << " extents";
    return {};
  }
  return parser.getChecked<StateType>(loc, parser.getContext(), extents[0], extents[1]);
}

void StateType::print(AsmPrinter &printer) const { printer << "<" << getHeads() << "x" << getHeadDim() << ">"; }

LogicalResult StateType::verify(function_ref<InFlightDiagnostic()> emitError, int64_t heads, int64_t headDim) {
  // state_c1
  if (heads < 1 || headDim < 1)
    return emitError() << "expected positive extents, but got " << heads << "x" << headDim;
  return success();
}
