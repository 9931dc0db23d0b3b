// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The safetensors reader against good, broken and hostile files, the writer, and the conversions to
// float32.

#include "runtime/Safetensors.h"
#include "test/unit/TestPaths.h"

#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "gtest/gtest.h"

#include <cmath>

using namespace llvm;
using namespace kvcc;

namespace {

/// A file in memory: header size, header, `dataBytes` bytes 0, 1, 2, ...
std::string fileOf(StringRef header, size_t dataBytes = 0) {
  std::string text(8, '\0');
  support::endian::write64le(text.data(), header.size());
  text += header;
  for (size_t i = 0; i < dataBytes; ++i)
    text += char(i);
  return text;
}

Expected<SafetensorsFile> read(StringRef bytes) {
  return SafetensorsFile::read(MemoryBuffer::getMemBufferCopy(bytes), "f");
}

std::string errorOf(StringRef bytes) {
  Expected<SafetensorsFile> file = read(bytes);
  return file ? "(no error)" : toString(file.takeError());
}

std::string errorOf(StringRef header, size_t dataBytes) { return errorOf(fileOf(header, dataBytes)); }

ArrayRef<uint8_t> bytesOfText(StringRef text) { return arrayRefFromStringRef(text); }

class SafetensorsFiles : public testing::Test {
protected:
  void SetUp() override { ASSERT_FALSE(sys::fs::createUniqueDirectory("kvcc-safetensors", dir)); }
  void TearDown() override { sys::fs::remove_directories(dir); }
  std::string path(StringRef name) {
    SmallString<128> file(dir);
    sys::path::append(file, name);
    return file.str().str();
  }
  size_t entries() {
    std::error_code ec;
    size_t count = 0;
    for (sys::fs::directory_iterator it(dir, ec), end; it != end && !ec; it.increment(ec))
      ++count;
    return count;
  }
  SmallString<128> dir;
};

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

TEST(Safetensors, ReadsTensorsAndMetadata) {
  Expected<SafetensorsFile> file =
      read(fileOf(R"({"b":{"dtype":"I16","shape":[2,2],"data_offsets":[0,8]},"__metadata__":{"x":"y"},)"
                  R"("a":{"dtype":"U8","shape":[],"data_offsets":[8,9]},)"
                  R"("empty":{"dtype":"F32","shape":[0,7],"data_offsets":[8,8]}}   )",
                  9));
  ASSERT_TRUE(bool(file)) << toString(file.takeError());
  EXPECT_EQ(file->names(), (std::vector<StringRef>{"a", "b", "empty"}));
  EXPECT_EQ(file->metadata().at("x"), "y");
  const TensorView *b = file->find("b");
  ASSERT_TRUE(b);
  EXPECT_EQ(b->dtype, TensorType::I16);
  EXPECT_EQ(b->shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(b->data.size(), 8u);
  EXPECT_EQ(b->data[3], 3);
  EXPECT_EQ(file->find("a")->data, ArrayRef<uint8_t>({8}));
  EXPECT_TRUE(file->find("empty")->data.empty());
  EXPECT_FALSE(file->find("c"));
  EXPECT_EQ(toString(file->get("c").takeError()), "f: expected a tensor 'c', but got 'a', 'b', 'empty'");
  SafetensorsFile moved = std::move(*file); // The views stay good.
  EXPECT_EQ(moved.find("a")->data[0], 8);
}

TEST(Safetensors, NoTensors) {
  Expected<SafetensorsFile> file = read(fileOf("{}"));
  ASSERT_TRUE(bool(file)) << toString(file.takeError());
  EXPECT_EQ(toString(file->get("q").takeError()), "f: expected a tensor 'q', but got none");
}

TEST(Safetensors, BrokenFrames) {
  EXPECT_EQ(errorOf(""), "f: expected a safetensors file of at least 8 bytes, but got 0");
  EXPECT_EQ(errorOf("1234567"), "f: expected a safetensors file of at least 8 bytes, but got 7");
  EXPECT_EQ(errorOf(StringRef("\3\0\0\0\0\0\0\0{}", 10)),
            "f: expected a header of at most 2 bytes (the rest of the file), but got 3");
  EXPECT_EQ(errorOf("\x7f"
                    "ELFaaaaaaaa"),
            "f: expected a header of at most 100000000 bytes, but got "
            "7016996764839069055 (not a safetensors file?)");
  EXPECT_EQ(errorOf(std::string(16, '\xff')),
            "f: expected a header of at most 100000000 bytes, but got 18446744073709551615 (not a "
            "safetensors file?)");
  EXPECT_TRUE(StringRef(errorOf(fileOf(""))).starts_with("f: header: not valid JSON: "));
  EXPECT_EQ(errorOf(fileOf("[]")), "f: header: expected a JSON object, but got []");
  EXPECT_TRUE(StringRef(errorOf(fileOf("{} x"))).starts_with("f: header: not valid JSON: "));
  EXPECT_TRUE(StringRef(errorOf(fileOf("{\"\xc3\x28\":1}"))).contains("UTF-8"));
  EXPECT_EQ(errorOf(fileOf(std::string(100000, '['))),
            "f: header: not valid JSON: expected at most 8 nested arrays and objects, but got more at "
            "byte 8");
  EXPECT_TRUE(StringRef(errorOf(fileOf(R"({"a": NaN})"))).starts_with("f: header: not valid JSON: "));
}

TEST(Safetensors, DuplicateNames) {
  std::string entry = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  EXPECT_EQ(errorOf("{\"a\":" + entry + ", \"a\" :" + entry + "}", 1),
            "f: header: expected each key once, but got 'a' twice");
  EXPECT_EQ(errorOf("{\"a\":" + entry + ",\"\\u0061\":" + entry + "}", 1),
            "f: header: expected each key once, but got 'a' twice");
  EXPECT_EQ(errorOf(R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1),
            "f: header: expected each key once, but got 'dtype' twice");
}

TEST(Safetensors, BadEntries) {
  struct {
    StringRef entry, message;
  } cases[] = {
      {R"(1)", "expected an object, but got 1"},
      {R"({"shape":[8],"data_offsets":[0,8]})", "expected dtype to be one of I64, U64, F64, C64, "
                                                "I32, U32, F32, I16, U16, F16, BF16, I8, U8, "
                                                "BOOL, F8_E4M3, F8_E5M2, F8_E8M0, but got null"},
      {R"({"dtype":"F17","shape":[8],"data_offsets":[0,8]})",
       "expected dtype to be one of I64, U64, F64, C64, I32, U32, F32, I16, U16, F16, BF16, I8, "
       "U8, "
       "BOOL, F8_E4M3, F8_E5M2, F8_E8M0, but got \"F17\""},
      {R"({"dtype":"U8","data_offsets":[0,8]})", "expected shape to be an array, but got null"},
      {R"({"dtype":"U8","shape":[-8],"data_offsets":[0,8]})", "expected shape to hold integers from 0, but got -8"},
      {R"({"dtype":"U8","shape":[8.5],"data_offsets":[0,8]})", "expected shape to hold integers from 0, but got 8.5"},
      {R"({"dtype":"U8","shape":["8"],"data_offsets":[0,8]})", "expected shape to hold integers from 0, but got \"8\""},
      {R"({"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,8]})",
       "expected shape to hold integers from 0, but got 18446744073709551615"},
      // 2^32 * 2^32 * ... wraps to 0 or 8 in 64 bits.
      {R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]})",
       "expected shape x dtype to fit 63 bits, but got [4294967296, 4294967296]"},
      {R"({"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]})",
       "expected shape x dtype to fit 63 bits, but got [2305843009213693953]"},
      {R"({"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]})",
       "expected shape x dtype to fit 63 bits, but got [4294967296, 4294967296, 0]"},
      {R"({"dtype":"U8","shape":[8]})", "expected data_offsets to be two rising integers from 0 to "
                                        "8 (the file's data), but got null"},
      {R"({"dtype":"U8","shape":[8],"data_offsets":[8]})",
       "expected data_offsets to be two rising integers from 0 to 8 (the file's data), but got "
       "[8]"},
      {R"({"dtype":"U8","shape":[8],"data_offsets":[0,9]})",
       "expected data_offsets to be two rising integers from 0 to 8 (the file's data), but got "
       "[0,9]"},
      {R"({"dtype":"U8","shape":[8],"data_offsets":[8,0]})",
       "expected data_offsets to be two rising integers from 0 to 8 (the file's data), but got "
       "[8,0]"},
      {R"({"dtype":"U8","shape":[8],"data_offsets":[-8,0]})",
       "expected data_offsets to be two rising integers from 0 to 8 (the file's data), but got "
       "[-8,0]"},
      {R"({"dtype":"U8","shape":[8],"data_offsets":[18446744073709551608,18446744073709551615]})",
       "expected data_offsets to be two rising integers from 0 to 8 (the file's data), but got "
       "[18446744073709551608,18446744073709551615]"},
      {R"({"dtype":"F16","shape":[8],"data_offsets":[0,8]})",
       "expected 16 bytes of data for shape [8] of F16, but got 8"},
      {R"({"dtype":"F16","shape":[3],"data_offsets":[0,8]})",
       "expected 6 bytes of data for shape [3] of F16, but got 8"},
  };
  for (const auto &c : cases) {
    SCOPED_TRACE(c.entry.str());
    EXPECT_EQ(errorOf(("{\"t\":" + c.entry + "}").str(), 8), ("f: tensor 't': " + c.message).str());
  }
}

