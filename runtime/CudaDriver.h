// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The part of the CUDA driver API that kvcc uses, loaded with dlopen, behind owning C++ types.
// Neither CUDA headers nor CUDA libraries are needed to build kvcc.

#ifndef KVCC_RUNTIME_CUDADRIVER_H
#define KVCC_RUNTIME_CUDADRIVER_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kvcc {

/// CUstream of the driver API, which is the same object as cudaStream_t. Null is the legacy default
/// stream, which cannot be captured into a CUDA graph.
using CudaStreamHandle = void *;
/// CUdeviceptr: an address in device memory.
using CudaPointer = uint64_t;

struct CudaFunctions; // the loaded entry points, in CudaFunctions.h

/// One place where the driver library was looked for; for `kvcc doctor`.
struct CudaDriverAttempt {
  std::string place;
  std::string outcome; ///< "loaded", or why not
  bool loaded = false;
};

/// What the driver says about one device.
struct CudaDeviceInfo {
  int ordinal = 0;
  std::string name;
  int computeMajor = 0;
  int computeMinor = 0;
  int multiprocessors = 0;
  int maxSharedBytesPerBlock = 0; ///< with opt-in, see CudaKernel::setMaxDynamicShared
  int sharedBytesPerMultiprocessor = 0;
  int l2Bytes = 0;
  int memoryClockKHz = 0; ///< 0 if the driver does not say
  int memoryBusBits = 0;
  uint64_t memoryBytes = 0;

  /// "sm_90", as Nvrtc::compile expects it.
  std::string architecture() const;
};

/// A loaded and initialized driver. Immutable; all member functions may be called from several
/// threads at once. The library stays loaded until the process ends.
class CudaDriver : public std::enable_shared_from_this<CudaDriver> {
public:
  /// Opens $KVCC_LIBCUDA (if set, nothing else is tried) or libcuda.so.1 and initializes it.
  /// Without a driver or a device the error says what was tried; `attempts`, if given, is filled in
  /// on success and on failure.
  static llvm::Expected<std::shared_ptr<CudaDriver>> load(std::vector<CudaDriverAttempt> *attempts = nullptr);

  const std::string &path() const { return libraryPath; }
  /// The CUDA version that the driver supports: 13000 means 13.0.
  int version() const { return driverVersion; }
  /// Whether CudaLaunch::overlaps makes a difference.
  bool overlapsLaunches() const;
  llvm::Expected<int> deviceCount() const;
  llvm::Expected<CudaDeviceInfo> deviceInfo(int ordinal) const;

  const CudaFunctions &functions() const { return *fn; }
  /// Success for status 0, else "<what>: CUDA_ERROR_...: <text of the driver>".
  llvm::Error check(int status, const llvm::Twine &what) const;

private:
  CudaDriver() = default;
  static llvm::Expected<std::shared_ptr<CudaDriver>> bind(void *handle, std::string path);

  std::shared_ptr<const CudaFunctions> fn;
  std::string libraryPath;
  int driverVersion = 0;
};

/// A reference to a device's primary context, which the process shares with PyTorch and the CUDA
/// runtime. Thread safe. Everything created from a context keeps it alive.
class CudaContext : public std::enable_shared_from_this<CudaContext> {
public:
  static llvm::Expected<std::shared_ptr<CudaContext>> retain(std::shared_ptr<CudaDriver> driver, int ordinal);
  ~CudaContext();
  CudaContext(const CudaContext &) = delete;
  CudaContext &operator=(const CudaContext &) = delete;

  const CudaDriver &driver() const { return *owner; }
  const CudaDeviceInfo &device() const { return info; }
  /// Waits for all work of the context.
  llvm::Error synchronize() const;
  /// Waits for the work of one stream.
  llvm::Error synchronize(CudaStreamHandle stream) const;
  llvm::Error memoryInfo(uint64_t &freeBytes, uint64_t &totalBytes) const;
  /// Copies of memory that others own, in the order of a stream. Those with the host are done on return.
  llvm::Error read(void *host, CudaPointer source, size_t bytes, CudaStreamHandle stream) const;
  llvm::Error write(CudaPointer target, const void *host, size_t bytes, CudaStreamHandle stream) const;
  llvm::Error copy(CudaPointer target, CudaPointer source, size_t bytes, CudaStreamHandle stream) const;

  /// Makes the context current for one scope and restores the thread's previous one at its end.
  /// Costs one driver call if it is current already, as it is in a PyTorch thread; legal during
  /// capture.
  class Scope {
  public:
    explicit Scope(const CudaContext &context);
    ~Scope();
    Scope(const Scope &) = delete;
    Scope &operator=(const Scope &) = delete;
    /// Must be asked before anything is done in the scope; it hands out the error once.
    llvm::Error takeError();

  private:
    const CudaContext &context;
    int status = 0;
    bool pushed = false;
  };

private:
  CudaContext(std::shared_ptr<CudaDriver> driver, CudaDeviceInfo info, int device, void *handle)
      : owner(std::move(driver)), info(std::move(info)), device_(device), handle(handle) {}

  std::shared_ptr<CudaDriver> owner;
  CudaDeviceInfo info;
  int device_;
  void *handle;
};

struct CudaLaunch {
  std::array<unsigned, 3> grid = {1, 1, 1};  ///< blocks
  std::array<unsigned, 3> block = {1, 1, 1}; ///< threads
  unsigned dynamicSharedBytes = 0;
  CudaStreamHandle stream = nullptr;
  /// Whether it may begin while the kernel before it in the stream ends, which it waits for itself (griddepcontrol).
  bool overlaps = false;
};

