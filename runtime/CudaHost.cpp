// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Builds and loads emitted kernels for the host.

#include "runtime/CudaHost.h"

#include "codegen/cuda/Prelude.h"
#include "codegen/cuda/prelude/host_abi.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/Triple.h"

#include <cstdlib>
#include <dlfcn.h>
#include <optional>

using namespace llvm;

namespace kvcc {
namespace {

constexpr StringLiteral PreludeFolder = "codegen/cuda/prelude";
constexpr StringLiteral HostCompilers[] = {"c++", "g++", "clang++", "clang++-22"};

Error failure(const Twine &message) { return createStringError(message); }

/// A directory that only this user can enter, removed at the end of the scope. What is compiled and
/// loaded from it cannot be exchanged by others.
class PrivateDirectory {
public:
  static Expected<std::unique_ptr<PrivateDirectory>> create() {
    SmallString<128> path;
    sys::path::system_temp_directory(/*ErasedOnReboot=*/true, path);
    sys::path::append(path, "kvcc-host-XXXXXX");
    if (!mkdtemp(const_cast<char *>(path.c_str())))
      return failure("cannot create a directory '" + Twine(path) + "'; set TMPDIR to a directory that can be written");
    return std::unique_ptr<PrivateDirectory>(new PrivateDirectory(path.str()));
  }
  ~PrivateDirectory() { (void)sys::fs::remove_directories(path); }

  std::string file(StringRef name) const {
    SmallString<128> result(path);
    sys::path::append(result, name);
    return std::string(result);
  }
  StringRef str() const { return path; }

  Error write(StringRef name, StringRef text) const {
    std::string full = file(name);
    if (std::error_code ec = sys::fs::create_directories(sys::path::parent_path(full)))
      return failure("cannot create the directory of '" + full + "': " + ec.message());
    std::error_code ec;
    raw_fd_ostream os(full, ec);
    if (ec)
      return failure("cannot write '" + full + "': " + ec.message());
    os << text;
    os.close();
    if (!os.has_error())
      return Error::success();
    ec = os.error();
    os.clear_error();
    return failure("cannot write '" + full + "': " + ec.message());
  }

private:
  explicit PrivateDirectory(StringRef path) : path(path) {}
  std::string path;
};

Expected<std::string> findCompiler(const CudaHostOptions &options) {
  std::string wanted = options.compiler;
  StringRef origin = "the option";
  if (wanted.empty()) {
    wanted = sys::Process::GetEnv("KVCC_HOST_CXX").value_or("");
    origin = "KVCC_HOST_CXX";
  }
  if (!wanted.empty()) {
    if (ErrorOr<std::string> found = sys::findProgramByName(wanted))
      return *found;
    return failure("cannot find the host C++ compiler '" + wanted + "' that " + origin +
                   " names; name one that is installed");
  }
  for (StringRef name : HostCompilers)
    if (ErrorOr<std::string> found = sys::findProgramByName(name))
      return *found;
  return failure("running CUDA kernels on the host needs a C++ compiler, but none of " +
                 join(std::begin(HostCompilers), std::end(HostCompilers), ", ") +
                 " is on PATH; install one or name it in KVCC_HOST_CXX");
}

/// Everything between the compiler and the names of files.
Expected<std::vector<std::string>> compilerFlags(const CudaHostOptions &options) {
  // Kernels read one array through several types, and contraction would make results depend on the
  // instruction set. More optimization takes twice as long and gains little beside switching fibers.
  std::vector<std::string> flags = {
      "-std=c++20",       "-O1", "-w", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-strict-aliasing",
      "-ffp-contract=off"};
  if (Triple(sys::getProcessTriple()).isX86()) {
    StringMap<bool> features = sys::getHostCPUFeatures();
    for (StringRef feature : {"avx2", "fma"})
      if (features.lookup(feature))
        flags.push_back(("-m" + feature).str());
  }
  flags.insert(flags.end(), options.flags.begin(), options.flags.end());
  std::string check = sys::Process::GetEnv("KVCC_HOST_CHECK").value_or("");
  if (!check.empty() && check != "races")
    return failure("expected KVCC_HOST_CHECK to be empty or 'races', but got '" + check + "'");
  // Kernels that are checked run once or twice: compiling them is what takes time.
  if (options.checksRaces || !check.empty())
    flags.insert(flags.end(), {"-fsanitize=thread", "-DKV_HOST_RACES", "-O0"});
  return flags;
}

/// The first lines of what the compiler printed: later errors mostly follow from the first.
std::string firstLines(StringRef path, const PrivateDirectory &dir) {
  ErrorOr<std::unique_ptr<MemoryBuffer>> buffer = MemoryBuffer::getFile(path);
  if (!buffer)
    return "(its output cannot be read)";
  SmallVector<StringRef> lines;
  (*buffer)->getBuffer().split(lines, '\n', /*MaxSplit=*/-1, /*KeepEmpty=*/false);
  constexpr size_t MaxLines = 12;
  bool cut = lines.size() > MaxLines;
  lines.truncate(std::min(lines.size(), MaxLines));
  std::string text = join(lines, "\n");
  // The directory is gone by the time anybody reads this.
  std::string prefix = dir.str().str() + "/";
  for (size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at))
    text.erase(at, prefix.size());
  return cut ? text + "\n..." : text;
}

/// Runs the compiler with both outputs in `log`.
Error runCompiler(StringRef compiler, ArrayRef<std::string> args, StringRef log, const CudaHostOptions &options,
                  const PrivateDirectory &dir) {
  SmallVector<StringRef> argv = {compiler};
  argv.append(args.begin(), args.end());
  std::optional<StringRef> redirects[] = {StringRef(""), log, log};
  std::string message;
  bool failedToRun = false;
  int rc = sys::ExecuteAndWait(compiler, argv, std::nullopt, redirects, options.timeoutSeconds,
                               /*MemoryLimit=*/0, &message, &failedToRun);
  if (rc == 0)
    return Error::success();
  if (failedToRun || rc < 0)
    return failure("cannot run the host C++ compiler '" + compiler +
                   "': " + (message.empty() ? "it was stopped" : message.c_str()));
  return failure("the host C++ compiler '" + compiler + "' refused the emitted kernel (exit code " + Twine(rc) +
                 "):\n" + firstLines(log, dir));
}

/// Kernel names end up in C++ text and in symbol names.
Error checkNames(ArrayRef<std::string> names) {
  for (StringRef name : names) {
    bool good = !name.empty() && !isDigit(name[0]) && all_of(name, [](char c) { return isAlnum(c) || c == '_'; });
    if (!good)
      return failure("expected a C identifier as kernel name, but got '" + name + "'");
  }
  return Error::success();
}

} // namespace

