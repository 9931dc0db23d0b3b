// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Registration of the kv dialect.
#include "dialect/Kv.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

#include "dialect/KvDialect.cpp.inc"
#include "dialect/KvEnums.cpp.inc"

void kvcc::kv::KvDialect::initialize() {
  registerAttributes();
  registerTypes();
  registerOperations();
}
