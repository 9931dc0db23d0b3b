// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bytes of a step by the layout, instructions by counts that follow the lowerings line by line.
#include "passes/CostModel.h"

#include "dialect/Layout.h"
#include "passes/CpuCost.h"
#include "passes/Passes.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;
using llvm::divideCeil;

namespace {

/// Of a GPU's theoretical bandwidth, what a kernel that only reads gets: copy benchmarks of vendors and users stand
/// between 0.88 and 0.93.
constexpr double kGpuBandwidthShare = 0.9;
/// A launch, and what a kernel waits for before and after its loop: measured on an H100, as passes/README.md says. A
/// pool's worker that sleeps is woken by a futex.
constexpr double kGpuFixedSeconds = 7e-6, kCpuFixedSeconds = 5e-6;
/// Instructions of a warp that the integer units of a multiprocessor start per cycle: 64 lanes do logic, shifts,
/// comparisons and conversions in pairs (CUDA C++ Programming Guide 13, "Arithmetic Instructions").
constexpr double kLogicPerCycle = 2;
/// Of mma.m16n8k16.
constexpr double kProductFlop = 2 * 16 * 8 * 16;

/// Instructions of a warp. `logic` are those of integer units, `products` those of tensor cores; both are among all.
struct Instructions {
  double all = 0, logic = 0, products = 0;
};

/// Counts the instructions, as a warp issues them, of one block of 32 tokens of one KV head. Every count follows a
/// function of codegen/cuda and was read off what ptxas 13.0 makes of it for sm_90, at 4 heads and head_dim 128. Loads
/// that fold into arithmetic are part of it.
class GpuCounter {
public:
  GpuCounter(CacheType cache, ScheduleAttr schedule) : cache(cache), heads(double(schedule.getHeads())) {}

  /// A block of a page, one pass over it.
  double countPage() const {
    double count = countSide(cache.getKey(), Role::Key) + countSide(cache.getValue(), Role::Value) + countRest();
    return cache.getWindow().getFlush() % kBlockTokens ? count + heads * kMaskHead : count;
  }
  /// A block of a window, one pass over it.
  double countWindow() const { return 2 * countNumbers() + countRest() + heads * kMaskHead; }

private:
  static constexpr double kLanes = 32, kChunk = 32 * kLanes;           // codes that a warp unpacks at once
  static constexpr double kUnpack = 64, kUnpackBit = 1, kUnpack8 = 72; // SHF and LOP3 per code, LDG of a word
  static constexpr double kConvert = 32;                               // I2FP
  static constexpr double kProduct = 40;                               // 32 FFMA, 8 LDS.128
  static constexpr double kGroup = 7, kScale = 18, kZero = 5, kHybrid = 4;
  static constexpr double kGroupHead = 3, kZeroHead = 2, kTileHead = 1; // LDS, FMUL, FFMA
  static constexpr double kNumber = 12, kNumberHead = 2;                // LDS, FFMA
  static constexpr double kFold = 14, kFoldZero = 6, kPrepareColumn = 8;
  static constexpr double kSoftmaxHead = 62; // five SHFL and as many maxima of four, two exp2
  static constexpr double kMaskHead = 4, kBlock = 30;

  double countRest() const { return kBlock + heads * kSoftmaxHead; }
  double elements() const { return double(kBlockTokens * cache.getHeadDim()); }
  /// A side that is stored as numbers.
  double countNumbers() const { return elements() / kLanes * (kNumber + heads * kNumberHead); }

  double countSide(QuantAttr quant, Role role) const {
    if (!quant.isQuantized())
      return countNumbers();
    bool isKey = role == Role::Key;
    bool folds = choosePlacement(quant, role, cache.getHeadDim()) == Placement::Operand;
    double headDim = double(cache.getHeadDim()), tokens = double(kBlockTokens);
    double free = isKey ? tokens : headDim, reduced = isKey ? headDim : tokens;

    double unpack = quant.getBits() == 8 ? kUnpack8 : kUnpack + kUnpackBit * quant.getBits();
    double count = elements() / kChunk * (unpack + kConvert + heads * kProduct);

    double groups = folds ? 1 : reduced / double(quant.getReducedExtent(role));
    double perGroup = kGroup, perGroupHead = kGroupHead;
    if (!folds) {
      perGroup += kScale;
      if (quant.hasZeros()) {
        perGroup += kZero + (quant.getMap() == Map::Hybrid ? kHybrid : 0);
        perGroupHead += kZeroHead;
      }
    }
    count += free / kLanes * (groups * (perGroup + heads * perGroupHead) + heads * kTileHead);

    // The query is prepared once per step, weights for each block, an operand is folded and prepared for each block, in
    // as many rows as free indices have scales of their own.
    if (folds) {
      double rows = heads * free / double(isKey ? quant.getGroupTokens() : quant.getGroupChannels());
      count += rows * reduced / kLanes * (kFold + (quant.hasZeros() ? kFoldZero : 0));
    }
    if (folds || !isKey)
      count += reduced * kPrepareColumn;
    return count;
  }

