// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Compiling with a loaded NVRTC: its functions, its architectures, its options. The search for the
// library is in NvrtcSearch.cpp.

#include "runtime/Nvrtc.h"

#include "runtime/NvrtcSearch.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringExtras.h"

#include <dlfcn.h>

using namespace llvm;

namespace kvcc {

// Declared by hand from the documentation of NVRTC's C interface, which is stable since CUDA 11.2.
struct Nvrtc::Functions {
  using Result = int; // nvrtcResult; 0 is success
  using Program = struct OpaqueProgram *;

  const char *(*getErrorString)(Result);
  Result (*version)(int *major, int *minor);
  Result (*getNumSupportedArchs)(int *count);
  Result (*getSupportedArchs)(int *archs);
  Result (*createProgram)(Program *, const char *source, const char *name, int numHeaders, const char *const *headers,
                          const char *const *includeNames);
  Result (*destroyProgram)(Program *);
  Result (*compileProgram)(Program, int numOptions, const char *const *options);
  Result (*getPtxSize)(Program, size_t *);
  Result (*getPtx)(Program, char *);
  Result (*getCubinSize)(Program, size_t *);
  Result (*getCubin)(Program, char *);
  Result (*getLogSize)(Program, size_t *);
  Result (*getLog)(Program, char *);
};

namespace {

constexpr int kOldestMajor = 12;

Error fail(const Twine &text) { return createStringError(inconvertibleErrorCode(), text); }

/// "sm_90a" taken apart.
struct Architecture {
  int number = 0; // 10 * major + minor
  std::string suffix;
};

std::optional<Architecture> parseArchitecture(StringRef text) {
  Architecture result;
  if (!text.consume_front("sm_"))
    return std::nullopt;
  if (text.ends_with("a") || text.ends_with("f")) {
    result.suffix = text.take_back().str();
    text = text.drop_back();
  }
  if (text.size() < 2 || text.size() > 4 || text.front() == '0' || text.getAsInteger(10, result.number))
    return std::nullopt;
  return result;
}

} // namespace

Expected<std::shared_ptr<Nvrtc>> Nvrtc::bind(void *handle, std::string path) {
  auto functions = std::make_shared<Functions>();
  std::string missing;
  auto resolve = [&](auto &function, const char *symbol) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(::dlsym(handle, symbol));
    if (!function && missing.empty())
      missing = symbol;
  };
  resolve(functions->getErrorString, "nvrtcGetErrorString");
  resolve(functions->version, "nvrtcVersion");
  resolve(functions->getNumSupportedArchs, "nvrtcGetNumSupportedArchs");
  resolve(functions->getSupportedArchs, "nvrtcGetSupportedArchs");
  resolve(functions->createProgram, "nvrtcCreateProgram");
  resolve(functions->destroyProgram, "nvrtcDestroyProgram");
  resolve(functions->compileProgram, "nvrtcCompileProgram");
  resolve(functions->getPtxSize, "nvrtcGetPTXSize");
  resolve(functions->getPtx, "nvrtcGetPTX");
  resolve(functions->getCubinSize, "nvrtcGetCUBINSize");
  resolve(functions->getCubin, "nvrtcGetCUBIN");
  resolve(functions->getLogSize, "nvrtcGetProgramLogSize");
  resolve(functions->getLog, "nvrtcGetProgramLog");
  if (!missing.empty())
    return fail("it has no function " + missing);

  std::shared_ptr<Nvrtc> result(new Nvrtc);
  if (functions->version(&result->versionMajor, &result->versionMinor) != 0)
    return fail("nvrtcVersion failed");
  if (result->versionMajor < kOldestMajor)
    return fail("expected version " + Twine(kOldestMajor) + ".0 or newer, but got " + result->version());
  int count = 0;
  if (functions->getNumSupportedArchs(&count) != 0 || count <= 0)
    return fail("it names no supported architecture");
  result->archs.resize(count);
  if (functions->getSupportedArchs(result->archs.data()) != 0)
    return fail("it names no supported architecture");
  llvm::sort(result->archs);
  result->identityText =
      "nvrtc " + result->version() + " " + libraryBuildId(reinterpret_cast<const void *>(functions->compileProgram));
  result->libraryPath = std::move(path);
  result->fn = std::move(functions);
  return result;
}

