// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Reads and writes safetensors files: 8 bytes little-endian header size, a JSON header, the data. A
// file comes from anywhere, so everything that the header claims is checked against the file before
// a tensor is handed out.
//
//   {"__metadata__": {"a": "b"}, "k": {"dtype": "F16", "shape": [3, 512, 64], "data_offsets": [0,
//   196608]}}
//
// Offsets count from the end of the header; the tensors cover the data without holes or overlaps.

#ifndef KVCC_RUNTIME_SAFETENSORS_H
#define KVCC_RUNTIME_SAFETENSORS_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kvcc {

/// The dtypes of the format that take whole bytes. The order is the writer's: see bytesOf().
enum class TensorType {
  I64,
  U64,
  F64,
  C64,
  I32,
  U32,
  F32,
  I16,
  U16,
  F16,
  BF16,
  I8,
  U8,
  BOOL,
  F8_E4M3,
  F8_E5M2,
  F8_E8M0
};

llvm::StringRef stringify(TensorType type);
std::optional<TensorType> parseTensorType(llvm::StringRef name);
int64_t bytesOf(TensorType type);

/// A tensor inside an open file. `data` is row-major, exactly shape x dtype, aligned to nothing.
struct TensorView {
  std::string name;
  TensorType dtype;
  std::vector<int64_t> shape;
  llvm::ArrayRef<uint8_t> data;
};

class SafetensorsFile {
public:
  /// Maps the file; its contents must not change while it is open. Messages name the file and the
  /// tensor.
  static llvm::Expected<SafetensorsFile> open(llvm::StringRef path);
  /// The same for a file that is in memory already; `name` is used in messages.
  static llvm::Expected<SafetensorsFile> read(std::unique_ptr<llvm::MemoryBuffer> buffer, llvm::StringRef name);

  /// Null when there is none of that name.
  const TensorView *find(llvm::StringRef name) const;
  /// As find(), but a missing tensor is an error that lists those that are there.
  llvm::Expected<const TensorView *> get(llvm::StringRef name) const;
  /// Sorted by name.
  llvm::ArrayRef<TensorView> tensors() const { return views; }
  std::vector<llvm::StringRef> names() const;
  const std::map<std::string, std::string> &metadata() const { return meta; }
  llvm::StringRef path() const { return file; }

private:
  std::string file;
  std::unique_ptr<llvm::MemoryBuffer> buffer;
  std::vector<TensorView> views;
  std::map<std::string, std::string> meta;
};

struct TensorToWrite {
  std::string name;
  TensorType dtype;
  std::vector<int64_t> shape;
  llvm::ArrayRef<uint8_t> data; ///< shape x dtype bytes, little-endian
};

/// Writes a temporary file beside `path` and renames it, so that a reader sees the old file or the
/// new one. The same tensors in any order give the same bytes: they are stored by falling dtype
/// size, then by name, which (with a header padded to 8 bytes) aligns each to its dtype, since the
/// format has no room for gaps.
llvm::Error writeSafetensors(llvm::StringRef path, llvm::ArrayRef<TensorToWrite> tensors,
                             const std::map<std::string, std::string> &metadata = {});

/// F16, BF16 or F32 as float32. Exact: each F16 and BF16 number is a float32 number; NaN payloads
/// are kept.
llvm::Expected<std::vector<float>> toFloat32(const TensorView &view);

/// I32 as it is.
llvm::Expected<std::vector<int32_t>> toInt32(const TensorView &view);

} // namespace kvcc

#endif // KVCC_RUNTIME_SAFETENSORS_H
