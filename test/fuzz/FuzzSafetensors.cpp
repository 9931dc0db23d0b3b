// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// safetensors: every tensor of an accepted file lies inside it and has the bytes of its shape.
#include "test/fuzz/FuzzTarget.h"

#include "runtime/Safetensors.h"
#include "llvm/Support/Endian.h"

using namespace kvcc;

static void run(llvm::StringRef bytes) {
  auto file = SafetensorsFile::read(llvm::MemoryBuffer::getMemBufferCopy(bytes), "fuzz.safetensors");
  if (!file) {
    fuzz::require(!toString(file.takeError()).empty(), "an error says something");
    return;
  }
  size_t total = 0;
  for (const TensorView &tensor : file->tensors()) {
    size_t expected = size_t(bytesOf(tensor.dtype));
    for (int64_t extent : tensor.shape)
      expected *= size_t(extent);
    fuzz::require(tensor.data.size() == expected, "a tensor has the bytes of its shape");
    total += expected;
    fuzz::require(file->find(tensor.name) == &tensor, "a tensor is found by its name");
    // Both read every byte, or say why not.
    if (auto numbers = toFloat32(tensor))
      fuzz::require(numbers->size() * size_t(bytesOf(tensor.dtype)) == expected, "each number is read once");
    else
      consumeError(numbers.takeError());
    consumeError(toInt32(tensor).takeError());
  }
  fuzz::require(8 + llvm::support::endian::read64le(bytes.data()) + total == bytes.size(),
                "header and tensors cover the file");
}

static std::string makeFile(llvm::StringRef header, size_t bytes) {
  std::string text(8, '\0');
  llvm::support::endian::write64le(text.data(), header.size());
  return text + header.str() + std::string(bytes, '\x3c');
}

static std::vector<std::string> getSeeds() {
  return {makeFile("{}", 0),
          makeFile(R"({"__metadata__": {"a": "b"}})", 0),
          makeFile(R"({"k": {"dtype": "F16", "shape": [1, 2, 4], "data_offsets": [0, 16]}})", 16),
          makeFile(R"({"q":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"n":{"dtype":"I32","shape":[],)"
                   R"("data_offsets":[8,12]},"b":{"dtype":"BF16","shape":[0,3],"data_offsets":[12,12]},)"
                   R"("x":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[12,15]}}  )",
                   15),
          makeFile(R"({"big": {"dtype": "U8", "shape": [9223372036854775807, 2], "data_offsets": [0, 2]}})", 2),
          makeFile(R"({"hole": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}})", 2)};
}

const fuzz::Target fuzz::safetensors = {"safetensors", run, getSeeds};
