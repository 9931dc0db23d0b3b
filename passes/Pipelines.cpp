// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The order of passes, written here and nowhere else.
#include "passes/Passes.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVMPass.h"
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Dialect/MemRef/Transforms/Passes.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

void kvcc::buildPipeline(OpPassManager &manager, kv::TargetKind kind, Level level, const ScheduleOptions &options) {
  // Decide.
  manager.addPass(createPlaceScalesPass());
  PlanSchedulePassOptions schedule;
  schedule.compute = options.compute;
  schedule.page = options.page;
  schedule.heads = options.heads;
  schedule.accumulators = options.accumulators;
  schedule.page_bytes = options.pageBytes;
  schedule.queries = options.queries;
  schedule.warps = options.warps;
  schedule.stages = options.stages;
  schedule.ahead = options.ahead;
  manager.addPass(createPlanSchedulePass(schedule));
  if (level == Level::Plan)
    return;
  // Do.
  manager.addPass(createTileAttentionPass());
  manager.addPass(createCanonicalizerPass());
  manager.addPass(createCSEPass());
  if (level == Level::Tile)
    return;
  if (kind == kv::TargetKind::Cuda)
    manager.addPass(arith::createArithIntRangeNarrowing({/*bitwidthsSupported=*/{32}}));
  manager.addPass(kind == kv::TargetKind::Cpu ? createConvertTileToCpuPass() : createConvertTileToGpuPass());
  manager.addPass(createCanonicalizerPass());
  manager.addPass(createCSEPass());
  if (level == Level::Target)
    return;
  if (kind == kv::TargetKind::Cuda) {
    manager.addPass(arith::createArithExpandOpsPass());
    manager.addPass(createLoopInvariantCodeMotionPass());
    manager.addPass(createConvertGpuToEmitcPass());
    manager.addPass(createCSEPass());
    return;
  }
  manager.addPass(memref::createExpandStridedMetadataPass());
  manager.addPass(createSCFToControlFlowPass());
  manager.addPass(createConvertVectorToLLVMPass());
  manager.addPass(createConvertToLLVMPass());
  manager.addPass(createReconcileUnrealizedCastsPass());
}

void kvcc::buildSelectionPipeline(OpPassManager &manager) {
  manager.addPass(createChooseLayoutPass());
  manager.addPass(createChooseWindowsPass());
  manager.addPass(createChooseModesPass());
}

namespace {
struct CommandLineOptions : PassPipelineOptions<CommandLineOptions> {
  Option<std::string> compute{*this, "compute", llvm::cl::desc("auto, f32, f16, bf16, int16 or int8"),
                              llvm::cl::init("auto")};
  Option<int64_t> page{*this, "page", llvm::cl::desc("quantized tokens per page, 0 chooses"), llvm::cl::init(0)};
  Option<int64_t> heads{*this, "heads", llvm::cl::desc("query heads of a pass over the codes, 0 chooses"),
                        llvm::cl::init(0)};
  Option<int64_t> accumulators{*this, "accumulators", llvm::cl::desc("vector registers for sums, 0 chooses"),
                               llvm::cl::init(0)};
};
} // namespace

void kvcc::registerPipelines() {
  PassPipelineRegistration<> selection("kv-choose", "how the layers of a model are stored", buildSelectionPipeline);
  struct Entry {
    const char *name, *description;
    kv::TargetKind kind;
    Level level;
  };
  for (Entry entry :
       {Entry{"kv-to-cpu-tile", "level 1 to tile operations, for a CPU", kv::TargetKind::Cpu, Level::Tile},
        Entry{"kv-to-cpu", "level 1 to vector and memref", kv::TargetKind::Cpu, Level::Target},
        Entry{"kv-to-llvm", "level 1 to the LLVM dialect", kv::TargetKind::Cpu, Level::Out},
        Entry{"kv-to-cuda-tile", "level 1 to tile operations, for CUDA", kv::TargetKind::Cuda, Level::Tile},
        Entry{"kv-to-gpu", "level 1 to gpu and memref", kv::TargetKind::Cuda, Level::Target},
        Entry{"kv-to-emitc", "level 1 to EmitC", kv::TargetKind::Cuda, Level::Out}})
    PassPipelineRegistration<CommandLineOptions>(
        entry.name, entry.description, [entry](OpPassManager &manager, const CommandLineOptions &options) {
          buildPipeline(manager, entry.kind, entry.level,
                        {options.compute, options.page, options.heads, options.accumulators});
        });
}
