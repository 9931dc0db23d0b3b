// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decode steps over cold caches, timed: what bench and tune share.
#ifndef KVCC_TOOLS_KVCC_MEASURE_H
#define KVCC_TOOLS_KVCC_MEASURE_H

#include "runtime/Compiler.h"
#include "runtime/HostCache.h"
#include "runtime/Program.h"

namespace kvcc::tool {

/// A program, and copies of a cache that it fills.
class Subject {
public:
  /// With one copy.
  static llvm::Expected<std::unique_ptr<Subject>> create(Compiler &compiler, Plan plan, int64_t tokens, int64_t batch,
                                                         ThreadPool &pool);
  /// So many copies of caches that no step finds its own in a processor's, where `subjects` take turns.
  static void makeCold(llvm::ArrayRef<std::unique_ptr<Subject>> subjects);

  /// Microseconds of appending tokens to every sequence of the next copy, on average: of one token, all flushes of as
  /// many as the flush block (or 64) included; and of one step between them.
  struct AppendTimes {
    double append = 0, step = 0;
  };
  llvm::Expected<AppendTimes> append(unsigned threads);
  /// Microseconds of a prefill of the next copy.
  llvm::Expected<double> prefill(unsigned threads);

  /// Microseconds of a step over the next copy; by another program, if its plan has the same layout.
  llvm::Expected<double> step(unsigned threads) { return step(*program, threads); }
  llvm::Expected<double> step(const Program &other, unsigned threads);

  const Program &getProgram() const { return *program; }
  int64_t getBytes() const { return copies[0]->getBytesRead(); }
  /// Of the first step, against exact attention over the tensors that the cache was filled from.
  double getError() const { return relError; }

private:
  llvm::Error fill(int64_t tokens, int64_t batch, ThreadPool &pool);
  llvm::Expected<double> step(HostCache &cache, const Program &other, unsigned threads);

  std::unique_ptr<Program> program;
  std::vector<std::unique_ptr<HostCache>> copies;
  std::vector<uint8_t> query, keys, values;
  int64_t tokens = 0;
  std::vector<float> out, lse, sinks;
  AlignedBytes workspace;
  size_t next = 0;
  double relError = 0;
};

double median(std::vector<double> numbers);

} // namespace kvcc::tool

#endif