Expected<std::string> CudaHostModule::cacheIdentity(const CudaHostOptions &options) {
  Expected<std::string> compiler = findCompiler(options);
  if (!compiler)
    return compiler.takeError();
  auto dir = PrivateDirectory::create();
  if (!dir)
    return dir.takeError();
  std::string log = (*dir)->file("version.txt");
  if (Error error = runCompiler(*compiler, {"--version"}, log, options, **dir))
    return error;
  Expected<std::vector<std::string>> flags = compilerFlags(options);
  if (!flags)
    return flags.takeError();
  return firstLines(log, **dir) + "\n" + join(*flags, " ") + "\n" + hostAbiPrelude().str() +
         hostRuntimePrelude().str() + hostRacesPrelude().str() + hostPrelude().str();
}

Expected<std::unique_ptr<MemoryBuffer>>
CudaHostModule::compileToObject(StringRef source, ArrayRef<std::string> kernelNames, const CudaHostOptions &options) {
  if (Error error = checkNames(kernelNames))
    return error;
  Expected<std::string> compiler = findCompiler(options);
  if (!compiler)
    return compiler.takeError();
  auto dirOrError = PrivateDirectory::create();
  if (!dirOrError)
    return dirOrError.takeError();
  const PrivateDirectory &dir = **dirOrError;

  // The same relative paths as in the source tree, so that the includes of the prelude hold. The
  // line directive makes messages count the lines of the emitted text.
  std::string folder = PreludeFolder.str() + "/";
  std::string text =
      "#include \"" + folder + "host.h\"\n#line 1 \"kernel.cu\"\n" + source.str() + "\n#line 1 \"entries\"\n";
  for (const std::string &name : kernelNames)
    text += "KV_HOST_ENTRY(" + name + ")\n";
  std::pair<std::string, StringRef> files[] = {{folder + "host_abi.h", hostAbiPrelude()},
                                               {folder + "host_runtime.h", hostRuntimePrelude()},
                                               {folder + "host_races.h", hostRacesPrelude()},
                                               {folder + "host.h", hostPrelude()},
                                               {"kernel.cpp", text}};
  for (const auto &[name, contents] : files)
    if (Error error = dir.write(name, contents))
      return error;

  std::string compiled = dir.file("kernel.o"), object = dir.file("kernel.so");
  Expected<std::vector<std::string>> flags = compilerFlags(options);
  if (!flags)
    return flags.takeError();
  std::vector<std::string> args = std::move(*flags);
  args.insert(args.end(), {"-c", "-I", dir.str().str()});
  // The directory's random name must not reach the object.
  args.push_back("-ffile-prefix-map=" + dir.str().str() + "=.");
  args.insert(args.end(), {dir.file("kernel.cpp"), "-o", compiled});
  if (Error error = runCompiler(*compiler, args, dir.file("log.txt"), options, dir))
    return error;
  // Apart, since the sanitizer whose calls the prelude answers must not bring its library.
  args = {"-shared", compiled, "-o", object, "-lboost_context"};
  llvm::append_range(args, options.flags);
  if (Error error = runCompiler(*compiler, args, dir.file("log.txt"), options, dir))
    return error;

  // Not mapped: the file is about to be removed.
  ErrorOr<std::unique_ptr<MemoryBuffer>> bytes =
      MemoryBuffer::getFile(object, /*IsText=*/false, /*RequiresNullTerminator=*/false,
                            /*IsVolatile=*/true);
  if (!bytes)
    return failure("cannot read the object that '" + *compiler + "' made: " + bytes.getError().message());
  return std::move(*bytes);
}

