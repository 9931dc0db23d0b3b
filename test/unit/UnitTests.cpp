// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// main of the unit tests: gtest's, unless a test started this binary as a process of its own.

#include "test/unit/CacheWorker.h"

#include "gtest/gtest.h"

#include <cstdlib>

int main(int argc, char **argv) {
  if (argc > 1 && llvm::StringRef(argv[1]) == "--cache-worker")
    return kvcc::test::runWorker({argv + 2, argv + argc});
  testing::InitGoogleTest(&argc, argv);
  // Emulated kernels are checked for races in all tests.
  setenv("KVCC_HOST_CHECK", "races", /*overwrite=*/0);
  return RUN_ALL_TESTS();
}
