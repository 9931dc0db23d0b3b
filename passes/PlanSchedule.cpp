// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-plan-schedule: how a target computes attention.
#include "passes/Passes.h"

#include "dialect/Layout.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/Remarks.h"
#include "passes/TargetInfo.h"

using namespace mlir;
using namespace kvcc::kv;

namespace kvcc {
#define GEN_PASS_DEF_PLANSCHEDULEPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

FailureOr<TargetAttr> kvcc::getTarget(ModuleOp module) {
  if (auto target = module->getAttrOfType<TargetAttr>(kTargetAttrName))
    return target;
  return module.emitError("expected attribute kv.target on the module, such as #kv.target<cpu, \"generic\">"
                          " or #kv.target<cuda, \"sm_90\">, but got none");
}

int64_t kvcc::getHeadsTogether(int64_t heads, int64_t limit) {
  for (int64_t together = std::min(heads, limit); together > 1; --together)
    if (heads % together == 0)
      return together;
  return 1;
}

bool kvcc::hasLevelQuery(CacheType cache) {
  QuantAttr key = cache.getKey();
  return key.getTransform<HadamardAttr>() && key.getGroupTokens() == 1 && !key.hasZeros();
}

/// Codes that no product of integers takes.
static bool isFloatByte(QuantAttr quant) { return isa<Float8E4M3FNType>(quant.getElement()); }

/// Whether codes are looked up as bf16, by at most five bits.
static bool fitsBf16(QuantAttr quant) { return !isa<IntegerType>(quant.getElement()) || quant.getBits() <= 5; }

/// Whether bf16 is enough for the query that codes multiply: it is bf16 as it is, or codes hide what bf16 lacks. (Bytes
/// of a query into which scales of channels have been folded have to hold how far these are apart; bf16 has exponents.)
static bool hasBf16Query(CacheType cache, Placement placement) {
  QuantAttr key = cache.getKey();
  bool isPlain = !key.getDiag() && !key.getTransform<HadamardAttr>() && placement != Placement::Operand;
  return (isPlain && cache.getDtype().isBF16()) || key.getBits() <= kvcc::kHidingBits;
}

Type kvcc::getOperandType(CacheType cache, Role role, Placement placement, Compute compute) {
  Builder b(cache.getContext());
  bool isKey = role == Role::Key, folds = placement == Placement::Operand;
  QuantAttr quant = isKey ? cache.getKey() : cache.getValue();
  bool showsBytes = isKey || quant.getBits() > 4;
  if (compute == Compute::BF16 && fitsBf16(quant) && (isKey ? hasBf16Query(cache, placement) : folds || showsBytes))
    return b.getBF16Type();
  if (compute == Compute::F32 || isFloatByte(quant))
    return b.getF32Type();
  if (compute != Compute::Int8 && showsBytes)
    return b.getI16Type();
  bool isSigned = isKey || (folds && quant.getMap() == Map::SymSigned);
  return isSigned ? b.getI8Type() : Type(b.getIntegerType(8, /*isSigned=*/false));
}

int64_t kvcc::getQueryTiles(CacheType cache) {
  QuantAttr key = cache.getKey();
  return key.getDiag() || key.getTransform<HadamardAttr>() ? 2 : 1;
}

namespace {
/// How blocks come to the warps of a multiprocessor.
struct Pipeline {
  int64_t warps, stages;
};
} // namespace

/// Dynamic shared memory of a block of threads.
static int64_t getBlockBytes(CacheType cache, int64_t rows, int64_t warps, int64_t ring) {
  return warps * kvcc::getWarpBytes(ring, rows, cache.getHeadDim()) + kvcc::kConstantBytes +
         kvcc::getQueryTiles(cache) * rows * cache.getHeadDim() * int64_t(sizeof(float));
}

/// Two stages at least, and as many more as have 96 KiB of a multiprocessor on their way (with more, the query waits
/// for them in the beginning) and let three blocks of threads of four warps share it. Numbers as they are go to
/// registers at once.
static Pipeline choosePipeline(CacheType cache, StringRef arch, int64_t rows, int64_t wantedWarps) {
  if (!cache.getKey().isQuantized() && !cache.getValue().isQuantized())
    return {wantedWarps ? wantedWarps : 4, 0};
  // The static memory of a block of threads is a flag, and what a row lacks of its logits.
  const int64_t kReserved = kvcc::kReservedSharedBytes + 16 + rows * int64_t(sizeof(float)), kOnTheirWay = 96 << 10,
                kMostStages = 6;
  const kvcc::TargetInfo *gpu = kvcc::getDefaultGpu(arch);
  int64_t shared = gpu ? gpu->sharedBytes : 100 << 10, bytes = CacheLayout::getBlockBytes(cache);
  struct Choice {
    int64_t warps, resident;
  };
  Pipeline chosen{1, 2};
  for (Choice choice : {Choice{4, 3}, {4, 2}, {2, 4}, {2, 2}, {1, 2}}) {
    if (wantedWarps && wantedWarps != choice.warps)
      continue;
    auto fits = [&](int64_t stages) {
      return choice.resident * (getBlockBytes(cache, rows, choice.warps, stages * bytes) + kReserved) <= shared;
    };
    chosen = {choice.warps, 2};
    while (choice.warps * choice.resident * (chosen.stages - 1) * bytes < kOnTheirWay && chosen.stages < kMostStages &&
           fits(chosen.stages + 1))
      ++chosen.stages;
    if (fits(chosen.stages))
      break;
  }
  if (wantedWarps)
    chosen.warps = wantedWarps;
  return chosen;
}

int64_t kvcc::getUnitExponent(Type element) {
  if (isa<IntegerType>(element))
    return 24;
  if (isa<Float8E4M3FNType>(element))
    return 8;
  return isa<Float4E2M1FNType>(element) ? 14 : 0;
}

int64_t kvcc::getMergePitch(int64_t headDim) {
  // Rows are so much longer than outputs, maximum and sum that lanes of a warp write to different banks.
  constexpr int64_t kPad = 6;
  return headDim + 2 + kPad;
}

int64_t kvcc::getWarpBytes(int64_t ring, int64_t rows, int64_t headDim) {
  return llvm::alignTo(std::max(ring, rows * getMergePitch(headDim) * int64_t(sizeof(float))), 16);
}

int64_t kvcc::getSharedBytes(CacheType cache, ScheduleAttr schedule) {
  if (schedule.getCompute() != Compute::F16)
    return 0;
  int64_t ring = schedule.getStages() * CacheLayout(cache, schedule).page.bytes;
  int64_t rows = schedule.getHeads() * schedule.getQueries();
  return getBlockBytes(cache, rows, schedule.getWarps(), ring);
}

/// Whether codes are so far from their numbers that rounding what multiplies them to bytes cannot be told from it
/// (codegen/README.md has both): those of four bits with a level query, those of three with any, where at most 32 of
/// them share a scale and nothing has been folded into what multiplies them.
static bool hidesBytes(CacheType cache) {
  constexpr int64_t kMostNeighbours = 32;
  QuantAttr key = cache.getKey(), value = cache.getValue();
  auto bits = std::max(key.getBits(), value.getBits());
  if (kvcc::hasLevelQuery(cache))
    return bits <= 4;
  return bits <= kvcc::kHidingBits && key.getGroupTokens() == 1 && key.getGroupChannels() <= kMostNeighbours &&
         value.getGroupTokens() == kBlockTokens && !value.getTransform<TokenNormAttr>();
}

static bool hasFloatBytes(CacheType cache) { return isFloatByte(cache.getKey()) || isFloatByte(cache.getValue()); }

/// Whether bf16 is what multiplies a side's codes, if bf16 is asked for.
static bool usesBf16(CacheType cache) {
  return llvm::any_of(ArrayRef{Role::Key, Role::Value}, [&](Role role) {
    QuantAttr quant = role == Role::Key ? cache.getKey() : cache.getValue();
    Placement placement = kvcc::choosePlacement(quant, role, cache.getHeadDim());
    return quant.isQuantized() && kvcc::getOperandType(cache, role, placement, Compute::BF16).isBF16();
  });
}

/// Arithmetic with at most words, named by what there is of it.
static Compute chooseAccurate(CacheType cache, const kvcc::CpuLevel *level) {
  if (level && level->hasBf16Products && usesBf16(cache))
    return Compute::BF16;
  return level && level->hasByteProducts() && !hasFloatBytes(cache) ? Compute::Int16 : Compute::F32;
}

static FailureOr<Compute> chooseCompute(function_ref<InFlightDiagnostic()> emitError, CacheType cache, TargetKind kind,
                                        StringRef arch, StringRef wanted) {
  const kvcc::CpuLevel *level = kind == TargetKind::Cpu ? kvcc::findCpuLevel(arch) : nullptr;
  bool wide = cache.getDtype().isF32() || cache.getKey().getElement().isF32() || cache.getValue().getElement().isF32();
  bool halves = kind == TargetKind::Cuda && !wide;
  if (wanted == "auto" && halves)
    return Compute::F16;
  if (wanted == "auto") {
    bool bytes = level && level->hasByteProducts() && hidesBytes(cache);
    return bytes ? Compute::Int8 : chooseAccurate(cache, level);
  }
  std::optional<Compute> compute = symbolizeCompute(wanted);
  if (!compute)
    return emitError() << "expected compute auto, f32, f16, bf16, int16 or int8, but got " << wanted;
  if (*compute == Compute::F16 && !halves)
    return emitError() << "expected compute f16 with a cuda target and numbers of 16 bits, but got "
                       << (kind == TargetKind::Cuda ? "f32" : "a CPU");
  if (*compute == Compute::F16)
    return *compute;
  if (*compute != Compute::F32 && !level)
    return emitError() << (halves ? "expected compute auto, f32 or f16 for " : "expected compute auto or f32 for ")
                       << (kind == TargetKind::Cuda ? "a cuda target" : "an unknown CPU level") << ", but got "
                       << wanted;
  if (*compute == Compute::BF16) {
    if (level && level->hasBf16Products)
      return chooseAccurate(cache, level);
    return emitError() << "expected compute bf16 with cpu level avx512_bf16, but got " << arch;
  }
  if (*compute != Compute::F32 && hasFloatBytes(cache))
    return emitError() << "expected compute auto or f32 with elements of f8E4M3FN, but got " << wanted;
  return *compute;
}

ScheduleAttr kvcc::planSchedule(function_ref<InFlightDiagnostic()> emitError, CacheType cache, int64_t queryHeads,
                                TargetKind kind, StringRef arch, const ScheduleOptions &options) {
  MLIRContext *context = cache.getContext();
  FailureOr<Compute> compute = chooseCompute(emitError, cache, kind, arch, options.compute);
  if (failed(compute))
    return {};
  bool cpu = kind == TargetKind::Cpu;
  int64_t group = queryHeads / cache.getKvHeads(), heads = options.heads;
  if (heads && (heads < 0 || group % heads)) {
    emitError() << "expected heads that divide the " << group << " query heads of a KV head, but got " << heads;
    return {};
  }
  // A CPU keeps an accumulator per head beside unpacked codes. Tensor cores take eight heads at once, and two times
  // eight share the codes where registers hold their outputs. Without them a GPU lane keeps heads * head_dim / 32
  // outputs in registers, of which 32 leave room for the rest; with more than four heads ptxas spills the partial sums.
  bool fragments = *compute == Compute::F16;
  int64_t columns = cache.getHeadDim() <= 128 ? 16 : 8;
  if (!heads)
    heads = getHeadsTogether(group, cpu ? 8 : fragments ? columns : 4);
  if (options.queries < 0 || options.queries > kMaxQueries) {
    emitError() << "expected queries from 1 to " << kMaxQueries << ", or 0 for those that cost nothing, but got "
                << options.queries;
    return {};
  }
  // CPU: four neighbouring lanes share a free index, so that their codes make the 32 bits that a dot product adds up;
  // 64 lanes are a vector of 512 bits, or several shorter ones. GPU: fragments; or a lane owns a free index and reads
  // its 32 codes as words beside its neighbours'.
  auto packing = [&](int64_t freeTile, int64_t reduceTile, int64_t lanes) {
    return fragments ? PackingAttr::get(context, Order::Fragments)
                     : PackingAttr::get(context, freeTile, reduceTile, lanes);
  };
  PackingAttr codes = cpu ? packing(16, 32, 64) : packing(32, 32, 32);
  PackingAttr floats = cpu ? packing(16, 1, 1) : packing(32, 1, 1);
  // A CPU reads what lies in one piece faster, and begins anew in every page.
  int64_t page = options.page ? options.page : cpu ? 256 : 128;
  Pipeline pipeline{1, 0};
  // Products on tensor cores have eight columns in any case: what heads leave of them serves more queries.
  int64_t queries = 1;
  if (fragments && !options.oneQuery)
    queries = std::max<int64_t>(options.queries ? std::min(options.queries, columns / heads) : 8 / heads, 1);
  if (fragments) {
    pipeline = choosePipeline(cache, arch, heads * queries, options.warps);
    if (options.stages >= 0)
      pipeline.stages = options.stages;
  }
  // Two blocks take a CPU longer than memory takes to answer. GPUs have their rings, and many threads to switch to.
  int64_t ahead = !cpu ? 0 : options.ahead >= 0 ? options.ahead : 2;
  auto schedule =
      ScheduleAttr::getChecked(emitError, context, heads, page, *compute, codes, codes, floats, options.accumulators,
                               options.pageBytes, pipeline.warps, pipeline.stages, queries, ahead);
  if (!schedule || !options.pageBytes)
    return schedule;
  if (int64_t needed = CacheLayout(cache, schedule).pageBytes; needed > options.pageBytes) {
    emitError() << "expected page_bytes of at least the " << needed << " that a page of " << schedule.getPage()
                << " tokens needs, but got " << options.pageBytes;
    return {};
  }
  return schedule;
}

static StringRef explain(Compute compute) {
  switch (compute) {
  case Compute::F16:
    return "f16 products: tensor cores take codes as subnormal halves, and what multiplies them as halves";
  case Compute::BF16:
    return "bf16 products: codes are looked up as the numbers that they stand for, where bf16 is enough for what "
           "multiplies them; the rest as int16";
  case Compute::F32:
    return "f32 products: nothing is rounded";
  case Compute::Int16:
    return "int16 products: dot product instructions take codes as they are, and what multiplies them in words or "
           "bytes";
  case Compute::Int8:
    return "int8 products: dot product instructions take codes as they are, and what multiplies them in bytes, but for "
           "weights where one dominates";
  }
  llvm_unreachable("unknown arithmetic");
}

namespace {
struct PlanSchedulePass : kvcc::impl::PlanSchedulePassBase<PlanSchedulePass> {
  using PlanSchedulePassBase::PlanSchedulePassBase;

