// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What kvcc tune keeps is what later plans of this machine take.
#include "runtime/Compiler.h"
#include "test/unit/ScopedVariable.h"
#include "gtest/gtest.h"

#include <filesystem>

using namespace kvcc;

namespace {

class TunedScheduleTest : public testing::Test {
protected:
  TunedScheduleTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvcc-tuned-XXXXXX").string();
    directory = mkdtemp(pattern.data());
    options.directory = directory;
    restart();
  }
  ~TunedScheduleTest() override { std::filesystem::remove_all(directory); }

  /// As another process would see the cache. Plans of the compilers before stay usable.
  void restart() { compilers.push_back(std::make_unique<Compiler>(options)); }
  Compiler &getCompiler() { return *compilers.back(); }

  Plan plan(llvm::StringRef target, const ScheduleOptions &schedule = {}) {
    AttentionShape shape{8, 2, 64, 0.125};
    return cantFail(getCompiler().plan(shape, "f16", "innerq-small", cantFail(parseTarget(target)), schedule));
  }

  ScopedVariable mode{"KVCC_CACHE", "rw"};
  std::string directory;
  CacheOptions options;
  std::vector<std::unique_ptr<Compiler>> compilers;
};

TEST_F(TunedScheduleTest, IsTakenByThisMachineAlone) {
  Plan chosen = plan("cpu");
  EXPECT_EQ(chosen.schedule.getHeads(), 4);
  ScheduleOptions best;
  best.heads = 2;
  best.accumulators = 8;
  getCompiler().storeTuned(chosen, best);
  for (int i = 0; i < 2; ++i) {
    Plan tuned = plan("cpu");
    EXPECT_EQ(tuned.schedule.getHeads(), 2);
    EXPECT_EQ(tuned.schedule.getAccumulators(), 8);
    EXPECT_EQ(tuned.remarks.back(),
              "kv-plan-schedule: heads, accumulators and ahead are what kvcc tune found on this machine");
    restart();
  }
  // Or what is asked for early alone.
  ScheduleOptions early;
  early.ahead = 4;
  getCompiler().storeTuned(chosen, early);
  EXPECT_EQ(plan("cpu").schedule.getAhead(), 4);
  EXPECT_EQ(plan("cpu").schedule.getHeads(), 4);
  getCompiler().storeTuned(chosen, best);
  // A named level, another format or arithmetic, a user's choice: as if nothing had been tuned.
  EXPECT_EQ(plan("cpu:generic").schedule.getHeads(), 4);
  EXPECT_EQ(plan(chosen.target.name).schedule.getHeads(), 4);
  ScheduleOptions wanted;
  wanted.compute = "f32";
  EXPECT_EQ(plan("cpu", wanted).schedule.getHeads(), 4);
  wanted = {};
  wanted.heads = 1;
  EXPECT_EQ(plan("cpu", wanted).schedule.getHeads(), 1);
  wanted = {};
  wanted.tuned = false;
  EXPECT_EQ(plan("cpu", wanted).schedule.getAccumulators(), 0);
}

TEST_F(TunedScheduleTest, ThatDoesNotFitIsIgnored) {
  Plan chosen = plan("cpu");
  ScheduleOptions wrong;
  wrong.heads = 3; // of a group of four
  getCompiler().storeTuned(chosen, wrong);
  EXPECT_EQ(plan("cpu").schedule, chosen.schedule);
  getCompiler().storeTuned(chosen, {}); // tuned, and nothing was better
  EXPECT_EQ(plan("cpu").schedule, chosen.schedule);
}

} // namespace