Expected<std::unique_ptr<CudaHostModule>> CudaHostModule::loadObject(StringRef bytes,
                                                                     ArrayRef<std::string> kernelNames) {
  auto dir = PrivateDirectory::create();
  if (!dir)
    return dir.takeError();
  // The loader maps the file, so it may be removed right after. Its name is new each time: loading
  // a second object by a name that is in use would give back the first.
  std::string path = (*dir)->file("kernel.so");
  if (Error error = (*dir)->write("kernel.so", bytes))
    return error;
  std::unique_ptr<CudaHostModule> module(new CudaHostModule());
  module->handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!module->handle)
    return failure(Twine("cannot load a kernel compiled for the host: ") + dlerror() +
                   "; if the temporary directory forbids execution, set TMPDIR to another");
  for (StringRef name : kernelNames) {
    void *entry = dlsym(module->handle, ("kv_host_launch_" + name).str().c_str());
    if (!entry)
      return failure("the object compiled for the host has no kernel '" + name + "'; compile it again");
    module->entries[name] = entry;
  }
  return module;
}

Expected<std::unique_ptr<CudaHostModule>> CudaHostModule::compile(StringRef source, ArrayRef<std::string> kernelNames,
                                                                  const CudaHostOptions &options) {
  auto object = compileToObject(source, kernelNames, options);
  if (!object)
    return object.takeError();
  return loadObject((*object)->getBuffer(), kernelNames);
}

CudaHostModule::~CudaHostModule() {
  if (handle)
    dlclose(handle);
}

Error CudaHostModule::launch(StringRef kernel, std::array<uint32_t, 3> grid, uint32_t threads,
                             MutableArrayRef<void *> args, uint64_t seed, uint32_t sharedBytes) {
  auto entry = entries.find(kernel);
  if (entry == entries.end()) {
    SmallVector<StringRef> names(entries.keys());
    sort(names);
    return failure("the module has no kernel '" + kernel + "'; it has " + join(names, ", "));
  }
  char message[2048] = "";
  KvHostLaunch l = {};
  l.size = sizeof(l);
  std::copy(grid.begin(), grid.end(), l.grid);
  l.threads = threads;
  l.sharedBytes = sharedBytes;
  l.numArgs = args.size();
  l.args = args.data();
  l.seed = seed;
  l.error = message;
  l.errorSize = sizeof(message);
  // The object keeps the state of a launch in variables.
  std::lock_guard<std::mutex> lock(mutex);
  if (reinterpret_cast<KvHostLaunchFn *>(entry->second)(&l) == 0)
    return Error::success();
  return failure(message);
}

} // namespace kvcc