TEST(Safetensors, BadMetadata) {
  EXPECT_EQ(errorOf(R"({"__metadata__":1})", 0), "f: header: expected __metadata__ to be an object, but got 1");
  EXPECT_EQ(errorOf(R"({"__metadata__":{"a":1}})", 0),
            "f: header: expected __metadata__ to hold strings, but got 'a': 1");
}

TEST(Safetensors, TensorsMustCoverTheData) {
  auto two = [](StringRef a, StringRef b, int n, int m) {
    return ("{\"a\":{\"dtype\":\"U8\",\"shape\":[" + Twine(n) + "],\"data_offsets\":" + a +
            "},\"b\":{\"dtype\":\"U8\",\"shape\":[" + Twine(m) + "],\"data_offsets\":" + b + "}}")
        .str();
  };
  EXPECT_EQ(errorOf(two("[0,4]", "[4,8]", 4, 4), 8), "(no error)");
  EXPECT_EQ(errorOf(two("[4,8]", "[0,4]", 4, 4), 8), "(no error)");
  EXPECT_EQ(errorOf(two("[0,5]", "[4,8]", 5, 4), 8),
            "f: tensor 'b': expected data that begins at byte 5, where the one before ends, but "
            "got 4 (an "
            "overlap)");
  EXPECT_EQ(errorOf(two("[0,8]", "[0,8]", 8, 8), 8),
            "f: tensor 'b': expected data that begins at byte 8, where the one before ends, but "
            "got 0 (an "
            "overlap)");
  EXPECT_EQ(errorOf(two("[0,3]", "[4,8]", 3, 4), 8),
            "f: tensor 'b': expected data that begins at byte 3, where the one before ends, but got 4 (a "
            "hole)");
  EXPECT_EQ(errorOf(two("[1,4]", "[4,8]", 3, 4), 8),
            "f: tensor 'a': expected data that begins at byte 0, where the one before ends, but got 1 (a "
            "hole)");
  EXPECT_EQ(errorOf(two("[0,4]", "[4,8]", 4, 4), 9), "f: expected tensors that cover 9 bytes of data, but got 8");
  EXPECT_EQ(errorOf("{}", 1), "f: expected tensors that cover 1 bytes of data, but got 0");
}