  CacheType cache;
  double heads;
};

/// The same on tensor cores: every count follows a function of codegen/cuda/LowerFragments.cpp, and was read off what
/// ptxas 13.0 makes of it for sm_90.
class FragmentCounter {
public:
  FragmentCounter(CacheType cache, ScheduleAttr schedule)
      : cache(cache), schedule(schedule), tiles(double(divideCeil(schedule.getHeads() * schedule.getQueries(), 8))) {}

  double countPage() const {
    double count = countSide(cache.getKey(), Role::Key) + countSide(cache.getValue(), Role::Value) + countSoftmax();
    if (schedule.getStages())
      count += double(CacheLayout::getBlockBytes(cache)) / kCopyBytes + kStage;
    else
      count += kBlock;
    if (cache.getWindow().getFlush() % kBlockTokens)
      count += kMask * tiles;
    return count;
  }
  double countWindow() const { return 2 * countNumbers(cache.getDtype()) + countSoftmax() + kBlock + kMask * tiles; }

  /// Of them, of a page or a window.
  double countLogic(bool isPage) const {
    double count = kSoftmaxLogic * tiles;
    for (QuantAttr quant : {cache.getKey(), cache.getValue()})
      if (isPage && quant.isQuantized())
        count += countCodes(quant);
    return count;
  }
  /// Products of keys and values, and the sum of the weights.
  double countAllProducts() const { return 2 * countProducts() + 2 * tiles; }

private:
  static constexpr double kSoftmaxLogic = 20;       // of it FMNMX, F2FP; addresses
  static constexpr double kCopyBytes = 512;         // LDGSTS of a warp
  static constexpr double kStage = 20;              // addresses, waits, branches
  static constexpr double kBlock = 40;              // without stages
  static constexpr double kSoftmax = 44, kVote = 3; // of eight heads: FFMA, FMNMX, MUFU, F2FP, MOVM, the sum
  static constexpr double kMask = 12;
  static constexpr double kLine = 512, kWordLoad = 4; // pairs of codes of a warp's line; words of an LDS.128
  static constexpr double kQuad = 4;                  // sums of a lane in a product

  double headDim() const { return double(cache.getHeadDim()); }
  double countSoftmax() const { return kSoftmax * tiles + kVote; }
  double countProducts() const { return double(kBlockTokens) / 16 * headDim() / 16 * tiles; }
  double countNumbers(Type element) const {
    return countProducts() + double(kBlockTokens) * headDim() * element.getIntOrFloatBitWidth() / 32 / 32 / kWordLoad;
  }

  /// LOP3 and SHF for the 32 codes of a lane that make a line.
  static double countUnpack(QuantAttr quant) {
    if (!isa<IntegerType>(quant.getElement()))
      return quant.getBits() == 8 ? 56 : 64; // sign and magnitude
    switch (quant.getBits()) {
    case 2:
      return 18;
    case 3:
      return 22;
    case 4:
      return 20;
    case 5:
      return 31;
    case 6:
      return 34;
    case 7:
      return 37;
    default:
      return 24;
    }
  }
  /// Of a stored scale, to f32.
  static double countConvert(Type type) {
    return isa<Float8E4M3FNType>(type) ? 6 : isa<Float8E8M0FNUType>(type) ? 3 : 1;
  }

  /// Of a block of one side.
  double countCodes(QuantAttr quant) const { return double(kBlockTokens) * headDim() / 2 / kLine * countUnpack(quant); }

  double countSide(QuantAttr quant, Role role) const {
    if (!quant.isQuantized())
      return countNumbers(quant.getElement());
    bool isKey = role == Role::Key;
    double free = isKey ? double(kBlockTokens) : headDim(), reduced = isKey ? headDim() : double(kBlockTokens);
    double count = countProducts() + free * reduced * quant.getBits() / 32 / 32 / kWordLoad + countCodes(quant);
    if (!isKey) // bits of codes in the weights, and where the product begins
      count += 10 * tiles;
    double scaleWords = double(quant.getScale().getIntOrFloatBitWidth()) / 32;
    if (choosePlacement(quant, role, cache.getHeadDim()) != Placement::Operand) {
      // Two rows of a lane, for every 16 rows and group.
      double groups = free / 16 * reduced / double(quant.getReducedExtent(role));
      count += groups * (2 * countConvert(quant.getScale()) + kQuad * tiles + 2 * scaleWords / kWordLoad);
      if (quant.hasZeros())
        count += groups * (2 + kQuad * tiles + 2 * scaleWords / kWordLoad);
      if (quant.getMap() == Map::Hybrid)
        count += groups * 6;
      return count;
    }
    // Pairs of scales, for every group of free indices.
    double groups = free / double(isKey ? quant.getGroupTokens() : quant.getGroupChannels()), pairs = reduced / 8;
    double convert = quant.getScale().isF16() ? 0 : 2 * countConvert(quant.getScale()) + 1;
    count += groups * pairs * (tiles + convert + 2 * scaleWords / kWordLoad);
    if (quant.hasZeros()) // a product of its own; values have all groups in one
      count += (isKey ? groups : 1) * pairs / 2 * (tiles + 1) + 8;
    else
      count += groups * (pairs / 2 + 2) * tiles;
    return count;
  }

