// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Compiles plans, through the kernel cache.
#include "runtime/Compiler.h"

#include "codegen/cuda/EmitCuda.h"
#include "codegen/cuda/Prelude.h"
#include "runtime/CompilerDigest.h"
#include "runtime/CudaDriver.h"
#include "runtime/CudaHost.h"
#include "runtime/ErrorKind.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Config/llvm-config.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/ThreadPool.h"

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

} // namespace

std::string kvcc::getCompilerIdentity() {
  return "kvcc " KVCC_VERSION " " KVCC_COMPILER_DIGEST " llvm " LLVM_VERSION_STRING;
}

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
  return CacheKey::create({"schedule", plan.print(), getCompilerIdentity(), {}, describe(plan.target.machine)});
}

void Compiler::storeTuned(const Plan &plan, const ScheduleOptions &options) {
  std::lock_guard lock(mutex);
  json::Object schedule{{"heads", options.heads}, {"accumulators", options.accumulators}, {"ahead", options.ahead}};
  std::string text = formatv("{0}", json::Value(std::move(schedule)));
  cache.publish(getTunedKey(plan), text, plan.scheme + " " + plan.target.name + " tuned schedule");
}

Expected<Plan> Compiler::planTuned(const AttentionShape &shape, StringRef dtype, const Scheme &scheme,
                                   const Target &target, const ScheduleOptions &options) {
  auto plan = makePlan(*context, shape, dtype, scheme, target, options);
  if (!plan || !target.isHost || !options.tuned || options.heads || options.accumulators || options.ahead >= 0)
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
  tuned.ahead = schedule->getInteger("ahead").value_or(-1);
  if (!tuned.heads && !tuned.accumulators && tuned.ahead < 0)
    return plan;
  auto better = makePlan(*context, shape, dtype, scheme, target, tuned);
  if (!better) {
    consumeError(better.takeError());
    return plan;
  }
  better->remarks.push_back("kv-plan-schedule: heads, accumulators and ahead are what kvcc tune found on this machine");
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
  std::lock_guard lock(nvrtcMutex);
  if (!nvrtc) {
    auto loaded = Nvrtc::load();
    if (!loaded)
      return withKind(ErrorKind::Unavailable, loaded.takeError());
    nvrtc = std::move(*loaded);
  }
  return nvrtc;
}

/// What is looked up for a kernel, in this order.
struct Compiler::Request {
  KernelInputs inputs;
  std::optional<CacheKey> key;     ///< none if what it takes to name the kernel is not here
  std::optional<CacheKey> standIn; ///< none if the kernel is for this machine alone
  bool acceptsStandIn = false;
};

/// The key of a stand-in: `inputs` with what is known everywhere in place of the compiler's build or the processor.
static CacheKey getStandInKey(KernelInputs inputs) {
  std::string kind = ("stand-in for " + inputs.kind).str();
  inputs.kind = kind;
  return CacheKey::create(inputs);
}

Expected<Artifact> Compiler::throughCache(const Plan &plan, const Request &request, Produce produce) {
  std::string label = plan.scheme + " " + plan.target.name + " " + std::to_string(plan.shape.qHeads) + "/" +
                      std::to_string(plan.shape.kvHeads) + "x" + std::to_string(plan.shape.headDim) + " " +
                      request.inputs.kind.str();
  Artifact artifact;
  std::optional<CacheKey> key = request.key;
  if (key)
    artifact.bytes = cache.lookup(*key);
  if (!artifact.bytes && request.standIn && request.acceptsStandIn) {
    if (auto pointer = cache.lookup(*request.standIn)) {
      std::optional<CacheKey> other = CacheKey::fromHex(pointer->getBuffer());
      artifact.bytes = other ? cache.lookup(*other) : nullptr;
      if (artifact.bytes) {
        key = other;
        if (plan.target.isHost)
          artifact.note = "the imported kernel for " + plan.target.name +
                          " stands in for one that would be compiled for this very processor";
      }
    }
  }
  artifact.cached = artifact.bytes != nullptr;
  if (!artifact.cached) {
    auto bytes = produce();
    if (!bytes)
      return bytes.takeError();
    cache.publish(*key, (*bytes)->getBuffer(), label);
    artifact.bytes = std::move(*bytes);
  }
  artifact.records.push_back({*key, label, artifact.bytes});
  if (request.standIn && (!plan.target.isHost || !artifact.note.empty()))
    artifact.records.push_back({*request.standIn, label + " stand-in", toBuffer(key->hex())});
  return artifact;
}

