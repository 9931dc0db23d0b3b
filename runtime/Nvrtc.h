// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// NVRTC, NVIDIA's run-time compiler for CUDA C++, found and loaded with dlopen. Neither CUDA
// headers nor CUDA libraries are needed to build kvcc, and no GPU is needed to compile.

#ifndef KVCC_RUNTIME_NVRTC_H
#define KVCC_RUNTIME_NVRTC_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>
#include <vector>

namespace kvcc {

/// One place where NVRTC was looked for.
struct NvrtcAttempt {
  std::string origin;  ///< why this place: "KVCC_NVRTC", "CUDA_HOME", "loader path", ...
  std::string place;   ///< a library or a directory
  std::string outcome; ///< "loaded", "not found", or the loader's message
  bool loaded = false;
};

/// What a search tried and found, in order; for `kvcc doctor`.
struct NvrtcReport {
  std::vector<NvrtcAttempt> attempts;
  std::string path; ///< the library in use, empty if none was loaded
};

/// What one compilation produced.
struct CompiledKernel {
  std::string ptx;
  std::string cubin;        ///< empty if not asked for or if only PTX could be made
  std::string log;          ///< warnings of NVRTC, empty if there were none
  std::string architecture; ///< what was compiled for: "sm_90", or "compute_121" for PTX only
  /// Not empty if the architecture asked for is unknown to this NVRTC, so that PTX for an older one
  /// was made instead; says so in words. The driver compiles it when it loads the module.
  std::string fallbackNote;
};

/// A loaded NVRTC. Immutable; all member functions may be called from several threads at once. The
/// library itself stays loaded until the process ends, because NVRTC does not support unloading.
class Nvrtc {
public:
  /// Searches, in this order: $KVCC_NVRTC (full path of the library; if set, nothing else is
  /// tried), the CUDA Toolkit ($CUDA_HOME, $CUDA_PATH, /usr/local/cuda), the loader path, Python
  /// environments ($VIRTUAL_ENV, $CONDA_PREFIX, $KVCC_PYTHON_ENV), then `extraDirs` (directories
  /// that hold the library itself). NVRTC 12 or newer is accepted. The error lists every place that
  /// was tried and the remedy. `report`, if given, is filled in on success and on failure.
  static llvm::Expected<std::shared_ptr<Nvrtc>> load(llvm::ArrayRef<std::string> extraDirs = {},
                                                     NvrtcReport *report = nullptr);

  int major() const { return versionMajor; }
  int minor() const { return versionMinor; }
  /// "13.0".
  std::string version() const;
  /// Version and build id, such as "nvrtc 13.0 65be0d...". Two builds of one version can generate
  /// different code, so this, not version(), belongs in cache keys. Free of paths.
  const std::string &identity() const { return identityText; }
  /// The library file.
  const std::string &path() const { return libraryPath; }
  /// Compute capabilities as 10 * major + minor, ascending: 75, 80, ..., 121.
  llvm::ArrayRef<int> supportedArchs() const { return archs; }
  /// "sm_75, sm_80, ...".
  std::string supportedArchNames() const;

  /// Compiles CUDA C++ text.
  /// \param name of the program; shows up in messages and debug information, with "/kvcc/" in front
  ///   if it is relative, so that the working directory does not get into the bytes.
  /// \param arch "sm_90", or "sm_90a" and "sm_100f" for specific features. An architecture that
  ///   this NVRTC does not know but that is newer than one it knows gets PTX for the newest one
  ///   that it can run (see CompiledKernel::fallbackNote); anything else is refused.
  /// \param options passed on as they are; must not choose an architecture.
  /// \param wantCubin machine code and PTX if true, PTX only if false.
  /// The same arguments give the same bytes. An error of the source carries NVRTC's log.
  llvm::Expected<CompiledKernel> compile(llvm::StringRef source, llvm::StringRef name, llvm::StringRef arch,
                                         llvm::ArrayRef<std::string> options = {}, bool wantCubin = true) const;

private:
  struct Functions;
  Nvrtc() = default;
  static llvm::Expected<std::shared_ptr<Nvrtc>> bind(void *handle, std::string path);

  std::shared_ptr<const Functions> fn;
  std::string libraryPath;
  std::string identityText;
  int versionMajor = 0;
  int versionMinor = 0;
  std::vector<int> archs;
  friend class NvrtcSearch;
};

} // namespace kvcc

#endif // KVCC_RUNTIME_NVRTC_H
