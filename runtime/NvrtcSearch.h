// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What Nvrtc.cpp needs from the search for the NVRTC library. Not for other users.

#ifndef KVCC_RUNTIME_NVRTCSEARCH_H
#define KVCC_RUNTIME_NVRTCSEARCH_H

#include <string>

namespace kvcc {

/// The GNU build id, in hexadecimal, of the loaded library that holds `address`; if it has none,
/// the size of its loaded image. Depends on the library's contents only.
std::string libraryBuildId(const void *address);

} // namespace kvcc

#endif // KVCC_RUNTIME_NVRTCSEARCH_H
