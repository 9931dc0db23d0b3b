// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Bundles of cache entries: what they hold, how damage is met, and what starts warm with them.

#include "runtime/CacheBundle.h"
#include "runtime/Compiler.h"
#include "test/unit/ScopedVariable.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/SHA256.h"

#include "gtest/gtest.h"

using namespace kvcc;

namespace {

CacheRecord record(llvm::StringRef name, llvm::StringRef bytes) {
  return {CacheKey::fromParts({{"record", name}}), name.str(), llvm::MemoryBuffer::getMemBufferCopy(bytes)};
}

std::string problem(llvm::StringRef bundle) {
  auto records = decodeCacheBundle(bundle, "me");
  return records ? "" : toString(records.takeError());
}

/// A bundle that ends with the digest of what it says now.
std::string sealed(std::string bundle) {
  bundle.resize(bundle.size() - 32);
  auto digest = llvm::SHA256::hash(llvm::arrayRefFromStringRef(bundle));
  return bundle.append(digest.begin(), digest.end());
}

TEST(CacheBundleTest, SameEntriesSameBytes) {
  CacheRecord a = record("a", "first"), b = record("b", ""), c = record("c", std::string(3000, 'c'));
  std::string bundle = encodeCacheBundle({a, b, c}, "me");
  EXPECT_EQ(bundle, encodeCacheBundle({c, a, b, a}, "me"));
  auto records = decodeCacheBundle(bundle, "me");
  ASSERT_TRUE(bool(records)) << toString(records.takeError());
  ASSERT_EQ(records->size(), 3u);
  for (const CacheRecord &found : *records) {
    const CacheRecord &wanted = found.key == a.key ? a : found.key == b.key ? b : c;
    EXPECT_TRUE(found.key == wanted.key);
    EXPECT_EQ(found.label, wanted.label);
    EXPECT_EQ(found.bytes->getBuffer(), wanted.bytes->getBuffer());
  }
  EXPECT_TRUE(decodeCacheBundle(encodeCacheBundle({}, "me"), "me")->empty());
}

TEST(CacheBundleTest, EveryDamagedByteAndEveryCutIsNoticed) {
  std::string bundle = encodeCacheBundle({record("a", "first"), record("b", "second")}, "me");
  ASSERT_EQ(problem(bundle), "");
  for (size_t i = 0; i < bundle.size(); ++i) {
    std::string bad = bundle;
    bad[i] ^= 0x10;
    EXPECT_NE(problem(bad), "") << "byte " << i;
    EXPECT_NE(problem(llvm::StringRef(bundle).take_front(i)), "") << "cut at " << i;
  }
  EXPECT_NE(problem(bundle + "x"), "");
  std::string flipped = bundle;
  flipped.back() ^= 1;
  EXPECT_NE(problem(flipped).find("it is damaged or cut off"), std::string::npos) << problem(flipped);
}

TEST(CacheBundleTest, ForeignBundlesAreNamed) {
  EXPECT_EQ(problem("#!/bin/sh"), "expected a bundle of kvcc cache export, but got something else");
  EXPECT_EQ(problem(""), "expected a bundle of kvcc cache export, but got something else");
  EXPECT_EQ(problem(encodeCacheBundle({}, "you")),
            "expected a bundle that this compiler (me) exported, but got one of you");
  std::string bundle = encodeCacheBundle({record("a", "first")}, "me");
  std::string version = bundle;
  ++version[8];
  EXPECT_EQ(problem(sealed(version)), "expected a bundle of schema version 1, but got 2");

  // Digests that a hostile writer has made right.
  std::string more = bundle, fewer = bundle, producer = bundle, label = bundle, entry = bundle;
  ++more[16];
  EXPECT_NE(problem(sealed(more)).find("entry 1: expected at least 88 bytes"), std::string::npos);
  --fewer[16];
  EXPECT_NE(problem(sealed(fewer)).find("expected 0 entries, but got"), std::string::npos);
  producer[15] = '\x7f';
  EXPECT_NE(problem(sealed(producer)).find("expected a producer of"), std::string::npos);
  std::fill_n(label.begin() + 26 + 12, 12, '\xff'); // the lengths of the entry after the head and "me"
  EXPECT_NE(problem(sealed(label)).find("entry 0: expected a label of"), std::string::npos) << problem(sealed(label));
  entry[26 + 88] ^= 1;
  EXPECT_NE(problem(sealed(entry)).find("entry 0: expected SHA-256"), std::string::npos);
}

class BundleImportTest : public testing::Test {
protected:
  void SetUp() override {
    llvm::SmallString<128> path;
    ASSERT_FALSE(llvm::sys::fs::createUniqueDirectory("kvcc-bundle", path));
    root = std::string(path);
  }
  void TearDown() override { (void)llvm::sys::fs::remove_directories(root); }
  CacheOptions options(llvm::StringRef name) {
    CacheOptions result;
    result.directory = root + "/" + name.str();
    result.mode = CacheMode::ReadWrite;
    return result;
  }
  std::string root;
};

TEST_F(BundleImportTest, NeedsACacheThatHoldsIt) {
  std::vector<CacheRecord> records = {record("a", std::string(5000, 'a')), record("b", std::string(4500, 'b'))};
  CacheOptions off = options("cache");
  off.mode = CacheMode::Off;
  KernelCache none = KernelCache::open(off);
  EXPECT_EQ(toString(importRecords(none, records)),
            "expected a kernel cache on disk that can be written (mode rw), but got none");
  CacheOptions small = options("cache");
  small.maxBytes = 10000;
  KernelCache tight = KernelCache::open(small);
  EXPECT_EQ(toString(importRecords(tight, records)),
            "expected entries of at most 9000 bytes (nine tenths of KVCC_CACHE_MAX_BYTES), but got 9678");
  EXPECT_EQ(tight.stat().entries, 0u);
  CacheOptions readOnly = options("cache");
  readOnly.mode = CacheMode::ReadOnly;
  KernelCache shut = KernelCache::open(readOnly);
  EXPECT_NE(toString(importRecords(shut, records)).find("in mode ro"), std::string::npos);

  KernelCache cache = KernelCache::open(options("cache"));
  ASSERT_FALSE(bool(importRecords(cache, records)));
  EXPECT_EQ(KernelCache::open(options("cache")).lookup(records[0].key)->getBuffer(), std::string(5000, 'a'));
}

TEST_F(BundleImportTest, TargetCpuTakesTheImportedLevel) {
  const CpuLevel &level = cpu::getHostLevel();
  if (level.triple.empty())
    GTEST_SKIP() << "this host has no level that is compiled for other machines";
  std::string name = ("cpu:" + level.name).str();
  AttentionShape shape{2, 1, 32, 0.125};
  auto emit = [&](Compiler &compiler, llvm::StringRef target) {
    Plan plan = cantFail(compiler.plan(shape, "f16", "int4-token", cantFail(parseTarget(target))));
    return cantFail(compiler.emit(plan, Emit::Object));
  };
  Compiler exporting(options("one"));
  Artifact exported = emit(exporting, name);
  EXPECT_FALSE(exported.cached);
  ASSERT_EQ(exported.records.size(), 2u);
  // What was compiled here for the level is not what target cpu stands for.
  Artifact own = emit(exporting, "cpu");
  EXPECT_FALSE(own.cached);
  EXPECT_EQ(own.note, "");
  EXPECT_EQ(own.records.size(), 1u);

  std::string bundle = encodeCacheBundle(exported.records, getCompilerIdentity());
  auto records = cantFail(decodeCacheBundle(bundle, getCompilerIdentity()));
  Compiler importing(options("two"));
  ASSERT_FALSE(bool(importRecords(importing.getCache(), records)));
  Compiler warm(options("two"));
  Artifact same = emit(warm, name);
  EXPECT_TRUE(same.cached);
  EXPECT_EQ(same.note, "");
  EXPECT_EQ(same.bytes->getBuffer(), exported.bytes->getBuffer());
  Artifact standIn = emit(warm, "cpu");
  EXPECT_TRUE(standIn.cached);
  EXPECT_EQ(standIn.note,
            "the imported kernel for " + name + " stands in for one that would be compiled for this very processor");
  EXPECT_EQ(standIn.bytes->getBuffer(), exported.bytes->getBuffer());
  EXPECT_FALSE(emit(warm, "cpu:generic").cached);

  // The kernel that a stand-in names may have been removed to make room.
  for (const CacheRecord &each : records)
    if (each.bytes->getBufferSize() > 64)
      ASSERT_EQ(::unlink((root + "/two/" + each.key.hex() + ".kvcc").c_str()), 0);
  Compiler cold(options("two"));
  EXPECT_FALSE(emit(cold, "cpu").cached);
}

} // namespace
