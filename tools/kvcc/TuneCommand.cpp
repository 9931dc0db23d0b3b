// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc tune: measures the schedules around the one that the passes choose, and keeps the best for this machine.
#include "tools/kvcc/Commands.h"
#include "tools/kvcc/Measure.h"

#include "passes/CpuLevel.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

#include <chrono>
#include <thread>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::tuneCommand("tune", "find the fastest schedule on this machine and keep it in the cache");
static KernelOptions kernelOptions(tuneCommand);
static SchemeOptions schemeOptions(tuneCommand, /*totals=*/true);
static cl::opt<int64_t> tokens("ctx", cl::desc("tokens of each sequence; default 4096"), cl::init(4096),
                               cl::sub(tuneCommand));
static cl::opt<int64_t> threads("threads", cl::desc("threads; default: one per processor"), cl::init(0),
                                cl::sub(tuneCommand));
static cl::opt<double> seconds("seconds", cl::desc("how long to measure; default 10"), cl::init(10),
                               cl::sub(tuneCommand));

namespace {

using Clock = std::chrono::steady_clock;

/// A schedule, its program and its times so far.
struct Candidate {
  ScheduleOptions options;
  const Program *program;
  std::vector<double> times;
  bool isOut = false;

  double getMedian() const { return median(times); }
  /// The time beside that of another candidate in the same rounds: the machine's moods fall on both.
  double getRatio(const Candidate &other) const {
    std::vector<double> ratios;
    for (auto [mine, its] : zip(times, other.times))
      ratios.push_back(mine / its);
    return median(ratios);
  }
};

/// Every number of query heads that share a pass, with units of 1, 2 and 4 vectors, and the choice of the passes with
/// other distances of what is asked for early; but not `chosen`, which the passes make of `options`.
std::vector<ScheduleOptions> getAlternatives(const Plan &chosen, const ScheduleOptions &options) {
  const CpuLevel *level = findCpuLevel(chosen.target.arch);
  std::vector<ScheduleOptions> schedules;
  int64_t group = chosen.shape.qHeads / chosen.shape.kvHeads;
  for (int64_t ahead : {0, 1, 2, 4})
    if (ahead != chosen.schedule.getAhead())
      schedules.emplace_back(options).ahead = ahead;
  for (int64_t heads = 1; heads <= std::min<int64_t>(group, 16); ++heads)
    for (int64_t vectors : {1, 2, 4}) {
      bool isChosen = heads == chosen.schedule.getHeads() && vectors == level->getUnitVectors(heads);
      if (group % heads || heads * vectors > 32 || isChosen)
        continue;
      ScheduleOptions &schedule = schedules.emplace_back(options);
      schedule.heads = heads;
      schedule.accumulators = heads * vectors;
    }
  return schedules;
}

/// A line that replaces itself, on a terminal.
void showProgress(const Twine &text) {
  if (!errs().is_displayed())
    return;
  errs() << "\r\033[K" << text;
  errs().flush();
}

/// Rounds of one step of each candidate, until the time is over or all but one have fallen behind.
Error measure(std::vector<Candidate> &candidates, Subject &subject, unsigned threadCount) {
  constexpr size_t kRoundsToJudge = 10;
  constexpr double kBehind = 1.1;
  auto start = Clock::now();
  for (size_t round = 0;; ++round) {
    double spent = std::chrono::duration<double>(Clock::now() - start).count();
    size_t left = size_t(count_if(candidates, [](const Candidate &c) { return !c.isOut; }));
    if (round > kRoundsToJudge && (spent > seconds || left == 1))
      return Error::success();
    showProgress("measuring " + Twine(left) + " schedules, " + Twine(int(100 * std::min(1.0, spent / seconds))) + " %");
    for (Candidate &candidate : candidates) {
      if (candidate.isOut)
        continue;
      auto time = subject.step(*candidate.program, threadCount);
      if (!time)
        return time.takeError();
      candidate.times.push_back(*time);
    }
    if (round < kRoundsToJudge || round % 5)
      continue;
    double best = 1;
    for (const Candidate &candidate : candidates)
      best = std::min(best, candidate.getRatio(candidates[0]));
    // What the passes chose stays, to be compared with.
    for (Candidate &candidate : MutableArrayRef(candidates).drop_front())
      candidate.isOut |= candidate.getRatio(candidates[0]) > kBehind * best;
  }
}

} // namespace

