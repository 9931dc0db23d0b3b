// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc-fuzz -list | TARGET [-write-seeds=FOLDER | OPTION... FILE...]: the driver of all targets. With KVCC_FUZZ it is
// libFuzzer; otherwise it runs the seeds of the target, or the files, and mutations of them by fixed random numbers, so
// that the targets are built and run by every test.
#include "test/fuzz/FuzzTarget.h"

#include "dialect/Kv.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "test/unit/TestPaths.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Signals.h"
#include "llvm/Support/raw_ostream.h"

#include <cstdlib>
#include <cstring>
#include <random>

using namespace llvm;
using namespace kvcc;

static const fuzz::Target *const kTargets[] = {&fuzz::config, &fuzz::safetensors, &fuzz::assembly, &fuzz::layers,
                                               &fuzz::scheme, &fuzz::cacheEntry,  &fuzz::snapshot, &fuzz::calls};

void fuzz::require(bool holds, const char *rule) {
  if (holds)
    return;
  errs() << "kvcc-fuzz: this does not hold: " << rule << "\n";
  std::abort();
}

mlir::MLIRContext &fuzz::getContext() {
  static std::unique_ptr<mlir::MLIRContext> context;
  static unsigned uses = 0;
  if (uses++ % 512 == 0) {
    mlir::DialectRegistry registry;
    registry.insert<mlir::arith::ArithDialect, mlir::func::FuncDialect, kv::KvDialect, mlir::memref::MemRefDialect,
                    mlir::scf::SCFDialect, mlir::vector::VectorDialect>();
    context = std::make_unique<mlir::MLIRContext>(registry, mlir::MLIRContext::Threading::DISABLED);
    context->loadAllAvailableDialects();
  }
  return *context;
}

static std::string readFile(const Twine &path) {
  auto buffer = MemoryBuffer::getFile(path, /*IsText=*/false, /*RequiresNullTerminator=*/false);
  if (!buffer) {
    errs() << "kvcc-fuzz: cannot read " << path << ": " << buffer.getError().message() << "\n";
    std::exit(2);
  }
  return (*buffer)->getBuffer().str();
}

std::vector<std::string> fuzz::readFiles(StringRef folder, StringRef ending) {
  std::vector<std::string> paths, texts;
  std::error_code error;
  for (sys::fs::directory_iterator at(testDir() + "/" + folder, error), end; !error && at != end; at.increment(error))
    if (StringRef(at->path()).ends_with(ending))
      paths.push_back(at->path());
  require(!error && !paths.empty(), "the seeds are in test/");
  llvm::sort(paths);
  for (const std::string &path : paths)
    texts.push_back(readFile(path));
  return texts;
}

static int writeSeeds(const fuzz::Target &target, StringRef folder) {
  std::error_code error = sys::fs::create_directories(folder);
  for (auto [i, seed] : enumerate(target.getSeeds())) {
    if (!error)
      raw_fd_ostream(folder.str() + "/seed-" + std::to_string(i), error) << seed;
    if (error) {
      errs() << "kvcc-fuzz: cannot write to " << folder << ": " << error.message() << "\n";
      return 2;
    }
  }
  return 0;
}

/// A word or a number of `text`, or nothing: [first, second).
static std::pair<size_t, size_t> findWord(StringRef text, size_t from) {
  auto isInner = [](char c) { return isAlnum(c) || c == '_' || c == '.'; };
  size_t first = from;
  while (first < text.size() && !isInner(text[first]))
    ++first;
  while (first > 0 && first < text.size() && isInner(text[first - 1]))
    --first;
  size_t end = first;
  while (end < text.size() && isInner(text[end]))
    ++end;
  return {first, end};
}

