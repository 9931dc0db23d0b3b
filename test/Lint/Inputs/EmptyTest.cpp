// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gtest/gtest.h"

TEST(Empty, ChecksNothing) {
  const char *text = R"(EXPECT_TRUE(false); })"; // EXPECT_TRUE(false);
  (void)text;
}

TEST_F(Empty, BracesInLiterals) {
  if (true) {
    char brace = '}';
    (void)brace;
  }
}
