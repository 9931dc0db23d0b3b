// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The kernel cache: keys, persistence, damaged entries, refused folders, modes, bounds, and
// concurrent threads and processes.

#include "runtime/KernelCache.h"
#include "test/unit/ScopedVariable.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/Support/FileSystem.h"

#include "gtest/gtest.h"

#include <atomic>
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <mutex>
#include <sstream>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace kvcc;

namespace {

CacheKey keyOf(llvm::StringRef text) { return CacheKey::fromParts({{"source", text}}); }

class KernelCacheTest : public testing::Test {
protected:
  void SetUp() override {
    llvm::SmallString<128> path;
    ASSERT_FALSE(llvm::sys::fs::createUniqueDirectory("kvcc-cache-test", path));
    root = std::string(path);
    directory = root + "/cache";
  }
  void TearDown() override { (void)llvm::sys::fs::remove_directories(root); }

  CacheOptions options() {
    CacheOptions result;
    result.directory = directory;
    result.mode = CacheMode::ReadWrite;
    result.maxBytes = 1 << 20;
    result.maxMemoryBytes = 0; // every lookup reads the file, unless a test says otherwise
    result.warn = [this](llvm::StringRef text) {
      std::lock_guard<std::mutex> lock(mutex);
      warnings.push_back(text.str());
    };
    return result;
  }
  std::string fileOf(const CacheKey &key) { return directory + "/" + key.hex() + ".kvcc"; }
  static std::string slurp(const std::string &path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
  }
  static void spill(const std::string &path, llvm::StringRef bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), bytes.size());
    chmod(path.c_str(), 0600);
  }
  size_t filesIn(const std::string &path) {
    size_t count = 0;
    std::error_code ec;
    for (llvm::sys::fs::directory_iterator it(path, ec), end; it != end && !ec; it.increment(ec))
      ++count;
    return count;
  }
  static void setAge(const std::string &path, int seconds) {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    timespec times[2] = {now, now};
    times[0].tv_sec -= seconds;
    times[1].tv_sec -= seconds;
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
  static std::string text(const std::shared_ptr<const llvm::MemoryBuffer> &buffer) {
    return buffer ? buffer->getBuffer().str() : "(miss)";
  }
  /// Publishes one entry, damages its file, and expects a miss, one warning, and the file gone.
  void expectDamageIsNoticed(const std::function<void(std::string &)> &damage, const std::string &reason) {
    KernelCache cache = KernelCache::open(options());
    CacheKey key = keyOf("damaged");
    ASSERT_TRUE(cache.publish(key, "some payload", "label"));
    std::string bytes = slurp(fileOf(key));
    damage(bytes);
    spill(fileOf(key), bytes);
    warnings.clear();

    auto bad = cache.verify();
    ASSERT_EQ(bad.size(), 1u);
    EXPECT_NE(bad[0].reason.find(reason), std::string::npos) << bad[0].reason;
    EXPECT_TRUE(llvm::sys::fs::exists(fileOf(key))) << "verify() must not remove unasked";
    EXPECT_EQ(cache.lookup(key), nullptr);
    EXPECT_EQ(cache.lookup(key), nullptr);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_NE(warnings[0].find(fileOf(key)), std::string::npos) << warnings[0];
    EXPECT_NE(warnings[0].find(reason), std::string::npos) << warnings[0];
    EXPECT_FALSE(llvm::sys::fs::exists(fileOf(key)));
    EXPECT_TRUE(cache.publish(key, "some payload", "label"));
    EXPECT_EQ(text(cache.lookup(key)), "some payload");
  }

  std::string root, directory;
  std::mutex mutex;
  std::vector<std::string> warnings;
};