/// Changes `text` in one of the ways that find most: bits, bytes, pieces taken out, repeated or brought from `other`;
/// and, so that text stays near what can be parsed, whole words and numbers.
static void mutate(std::string &text, StringRef other, std::mt19937_64 &random) {
  auto below = [&](size_t bound) { return bound ? size_t(random() % bound) : 0; };
  size_t at = below(text.size() + 1), length = 1 + below(std::min<size_t>(text.size() + 1, 32));
  static constexpr const char *kTokens[] = {"null", "[", "]", "{", "}", "<", ">", "\"", ",", "=", "x", "true", "\xff"};
  static constexpr const char *kNumbers[] = {
      "0",  "-1",  "1",   "2",   "3",     "16",         "31",         "32",    "33",   "64",
      "96", "128", "256", "257", "65536", "2147483648", "4294967296", "1e999", "0.25", "9223372036854775807"};
  auto [first, end] = findWord(text, at);
  switch (random() % 10) {
  case 0:
    if (at < text.size())
      text[at] = char(text[at] ^ (1 << below(8)));
    break;
  case 1:
    if (at < text.size())
      text[at] = char(random());
    break;
  case 2:
    text.erase(at, length);
    break;
  case 3:
    text.insert(below(text.size() + 1), StringRef(text).substr(at, length).str());
    break;
  case 4:
    text.insert(at, other.substr(below(other.size()), length).str());
    break;
  case 5:
    text.replace(at, below(4), kTokens[below(std::size(kTokens))]);
    break;
  case 6: {
    auto [from, to] = findWord(other, below(other.size()));
    text.replace(first, end - first, other.slice(from, to).str());
    break;
  }
  case 7: {
    // Twice or not at all: a line.
    size_t begin = text.rfind('\n', at), stop = text.find('\n', at);
    begin = begin == std::string::npos ? 0 : begin;
    std::string line = StringRef(text).slice(begin, stop).str();
    if (random() % 2)
      text.erase(begin, line.size());
    else
      text.insert(begin, line);
    break;
  }
  default:
    // The next number from here on, or its tail where it follows letters, as in i4.
    while (first < text.size() && !isDigit(text[first]))
      ++first;
    end = first;
    while (end < text.size() && isDigit(text[end]))
      ++end;
    text.replace(first, end - first, kNumbers[below(std::size(kNumbers))]);
  }
}

#ifdef KVCC_FUZZ

extern "C" int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *data, size_t size));

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t maxSize);

static const fuzz::Target *running;

/// Half of the time as above, else libFuzzer's own ways, which learn from comparisons.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t maxSize, unsigned seed) {
  if (seed % 2)
    return LLVMFuzzerMutate(data, size, maxSize);
  static const std::vector<std::string> seeds = running->getSeeds();
  std::mt19937_64 random(seed);
  std::string text(reinterpret_cast<const char *>(data), size);
  for (uint64_t count = 1 + random() % 3; count; --count)
    mutate(text, seeds[size_t(random() % seeds.size())], random);
  size = std::min(text.size(), maxSize);
  std::memcpy(data, text.data(), size);
  return size;
}

static int drive(const fuzz::Target &target, int argc, char **argv) {
  running = &target;
  return LLVMFuzzerRunDriver(&argc, &argv, [](const uint8_t *data, size_t size) {
    running->run(StringRef(reinterpret_cast<const char *>(data), size));
    return 0;
  });
}

#else

/// The input that runs, for the handler of signals.
static std::string input;

static void keepInput(void *) {
  std::error_code error;
  raw_fd_ostream("crash-input", error) << input;
  errs() << "kvcc-fuzz: the input is in ./crash-input\n";
}

static int drive(const fuzz::Target &target, int argc, char **argv) {
  uint64_t mutations = 0, seed = 1;
  std::vector<std::string> inputs;
  for (StringRef argument : ArrayRef(argv, size_t(argc)).drop_front()) {
    if ((argument.consume_front("-runs=") && to_integer(argument, mutations)) ||
        (argument.consume_front("-seed=") && to_integer(argument, seed)))
      continue;
    inputs.push_back(readFile(argument));
  }
  if (inputs.empty())
    inputs = target.getSeeds();
  sys::AddSignalHandler(keepInput, nullptr);
  std::mt19937_64 random(seed);
  for (const std::string &each : inputs) {
    input = each;
    target.run(input);
  }
  for (uint64_t i = 0; i < mutations; ++i) {
    input = inputs[size_t(random() % inputs.size())];
    for (uint64_t count = 1 + random() % 4; count; --count)
      mutate(input, inputs[size_t(random() % inputs.size())], random);
    target.run(input);
  }
  outs() << target.name << ": " << inputs.size() << " inputs and " << mutations << " mutations\n";
  return 0;
}

#endif

int main(int argc, char **argv) {
  std::string names;
  if (argc == 2 && StringRef(argv[1]) == "-list") {
    for (const fuzz::Target *target : kTargets)
      outs() << target->name << "\n";
    return 0;
  }
  for (const fuzz::Target *target : kTargets) {
    names += (names.empty() ? "" : ", ") + std::string(target->name);
    if (argc < 2 || StringRef(argv[1]) != target->name)
      continue;
    StringRef option = argc > 2 ? argv[2] : "";
    if (option.consume_front("-write-seeds="))
      return writeSeeds(*target, option);
    argv[1] = argv[0];
    return drive(*target, argc - 1, argv + 1);
  }
  errs() << "kvcc-fuzz: expected a target (" << names << "), but got '" << (argc > 1 ? argv[1] : "") << "'\n";
  return 2;
}
