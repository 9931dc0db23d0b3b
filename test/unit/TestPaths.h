// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Where the tests find their files: in the source tree, or, when they run on another machine than
// the one that built them, where the environment says.

#ifndef KVCC_TEST_UNIT_TESTPATHS_H
#define KVCC_TEST_UNIT_TESTPATHS_H

#include <cstdlib>
#include <string>

namespace kvcc {

inline std::string fromEnvironment(const char *name, const char *otherwise) {
  const char *value = std::getenv(name);
  return value ? value : otherwise;
}

/// The folder test/ with models/ and data/: $KVCC_TEST_DIR, else that of the source tree.
inline std::string testDir() { return fromEnvironment("KVCC_TEST_DIR", KVCC_TEST_DIR); }

/// The library made of fake_libcuda.c: $KVCC_FAKE_LIBCUDA, else that of the build.
inline std::string fakeLibcuda() { return fromEnvironment("KVCC_FAKE_LIBCUDA", KVCC_FAKE_LIBCUDA); }

} // namespace kvcc

#endif // KVCC_TEST_UNIT_TESTPATHS_H