TEST(Safetensors, StrangeNamesAreQuotedInMessages) {
  EXPECT_EQ(errorOf("{\"\\u001b[2J\\n\":1}", 0), "f: tensor '\\x1b[2J\\x0a': expected an object, but got 1");
  EXPECT_LT(errorOf("{\"" + std::string(100000, 'x') + "\":1}", 0).size(), 200u);
}

TEST(Safetensors, EveryTruncationIsAnError) {
  std::string file = fileOf(R"({"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}})", 8);
  EXPECT_EQ(errorOf(file), "(no error)");
  for (size_t size = 0; size < file.size(); ++size)
    EXPECT_NE(errorOf(StringRef(file).take_front(size)), "(no error)") << size;
  EXPECT_NE(errorOf(file + "x"), "(no error)");
}

/// Not for the verdict (a changed digit may give another good file) but for the absence of crashes
/// under the sanitizers.
TEST(Safetensors, EveryChangedByteIsHandled) {
  std::string file = fileOf(R"({"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}})", 8);
  for (size_t i = 0; i < file.size() - 8; ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = file;
      changed[i] ^= char(1 << bit);
      EXPECT_NE(errorOf(changed), "");
    }
}

TEST(Safetensors, CapturedTensors) {
  Expected<SafetensorsFile> file = SafetensorsFile::open(testDir() + "/data/smollm2-135m.safetensors");
  ASSERT_TRUE(bool(file)) << toString(file.takeError());
  EXPECT_EQ(file->tensors().size(), 12u);
  EXPECT_EQ(file->metadata().at("layers"), "0, 8, 14, 29");
  for (StringRef layer : {"0", "8", "14", "29"}) {
    for (StringRef name : {"q", "k", "v"}) {
      Expected<const TensorView *> view = file->get(("layer." + layer + "." + name).str());
      ASSERT_TRUE(bool(view)) << toString(view.takeError());
      EXPECT_EQ((*view)->shape, name == "q" ? std::vector<int64_t>({9, 32, 64}) : std::vector<int64_t>({3, 512, 64}));
      Expected<std::vector<float>> numbers = toFloat32(**view);
      ASSERT_TRUE(bool(numbers)) << toString(numbers.takeError());
      double sum = 0;
      for (float number : *numbers) {
        EXPECT_TRUE(std::isfinite(number));
        sum += std::abs(number);
      }
      EXPECT_GT(sum / numbers->size(), 0.01);
      EXPECT_LT(sum / numbers->size(), 100);
    }
  }
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

TEST_F(SafetensorsFiles, RoundTrip) {
  TensorToWrite tensors[] = {
      {"half", TensorType::F16, {3}, bytesOfText("aabbcc")},
      {"float", TensorType::F32, {2, 1}, bytesOfText("AAAABBBB")},
      {"odd \"name\"\n\xc3\xa4", TensorType::U8, {3, 1}, bytesOfText("123")},
      {"none", TensorType::BF16, {4, 0}, {}},
      {"scalar", TensorType::I64, {}, bytesOfText("12345678")},
  };
  std::map<std::string, std::string> metadata{{"k", "v"}, {"a", "\xe2\x82\xac"}};
  ASSERT_FALSE(bool(writeSafetensors(path("x"), tensors, metadata)));
  Expected<SafetensorsFile> file = SafetensorsFile::open(path("x"));
  ASSERT_TRUE(bool(file)) << toString(file.takeError());
  EXPECT_EQ(file->tensors().size(), std::size(tensors));
  EXPECT_EQ(file->metadata(), metadata);
  for (const TensorToWrite &tensor : tensors) {
    const TensorView *view = file->find(tensor.name);
    ASSERT_TRUE(view) << tensor.name;
    EXPECT_EQ(view->dtype, tensor.dtype);
    EXPECT_EQ(view->shape, tensor.shape);
    EXPECT_EQ(view->data, tensor.data);
    EXPECT_EQ(uintptr_t(view->data.data()) % bytesOf(view->dtype), 0u);
  }
  EXPECT_EQ(entries(), 1u); // No temporary file is left.
}

TEST_F(SafetensorsFiles, SameBytesInAnyOrder) {
  TensorToWrite a{"a", TensorType::U8, {1}, bytesOfText("1")};
  TensorToWrite b{"b", TensorType::F32, {1}, bytesOfText("2222")};
  TensorToWrite c{"c", TensorType::U8, {1}, bytesOfText("3")};
  ASSERT_FALSE(bool(writeSafetensors(path("x"), {a, b, c})));
  ASSERT_FALSE(bool(writeSafetensors(path("y"), {c, b, a})));
  auto x = MemoryBuffer::getFile(path("x")), y = MemoryBuffer::getFile(path("y"));
  ASSERT_TRUE(x && y);
  EXPECT_EQ((*x)->getBuffer(), (*y)->getBuffer());
  EXPECT_TRUE((*x)->getBuffer().ends_with("222213"));
  EXPECT_EQ(support::endian::read64le((*x)->getBufferStart()) % 8, 0u);
}

TEST_F(SafetensorsFiles, ReplacesAnOldFile) {
  TensorToWrite a{"a", TensorType::U8, {1}, bytesOfText("1")};
  ASSERT_FALSE(bool(writeSafetensors(path("x"), {})));
  ASSERT_FALSE(bool(writeSafetensors(path("x"), {a})));
  EXPECT_EQ(SafetensorsFile::open(path("x"))->tensors().size(), 1u);
}

TEST_F(SafetensorsFiles, RefusesWhatItCouldNotRead) {
  std::string x = path("x");
  auto refusal = [&](ArrayRef<TensorToWrite> tensors) {
    return StringRef(toString(writeSafetensors(x, tensors))).drop_front(x.size()).str();
  };
  TensorToWrite a{"a", TensorType::U8, {1}, bytesOfText("1")};
  EXPECT_EQ(refusal({a, a}), ": tensor 'a': expected each name once, but got it twice");
  EXPECT_EQ(refusal({{"a", TensorType::F16, {2}, bytesOfText("123")}}),
            ": tensor 'a': expected data of shape [2] of F16, but got 3 bytes");
  EXPECT_EQ(refusal({{"a", TensorType::U8, {-1, -3}, bytesOfText("123")}}),
            ": tensor 'a': expected data of shape [-1, -3] of U8, but got 3 bytes");
  EXPECT_EQ(refusal({{"__metadata__", TensorType::U8, {1}, bytesOfText("1")}}),
            ": tensor '__metadata__': expected a UTF-8 name other than __metadata__");
  EXPECT_EQ(refusal({{"\xff", TensorType::U8, {1}, bytesOfText("1")}}),
            ": tensor '\xef\xbf\xbd': expected a UTF-8 name other than __metadata__");
  EXPECT_EQ(entries(), 0u);
}

TEST_F(SafetensorsFiles, UnwritableAndUnreadablePaths) {
  EXPECT_EQ(toString(writeSafetensors(path("no/x"), {})),
            path("no/x") + ": cannot be written: No such file or directory");
  EXPECT_EQ(toString(writeSafetensors("/dev/null", {})), "/dev/null: cannot be written: expected a regular file");
  EXPECT_EQ(toString(writeSafetensors(dir, {})), dir.str().str() + ": cannot be written: expected a regular file");
  EXPECT_EQ(toString(SafetensorsFile::open(path("no")).takeError()),
            path("no") + ": cannot be read: No such file or directory");
  EXPECT_EQ(toString(SafetensorsFile::open(dir).takeError()), dir.str().str() + ": expected a regular file");
}

//===----------------------------------------------------------------------===//
// Conversion
//===----------------------------------------------------------------------===//

TEST(Safetensors, EveryHalfAndBfloatIsExact) {
  std::vector<uint16_t> all(1 << 16);
  for (size_t i = 0; i < all.size(); ++i)
    all[i] = uint16_t(i);
  ArrayRef<uint8_t> bytes(reinterpret_cast<const uint8_t *>(all.data()), 2 * all.size());
  for (TensorType type : {TensorType::F16, TensorType::BF16}) {
    const fltSemantics &semantics = type == TensorType::F16 ? APFloat::IEEEhalf() : APFloat::BFloat();
    Expected<std::vector<float>> floats = toFloat32({"t", type, {1 << 16}, bytes});
    ASSERT_TRUE(bool(floats)) << toString(floats.takeError());
    for (size_t i = 0; i < all.size(); ++i) {
      APFloat exact(semantics, APInt(16, i));
      if (exact.isNaN()) { // APFloat quiets signaling NaNs; the conversion keeps the bits.
        EXPECT_TRUE(std::isnan((*floats)[i])) << i;
        continue;
      }
      bool lossy;
      exact.convert(APFloat::IEEEsingle(), APFloat::rmNearestTiesToEven, &lossy);
      EXPECT_EQ(bit_cast<uint32_t>((*floats)[i]), exact.bitcastToAPInt().getZExtValue()) << i;
    }
  }
}

TEST(Safetensors, Float32AndInt32FromUnalignedBytes) {
  uint8_t bytes[9] = {0xff, 0x00, 0x00, 0xc0, 0x3f, 0xfe, 0xff, 0xff, 0xff};
  Expected<std::vector<float>> floats = toFloat32({"t", TensorType::F32, {1}, {bytes + 1, 4}});
  ASSERT_TRUE(bool(floats)) << toString(floats.takeError());
  EXPECT_EQ((*floats)[0], 1.5f);
  Expected<std::vector<int32_t>> ints = toInt32({"t", TensorType::I32, {1}, {bytes + 5, 4}});
  ASSERT_TRUE(bool(ints)) << toString(ints.takeError());
  EXPECT_EQ((*ints)[0], -2);
  EXPECT_EQ(toString(toFloat32({"t", TensorType::F64, {1}, {bytes, 8}}).takeError()),
            "tensor 't': expected dtype F16, BF16 or F32, but got F64");
  EXPECT_EQ(toString(toInt32({"t", TensorType::I64, {1}, {bytes, 8}}).takeError()),
            "tensor 't': expected dtype I32, but got I64");
}

} // namespace