  void runOnOperation() override {
    FailureOr<TargetAttr> target = kvcc::getTarget(getOperation());
    if (failed(target))
      return signalPassFailure();
    kvcc::ScheduleOptions options;
    options.compute = compute;
    options.page = page;
    options.heads = heads;
    options.accumulators = accumulators;
    options.warps = warps;
    options.stages = stages;
    options.ahead = ahead;
    options.pageBytes = page_bytes;
    options.queries = queries;
    WalkResult result = getOperation().walk([&](AttendOp attend) {
      if (attend.getSchedule())
        return WalkResult::advance();
      // Queries of different chunks have nothing in common.
      options.oneQuery = attend.getReach().value_or(Reach::Full) == Reach::Chunked;
      ScheduleAttr schedule = kvcc::planSchedule([&] { return attend.emitError(); }, attend.getCache().getType(),
                                                 attend.getQueryHeads(), target->getKind(), target->getArch(), options);
      if (!schedule)
        return WalkResult::interrupt();
      attend.setScheduleAttr(schedule);
      remark::passed(attend.getLoc(), remark::RemarkOpts::name("schedule").category("kv-plan-schedule"))
          << std::to_string(schedule.getHeads())
          << " query heads share each pass over the codes (the largest divisor of the group that leaves "
             "registers for the rest), pages of "
          << std::to_string(schedule.getPage()) << " tokens, " << explain(schedule.getCompute());
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      return signalPassFailure();
    // Writers lay out what the reader of the same cache expects.
    result = getOperation().walk([&](AppendOp append) {
      if (append.getSchedule())
        return WalkResult::advance();
      CacheType cache = append.getCache().getType();
      ScheduleAttr schedule;
      getOperation().walk([&](AttendOp attend) {
        if (attend.getCache().getType() == cache)
          schedule = *attend.getSchedule();
      });
      if (!schedule)
        schedule = kvcc::planSchedule([&] { return append.emitError(); }, cache, cache.getKvHeads(), target->getKind(),
                                      target->getArch(), options);
      if (!schedule)
        return WalkResult::interrupt();
      append.setScheduleAttr(schedule);
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      signalPassFailure();
  }
};
} // namespace
