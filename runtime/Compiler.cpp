// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Compiles plans, through the kernel cache.
#include "runtime/Compiler.h"

#include "codegen/cuda/EmitCuda.h"
#include "codegen/cuda/Prelude.h"
#include "runtime/CompilerDigest.h"
#include "runtime/CudaHost.h"
#include "runtime/ErrorKind.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Config/llvm-config.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

#include <chrono>

using namespace llvm;
using namespace kvcc;

namespace {

struct EmitName {
  Emit form;
  StringLiteral name;
  bool cpu, cuda;
};
constexpr EmitName kEmitNames[] = {
    {Emit::Kv, "kv", true, true},         {Emit::Tile, "tile", true, true},
    {Emit::Target, "target", true, true}, {Emit::Llvm, "llvm", true, false},
    {Emit::Assembly, "asm", true, false}, {Emit::Object, "object", true, false},
    {Emit::Cuda, "cuda", false, true},    {Emit::Ptx, "ptx", false, true},
    {Emit::Cubin, "cubin", false, true},  {Emit::HostObject, "host-object", false, true},
};

std::unique_ptr<MemoryBuffer> toBuffer(StringRef text) { return MemoryBuffer::getMemBufferCopy(text, "kvcc"); }

/// Everything that turns a plan into code, apart from the plan: the compiler's own sources and LLVM's
/// version. A changed pass never finds what the old one made.
std::string compilerIdentity() { return "kvcc " KVCC_VERSION " " KVCC_COMPILER_DIGEST " llvm " LLVM_VERSION_STRING; }

} // namespace

StringRef kvcc::stringify(Emit emit) {
  return find_if(kEmitNames, [&](const EmitName &entry) { return entry.form == emit; })->name;
}

Expected<Emit> kvcc::parseEmit(StringRef name, const Target &target) {
  SmallVector<StringRef> legal;
  for (const EmitName &entry : kEmitNames) {
    if (!(target.kind == kv::TargetKind::Cpu ? entry.cpu : entry.cuda))
      continue;
    if (entry.name == name)
      return entry.form;
    legal.push_back(entry.name);
  }
  return createStringError("expected a form that target " + target.name + " has (" + join(legal, ", ") +
                           "), but got '" + name.str() + "'");
}

Compiler::Compiler(CacheOptions options) : context(createContext()), cache(KernelCache::open(std::move(options))) {}

Expected<ModelSchemes> Compiler::chooseSchemes(const ModelConfig &model, StringRef dtype, const Target &target,
                                               StringRef scheme) {
  std::lock_guard lock(mutex);
  return kvcc::chooseSchemes(*context, model, dtype, target, scheme);
}

Expected<Plan> Compiler::plan(const AttentionShape &shape, StringRef dtype, const Scheme &scheme, const Target &target,
                              const ScheduleOptions &options) {
  std::lock_guard lock(mutex);
  return planTuned(shape, dtype, scheme, target, options);
}

Expected<Plan> Compiler::plan(const AttentionShape &shape, StringRef dtype, StringRef schemeName, const Target &target,
                              const ScheduleOptions &options) {
  std::lock_guard lock(mutex);
  auto scheme = parseScheme(schemeName, shape.headDim, *context);
  if (!scheme)
    return scheme.takeError();
  return planTuned(shape, dtype, *scheme, target, options);
}

/// A machine as part of a cache key.
static std::string describe(const cpu::Machine &machine) {
  return machine.triple + " " + machine.cpu + " " + machine.features + (machine.emulated ? " emulated" : "");
}

/// What a tuned schedule is for: all of a plan that the passes have decided by themselves, and the processor.
static CacheKey getTunedKey(const Plan &plan) {
  return CacheKey::create({"schedule", plan.print(), compilerIdentity(), {}, describe(plan.target.machine)});
}

void Compiler::storeTuned(const Plan &plan, const ScheduleOptions &options) {
  std::lock_guard lock(mutex);
  json::Object schedule{{"heads", options.heads}, {"accumulators", options.accumulators}};
  std::string text = formatv("{0}", json::Value(std::move(schedule)));
  cache.publish(getTunedKey(plan), text, plan.scheme + " " + plan.target.name + " tuned schedule");
}

Expected<Plan> Compiler::planTuned(const AttentionShape &shape, StringRef dtype, const Scheme &scheme,
                                   const Target &target, const ScheduleOptions &options) {
  auto plan = makePlan(*context, shape, dtype, scheme, target, options);
  if (!plan || !target.isHost || !options.tuned || options.heads || options.accumulators)
    return plan;
  auto bytes = cache.lookup(getTunedKey(*plan));
  if (!bytes)
    return plan;
  // What does not parse, or no longer fits, is as good as nothing.
  auto text = json::parse(bytes->getBuffer());
  const json::Object *schedule = text ? text->getAsObject() : nullptr;
  if (!schedule) {
    consumeError(text.takeError());
    return plan;
  }
  ScheduleOptions tuned = options;
  tuned.heads = schedule->getInteger("heads").value_or(0);
  tuned.accumulators = schedule->getInteger("accumulators").value_or(0);
  if (!tuned.heads && !tuned.accumulators)
    return plan;
  auto better = makePlan(*context, shape, dtype, scheme, target, tuned);
  if (!better) {
    consumeError(better.takeError());
    return plan;
  }
  better->remarks.push_back("kv-plan-schedule: heads and accumulators are what kvcc tune found on this machine");
  return better;
}