  CacheType cache;
  ScheduleAttr schedule;
  double tiles;
};

/// Of a block of a page and of a window.
struct BlockCosts {
  Instructions page, window;
};

BlockCosts countBlocks(CacheType cache, ScheduleAttr schedule, const TargetInfo &target) {
  if (target.kind == TargetKind::Cuda && schedule.getCompute() == Compute::F16) {
    FragmentCounter counter(cache, schedule);
    double products = counter.countAllProducts();
    return {{counter.countPage(), counter.countLogic(/*isPage=*/true), products},
            {counter.countWindow(), counter.countLogic(/*isPage=*/false), products}};
  }
  if (target.kind == TargetKind::Cuda) {
    GpuCounter counter(cache, schedule);
    return {{counter.countPage()}, {counter.countWindow()}};
  }
  // A CPU that is not known by its name runs the portable code.
  const CpuLevel *level = findCpuLevel(target.arch);
  CpuBlockCost cost = countCpuBlock(cache, schedule, level ? *level : *findCpuLevel("generic"));
  return {{cost.page}, {cost.window}};
}

} // namespace

StepCost kvcc::estimateStep(CacheType cache, int64_t queryHeads, ScheduleAttr schedule, const TargetInfo &target,
                            int64_t context, int64_t batch) {
  if (!schedule)
    schedule = planSchedule([&] { return emitError(UnknownLoc::get(cache.getContext())); }, cache, queryHeads,
                            target.kind, target.arch);
  CacheLayout layout(cache, schedule);
  WindowAttr tokens = cache.getWindow();
  int64_t quantized = tokens.getQuantizedTokens(context), sink = std::min(context, tokens.getSink());
  int64_t pageBlocks = int64_t(divideCeil(quantized, kBlockTokens));
  int64_t windowBlocks = int64_t(divideCeil(sink, kBlockTokens) + divideCeil(context - sink - quantized, kBlockTokens));

  StepCost cost;
  double kvHeads = double(cache.getKvHeads()), sequences = double(batch);
  cost.bytesPerToken = kvHeads * double(layout.page.bytes) / double(kBlockTokens);
  cost.bytes = sequences * kvHeads * double(pageBlocks * layout.page.bytes + windowBlocks * layout.window.bytes);

  auto [page, window] = countBlocks(cache, schedule, target);
  double passes = double(queryHeads / cache.getKvHeads()) / double(schedule.getHeads());
  double elementsPerBlock = double(2 * kBlockTokens * cache.getHeadDim());
  cost.instructionsPerElement = passes * page.all / elementsPerBlock;
  auto ofStep = [&](double Instructions::*kind) {
    return sequences * kvHeads * passes * (double(pageBlocks) * page.*kind + double(windowBlocks) * window.*kind);
  };

  bool gpu = target.kind == TargetKind::Cuda;
  cost.memorySeconds = cost.bytes / (target.bandwidth * (gpu ? kGpuBandwidthShare : 1));
  double cycles = double(target.units) * target.clockHz;
  cost.issueSeconds = ofStep(&Instructions::all) / (cycles * target.issuePerCycle);
  if (gpu)
    cost.logicSeconds = ofStep(&Instructions::logic) / (cycles * kLogicPerCycle);
  if (target.tensorFlopPerCycle > 0)
    cost.tensorSeconds = ofStep(&Instructions::products) * kProductFlop / (cycles * target.tensorFlopPerCycle);
  cost.fixedSeconds = gpu ? kGpuFixedSeconds : target.units > 1 ? kCpuFixedSeconds : 0;
  std::pair<double, Bound> bounds[] = {{cost.memorySeconds, Bound::Memory},
                                       {cost.issueSeconds, Bound::Issue},
                                       {cost.logicSeconds, Bound::Logic},
                                       {cost.tensorSeconds, Bound::Tensor}};
  auto [busy, bound] = *llvm::max_element(bounds, llvm::less_first());
  cost.seconds = busy + cost.fixedSeconds;
  cost.bound = busy < cost.fixedSeconds ? Bound::Latency : bound;
  return cost;
}

CostAnalysis::CostAnalysis(Operation *op) {
  op->walk([&](AttendOp attend) { attends.push_back(attend); });
}

StepCost CostAnalysis::estimate(AttendOp attend, const TargetInfo &target, int64_t context, int64_t batch) const {
  int64_t queryHeads = attend.getQueryHeads();
  return estimateStep(attend.getCache().getType(), queryHeads, attend.getSchedule().value_or(ScheduleAttr()), target,
                      context, batch);
}
