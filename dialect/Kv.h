// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kv dialect in C++: dialect, enums, attributes, types and operations.
#ifndef KVCC_DIALECT_KV_H
#define KVCC_DIALECT_KV_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

namespace kvcc::kv {
/// Tokens of a block, the unit of tile operations, packings and pages.
constexpr int64_t kBlockTokens = 32;
/// Queries of a sequence in one step.
constexpr int64_t kMaxQueries = 16;
/// Logits of tokens that are not there. Finite: 0 * inf would be NaN.
constexpr float kMaskedLogit = -1e30f;
/// Whether caches store elements of this type: codes, or f16, bf16 and f32.
bool isStoredElement(mlir::Type element);
/// Whether the elements are codes, which need a scale: i2 to i8, f8E4M3FN, f4E2M1FN.
bool isCodeElement(mlir::Type element);
} // namespace kvcc::kv

#include "dialect/KvDialect.h.inc"
#include "dialect/KvEnums.h.inc"

#define GET_ATTRDEF_CLASSES
#include "dialect/KvAttrs.h.inc"
#define GET_TYPEDEF_CLASSES
#include "dialect/KvTypes.h.inc"
#define GET_OP_CLASSES
#include "dialect/KvOps.h.inc"

#endif
