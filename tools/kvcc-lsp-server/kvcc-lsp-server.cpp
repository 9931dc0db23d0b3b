// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc-lsp-server: editor support for .mlir files that use the kv dialect.
#include "mlir/Tools/mlir-lsp-server/MlirLspServerMain.h"
#include "passes/Passes.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  kvcc::registerAll(registry);
  return mlir::failed(mlir::MlirLspServerMain(argc, argv, registry));
}
