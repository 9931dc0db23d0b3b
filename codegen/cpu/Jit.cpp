// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Object code from the LLVM dialect, and its loading by ORC.
#include "codegen/cpu/Jit.h"

#include "codegen/cpu/Emulation.h"
#include "dialect/SmallFloat.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/ExecutionEngine/Orc/AbsoluteSymbols.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/SmallVectorMemoryBuffer.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/SubtargetFeature.h"

#include <cmath>
#include <cstring>
#include <mutex>

using namespace llvm;
using namespace kvcc;
using namespace kvcc::cpu;

static void initializeTargets() {
  static std::once_flag once;
  std::call_once(once, [] {
    InitializeNativeTarget();
    InitializeNativeTargetAsmPrinter();
    InitializeNativeTargetAsmParser();
    // The code generator's search for addresses that are cheap to step from one iteration to the next took a third of
    // the compile time, and on x86-64 1 % off an attention kernel where constants are taken out of addresses before
    // (below), 5 % off the slowest writer.
    if (auto *option = cl::getRegisteredOptions().lookup("disable-lsr"))
      static_cast<cl::opt<bool> *>(option)->setValue(true);
  });
}

Machine Machine::host() {
  SubtargetFeatures features;
  // A StringMap iterates in hash order; the string must not.
  std::vector<std::string> enabled;
  for (auto &[name, on] : sys::getHostCPUFeatures())
    enabled.push_back((on ? "+" : "-") + name.str());
  llvm::sort(enabled);
  for (const std::string &feature : enabled)
    features.AddFeature(feature);
  return {sys::getProcessTriple(), sys::getHostCPUName().str(), features.getString()};
}

Machine Machine::baseline() {
  Triple triple(sys::getProcessTriple());
  return {triple.str(), triple.getArch() == Triple::x86_64 ? "x86-64" : "generic", ""};
}

Machine Machine::of(const CpuLevel &level) {
  if (level.triple.empty())
    return host();
  return {level.triple.str(), level.processor.str(), level.features.str()};
}

bool kvcc::cpu::hostHas(const CpuLevel &level) {
  SmallVector<StringRef> required;
  StringRef(level.required).split(required, ',', -1, /*KeepEmpty=*/false);
  auto features = sys::getHostCPUFeatures();
  return all_of(required, [&](StringRef name) { return features.lookup(name); });
}

const CpuLevel &kvcc::cpu::getHostLevel() {
  auto isOwn = [host = sys::getHostCPUName()](const CpuLevel &level) {
    return hostHas(level) && (level.only.empty() || level.only == host);
  };
  // The last level needs nothing.
  return *find_if(getCpuLevels(), isOwn);
}

/// The code is vector code in the order that it is to run in: what is left to do is cleaning up addresses. The pipeline
/// of -O2 took three times as long. What does not change in a loop is left to the code generator, which minds
/// registers: moved out here, the broadcast weights of a block were more than there are, and saving and loading them
/// took 4 % of a block's time.
static constexpr StringLiteral kOptimizations =
    "function(sroa,early-cse<memssa>,simplifycfg,instcombine<no-verify-fixpoint>,separate-const-offset-from-gep)";

static Expected<std::unique_ptr<TargetMachine>> createTargetMachine(const Machine &machine) {
  initializeTargets();
  std::string problem;
  Triple triple(machine.triple);
  const Target *target = TargetRegistry::lookupTarget(triple, problem);
  if (!target)
    return createStringError("no code generator for " + machine.triple + ": " + problem);
  TargetOptions options;
  std::unique_ptr<TargetMachine> created(
      target->createTargetMachine(triple, machine.cpu, machine.features, options, Reloc::PIC_, CodeModel::Small,
                                  // Emulated code is for tests, which compile much and run little.
                                  machine.emulated ? CodeGenOptLevel::None : CodeGenOptLevel::Default, /*JIT=*/true));
  if (!created)
    return createStringError("no target machine for " + machine.triple + " with cpu " + machine.cpu);
  return created;
}

