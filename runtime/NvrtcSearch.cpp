// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Finding and opening the NVRTC library and its companion, and identifying the build.

#include "runtime/NvrtcSearch.h"

#include "runtime/Nvrtc.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"

#include <dlfcn.h>
#include <link.h>

using namespace llvm;

namespace kvcc {
namespace {

// Newest first. A versioned name comes before the plain one, which is a link that only development
// packages install and that may point at any version.
constexpr StringLiteral kNames[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};

#if defined(__aarch64__)
constexpr StringLiteral kTargetLib = "targets/sbsa-linux/lib";
#else
constexpr StringLiteral kTargetLib = "targets/x86_64-linux/lib";
#endif

constexpr StringLiteral kRemedy =
    "install it with 'pip install nvidia-cuda-nvrtc==13.0.88', or install the cuda toolkit, or set "
    "KVCC_NVRTC to the full path of libnvrtc.so";

std::string environment(StringRef name) { return sys::Process::GetEnv(name).value_or(std::string()); }

std::string joinPath(StringRef base, StringRef rest) {
  SmallString<128> path(base);
  sys::path::append(path, rest);
  return std::string(path);
}

/// Names in `directory` that begin with `prefix`, sorted: directory order is not deterministic.
std::vector<std::string> entriesWithPrefix(StringRef directory, StringRef prefix) {
  std::vector<std::string> result;
  std::error_code ec;
  for (sys::fs::directory_iterator it(directory, ec), end; it != end && !ec; it.increment(ec))
    if (sys::path::filename(it->path()).starts_with(prefix))
      result.push_back(it->path());
  llvm::sort(result);
  return result;
}

/// NVRTC opens libnvrtc-builtins.so.<version> by its bare name at the first compilation, which
/// fails outside the loader path: it has no rpath. A library that is already loaded satisfies that
/// by its soname, so the one beside NVRTC is opened first, by full path. Never closed.
void preloadBuiltins(StringRef libraryPath) {
  // Links are followed: in a toolkit the link and its target may live in different folders.
  SmallString<128> real;
  if (sys::fs::real_path(libraryPath, real))
    real = libraryPath;
  for (const std::string &path : entriesWithPrefix(sys::path::parent_path(real), "libnvrtc-builtins.so."))
    (void)::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
}

/// The file that holds `symbol` of an open library.
std::string loadedPath(void *handle, StringRef fallback) {
  void *symbol = ::dlsym(handle, "nvrtcVersion");
  Dl_info info;
  if (symbol && ::dladdr(symbol, &info) && info.dli_fname)
    return info.dli_fname;
  return fallback.str();
}

} // namespace

/// One run of the search. Every place adds an attempt to the report.
class NvrtcSearch {
public:
  using Found = std::shared_ptr<Nvrtc>;

  Found run(ArrayRef<std::string> extraDirs) {
    if (std::string path = environment("KVCC_NVRTC"); !path.empty())
      return tryLibrary("KVCC_NVRTC", path); // an explicit choice is not replaced silently
    for (StringRef variable : {"CUDA_HOME", "CUDA_PATH"})
      if (std::string root = environment(variable); !root.empty())
        if (Found found = tryToolkit(variable, root))
          return found;
    if (Found found = tryToolkit("default toolkit", "/usr/local/cuda"))
      return found;
    for (StringRef name : kNames)
      if (Found found = tryLibrary("loader path", name.str()))
        return found;
    for (StringRef variable : {"VIRTUAL_ENV", "CONDA_PREFIX", "KVCC_PYTHON_ENV"})
      if (std::string root = environment(variable); !root.empty())
        if (Found found = tryPythonEnvironment(variable, root))
          return found;
    for (const std::string &directory : extraDirs)
      if (Found found = tryDirectory("extra directory", directory))
        return found;
    return nullptr;
  }

  NvrtcReport report;

private:
  void note(StringRef origin, StringRef place, const Twine &outcome, bool loaded = false) {
    report.attempts.push_back({origin.str(), place.str(), outcome.str(), loaded});
  }

  Found tryLibrary(StringRef origin, const std::string &path) {
    bool isPath = StringRef(path).contains('/');
    if (isPath && !sys::fs::exists(path)) {
      note(origin, path, "not found");
      return nullptr;
    }
    if (isPath)
      preloadBuiltins(path);
    void *handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      const char *message = ::dlerror();
      note(origin, path, message ? message : "dlopen failed");
      return nullptr;
    }
    std::string file = loadedPath(handle, path);
    if (!isPath)
      preloadBuiltins(file);
    Expected<Found> bound = Nvrtc::bind(handle, file);
    if (!bound) {
      note(origin, path, toString(bound.takeError()));
      ::dlclose(handle);
      return nullptr;
    }
    note(origin, path, "loaded", true);
    report.path = file;
    return *bound;
  }