class CudaModule;

/// A kernel of a module, fully loaded, so that a launch loads nothing. Copyable; keeps the module
/// alive.
class CudaKernel {
public:
  int registers() const { return registerCount; }   ///< per thread
  int localBytes() const { return localByteCount; } ///< per thread; not 0 means spilling
  int staticSharedBytes() const { return sharedByteCount; }
  int maxThreadsPerBlock() const { return maxThreads; }

  /// Allows launches with up to `bytes` of dynamic shared memory; needed above 48 KiB. Call it once
  /// while loading, not per launch.
  llvm::Error setMaxDynamicShared(unsigned bytes);
  /// How many blocks of so many threads a multiprocessor holds at a time; fails if it holds none.
  llvm::Expected<int> getResidentBlocks(unsigned threads, unsigned dynamicSharedBytes) const;
  /// Enqueues the kernel and returns. `arguments` holds one pointer per kernel parameter; the
  /// values are copied before this returns. Errors of the running kernel show up later, at a
  /// synchronization. Allocates nothing; legal during stream capture.
  llvm::Error launch(const CudaLaunch &launch, llvm::ArrayRef<void *> arguments) const;

private:
  friend class CudaModule;
  CudaKernel() = default;
  std::shared_ptr<const CudaModule> module;
  std::string name;
  void *handle = nullptr;
  int registerCount = 0, localByteCount = 0, sharedByteCount = 0, maxThreads = 0;
};

/// Whether an image is a cubin, and not PTX text: by the magic of ELF.
inline bool isCubin(llvm::StringRef image) {
  return image.starts_with("\x7f"
                           "ELF");
}

/// Loaded machine code. Unloaded when the last kernel and reference is gone; no kernel of it may
/// be running then.
class CudaModule : public std::enable_shared_from_this<CudaModule> {
public:
  /// `image` is a cubin or PTX text; it is not needed afterwards. An
  /// error carries the driver's code and its JIT log.
  static llvm::Expected<std::shared_ptr<CudaModule>> load(std::shared_ptr<CudaContext> context, llvm::StringRef image);
  ~CudaModule();
  CudaModule(const CudaModule &) = delete;
  CudaModule &operator=(const CudaModule &) = delete;

  const CudaContext &context() const { return *owner; }
  llvm::Expected<CudaKernel> kernel(llvm::StringRef name) const;

private:
  CudaModule(std::shared_ptr<CudaContext> context, void *handle) : owner(std::move(context)), handle(handle) {}
  std::shared_ptr<CudaContext> owner;
  void *handle;
};

/// Owned device memory. Move only. Freeing it waits for running work that uses it.
class DeviceBuffer {
public:
  /// Zero bytes are allowed and allocate nothing.
  static llvm::Expected<DeviceBuffer> allocate(std::shared_ptr<CudaContext> context, size_t bytes);
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer &&other) noexcept;
  DeviceBuffer &operator=(DeviceBuffer &&other) noexcept;
  ~DeviceBuffer();

  CudaPointer pointer() const { return address; }
  size_t size() const { return bytes; }

  /// Synchronous copies of `count` bytes, `offset` bytes into the buffer.
  llvm::Error upload(const void *source, size_t count, size_t offset = 0);
  llvm::Error download(void *target, size_t count, size_t offset = 0) const;
  /// Asynchronous on `stream`; host memory must stay valid, and should be pinned to overlap.
  llvm::Error uploadAsync(const void *source, size_t count, CudaStreamHandle stream, size_t offset = 0);
  llvm::Error downloadAsync(void *target, size_t count, CudaStreamHandle stream, size_t offset = 0) const;
  /// Sets every byte of the buffer, asynchronously on `stream`.
  llvm::Error fillAsync(uint8_t value, CudaStreamHandle stream);

private:
  llvm::Error checkRange(size_t count, size_t offset) const;
  void release();
  std::shared_ptr<CudaContext> context;
  CudaPointer address = 0;
  size_t bytes = 0;
};

/// A stream of our own, for tools and tests; a framework passes its own handles. Move only.
class CudaStream {
public:
  static llvm::Expected<CudaStream> create(std::shared_ptr<CudaContext> context);
  CudaStream(CudaStream &&other) noexcept;
  CudaStream &operator=(CudaStream &&) = delete;
  ~CudaStream();
  CudaStreamHandle handle() const { return stream; }

private:
  CudaStream() = default;
  std::shared_ptr<CudaContext> context;
  void *stream = nullptr;
};

/// A point in a stream that can be timed. Move only.
class CudaEvent {
public:
  static llvm::Expected<CudaEvent> create(std::shared_ptr<CudaContext> context);
  CudaEvent(CudaEvent &&other) noexcept;
  CudaEvent &operator=(CudaEvent &&) = delete;
  ~CudaEvent();

  llvm::Error record(CudaStreamHandle stream);
  llvm::Error synchronize() const;
  /// Milliseconds from `start` to this event; waits for this event first.
  llvm::Expected<float> millisecondsSince(const CudaEvent &start) const;

private:
  CudaEvent() = default;
  std::shared_ptr<CudaContext> context;
  void *event = nullptr;
};

} // namespace kvcc

#endif // KVCC_RUNTIME_CUDADRIVER_H
