// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "gtest/gtest.h"

TEST(Good, Macro) {
  if (true) {
    char brace = '}';
    EXPECT_EQ(brace, '}');
  }
}
TEST_F(Good, Helper) { expectEqual(1, 1); }
TEST_P(Good, Template) { checkRoundTrip<float>(); }
TEST(Good, Failure) {
  if (false)
    ADD_FAILURE() << "1'000'000";
}