TEST(CacheKeyTest, PartBoundariesDoNotCollide) {
  std::vector<CacheKey> keys = {
      CacheKey::fromParts({}),
      CacheKey::fromParts({{"", ""}}),
      CacheKey::fromParts({{"", ""}, {"", ""}}),
      CacheKey::fromParts({{"a", "bc"}}),
      CacheKey::fromParts({{"ab", "c"}}),
      CacheKey::fromParts({{"a", "b"}, {"c", ""}}),
      CacheKey::fromParts({{"a", "b"}, {"", "c"}}),
      CacheKey::fromParts({{"a", "1"}, {"b", "2"}}),
      CacheKey::fromParts({{"b", "2"}, {"a", "1"}}),
      CacheKey::fromParts({{"a", llvm::StringRef("b\0", 2)}}),
  };
  for (size_t i = 0; i < keys.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      EXPECT_FALSE(keys[i] == keys[j]) << i << " and " << j;
}

TEST(CacheKeyTest, EveryInputCounts) {
  std::vector<std::string> none, one = {"-a"}, two = {"-a", "-b"}, joined = {"-a-b"};
  std::vector<CacheKey> keys = {
      CacheKey::create({"cubin", "s", "c", none, "sm_90"}),   CacheKey::create({"ptx", "s", "c", none, "sm_90"}),
      CacheKey::create({"cubin", "t", "c", none, "sm_90"}),   CacheKey::create({"cubin", "s", "d", none, "sm_90"}),
      CacheKey::create({"cubin", "s", "c", one, "sm_90"}),    CacheKey::create({"cubin", "s", "c", two, "sm_90"}),
      CacheKey::create({"cubin", "s", "c", joined, "sm_90"}), CacheKey::create({"cubin", "s", "c", none, "sm_90a"})};
  for (size_t i = 0; i < keys.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      EXPECT_FALSE(keys[i] == keys[j]) << i << " and " << j;
  EXPECT_TRUE(keys[0] == CacheKey::create({"cubin", "s", "c", none, "sm_90"}));
}

TEST(CacheKeyTest, Hex) {
  CacheKey key = keyOf("x");
  EXPECT_EQ(key.hex().size(), 64u);
  EXPECT_EQ(key.hex(), llvm::StringRef(key.hex()).lower());
  ASSERT_TRUE(CacheKey::fromHex(key.hex()));
  EXPECT_TRUE(*CacheKey::fromHex(key.hex()) == key);
  EXPECT_FALSE(CacheKey::fromHex(key.hex().substr(1)));
  EXPECT_FALSE(CacheKey::fromHex(std::string(64, 'A')));
  EXPECT_FALSE(CacheKey::fromHex(std::string(64, 'g')));
}

TEST_F(KernelCacheTest, RoundTripAndPersistence) {
  std::string payload("\x7f"
                      "ELF\0\n\xff",
                      7);
  {
    KernelCache cache = KernelCache::open(options());
    EXPECT_EQ(cache.lookup(keyOf("a")), nullptr);
    EXPECT_TRUE(cache.publish(keyOf("a"), payload, "attend k3 v2"));
    EXPECT_TRUE(cache.publish(keyOf("empty"), "", ""));
    EXPECT_EQ(text(cache.lookup(keyOf("a"))), payload);
  }
  KernelCache cache = KernelCache::open(options());
  auto found = cache.lookup(keyOf("a"));
  EXPECT_EQ(text(found), payload);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(found->getBufferStart()) % 16, 0u);
  EXPECT_EQ(*found->getBufferEnd(), '\0');
  EXPECT_EQ(text(cache.lookup(keyOf("empty"))), "");
  EXPECT_EQ(cache.lookup(keyOf("b")), nullptr);
  CacheStat stat = cache.stat();
  EXPECT_EQ(stat.entries, 2u);
  EXPECT_EQ(stat.hits, 2u);
  EXPECT_EQ(stat.misses, 1u);
  EXPECT_EQ(stat.directory, directory);
  auto list = cache.list();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].bytes + list[1].bytes, stat.bytes);
  const CacheListEntry &entry = list[0].key == keyOf("a").hex() ? list[0] : list[1];
  EXPECT_EQ(entry.label, "attend k3 v2");
  EXPECT_TRUE(cache.verify().empty());
  EXPECT_TRUE(warnings.empty());

  struct stat status;
  ASSERT_EQ(::stat(directory.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  ASSERT_EQ(::stat(fileOf(keyOf("a")).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(KernelCacheTest, MemoryIsInFrontAndBounded) {
  CacheOptions withMemory = options();
  withMemory.maxMemoryBytes = 100;
  KernelCache cache = KernelCache::open(withMemory);
  cache.publish(keyOf("a"), std::string(60, 'a'), "a");
  auto held = cache.lookup(keyOf("a"));
  EXPECT_EQ(cache.stat().memoryHits, 1u);
  cache.publish(keyOf("b"), std::string(60, 'b'), "b"); // pushes a out
  EXPECT_EQ(cache.stat().memoryEntries, 1u);
  EXPECT_EQ(cache.stat().memoryBytes, 60u);
  EXPECT_EQ(text(held), std::string(60, 'a'));
  EXPECT_EQ(text(cache.lookup(keyOf("a"))), std::string(60, 'a'));
  EXPECT_EQ(cache.stat().memoryHits, 1u); // from disk this time
}

TEST_F(KernelCacheTest, EveryDamagedByteIsNoticed) {
  KernelCache cache = KernelCache::open(options());
  CacheKey key = keyOf("a");
  cache.publish(key, "payload", "label");
  std::string good = slurp(fileOf(key));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] ^= 0x10;
    spill(fileOf(key), bad);
    EXPECT_EQ(cache.lookup(key), nullptr) << "byte " << i;
  }
  spill(fileOf(key), good);
  EXPECT_EQ(text(cache.lookup(key)), "payload");
}

TEST_F(KernelCacheTest, CorruptedPayload) {
  expectDamageIsNoticed([](std::string &bytes) { bytes.back() ^= 1; }, "expected SHA-256 digest");
}
TEST_F(KernelCacheTest, Truncated) {
  expectDamageIsNoticed([](std::string &bytes) { bytes.pop_back(); }, "bytes after the header");
}
TEST_F(KernelCacheTest, TruncatedHeader) {
  expectDamageIsNoticed([](std::string &bytes) { bytes.resize(20); }, "expected at least 88 bytes");
}
TEST_F(KernelCacheTest, Empty) {
  expectDamageIsNoticed([](std::string &bytes) { bytes.clear(); }, "but got 0");
}
TEST_F(KernelCacheTest, Appended) {
  expectDamageIsNoticed([](std::string &bytes) { bytes += "x"; }, "bytes after the header");
}
TEST_F(KernelCacheTest, ForeignMagic) {
  expectDamageIsNoticed([](std::string &bytes) { bytes[1] = 'K'; }, "expected the magic");
}
TEST_F(KernelCacheTest, ForeignSchema) {
  expectDamageIsNoticed([](std::string &bytes) { bytes[8]++; }, "expected schema version");
}
TEST_F(KernelCacheTest, WrappingLength) {
  expectDamageIsNoticed([](std::string &bytes) { std::fill_n(bytes.begin() + 16, 8, '\xff'); },
                        "bytes after the header");
}
TEST_F(KernelCacheTest, ForeignKey) {
  KernelCache other = KernelCache::open(options());
  other.publish(keyOf("other"), "other payload", "label");
  std::string bytes = slurp(fileOf(keyOf("other")));
  other.clear();
  expectDamageIsNoticed([&](std::string &own) { own = bytes; }, "expected key");
}

TEST_F(KernelCacheTest, LinksFoldersAndForeignOwnersAreRefused) {
  KernelCache cache = KernelCache::open(options());
  CacheKey key = keyOf("a");
  cache.publish(key, "payload", "label");
  std::string elsewhere = root + "/elsewhere";
  ASSERT_EQ(rename(fileOf(key).c_str(), elsewhere.c_str()), 0);
  ASSERT_EQ(symlink(elsewhere.c_str(), fileOf(key).c_str()), 0);
  EXPECT_EQ(cache.lookup(key), nullptr);
  EXPECT_TRUE(llvm::sys::fs::exists(elsewhere)) << "only the link may be removed";
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("symbolic link"), std::string::npos);

  CacheKey folder = keyOf("folder");
  ASSERT_EQ(mkdir(fileOf(folder).c_str(), 0700), 0);
  EXPECT_EQ(cache.lookup(folder), nullptr);

  if (geteuid() != 0)
    GTEST_SKIP() << "changing a file's owner needs root";
  cache.publish(key, "payload", "label");
  ASSERT_EQ(chown(fileOf(key).c_str(), 12345, 12345), 0);
  EXPECT_EQ(cache.lookup(key), nullptr);
  ASSERT_EQ(chown(directory.c_str(), 12345, 12345), 0);
  warnings.clear();
  KernelCache foreign = KernelCache::open(options());
  EXPECT_EQ(foreign.stat().directory, "");
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("but got owner 12345"), std::string::npos) << warnings[0];
}

