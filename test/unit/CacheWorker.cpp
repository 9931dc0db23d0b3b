// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Starting and being a worker process of the kernel cache's tests.

#include "test/unit/CacheWorker.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <numeric>
#include <random>
#include <sys/prctl.h>
#include <thread>
#include <unistd.h>

using namespace kvcc;

CacheKey test::workerKey(unsigned kernel) { return CacheKey::fromParts({{"worker", std::to_string(kernel)}}); }

std::string test::workerPayload(unsigned kernel) {
  std::mt19937 random(kernel);
  std::string bytes(1000 + random() % 200000, '\0');
  for (char &byte : bytes)
    byte = char(random());
  return bytes;
}

test::Worker test::startWorker(std::vector<std::string> arguments, int hold) {
  arguments.insert(arguments.begin(), {"kvcc-unit-tests", "--cache-worker"});
  std::vector<char *> argv;
  for (std::string &argument : arguments)
    argv.push_back(argument.data());
  argv.push_back(nullptr);
  int output[2];
  if (::pipe2(output, O_CLOEXEC) != 0)
    return {};
  Worker worker{::fork(), output[0]};
  if (worker.process == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL); // none outlives a test that failed
    ::dup2(hold, 0);
    ::dup2(output[1], 1);
    ::execv("/proc/self/exe", argv.data());
    ::_exit(127);
  }
  ::close(output[1]);
  return worker;
}

namespace {

struct Counts {
  std::atomic<unsigned> published{0}, wrong{0}, warnings{0};
};

void race(KernelCache &cache, unsigned seed, unsigned kernels, Counts &counts) {
  std::vector<unsigned> order(kernels);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  for (unsigned kernel : order) {
    auto found = cache.lookup(test::workerKey(kernel));
    std::string right = test::workerPayload(kernel); // "compiles"
    if (!found) {
      ++counts.published;
      if (!cache.publish(test::workerKey(kernel), right, "kernel"))
        ++counts.wrong;
      found = cache.lookup(test::workerKey(kernel));
    }
    if (!found || found->getBuffer() != right)
      ++counts.wrong;
  }
}

[[noreturn]] void publishForever(KernelCache &cache, unsigned seed, unsigned kernels) {
  std::mt19937 random(seed);
  std::vector<std::string> payloads;
  for (unsigned kernel = 0; kernel < kernels; ++kernel)
    payloads.push_back(test::workerPayload(kernel));
  std::puts("publishing");
  std::fflush(stdout);
  for (;;) {
    unsigned kernel = random() % kernels;
    cache.publish(test::workerKey(kernel), payloads[kernel], "kernel");
  }
}

} // namespace

int test::runWorker(const std::vector<std::string> &arguments) {
  unsigned seed = unsigned(std::stoul(arguments.at(2))), kernels = unsigned(std::stoul(arguments.at(3)));
  Counts counts;
  CacheOptions options;
  options.directory = arguments.at(1);
  options.mode = CacheMode::ReadWrite;
  options.maxBytes = 64 << 20;
  options.warn = [&](llvm::StringRef) { ++counts.warnings; };
  char byte;
  while (::read(0, &byte, 1) > 0)
    ;
  KernelCache cache = KernelCache::open(options);
  if (arguments.at(0) == "endless")
    publishForever(cache, seed, kernels);
  std::thread second([&] { race(cache, 2 * seed + 1, kernels, counts); });
  race(cache, 2 * seed, kernels, counts);
  second.join();
  std::printf("%u\n", counts.published.load());
  return counts.wrong || counts.warnings ? 1 : 0;
}