Expected<Artifact> Compiler::emit(const Plan &plan, Emit form) {
  auto start = std::chrono::steady_clock::now();
  std::string text;
  {
    std::lock_guard lock(mutex); // printing looks things up in the plan's context
    text = plan.print();
  }
  auto artifact = emitText(plan, text, form);
  if (!artifact)
    return withKind(ErrorKind::Failed, artifact.takeError());
  artifact->milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return artifact;
}

Expected<std::vector<Artifact>> Compiler::emitExecutables(ArrayRef<const Plan *> plans, unsigned threads,
                                                          function_ref<void(size_t, const Artifact &)> done) {
  std::vector<Artifact> artifacts(plans.size());
  std::mutex reporting;
  Error error = runSideBySide(plans.size(), threads, [&](size_t i) -> Error {
    auto artifact = emit(*plans[i], getExecutableForm(*plans[i]));
    if (!artifact)
      return artifact.takeError();
    artifacts[i] = std::move(*artifact);
    if (done) {
      std::lock_guard lock(reporting);
      done(i, artifacts[i]);
    }
    return Error::success();
  });
  if (error)
    return std::move(error);
  return artifacts;
}

Error kvcc::runSideBySide(size_t items, unsigned threads, function_ref<Error(size_t)> body) {
  std::vector<std::optional<Error>> errors(items);
  auto run = [&](size_t i) { errors[i].emplace(body(i)); };
  size_t workers = std::min<size_t>(items, threads);
  if (workers <= 1) {
    for (size_t i = 0; i < items; ++i)
      run(i);
  } else {
    DefaultThreadPool pool(hardware_concurrency(unsigned(workers)));
    for (size_t i = 0; i < items; ++i)
      pool.async([&, i] { run(i); });
    pool.wait();
  }
  Error first = Error::success();
  for (std::optional<Error> &error : errors) {
    if (first)
      consumeError(std::move(*error));
    else
      first = std::move(*error);
  }
  return first;
}

Expected<Artifact> Compiler::emitText(const Plan &plan, StringRef text, Emit form) {
  auto uncached = [](std::unique_ptr<MemoryBuffer> bytes) {
    Artifact artifact;
    artifact.bytes = std::move(bytes);
    return artifact;
  };
  auto lowered = [&](Level level) { return lowerPlan(text, plan.target.kind, level); };
  auto own = [](const KernelInputs &inputs) { return Request{inputs, CacheKey::create(inputs), {}, false}; };
  std::string identity = getCompilerIdentity();

  switch (form) {
  case Emit::Kv:
    return uncached(toBuffer(text));
  case Emit::Tile:
  case Emit::Target: {
    auto result = lowered(form == Emit::Tile ? Level::Tile : Level::Target);
    if (!result)
      return result.takeError();
    return uncached(toBuffer(printModule(result->module.get())));
  }
  case Emit::Llvm:
  case Emit::Assembly:
  case Emit::Object: {
    auto produce = [&]() -> Expected<std::unique_ptr<MemoryBuffer>> {
      auto result = lowered(Level::Out);
      if (!result)
        return result.takeError();
      auto format = form == Emit::Llvm       ? cpu::CodeFormat::LlvmIr
                    : form == Emit::Assembly ? cpu::CodeFormat::Assembly
                                             : cpu::CodeFormat::Object;
      return cpu::compileModule(result->module.get(), plan.target.machine, format);
    };
    if (form != Emit::Object) {
      auto bytes = produce();
      if (!bytes)
        return bytes.takeError();
      return uncached(std::move(*bytes));
    }
    std::string architecture = describe(plan.target.machine);
    Request request = own({"object", text, identity, {}, architecture});
    // The code of a level, for any processor that has it; a level without a machine is compiled for the host.
    const CpuLevel *level = findCpuLevel(plan.target.arch);
    if (level && !level->triple.empty() && !plan.target.machine.emulated) {
      request.standIn = getStandInKey({"object", text, identity, {}, plan.target.arch});
      request.acceptsStandIn = plan.target.isHost;
    }
    return throughCache(plan, request, produce);
  }
  case Emit::Cuda:
    return throughCache(plan, own({"cuda", text, identity, {}, ""}), [&]() -> Expected<std::unique_ptr<MemoryBuffer>> {
      auto result = lowered(Level::Out);
      if (!result)
        return result.takeError();
      auto code = emitCuda(result->module.get());
      if (!code)
        return code.takeError();
      return toBuffer(*code);
    });
  case Emit::Ptx:
  case Emit::Cubin:
    return emitNvrtc(plan, text, form);
  case Emit::HostObject: {
    auto code = emitText(plan, text, Emit::Cuda);
    if (!code)
      return code.takeError();
    auto host = CudaHostModule::cacheIdentity();
    if (!host)
      return host.takeError();
    cpu::Machine machine = cpu::Machine::host();
    std::string names[] = {kAttendName.str(), kAppendName.str(), kMergeName.str()};
    std::string architecture = machine.cpu + " " + machine.features;
    StringRef source = code->bytes->getBuffer();
    return throughCache(plan, own({"host", source, *host, {}, architecture}),
                        [&] { return CudaHostModule::compileToObject(source, names); });
  }
  }
  llvm_unreachable("unknown form");
}

