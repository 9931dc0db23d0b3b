// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The kernel cache between processes that race and processes that are killed, and on disks that fail.

#include "test/unit/CacheWorker.h"
#include "test/unit/ScopedVariable.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/Support/FileSystem.h"

#include "gtest/gtest.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <functional>
#include <grp.h>
#include <random>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace kvcc;
using namespace kvcc::test;

namespace {

constexpr uid_t kNobody = 65534, kUnknownUser = 54321;
constexpr int kSkipped = 77;

class CacheProcessTest : public testing::Test {
protected:
  void SetUp() override {
    llvm::SmallString<128> path;
    ASSERT_FALSE(llvm::sys::fs::createUniqueDirectory("kvcc-cache-process", path));
    root = std::string(path);
    directory = root + "/cache";
  }
  void TearDown() override { (void)llvm::sys::fs::remove_directories(root); }

  CacheOptions options(uint64_t memory = 0) {
    CacheOptions result;
    result.directory = directory;
    result.mode = CacheMode::ReadWrite;
    result.maxBytes = 64 << 20;
    result.maxMemoryBytes = memory;
    result.warn = [this](llvm::StringRef text) { warnings.push_back(text.str()); };
    return result;
  }
  std::vector<std::string> files() {
    std::vector<std::string> names;
    std::error_code ec;
    for (llvm::sys::fs::directory_iterator it(directory, ec), end; it != end && !ec; it.increment(ec))
      names.push_back(it->path());
    return names;
  }
  static std::string text(const std::shared_ptr<const llvm::MemoryBuffer> &buffer) {
    return buffer ? buffer->getBuffer().str() : "(miss)";
  }
  /// Kernels in the cache; wrong ones fail the test.
  unsigned countRight(unsigned kernels) {
    KernelCache cache = KernelCache::open(options());
    unsigned found = 0;
    for (unsigned kernel = 0; kernel < kernels; ++kernel)
      if (auto bytes = cache.lookup(workerKey(kernel))) {
        ++found;
        EXPECT_TRUE(bytes->getBuffer() == workerPayload(kernel)) << "kernel " << kernel;
      }
    EXPECT_TRUE(cache.verify().empty());
    EXPECT_TRUE(warnings.empty()) << warnings[0];
    return found;
  }
  /// Runs `body` in a process that may change its user and its mounts; 0 is what it should return.
  static int inChild(const std::function<int()> &body) {
    pid_t child = fork();
    if (child == 0)
      _exit(body());
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  /// A file system of 64 KiB at `directory`, for this process alone.
  bool mountSmall() {
    mkdir(directory.c_str(), 0700);
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           mount("kvcc", directory.c_str(), "tmpfs", 0, "size=64k,mode=0700") == 0;
  }
  static bool becomeUser(uid_t user) {
    return setgroups(0, nullptr) == 0 && setresgid(user, user, user) == 0 && setresuid(user, user, user) == 0;
  }

  std::string root, directory;
  std::vector<std::string> warnings;
};

TEST_F(CacheProcessTest, SixteenProcessesCompileTheSameKernels) {
  constexpr unsigned kProcesses = 16, kKernels = 24;
  int hold[2];
  ASSERT_EQ(pipe2(hold, O_CLOEXEC), 0);
  std::vector<Worker> workers;
  for (unsigned i = 0; i < kProcesses; ++i)
    workers.push_back(startWorker({"race", directory, std::to_string(i), std::to_string(kKernels)}, hold[0]));
  close(hold[0]);
  for (const Worker &worker : workers)
    ASSERT_GT(worker.process, 0);
  auto start = std::chrono::steady_clock::now();
  close(hold[1]); // all at once
  unsigned published = 0;
  for (const Worker &worker : workers) {
    FILE *output = fdopen(worker.output, "r");
    unsigned count = 0;
    EXPECT_EQ(fscanf(output, "%u", &count), 1);
    fclose(output);
    published += count;
    int status = 0;
    ASSERT_EQ(waitpid(worker.process, &status, 0), worker.process);
    EXPECT_EQ(status, 0) << "a wrong kernel or a warning";
  }
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_GE(published, kKernels);
  EXPECT_EQ(countRight(kKernels), kKernels);
  EXPECT_EQ(files().size(), kKernels) << "a temporary file or a lock was left";
  RecordProperty("lookups", int(kProcesses * 2 * kKernels));
  RecordProperty("published", int(published));
  RecordProperty("milliseconds", int(seconds * 1000));
}

TEST_F(CacheProcessTest, KilledPublishersLeaveNothingThatIsUsed) {
  constexpr unsigned kRounds = 25, kAtOnce = 8, kKernels = 12;
  std::mt19937 random(20251125);
  unsigned kills = 0, found = 0, mostLeftovers = 0;
  int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  auto start = std::chrono::steady_clock::now();
  for (unsigned round = 0; round < kRounds; ++round) {
    std::vector<Worker> workers;
    for (unsigned i = 0; i < kAtOnce; ++i)
      workers.push_back(
          startWorker({"endless", directory, std::to_string(random() % 1000), std::to_string(kKernels)}, nothing));
    for (const Worker &worker : workers) { // publishing by now
      ASSERT_GT(worker.process, 0);
      char byte;
      ASSERT_EQ(read(worker.output, &byte, 1), 1);
      close(worker.output);
    }
    for (const Worker &worker : workers) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 5000));
      kills += kill(worker.process, SIGKILL) == 0;
      int status = 0;
      ASSERT_EQ(waitpid(worker.process, &status, 0), worker.process);
      ASSERT_TRUE(WIFSIGNALED(status));
    }
    found = countRight(kKernels);
    mostLeftovers = std::max(mostLeftovers, unsigned(files().size() - found));
  }
  close(nothing);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_EQ(kills, 200u);
  EXPECT_GT(found, 0u);
  EXPECT_GT(mostLeftovers, 0u) << "nobody was killed while it was publishing";

  // An hour later the next one that opens the cache clears up after them.
  for (const std::string &file : files()) {
    timespec times[2] = {{time(nullptr) - 3700, 0}, {time(nullptr) - 3700, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
  }
  EXPECT_EQ(countRight(kKernels), found);
  EXPECT_EQ(files().size(), found);
  RecordProperty("kills", int(kills));
  RecordProperty("leftovers", int(mostLeftovers));
  RecordProperty("milliseconds", int(seconds * 1000));
}

TEST_F(CacheProcessTest, FullDisk) {
  int result = inChild([&] {
    if (!mountSmall())
      return kSkipped;
    KernelCache cache = KernelCache::open(options(1 << 20));
    std::string small(4000, 's'), large(100000, 'l');
    bool ok = cache.publish(workerKey(0), small, "small");
    ok &= !cache.publish(workerKey(1), large, "large") && !cache.publish(workerKey(2), large, "large");
    ok &= text(cache.lookup(workerKey(1))) == large && warnings.size() == 1 && files().size() == 1;
    ok &= warnings[0].find("No space left on device") != std::string::npos;
    // What fits is stored again, and what was stored before is whole.
    ok &= cache.publish(workerKey(3), small, "small");
    KernelCache fresh = KernelCache::open(options());
    ok &= text(fresh.lookup(workerKey(0))) == small && text(fresh.lookup(workerKey(3))) == small;
    ok &= !fresh.lookup(workerKey(1)) && fresh.verify().empty() && warnings.size() == 1;
    return ok ? 0 : 1;
  });
  if (result == kSkipped)
    GTEST_SKIP() << "mounting a small file system needs privileges";
  EXPECT_EQ(result, 0);
}

TEST_F(CacheProcessTest, ReadOnlyFileSystem) {
  int result = inChild([&] {
    if (!mountSmall())
      return kSkipped;
    {
      (void)KernelCache::open(options()).publish(workerKey(0), "payload", "label");
    }
    if (mount("kvcc", directory.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0)
      return kSkipped;
    KernelCache cache = KernelCache::open(options(1 << 20));
    bool ok = cache.stat().mode == CacheMode::ReadOnly && text(cache.lookup(workerKey(0))) == "payload";
    ok &= !cache.publish(workerKey(1), "other", "label") && text(cache.lookup(workerKey(1))) == "other";
    ok &= warnings.size() == 1 && warnings[0].find("Read-only file system") != std::string::npos;
    return ok ? 0 : 1;
  });
  if (result == kSkipped)
    GTEST_SKIP() << "mounting a small file system needs privileges";
  EXPECT_EQ(result, 0);
}

TEST_F(CacheProcessTest, ReadOnlyFolder) {
  {
    (void)KernelCache::open(options()).publish(workerKey(0), "payload", "label");
  }
  if (geteuid() == 0) { // whom no mode keeps from writing
    ASSERT_EQ(chmod(root.c_str(), 0755), 0);
    for (const std::string &path : {files()[0], directory})
      ASSERT_EQ(chown(path.c_str(), kNobody, kNobody), 0);
  }
  ASSERT_EQ(chmod(directory.c_str(), 0500), 0);
  EXPECT_EQ(inChild([&] {
              if (geteuid() == 0 && !becomeUser(kNobody))
                return 2;
              KernelCache cache = KernelCache::open(options(1 << 20));
              bool ok = cache.stat().mode == CacheMode::ReadOnly && text(cache.lookup(workerKey(0))) == "payload";
              ok &= !cache.publish(workerKey(1), "other", "label") && text(cache.lookup(workerKey(1))) == "other";
              ok &= warnings.size() == 1 && warnings[0].find("Permission denied") != std::string::npos;
              return ok ? 0 : 1;
            }),
            0);
  ASSERT_EQ(chmod(directory.c_str(), 0700), 0);
}

TEST_F(CacheProcessTest, NoHome) {
  CacheOptions unset = options(1 << 20);
  unset.directory.clear();
  ScopedVariable own("KVCC_CACHE_DIR", nullptr), xdg("XDG_CACHE_HOME", nullptr);
  auto worksInMemory = [&](const std::string &warning) {
    KernelCache cache = KernelCache::open(unset);
    bool ok = !cache.publish(workerKey(0), "payload", "label") && text(cache.lookup(workerKey(0))) == "payload";
    return ok && cache.stat().directory.empty() && warnings.size() == 1 && warnings[0].find(warning) == 0;
  };
  {
    ScopedVariable home("HOME", "/proc/kvcc-test"); // where nobody can create a folder
    EXPECT_TRUE(worksInMemory("cannot create kernel cache directory '/proc/kvcc-test/.cache/kvcc'")) << warnings[0];
  }
  warnings.clear();
  if (geteuid() != 0)
    GTEST_SKIP() << "being a user without an account needs root";
  ScopedVariable home("HOME", nullptr);
  EXPECT_EQ(inChild([&] {
              if (!becomeUser(kUnknownUser))
                return 2;
              return worksInMemory("no directory for the kernel cache") ? 0 : 1;
            }),
            0);
}

TEST_F(CacheProcessTest, LosingARename) {
  // A folder that is not empty stands where the entry belongs.
  (void)KernelCache::open(options());
  std::string place = directory + "/" + workerKey(0).hex() + ".kvcc";
  ASSERT_EQ(mkdir(place.c_str(), 0700), 0);
  ASSERT_EQ(mkdir((place + "/inside").c_str(), 0700), 0);
  KernelCache cache = KernelCache::open(options(1 << 20));
  EXPECT_FALSE(cache.publish(workerKey(0), "payload", "label"));
  EXPECT_FALSE(cache.publish(workerKey(0), "payload", "label"));
  EXPECT_EQ(text(cache.lookup(workerKey(0))), "payload");
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("cannot rename a temporary file"), std::string::npos) << warnings[0];
  EXPECT_EQ(files().size(), 1u) << "the temporary file was left";
}

TEST_F(CacheProcessTest, ClearingWhileOthersPublish) {
  // Temporary files vanish before they are renamed; whoever publishes has its kernel all the same.
  std::atomic<bool> over{false};
  std::thread clearing([&] {
    CacheOptions mine = options();
    std::vector<std::string> unheard;
    mine.warn = [&](llvm::StringRef text) { unheard.push_back(text.str()); };
    KernelCache cache = KernelCache::open(mine);
    while (!over)
      cache.clear();
  });
  KernelCache cache = KernelCache::open(options(1 << 20));
  std::string payload(20000, 'p');
  unsigned right = 0;
  for (unsigned i = 0; i < 200; ++i) {
    (void)cache.publish(workerKey(i), payload, "label");
    right += text(cache.lookup(workerKey(i))) == payload;
  }
  over = true;
  clearing.join();
  EXPECT_EQ(right, 200u);
  EXPECT_LE(warnings.size(), 1u);
  EXPECT_TRUE(cache.verify().empty());
  cache.clear();
  EXPECT_TRUE(files().empty());
}

TEST_F(CacheProcessTest, TrimsUnderReaders) {
  // What is in use stays, what is not goes, and nobody who reads meanwhile sees anything wrong.
  constexpr unsigned kHot = 8, kCold = 300;
  CacheOptions small = options();
  small.maxBytes = 200000; // about 48 of 4096 bytes
  auto payload = [](unsigned kernel) { return std::string(4000, char(kernel)); };
  KernelCache cache = KernelCache::open(small);
  for (unsigned kernel = 0; kernel < kHot; ++kernel)
    ASSERT_TRUE(cache.publish(workerKey(kernel), payload(kernel), "hot"));
  std::atomic<bool> over{false};
  std::atomic<unsigned> wrong{0}, reads{0};
  std::vector<std::thread> readers;
  for (unsigned reader = 0; reader < 4; ++reader)
    readers.emplace_back([&, reader] {
      // Half of them use what is in use, half look at everything, which does not count as use.
      CacheOptions mine = small;
      mine.mode = reader % 2 ? CacheMode::ReadWrite : CacheMode::ReadOnly;
      mine.warn = [&](llvm::StringRef) { ++wrong; };
      KernelCache other = KernelCache::open(mine);
      std::mt19937 random(reader);
      while (!over) {
        unsigned kernel = random() % (reader % 2 ? kHot : kHot + kCold);
        if (auto found = other.lookup(workerKey(kernel))) {
          ++reads;
          wrong += found->getBuffer() != payload(kernel);
        }
      }
    });
  for (unsigned kernel = kHot; kernel < kHot + kCold; ++kernel) {
    ASSERT_TRUE(cache.publish(workerKey(kernel), payload(kernel), "cold"));
    for (unsigned hot = 0; hot < kHot; ++hot)
      EXPECT_NE(cache.lookup(workerKey(hot)), nullptr) << "after " << kernel;
    std::string file = directory + "/" + workerKey(kernel).hex() + ".kvcc";
    timespec times[2] = {{time(nullptr) - 1000 + kernel, 0}, {time(nullptr) - 1000 + kernel, 0}};
    (void)utimensat(AT_FDCWD, file.c_str(), times, 0);
  }
  over = true;
  for (std::thread &reader : readers)
    reader.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(reads, 0u);
  EXPECT_TRUE(warnings.empty()) << warnings[0];
  EXPECT_LE(cache.stat().bytes, small.maxBytes);
  EXPECT_EQ(cache.lookup(workerKey(kHot)), nullptr);
  EXPECT_EQ(cache.stat().entries, files().size());
}

} // namespace
