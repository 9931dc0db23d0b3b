// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Target names.
#include "runtime/Target.h"

#include "runtime/CudaDriver.h"
#include "runtime/ErrorKind.h"

using namespace llvm;
using namespace kvcc;

static std::string getLegal() {
  return "cpu, cpu:LEVEL (" + getCpuLevelNames() + "), cuda, cuda:sm_NN (75 and newer) or cuda-host";
}

kv::TargetAttr Target::getAttr(mlir::MLIRContext &context) const { return kv::TargetAttr::get(&context, kind, arch); }

static Target makeCpu(const CpuLevel &level, cpu::Machine machine) {
  return {("cpu:" + level.name).str(), kv::TargetKind::Cpu, Executor::Cpu, level.name.str(), std::move(machine)};
}

/// The level's code, made to run on this processor.
static Target makeEmulated(const CpuLevel &level) {
  Target target = makeCpu(level, cpu::Machine::host());
  target.name = ("cpu-emulated:" + level.name).str();
  target.machine.emulated = true;
  return target;
}

static Target makeCuda(std::string arch) {
  return {"cuda:" + arch, kv::TargetKind::Cuda, Executor::CudaDevice, arch, {}};
}

unsigned kvcc::getComputeCapability(StringRef arch) {
  unsigned capability;
  if (!arch.consume_front("sm_"))
    return 0;
  if (arch.ends_with("a") || arch.ends_with("f"))
    arch = arch.drop_back();
  return arch.getAsInteger(10, capability) ? 0 : capability;
}

static bool isGpuArchitecture(StringRef arch) {
  unsigned capability = getComputeCapability(arch);
  return capability >= 75 && capability < 1000;
}

Expected<Target> kvcc::parseTarget(StringRef text) {
  if (text == "cpu") {
    Target target = makeCpu(cpu::getHostLevel(), cpu::Machine::host());
    target.isHost = true;
    return target;
  }
  StringRef name = text;
  bool emulated = name.consume_front("cpu-emulated:");
  if (emulated || name.consume_front("cpu:")) {
    if (const CpuLevel *level = findCpuLevel(name))
      return emulated ? makeEmulated(*level) : makeCpu(*level, cpu::Machine::of(*level));
  }
  if (text == "cuda-host")
    return Target{"cuda-host", kv::TargetKind::Cuda, Executor::CudaHost, "sm_90", {}};
  if (text == "cuda") {
    auto driver = CudaDriver::load();
    if (!driver)
      return withKind(ErrorKind::Unavailable,
                      createStringError("expected a GPU for target cuda (or name one, such as cuda:sm_90), but " +
                                        toString(driver.takeError())));
    auto info = (*driver)->deviceInfo(0);
    if (!info)
      return info.takeError();
    return makeCuda(info->architecture());
  }
  StringRef arch = text;
  if (arch.consume_front("cuda:")) {
    if (isGpuArchitecture(arch))
      return makeCuda(arch.str());
    return createStringError("expected a GPU architecture from sm_75 on, such as sm_90, but got '" + arch.str() + "'");
  }
  return createStringError("expected target " + getLegal() + ", but got '" + text + "'");
}
