// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kv dialect: quantized KV caches and decode attention over them.
#ifndef KVCC_DIALECT_KVDIALECT_TD
#define KVCC_DIALECT_KVDIALECT_TD

include "mlir/IR/DialectBase.td"

def Kv_Dialect : Dialect {
  let name = "kv";
  let summary = "Quantized KV caches and decode attention over them";
  let description = [{
    Level 1 says what a cache is (`!kv.cache`, `#kv.quant`, `#kv.window`) and what is done with it
    (`kv.attend`, `kv.append`, `kv.merge`). Level 2, the tile operations, says how one work item (a
    sequence, a tile of query heads of one KV head, a split of the tokens) walks over blocks of 32
    tokens. Both levels are shared by all targets.
  }];
  let cppNamespace = "::kvcc::kv";
  let useDefaultAttributePrinterParser = 1;
  let useDefaultTypePrinterParser = 1;
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
                           "::mlir::memref::MemRefDialect", "::mlir::scf::SCFDialect"];
  let extraClassDeclaration = [{
    void registerAttributes();
    void registerTypes();
    void registerOperations();
  }];
}

#endif
