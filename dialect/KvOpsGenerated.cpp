// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The generated definitions of the operations, alone in a translation unit because they compile slowly.
#include "dialect/Kv.h"
#include "mlir/IR/Builders.h"

#define GET_OP_CLASSES
#include "dialect/KvOps.cpp.inc"

void kvcc::kv::KvDialect::registerOperations() {
  addOperations<
#define GET_OP_LIST
#include "dialect/KvOps.cpp.inc"
      >();
}
