// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc-opt: runs passes over a file, for people who test them.
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "mlir/Transforms/Passes.h"
#include "passes/Passes.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  kvcc::registerAll(registry);
  kvcc::registerKvccPasses();
  kvcc::registerPipelines();
  mlir::registerTransformsPasses();
  return mlir::asMainReturnCode(mlir::MlirOptMain(argc, argv, "kvcc optimizer\n", registry));
}
