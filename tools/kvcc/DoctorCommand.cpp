// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kvcc doctor: what is found where, and what would fix what is missing.
#include "tools/kvcc/Commands.h"

#include "runtime/CudaDriver.h"
#include "runtime/CudaHost.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

#include <thread>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::tool;

cl::SubCommand tool::doctorCommand("doctor", "show what kvcc finds on this machine and what would fix what it misses");
static cl::opt<std::string> outputFormat("o", cl::desc("text or json"), cl::init("text"), cl::sub(doctorCommand));

namespace {

struct Section {
  std::string title, summary;
  std::vector<std::string> lines;
  std::string remedy; ///< empty: nothing is missing
};

struct Findings {
  json::Object json;
  std::vector<Section> sections;
};

void addCpu(Findings &findings) {
  cpu::Machine host = cpu::Machine::host();
  std::string level = cpu::getHostLevel().name.str();
  unsigned processors = std::thread::hardware_concurrency();
  findings.json["cpu"] =
      json::Object{{"name", host.cpu}, {"triple", host.triple}, {"processors", processors}, {"level", level}};
  findings.sections.push_back(
      {"cpu", host.cpu + ", " + std::to_string(processors) + " processors, level " + level, {}, ""});
}

void addNvrtc(Findings &findings) {
  NvrtcReport report;
  auto nvrtc = Nvrtc::load({}, &report);
  json::Array attempts;
  Section section{"nvrtc", "", {}, ""};
  for (const NvrtcAttempt &attempt : report.attempts) {
    attempts.push_back(
        json::Object{{"origin", attempt.origin}, {"place", attempt.place}, {"outcome", attempt.outcome}});
    section.lines.push_back(attempt.origin + ": " + attempt.place + ": " + attempt.outcome);
  }
  json::Object result{{"found", bool(nvrtc)}, {"attempts", std::move(attempts)}};
  if (nvrtc) {
    section.summary = "version " + (*nvrtc)->version() + " at " + (*nvrtc)->path() + ", compiles for " +
                      (*nvrtc)->supportedArchNames();
    result["version"] = (*nvrtc)->version();
    result["path"] = (*nvrtc)->path();
    result["architectures"] = json::Array((*nvrtc)->supportedArchs());
  } else {
    consumeError(nvrtc.takeError());
    section.summary = "not found: cuda targets cannot be compiled to ptx or cubin";
    section.remedy = "pip install nvidia-cuda-nvrtc==13.0.88, or install the cuda toolkit, or set KVCC_NVRTC to the "
                     "full path of libnvrtc.so";
  }
  findings.json["nvrtc"] = std::move(result);
  findings.sections.push_back(std::move(section));
}

void addCuda(Findings &findings) {
  std::vector<CudaDriverAttempt> attempts;
  auto driver = CudaDriver::load(&attempts);
  json::Array tried, devices;
  Section section{"cuda", "", {}, ""};
  for (const CudaDriverAttempt &attempt : attempts) {
    tried.push_back(json::Object{{"place", attempt.place}, {"outcome", attempt.outcome}});
    section.lines.push_back(attempt.place + ": " + attempt.outcome);
  }
  json::Object result{{"found", bool(driver)}};
  if (driver) {
    auto count = (*driver)->deviceCount();
    for (int i = 0; count && i < *count; ++i) {
      auto info = (*driver)->deviceInfo(i);
      if (!info) {
        section.lines.push_back("device " + std::to_string(i) + ": " + toString(info.takeError()));
        continue;
      }
      devices.push_back(json::Object{
          {"name", info->name}, {"architecture", info->architecture()}, {"memory_bytes", int64_t(info->memoryBytes)}});
      section.lines.push_back("device " + std::to_string(i) + ": " + info->name + ", " + info->architecture());
    }
    if (!count)
      section.lines.push_back(toString(count.takeError()));
    section.summary = "driver " + std::to_string((*driver)->version() / 1000) + "." +
                      std::to_string((*driver)->version() % 1000 / 10) + ", " + std::to_string(devices.size()) +
                      " devices";
    result["driver_version"] = (*driver)->version();
  } else {
    consumeError(driver.takeError());
    section.summary = "no driver or device: kernels can be compiled for a gpu, but not run on one";
    section.remedy = "install NVIDIA's driver, or set KVCC_LIBCUDA to the full path of libcuda.so.1; without a gpu, "
                     "--target cuda-host runs the same text on the cpu";
  }
  result["devices"] = std::move(devices);
  result["attempts"] = std::move(tried);
  findings.json["cuda"] = std::move(result);
  findings.sections.push_back(std::move(section));
}

void addHostCompiler(Findings &findings) {
  auto identity = CudaHostModule::cacheIdentity();
  Section section{"host compiler", "", {}, ""};
  findings.json["host_compiler"] = json::Object{{"found", bool(identity)}};
  if (identity) {
    section.summary = StringRef(*identity).split('\n').first.str();
  } else {
    section.summary = "not found: " + toString(identity.takeError());
    section.remedy = "install g++ or clang and libboost-context-dev, or set KVCC_HOST_CXX; only --target cuda-host "
                     "needs it";
  }
  findings.sections.push_back(std::move(section));
}

void addCache(Findings &findings) {
  CacheStat stat = KernelCache::open().stat();
  findings.json["cache"] = json::Object{{"directory", stat.directory},
                                        {"mode", stringifyCacheMode(stat.mode)},
                                        {"entries", int64_t(stat.entries)},
                                        {"bytes", int64_t(stat.bytes)}};
  Section section{"kernel cache", stat.directory.empty() ? "in memory only" : stat.directory, {}, ""};
  section.summary += ", " + std::to_string(stat.entries) + " entries, " + formatBytes(double(stat.bytes)) + ", mode " +
                     stringifyCacheMode(stat.mode).str();
  if (stat.directory.empty())
    section.remedy = "set KVCC_CACHE_DIR to a private directory that can be written";
  findings.sections.push_back(std::move(section));
}

} // namespace

Error tool::runDoctor() {
  if (outputFormat != "text" && outputFormat != "json")
    return usageError("expected -o text or json, but got '" + outputFormat + "'");
  Findings findings;
  findings.json["version"] = KVCC_VERSION;
  addCpu(findings);
  addNvrtc(findings);
  addCuda(findings);
  addHostCompiler(findings);
  addCache(findings);
  if (outputFormat == "json") {
    outs() << formatv("{0:2}", json::Value(std::move(findings.json))) << "\n";
    return Error::success();
  }
  for (const Section &section : findings.sections) {
    outs() << section.title << ": " << section.summary << "\n";
    for (const std::string &line : section.lines)
      outs() << "    " << line << "\n";
    if (!section.remedy.empty())
      outs() << "    to fix: " << section.remedy << "\n";
  }
  return Error::success();
}