Expected<std::unique_ptr<MemoryBuffer>> kvcc::cpu::compileModule(mlir::ModuleOp module, const Machine &machine,
                                                                 CodeFormat format) {
  auto targetMachine = createTargetMachine(machine);
  if (!targetMachine)
    return targetMachine.takeError();
  LLVMContext context;
  std::unique_ptr<Module> code = mlir::translateModuleToLLVMIR(module, context, "kvcc");
  if (!code)
    return createStringError("cannot translate the kernels to LLVM IR");
  code->setTargetTriple((*targetMachine)->getTargetTriple());
  code->setDataLayout((*targetMachine)->createDataLayout());
  for (Function &function : *code) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("target-cpu", machine.cpu);
    function.addFnAttr("target-features", machine.features);
    function.addFnAttr("prefer-vector-width", "512");
    function.addFnAttr("no-trapping-math", "true");
  }

  if (machine.emulated)
    emulateProducts(*code);

  PassBuilder builder(targetMachine->get());
  LoopAnalysisManager loops;
  FunctionAnalysisManager functions;
  CGSCCAnalysisManager sccs;
  ModuleAnalysisManager modules;
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(sccs);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, sccs, modules);
  ModulePassManager passes;
  cantFail(builder.parsePassPipeline(passes, kOptimizations));
  passes.run(*code, modules);

  SmallVector<char, 0> bytes;
  raw_svector_ostream stream(bytes);
  if (format == CodeFormat::LlvmIr) {
    code->print(stream, nullptr);
  } else {
    legacy::PassManager emitter;
    auto type = format == CodeFormat::Assembly ? CodeGenFileType::AssemblyFile : CodeGenFileType::ObjectFile;
    if ((*targetMachine)->addPassesToEmitFile(emitter, stream, nullptr, type))
      return createStringError("the code generator for " + machine.triple + " cannot emit this file type");
    emitter.run(*code);
  }
  return std::make_unique<SmallVectorMemoryBuffer>(std::move(bytes), "kvcc");
}

// What code for processors without half precision calls; not every process has it.
static float extendHalf(uint16_t bits) { return kvcc::halfToFloat(bits); }

LoadedObject::LoadedObject(std::unique_ptr<orc::LLJIT> jit) : jit(std::move(jit)) {}
LoadedObject::~LoadedObject() = default;

Expected<std::unique_ptr<LoadedObject>> LoadedObject::load(std::unique_ptr<MemoryBuffer> object) {
  initializeTargets();
  auto jit = orc::LLJITBuilder().create();
  if (!jit)
    return jit.takeError();
  auto symbol = [&](StringRef name, auto *function) {
    return std::pair((*jit)->mangleAndIntern(name),
                     orc::ExecutorSymbolDef(orc::ExecutorAddr::fromPtr(function),
                                            JITSymbolFlags::Exported | JITSymbolFlags::Callable));
  };
  // The few functions that generated code may call, by address: nothing is looked up in the process.
  orc::SymbolMap symbols;
  symbols.insert(symbol("__extendhfsf2", &extendHalf));
  symbols.insert(symbol("fmaf", static_cast<float (*)(float, float, float)>(&std::fma)));
  symbols.insert(symbol("log2f", static_cast<float (*)(float)>(&std::log2)));
  symbols.insert(symbol("powf", static_cast<float (*)(float, float)>(&std::pow)));
  symbols.insert(symbol("memset", &std::memset));
  symbols.insert(symbol("memcpy", &std::memcpy));
  if (Error error = (*jit)->getMainJITDylib().define(orc::absoluteSymbols(std::move(symbols))))
    return std::move(error);
  if (Error error = (*jit)->addObjectFile(std::move(object)))
    return std::move(error);
  return std::unique_ptr<LoadedObject>(new LoadedObject(std::move(*jit)));
}

Expected<void *> LoadedObject::lookup(StringRef symbol) {
  auto address = jit->lookup(symbol);
  if (!address)
    return address.takeError();
  return address->toPtr<void *>();
}