  /// One attempt per directory, not one per name, so that the list stays readable.
  Found tryDirectory(StringRef origin, StringRef directory) {
    bool any = false;
    for (StringRef name : kNames) {
      std::string path = joinPath(directory, name);
      if (!sys::fs::exists(path))
        continue;
      any = true;
      if (Found found = tryLibrary(origin, path))
        return found;
    }
    if (!any)
      note(origin, directory, "not found");
    return nullptr;
  }

  Found tryToolkit(StringRef origin, StringRef root) {
    if (Found found = tryDirectory(origin, joinPath(root, "lib64")))
      return found;
    return tryDirectory(origin, joinPath(root, kTargetLib));
  }

  Found tryPythonEnvironment(StringRef origin, StringRef root) {
    std::vector<std::string> sites = entriesWithPrefix(joinPath(root, "lib"), "python");
    if (sites.empty())
      note(origin, joinPath(root, "lib/python*"), "not found");
    for (const std::string &site : sites)
      for (StringRef wheel : {"site-packages/nvidia/cu13/lib", "site-packages/nvidia/cuda_nvrtc/lib"})
        if (Found found = tryDirectory(origin, joinPath(site, wheel)))
          return found;
    // Conda's own packages are not wheels.
    if (origin == "CONDA_PREFIX")
      for (StringRef directory : {StringRef("lib"), StringRef(kTargetLib)})
        if (Found found = tryDirectory(origin, joinPath(root, directory)))
          return found;
    return nullptr;
  }
};

Expected<std::shared_ptr<Nvrtc>> Nvrtc::load(ArrayRef<std::string> extraDirs, NvrtcReport *report) {
  NvrtcSearch search;
  std::shared_ptr<Nvrtc> found = search.run(extraDirs);
  std::string message = "no usable nvrtc, the run-time compiler for cuda; tried:\n";
  for (const NvrtcAttempt &attempt : search.report.attempts)
    message += "  " + attempt.place + " (" + attempt.origin + "): " + attempt.outcome + "\n";
  if (report)
    *report = std::move(search.report);
  if (found)
    return found;
  return createStringError(inconvertibleErrorCode(), message + kRemedy.str());
}

std::string libraryBuildId(const void *address) {
  struct Query {
    uintptr_t address;
    std::string id;
  } query{reinterpret_cast<uintptr_t>(address), ""};

  ::dl_iterate_phdr(
      [](dl_phdr_info *info, size_t, void *data) {
        auto &query = *static_cast<Query *>(data);
        ArrayRef<ElfW(Phdr)> headers(info->dlpi_phdr, info->dlpi_phnum);
        uint64_t imageSize = 0;
        bool inside = false;
        for (const ElfW(Phdr) &header : headers) {
          if (header.p_type != PT_LOAD)
            continue;
          uintptr_t begin = info->dlpi_addr + header.p_vaddr;
          inside |= query.address >= begin && query.address < begin + header.p_memsz;
          imageSize += header.p_memsz;
        }
        if (!inside)
          return 0;
        query.id = "size-" + utostr(imageSize);
        for (const ElfW(Phdr) &header : headers) {
          if (header.p_type != PT_NOTE)
            continue;
          // Notes follow each other: three words (name size, description size, type), then name
          // and description, each padded to four bytes.
          const char *at = reinterpret_cast<const char *>(info->dlpi_addr + header.p_vaddr);
          const char *end = at + header.p_memsz;
          while (size_t(end - at) >= sizeof(ElfW(Nhdr))) {
            auto *note = reinterpret_cast<const ElfW(Nhdr) *>(at);
            const char *name = at + sizeof(*note);
            size_t nameSize = alignTo<4>(uint64_t(note->n_namesz));
            size_t descSize = alignTo<4>(uint64_t(note->n_descsz));
            if (nameSize + descSize > size_t(end - name))
              break;
            if (note->n_type == NT_GNU_BUILD_ID && StringRef(name, note->n_namesz) == StringRef("GNU", 4)) {
              query.id = toHex(StringRef(name + nameSize, note->n_descsz), /*LowerCase=*/true);
              return 1;
            }
            at = name + nameSize + descSize;
          }
        }
        return 1;
      },
      &query);
  return query.id.empty() ? "unknown" : query.id;
}

} // namespace kvcc