std::string kvcc::getGpuName(const Plan &plan, StringRef kernel) {
  std::string name;
  raw_string_ostream stream(name);
  stream << "kvcc_" << kernel;
  for (auto [side, quant] : {std::pair("_k_", plan.cache.getKey()), {"_v_", plan.cache.getValue()}}) {
    stream << side << quant.getElement();
    if (quant.isQuantized())
      stream << "_" << kv::stringifyMap(quant.getMap()) << "_" << quant.getGroupTokens() << "x"
             << quant.getGroupChannels();
  }
  stream << "_d" << plan.shape.headDim << "_g" << plan.shape.qHeads / plan.shape.kvHeads;
  return name;
}

/// PTX and cubins.
Expected<Artifact> Compiler::emitNvrtc(const Plan &plan, StringRef text, Emit form) {
  auto code = emitText(plan, text, Emit::Cuda);
  if (!code)
    return code.takeError();
  std::string source = devicePrelude().str();
  for (StringRef kernel : {kAttendName, kAppendName, kMergeName})
    source += ("#define " + kernel + " " + getGpuName(plan, kernel) + "\n").str();
  source += code->bytes->getBuffer();
  bool cubin = form == Emit::Cubin;
  StringRef kind = stringify(form);
  Request request{{kind, source, "", {}, plan.target.arch}, {}, {}, /*acceptsStandIn=*/true};
  request.standIn = getStandInKey(request.inputs);
  auto compiler = getNvrtc();
  std::string version = "of another machine";
  if (compiler) {
    version = (*compiler)->version();
    request.inputs.compiler = (*compiler)->identity();
    request.key = CacheKey::create(request.inputs);
  }
  auto artifact = throughCache(plan, request, [&]() -> Expected<std::unique_ptr<MemoryBuffer>> {
    if (!compiler)
      return compiler.takeError();
    auto kernel = (*compiler)->compile(source, "kvcc.cu", plan.target.arch, {}, cubin);
    if (!kernel)
      return kernel.takeError();
    // The driver compiles PTX itself when this NVRTC is too old for the GPU.
    return toBuffer(cubin && !kernel->cubin.empty() ? kernel->cubin : kernel->ptx);
  });
  if (!compiler)
    consumeError(compiler.takeError());
  if (!artifact)
    return artifact.takeError();
  if (cubin && !isCubin(artifact->bytes->getBuffer()))
    artifact->note = "nvrtc " + version + " does not know " + plan.target.arch +
                     "; ptx stands in for the cubin, and the driver compiles it";
  // A load wants both.
  artifact->records.insert(artifact->records.begin(), code->records.begin(), code->records.end());
  return artifact;
}
