// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the tests of whole kernels share: tensors, and one decode step compared with the reference.
#ifndef KVCC_TEST_UNIT_KERNELTESTSUPPORT_H
#define KVCC_TEST_UNIT_KERNELTESTSUPPORT_H

#include "runtime/HostCache.h"

#include <functional>
#include <ostream>

namespace kvcc::test {

/// One attention problem: a format, a shape, the lengths of the batch.
struct Problem {
  std::string scheme = "innerq-small", target = "cpu", compute = "auto", dtype = "f16";
  int64_t qHeads = 4, kvHeads = 2, headDim = 64;
  std::vector<int64_t> lens = {300};
  double softcap = 0;
  kv::Reach reach = kv::Reach::Full;
  int64_t windowTokens = 0;
  bool sinkLogits = false, roundsOut = false;
  int64_t queries = 0; ///< that share a pass, see ScheduleOptions
  int64_t stages = -1;
  int64_t splits = 0;
  unsigned threads = 0;
  uint64_t seed = 0;
};
std::ostream &operator<<(std::ostream &os, const Problem &problem);

/// Numbers of a batch as f32, each a number of the problem's dtype.
struct Tensors {
  std::vector<float> query; ///< [batch, q_heads, head_dim]
  std::vector<float> keys;  ///< [batch, kv_heads, max len, head_dim]
  std::vector<float> values;
  std::vector<float> sinks; ///< [q_heads], if the problem has them
  int64_t tokens = 0;       ///< max len
};

/// A number for batch, head, token, channel; called once for each, in order.
using Fill = std::function<float(int64_t, int64_t, int64_t, int64_t)>;
Tensors makeTensors(const Problem &problem, const Fill &query, const Fill &keys, const Fill &values);
/// Normal numbers; a few key channels are ten times larger, as in real models.
Tensors makeRandomTensors(const Problem &problem, unsigned seed = 1);

struct StepResult {
  std::vector<float> out, lse;
  /// Relative L2 errors of the output against the reference over the cache as stored, and over the tensors.
  double kernelError = 0, totalError = 0;
  double lseError = 0; ///< largest |difference| against the reference over the cache as stored
};

/// The compiler and the pool that tests share. Kernels are cached where $KVCC_CACHE_DIR says, else in memory.
Compiler &getCompiler();
ThreadPool &getPool();

/// With $KVCC_TEST_CUDA_TARGET set, what tests ask of `cuda-host` runs on that target, a GPU, and the rest does not
/// run.
bool runsHere(const Problem &problem);
llvm::Expected<std::unique_ptr<Program>> loadProgram(const Problem &problem);
llvm::Expected<StepResult> runStep(const Program &program, const Problem &problem, const Tensors &tensors);

/// Runs a step and expects the kernel's error below `bound`, finite numbers and a right lse.
void expectAgrees(const Problem &problem, const Tensors &tensors, double bound);

/// The bound that the documentation states for an arithmetic, but no more than what random tensors need of it: products
/// of bytes come near theirs only with adversarial ones.
double getBound(const Plan &plan);

} // namespace kvcc::test

#endif