Emit Compiler::getExecutableForm(const Plan &plan) {
  switch (plan.target.executor) {
  case Executor::Cpu:
    return Emit::Object;
  case Executor::CudaHost:
    return Emit::HostObject;
  case Executor::CudaDevice:
    return Emit::Cubin;
  }
  llvm_unreachable("unknown executor");
}

Expected<std::shared_ptr<Nvrtc>> Compiler::getNvrtc() {
  if (!nvrtc) {
    auto loaded = Nvrtc::load();
    if (!loaded)
      return withKind(ErrorKind::Unavailable, loaded.takeError());
    nvrtc = std::move(*loaded);
  }
  return nvrtc;
}

Expected<Artifact> Compiler::throughCache(const Plan &plan, const KernelInputs &inputs, Produce produce) {
  CacheKey key = CacheKey::create(inputs);
  Artifact artifact;
  artifact.bytes = cache.lookup(key);
  artifact.cached = artifact.bytes != nullptr;
  if (artifact.cached)
    return artifact;
  auto bytes = produce();
  if (!bytes)
    return bytes.takeError();
  std::string label = plan.scheme + " " + plan.target.name + " " + std::to_string(plan.shape.qHeads) + "/" +
                      std::to_string(plan.shape.kvHeads) + "x" + std::to_string(plan.shape.headDim) + " " +
                      inputs.kind.str();
  cache.publish(key, (*bytes)->getBuffer(), label);
  artifact.bytes = std::move(*bytes);
  return artifact;
}

Expected<Artifact> Compiler::emit(const Plan &plan, Emit form) {
  std::lock_guard lock(mutex);
  auto start = std::chrono::steady_clock::now();
  auto artifact = emitLocked(plan, form);
  if (!artifact)
    return withKind(ErrorKind::Failed, artifact.takeError());
  artifact->milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return artifact;
}

Expected<Artifact> Compiler::emitLocked(const Plan &plan, Emit form) {
  auto uncached = [](std::string text) {
    Artifact artifact;
    artifact.bytes = toBuffer(text);
    return artifact;
  };
  auto lowered = [&](Level level) { return lowerPlan(plan, level); };
  std::string identity = compilerIdentity();

  switch (form) {
  case Emit::Kv:
    return uncached(plan.print());
  case Emit::Tile:
  case Emit::Target: {
    auto module = lowered(form == Emit::Tile ? Level::Tile : Level::Target);
    if (!module)
      return module.takeError();
    return uncached(printModule(module->get()));
  }
  case Emit::Llvm:
  case Emit::Assembly:
  case Emit::Object: {
    auto produce = [&]() -> Expected<std::unique_ptr<MemoryBuffer>> {
      auto module = lowered(Level::Out);
      if (!module)
        return module.takeError();
      auto format = form == Emit::Llvm       ? cpu::CodeFormat::LlvmIr
                    : form == Emit::Assembly ? cpu::CodeFormat::Assembly
                                             : cpu::CodeFormat::Object;
      return cpu::compileModule(module->get(), plan.target.machine, format);
    };
    if (form != Emit::Object) {
      auto bytes = produce();
      if (!bytes)
        return bytes.takeError();
      Artifact artifact;
      artifact.bytes = std::move(*bytes);
      return artifact;
    }
    std::string architecture = describe(plan.target.machine);
    return throughCache(plan, {"object", plan.print(), identity, {}, architecture}, produce);
  }
  case Emit::Cuda:
    return throughCache(plan, {"cuda", plan.print(), identity, {}, ""},
                        [&]() -> Expected<std::unique_ptr<MemoryBuffer>> {
                          auto module = lowered(Level::Out);
                          if (!module)
                            return module.takeError();
                          auto text = emitCuda(module->get());
                          if (!text)
                            return text.takeError();
                          return toBuffer(*text);
                        });
  case Emit::Ptx:
  case Emit::Cubin: {
    auto text = emitLocked(plan, Emit::Cuda);
    if (!text)
      return text.takeError();
    auto compiler = getNvrtc();
    if (!compiler)
      return compiler.takeError();
    std::string source = (devicePrelude() + text->bytes->getBuffer()).str();
    bool cubin = form == Emit::Cubin;
    auto artifact = throughCache(plan, {stringify(form), source, (*compiler)->identity(), {}, plan.target.arch},
                                 [&]() -> Expected<std::unique_ptr<MemoryBuffer>> {
                                   auto kernel = (*compiler)->compile(source, "kvcc.cu", plan.target.arch, {}, cubin);
                                   if (!kernel)
                                     return kernel.takeError();
                                   // The driver compiles PTX itself when this NVRTC is too old for the GPU.
                                   return toBuffer(cubin && !kernel->cubin.empty() ? kernel->cubin : kernel->ptx);
                                 });
    if (artifact && cubin &&
        !artifact->bytes->getBuffer().starts_with("\x7f"
                                                  "ELF"))
      artifact->note = "nvrtc " + (*compiler)->version() + " does not know " + plan.target.arch +
                       "; ptx stands in for the cubin, and the driver compiles it";
    return artifact;
  }
  case Emit::HostObject: {
    auto text = emitLocked(plan, Emit::Cuda);
    if (!text)
      return text.takeError();
    auto host = CudaHostModule::cacheIdentity();
    if (!host)
      return host.takeError();
    cpu::Machine machine = cpu::Machine::host();
    std::string names[] = {kAttendName.str(), kAppendName.str(), kMergeName.str()};
    return throughCache(plan, {"host", text->bytes->getBuffer(), *host, {}, machine.cpu + " " + machine.features},
                        [&] { return CudaHostModule::compileToObject(text->bytes->getBuffer(), names); });
  }
  }
  llvm_unreachable("unknown form");
}