TEST_F(KernelCacheTest, WorldWritableFolderIsRefused) {
  ASSERT_EQ(mkdir(directory.c_str(), 0700), 0);
  for (mode_t mode : {0777, 01777, 0770, 0702}) {
    ASSERT_EQ(chmod(directory.c_str(), mode), 0);
    warnings.clear();
    CacheOptions withMemory = options();
    withMemory.maxMemoryBytes = 1 << 20;
    KernelCache cache = KernelCache::open(withMemory);
    EXPECT_FALSE(cache.publish(keyOf("a"), "payload", "label"));
    EXPECT_EQ(text(cache.lookup(keyOf("a"))), "payload");
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_NE(warnings[0].find("mode 0700"), std::string::npos) << warnings[0];
    EXPECT_EQ(filesIn(directory), 0u);
  }
}

TEST_F(KernelCacheTest, OnlyAFolderOfOurOwnIsMadePrivate) {
  ASSERT_EQ(mkdir(directory.c_str(), 0755), 0);
  ASSERT_EQ(chmod(directory.c_str(), 0755), 0);
  spill(directory + "/notes.txt", "mine");
  (void)KernelCache::open(options());
  struct stat status;
  ASSERT_EQ(::stat(directory.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0755u);
  ASSERT_EQ(unlink((directory + "/notes.txt").c_str()), 0);
  (void)KernelCache::open(options());
  ASSERT_EQ(::stat(directory.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST_F(KernelCacheTest, UnusableFolderKeepsKernelsInMemory) {
  spill(root + "/file", "");
  for (std::string path : {root + "/file/below", root + "/file", std::string("/proc/kvcc-test")}) {
    directory = path;
    warnings.clear();
    CacheOptions withMemory = options();
    withMemory.maxMemoryBytes = 1 << 20;
    KernelCache cache = KernelCache::open(withMemory);
    EXPECT_FALSE(cache.publish(keyOf("a"), "payload", "label"));
    EXPECT_FALSE(cache.publish(keyOf("b"), "payload", "label"));
    EXPECT_EQ(text(cache.lookup(keyOf("a"))), "payload");
    EXPECT_EQ(cache.lookup(keyOf("c")), nullptr);
    EXPECT_TRUE(cache.list().empty());
    EXPECT_EQ(cache.clear(), 0u);
    EXPECT_EQ(warnings.size(), 1u) << path;
  }
}

TEST_F(KernelCacheTest, FailedWriteLeavesNothingBehind) {
  (void)KernelCache::open(options()); // creates the folder
  pid_t child = fork();
  if (child == 0) {
    // A file size limit stands in for a full disk.
    signal(SIGXFSZ, SIG_IGN);
    rlimit limit = {4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    CacheOptions withMemory = options();
    withMemory.maxMemoryBytes = 1 << 20;
    KernelCache cache = KernelCache::open(withMemory);
    std::string big(10000, 'x');
    bool ok = !cache.publish(keyOf("a"), big, "label") && text(cache.lookup(keyOf("a"))) == big &&
              !cache.publish(keyOf("b"), big, "label") && warnings.size() == 1;
    _exit(ok ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(filesIn(directory), 0u);
}

TEST_F(KernelCacheTest, Modes) {
  {
    KernelCache cache = KernelCache::open(options());
    cache.publish(keyOf("a"), "payload", "label");
    cache.publish(keyOf("bad"), "payload", "label");
  }
  spill(fileOf(keyOf("bad")), "garbage");
  CacheOptions fromEnvironment = options();
  fromEnvironment.mode.reset();
  {
    ScopedVariable variable("KVCC_CACHE", "off");
    KernelCache cache = KernelCache::open(fromEnvironment);
    EXPECT_EQ(cache.stat().mode, CacheMode::Off);
    EXPECT_EQ(cache.lookup(keyOf("a")), nullptr);
    EXPECT_FALSE(cache.publish(keyOf("c"), "payload", "label"));
    EXPECT_TRUE(warnings.empty());
  }
  {
    ScopedVariable variable("KVCC_CACHE", "ro");
    KernelCache cache = KernelCache::open(fromEnvironment);
    EXPECT_EQ(text(cache.lookup(keyOf("a"))), "payload");
    EXPECT_EQ(cache.lookup(keyOf("bad")), nullptr);
    EXPECT_EQ(cache.lookup(keyOf("bad")), nullptr);
    EXPECT_EQ(warnings.size(), 1u);
    EXPECT_FALSE(cache.publish(keyOf("c"), "payload", "label"));
    EXPECT_EQ(cache.verify(/*removeBad=*/true).size(), 1u);
    EXPECT_EQ(cache.clear(), 0u);
    EXPECT_EQ(filesIn(directory), 2u);
    warnings.clear();
  }
  {
    ScopedVariable variable("KVCC_CACHE", "ro");
    directory = root + "/absent";
    CacheOptions absent = options();
    absent.mode.reset();
    KernelCache cache = KernelCache::open(absent);
    EXPECT_EQ(cache.lookup(keyOf("a")), nullptr);
    EXPECT_FALSE(llvm::sys::fs::exists(directory));
    EXPECT_TRUE(warnings.empty());
  }
  {
    ScopedVariable variable("KVCC_CACHE", "readwrite");
    KernelCache cache = KernelCache::open(fromEnvironment);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_EQ(warnings[0], "expected KVCC_CACHE to be 'off', 'ro' or 'rw', but got 'readwrite'; using 'rw'");
    EXPECT_EQ(cache.stat().mode, CacheMode::ReadWrite);
    EXPECT_EQ(cache.verify(/*removeBad=*/true).size(), 1u);
    EXPECT_TRUE(cache.verify().empty());
  }
}

TEST_F(KernelCacheTest, EnvironmentChoosesDirectoryAndBound) {
  CacheOptions unset = options();
  unset.directory.clear();
  unset.maxBytes.reset();
  ScopedVariable own("KVCC_CACHE_DIR", nullptr), xdg("XDG_CACHE_HOME", nullptr);
  ScopedVariable home("HOME", root.c_str()), bound("KVCC_CACHE_MAX_BYTES", nullptr);
  EXPECT_EQ(KernelCache::open(unset).stat().directory, root + "/.cache/kvcc");
  EXPECT_EQ(KernelCache::open(unset).stat().maxBytes, uint64_t(512) << 20);
  {
    ScopedVariable relative("XDG_CACHE_HOME", "relative");
    EXPECT_EQ(KernelCache::open(unset).stat().directory, root + "/.cache/kvcc");
  }
  std::string xdgPath = root + "/xdg", ownPath = root + "/own";
  ScopedVariable xdgSet("XDG_CACHE_HOME", xdgPath.c_str());
  EXPECT_EQ(KernelCache::open(unset).stat().directory, xdgPath + "/kvcc");
  ScopedVariable ownSet("KVCC_CACHE_DIR", ownPath.c_str());
  ScopedVariable boundSet("KVCC_CACHE_MAX_BYTES", "4096");
  EXPECT_EQ(KernelCache::open(unset).stat().directory, ownPath);
  EXPECT_EQ(KernelCache::open(unset).stat().maxBytes, 4096u);
  EXPECT_TRUE(warnings.empty());
  ScopedVariable badBound("KVCC_CACHE_MAX_BYTES", "1GB");
  EXPECT_EQ(KernelCache::open(unset).stat().maxBytes, uint64_t(512) << 20);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("but got '1GB'"), std::string::npos);
}

TEST_F(KernelCacheTest, TrimsTheLeastRecentlyUsed) {
  CacheOptions small = options();
  small.maxBytes = 5000;
  KernelCache cache = KernelCache::open(small);
  std::string payload(900, 'x'); // 900 + 88 + 1 bytes each: five fit
  for (int i = 0; i < 5; ++i) {
    CacheKey key = keyOf(std::to_string(i));
    ASSERT_TRUE(cache.publish(key, payload, "l"));
    setAge(fileOf(key), 1000 - i);
  }
  EXPECT_EQ(cache.stat().entries, 5u);
  EXPECT_NE(cache.lookup(keyOf("0")), nullptr); // a hit makes the oldest one the newest
  ASSERT_TRUE(cache.publish(keyOf("5"), payload, "l"));
  EXPECT_LE(cache.stat().bytes, 4500u);
  EXPECT_NE(cache.lookup(keyOf("0")), nullptr);
  EXPECT_EQ(cache.lookup(keyOf("1")), nullptr);
  EXPECT_EQ(cache.lookup(keyOf("2")), nullptr);
  EXPECT_NE(cache.lookup(keyOf("4")), nullptr);
  EXPECT_NE(cache.lookup(keyOf("5")), nullptr);
  EXPECT_TRUE(warnings.empty());

  EXPECT_FALSE(cache.publish(keyOf("huge"), std::string(6000, 'x'), "huge kernel"));
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("'huge kernel'"), std::string::npos) << warnings[0];

  small.maxBytes = 2000; // a smaller bound holds from the next open on
  EXPECT_LE(KernelCache::open(small).stat().bytes, 2000u);
}

TEST_F(KernelCacheTest, RemovesOldTemporaryFilesOnly) {
  (void)KernelCache::open(options());
  std::string old = directory + "/kvcc-tmp-1-0-abc", young = directory + "/kvcc-tmp-2-0-abc";
  std::string foreign = directory + "/notes.txt";
  for (const std::string &path : {old, young, foreign})
    spill(path, "x");
  setAge(old, 3700);
  setAge(foreign, 100000);
  KernelCache cache = KernelCache::open(options());
  EXPECT_FALSE(llvm::sys::fs::exists(old));
  EXPECT_TRUE(llvm::sys::fs::exists(young));
  EXPECT_EQ(cache.stat().entries, 0u);

  cache.publish(keyOf("a"), "payload", "label");
  EXPECT_EQ(cache.clear(), 2u); // the entry and the young temporary file
  EXPECT_TRUE(llvm::sys::fs::exists(foreign));
  EXPECT_EQ(filesIn(directory), 1u);
  EXPECT_EQ(cache.lookup(keyOf("a")), nullptr);
}

TEST_F(KernelCacheTest, ThreadsPublishTheSameKey) {
  KernelCache cache = KernelCache::open(options());
  std::string payload(50000, 'p');
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        if (!cache.publish(keyOf("shared"), payload, "label"))
          ++wrong;
        if (text(cache.lookup(keyOf("shared"))) != payload)
          ++wrong;
      }
    });
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(filesIn(directory), 1u);
  EXPECT_TRUE(warnings.empty()) << warnings[0];
}

TEST_F(KernelCacheTest, ProcessesPublishReadTrimAndClear) {
  // Reads may miss here, but what is found must be right, and nobody may warn.
  std::vector<pid_t> children;
  for (int c = 0; c < 6; ++c) {
    pid_t child = fork();
    if (child == 0) {
      CacheOptions small = options();
      small.maxBytes = 60000;
      KernelCache cache = KernelCache::open(small);
      bool ok = true;
      for (int i = 0; i < 60; ++i) {
        std::string name = std::to_string(i % 12);
        std::string payload(8000, char('a' + i % 12));
        cache.publish(keyOf(name), payload, "label");
        for (int j = 0; j < 12; ++j)
          if (auto found = cache.lookup(keyOf(std::to_string(j))))
            ok &= found->getBuffer() == std::string(8000, char('a' + j));
        if (c == 0 && i % 20 == 19)
          ok &= cache.verify().empty();
      }
      _exit(ok && warnings.empty() ? 0 : 1);
    }
    children.push_back(child);
  }
  for (pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  CacheOptions small = options();
  small.maxBytes = 60000;
  KernelCache cache = KernelCache::open(small);
  EXPECT_LE(cache.stat().bytes, 60000u);
  EXPECT_EQ(cache.stat().entries, filesIn(directory)) << "a temporary file was left";
  EXPECT_TRUE(cache.verify().empty());
}

TEST_F(KernelCacheTest, DefaultWarningGoesToStandardError) {
  CacheOptions plain = options();
  plain.warn = nullptr;
  plain.directory = "/proc/kvcc-test";
  testing::internal::CaptureStderr();
  (void)KernelCache::open(plain);
  std::string captured = testing::internal::GetCapturedStderr();
  EXPECT_EQ(captured.find("kvcc: warning: cannot create kernel cache directory"), 0u) << captured;
}

} // namespace
