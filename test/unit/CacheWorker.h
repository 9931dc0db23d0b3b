// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A process that uses the kernel cache as a compiler does, without one: what tests of races and of killed processes
// start in numbers. It is this binary, run as `kvcc-unit-tests --cache-worker ...`.

#ifndef KVCC_TEST_UNIT_CACHEWORKER_H
#define KVCC_TEST_UNIT_CACHEWORKER_H

#include "runtime/KernelCache.h"

#include <string>
#include <vector>

namespace kvcc::test {

/// The kernels that workers publish: the same in every process, 1 to 200 KB.
CacheKey workerKey(unsigned kernel);
std::string workerPayload(unsigned kernel);

/// A started worker. Standard input holds it back until it is closed; what it prints can be read.
struct Worker {
  pid_t process = -1;
  int output = -1;
};
/// `arguments`: "race" or "endless", the cache directory, a seed, the number of kernels. `hold` becomes the worker's
/// standard input.
Worker startWorker(std::vector<std::string> arguments, int hold);

/// The body of a worker.
/// - race: two threads get all kernels in an order of their own, publishing what they miss; prints how many it
/// published.
///   Exit code 0 if every kernel was right and the cache had nothing to warn of.
/// - endless: prints a line, then publishes kernels until it is killed.
int runWorker(const std::vector<std::string> &arguments);

} // namespace kvcc::test

#endif // KVCC_TEST_UNIT_CACHEWORKER_H