Error tool::runTune() {
  if (Error error = checkRange(tokens, tokens, 1, 1 << 24))
    return error;
  if (Error error = checkRange(threads, threads, 0, 1024))
    return error;
  if (!(seconds > 0 && seconds <= 3600))
    return usageError("expected --seconds above 0, up to 3600, but got " + formatv("{0}", seconds.getValue()).str());
  auto scheme = schemeOptions.getText();
  if (!scheme)
    return scheme.takeError();
  auto layer = kernelOptions.loadLayer();
  if (!layer)
    return layer.takeError();

  ThreadPool pool(threads ? unsigned(threads) : std::thread::hardware_concurrency());
  Compiler compiler;
  auto plan = [&](const ScheduleOptions &options) {
    return kernelOptions.plan(compiler, *layer, *scheme, "cpu", layer->model.dtype, options);
  };
  ScheduleOptions untuned = kernelOptions.getScheduleOptions();
  untuned.tuned = false;
  auto first = plan(untuned);
  if (!first)
    return first.takeError();
  outs() << layer->model.name << " layer " << layer->index << ", " << first->plan.scheme << " on "
         << first->plan.target.name << ", " << tokens.getValue() << " tokens, " << pool.size() << " threads\n";
  outs().flush();
  showProgress("filling caches");
  auto subject = Subject::create(compiler, std::move(first->plan), tokens, /*batch=*/1, pool);
  if (!subject)
    return subject.takeError();
  Subject::makeCold(*subject);
  const Program &chosen = (*subject)->getProgram();

  std::vector<Candidate> candidates{{untuned, &chosen, {}}};
  std::vector<std::unique_ptr<Program>> programs;
  std::vector<ScheduleOptions> alternatives = getAlternatives(chosen.getPlan(), untuned);
  for (const ScheduleOptions &options : alternatives) {
    showProgress("compiling " + Twine(candidates.size()) + " of " + Twine(alternatives.size()));
    auto planned = plan(options);
    if (!planned)
      return planned.takeError();
    auto program = Program::load(compiler, std::move(planned->plan), pool);
    if (!program)
      return program.takeError();
    candidates.push_back({options, program->get(), {}});
    programs.push_back(std::move(*program));
  }
  if (Error error = measure(candidates, **subject, pool.size()))
    return error;
  showProgress("");

  const Candidate *best = &candidates[0];
  for (const Candidate &candidate : candidates)
    if (!candidate.isOut && candidate.getRatio(candidates[0]) < best->getRatio(candidates[0]))
      best = &candidate;
  double bestRatio = best->getRatio(candidates[0]);
  outs() << "heads  accumulators  ahead  median us  of the best\n";
  for (const Candidate &candidate : candidates) {
    kv::ScheduleAttr schedule = candidate.program->getPlan().schedule;
    outs() << format("%5d  %12d  %5d  %9.1f  %11.2f%s\n", int(schedule.getHeads()), int(schedule.getAccumulators()),
                     int(schedule.getAhead()), candidate.getMedian(), candidate.getRatio(candidates[0]) / bestRatio,
                     &candidate == &candidates[0] ? "  chosen by the passes"
                     : candidate.isOut            ? "  given up early"
                                                  : "");
  }
  double behind = 100 * (1 / bestRatio - 1);
  outs() << format("the passes' choice is %.1f %% from the best", behind);
  // Noise is no reason to leave it.
  constexpr double kWorthwhile = 2;
  bool stays = behind < kWorthwhile;
  compiler.storeTuned(chosen.getPlan(), stays ? untuned : best->options);
  outs() << (stays ? "; it stays\n" : "; kept for target cpu of this machine\n");
  return Error::success();
}