std::string Nvrtc::version() const { return std::to_string(versionMajor) + "." + std::to_string(versionMinor); }

std::string Nvrtc::supportedArchNames() const {
  std::string text;
  ListSeparator separator;
  for (int arch : archs)
    text += (StringRef(separator) + "sm_" + Twine(arch)).str();
  return text;
}

Expected<CompiledKernel> Nvrtc::compile(StringRef source, StringRef name, StringRef arch, ArrayRef<std::string> options,
                                        bool wantCubin) const {
  std::optional<Architecture> asked = parseArchitecture(arch);
  if (!asked)
    return fail("expected an architecture such as 'sm_90', but got '" + arch + "'; nvrtc " + version() + " supports " +
                supportedArchNames());
  if (asked->number < archs.front())
    return fail("expected an architecture of " + supportedArchNames() + ", but got '" + arch + "', which nvrtc " +
                version() + " no longer supports; the nearest one is sm_" + Twine(archs.front()));
  for (const std::string &option : options) {
    StringRef bare = StringRef(option).ltrim('-');
    if (bare == "arch" || bare == "gpu-architecture" || bare.starts_with("arch=") ||
        bare.starts_with("gpu-architecture="))
      return fail("expected options without an architecture, but got '" + option + "'");
  }

  CompiledKernel result;
  int newest = *std::prev(llvm::upper_bound(archs, asked->number));
  if (newest != asked->number) {
    // PTX without a suffix runs on every later architecture; machine code does not.
    result.architecture = "compute_" + std::to_string(newest);
    result.fallbackNote = ("nvrtc " + version() + " does not know '" + arch + "'; generated ptx for " +
                           result.architecture + ", which the driver compiles when it loads the module")
                              .str();
  } else {
    result.architecture = (wantCubin ? "sm_" : "compute_") + std::to_string(newest) + asked->suffix;
  }

  std::vector<std::string> all = {"--gpu-architecture=" + result.architecture};
  llvm::append_range(all, options);
  std::vector<const char *> pointers;
  for (const std::string &option : all)
    pointers.push_back(option.c_str());

  // With line information NVRTC writes the working directory before a relative name, and the bytes
  // would depend on it.
  std::string sourceText = source.str();
  std::string nameText = (name.starts_with("/") ? name : "/kvcc/" + name).str();
  Functions::Program program = nullptr;
  if (int status = fn->createProgram(&program, sourceText.c_str(), nameText.c_str(), 0, nullptr, nullptr))
    return fail("nvrtc cannot create program '" + name + "': " + fn->getErrorString(status));
  scope_exit destroy([&] { fn->destroyProgram(&program); });

  // Sizes of texts count the final zero byte; those of cubins do not have one.
  auto fetch = [&](auto getSize, auto get, bool isText, std::string &bytes) {
    size_t size = 0;
    int status = getSize(program, &size);
    if (status != 0 || size == 0)
      return status;
    bytes.resize(size);
    status = get(program, bytes.data());
    if (isText && !bytes.empty() && bytes.back() == '\0')
      bytes.pop_back();
    return status;
  };
  int compileStatus = fn->compileProgram(program, pointers.size(), pointers.data());
  (void)fetch(fn->getLogSize, fn->getLog, true, result.log);
  if (compileStatus != 0)
    return fail("nvrtc " + version() + " cannot compile '" + name + "' for " + result.architecture + ": " +
                fn->getErrorString(compileStatus) +
                (result.log.empty() ? "" : "\n" + StringRef(result.log).rtrim().str()));
  if (int status = fetch(fn->getPtxSize, fn->getPtx, true, result.ptx))
    return fail("nvrtc returned no ptx for '" + name + "': " + fn->getErrorString(status));
  if (StringRef(result.architecture).starts_with("sm_")) {
    int status = fetch(fn->getCubinSize, fn->getCubin, false, result.cubin);
    if (status != 0 || result.cubin.empty())
      return fail("nvrtc returned no cubin for '" + name + "': " + fn->getErrorString(status));
  }
  return result;
}

} // namespace kvcc
