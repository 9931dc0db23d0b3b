// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bytes of a step by the layout, instructions by a table that follows the lowerings line by line.
#include "passes/CostModel.h"

#include "dialect/Layout.h"
#include "passes/Passes.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace kvcc;
using namespace kvcc::kv;
using llvm::divideCeil;

namespace {

/// Of a GPU's theoretical bandwidth, what a kernel that only reads gets: copy benchmarks of vendors and users stand
/// between 0.88 and 0.93.
constexpr double kGpuBandwidthShare = 0.9;
/// Attention and merge are two launches of about 3 us. A pool's worker that sleeps is woken by a futex.
constexpr double kGpuFixedSeconds = 6e-6, kCpuFixedSeconds = 5e-6;

/// A count where small operands (query, weights) are of one byte or f32, and where they are of two bytes.
struct Pair {
  double one, two;
  double get(bool twoBytes) const { return twoBytes ? two : one; }
};

/// Instructions as issued: of a 512-bit vector (CPU) or of a warp (GPU). Every count follows a function of
/// codegen/<target>/Products.cpp or ConvertTileTo*.cpp and was read off what compilers make of it: LLVM 22 for
/// avx512_vnni and for AVX2, ptxas 13.0 for sm_90, at 4 heads and head_dim 128. Loads that fold into arithmetic are
/// part of it.
struct Row {
  int64_t lanes = 16;       ///< free indices of a tile; numbers of a vector
  int64_t chunk = 64;       ///< codes that one unpackCodes makes
  double width = 1;         ///< native vectors of a 512-bit one
  double unpack = 0;        ///< unpackCodes ...
  double unpackBit = 0;     ///< ... and per bit of a code
  double unpack8 = 2;       ///< the same for 8 bits: a load, a sign
  double decode = 0;        ///< CodeProduct::multiply, per chunk: codes to lanes or floats, once for all heads
  Pair product = {0, 0};    ///< ... per chunk and head
  double group = 0;         ///< CodeProduct::run, per group: addresses, the loop
  double scale = 2;         ///< ... the scale, where it is not folded: address, load and conversion
  double zero = 1;          ///< ... the zero point
  double hybrid = 4;        ///< ... the choice by the sign: compare, absolute value, multiply, blend
  Pair groupHead = {0, 0};  ///< ... per head: initial value, conversion, scales
  double zeroHead = 3;      ///< ... with a zero point
  double tileHead = 2;      ///< the epilogue, per free tile and head
  double number = 0;        ///< floatProduct, per vector: load, conversion, loop
  double numberHead = 0;    ///< ... and head
  double fold = 4;          ///< FoldPattern, per vector of a row: two loads, multiply, store
  double foldZero = 6;      ///< ... the product with zeros and its reduction
  Pair prepare = {0, 0};    ///< PreparePattern, per vector of a row
  double prepareRow = 0;    ///< ... per row and group: reductions of 16 lanes, a division
  double prepareColumn = 0; ///< ... per column: where a lane adds up a row
  double softmaxHead = 73;  ///< SoftmaxStepPattern, per block and head
  double maskHead = 8;      ///< MaskPattern, per block and head
  double block = 50;        ///< addresses and the loop over blocks
};

Row makeCpuRow(bool isVnni, bool bytes) {
  Row row;
  row.number = isVnni ? 3 : 4;
  row.numberHead = isVnni ? 1.5 : 2.25; // a broadcast serves two vectors; AVX2 also runs out of registers
  // vmovdqu, vpermd, vpshufb, vpmultishiftqb, vpandq. Else shift, and, shift, or for each of eight codes of a 64-bit
  // lane, after a shuffle; of 256-bit vectors.
  row.unpack = isVnni ? 5 : 35;
  row.width = isVnni ? 1 : 2;
  if (!bytes) {
    // Shift, mask and conversion for each of four codes of a 32-bit lane, then an FMA per head that broadcasts from
    // memory; AVX2 broadcasts first.
    row.decode = isVnni ? 11 : 18;
    row.product = isVnni ? Pair{4, 4} : Pair{6, 6};
    row.group = 4;
    row.groupHead = {2, 2}; // vmulss, vfmadd
    row.prepare = {2, 2};
    row.prepareRow = 10;
    return row;
  }
  row.group = 8;
  // vcvtdq2ps, vmulps, vfmadd; a query starts at a value of its own (vmulss, vcvttss2si, vpbroadcastd) and adds its
  // high sums (vpxor, vpslld, vpaddd).
  row.groupHead = {3, 9};
  if (isVnni) {
    // Two vpdpbusd that broadcast the query's bytes from memory; one for weights, and a move: they are the side that
    // does not take memory, so their broadcasts are made before the loop.
    row.product = {2, 2};
    row.prepare = {22, 14};
    row.prepareRow = 20;
  } else {
    // Without a byte product: the lanes of the codes, then broadcast, multiply and add for each.
    row.decode = 8;
    row.product = {14, 34};
    row.prepare = {10, 10};
    row.prepareRow = 17;
  }
  return row;
}

Row makeGpuRow() {
  Row row;
  row.lanes = 32;
  row.chunk = 1024;  // 32 codes in each of 32 lanes
  row.unpack = 64;   // SHF and LOP3 per code
  row.unpackBit = 1; // LDG of a word
  row.unpack8 = 72;
  row.decode = 32;        // I2FP
  row.product = {40, 40}; // 32 FFMA, 8 LDS.128
  row.group = 7;
  row.scale = 18;
  row.zero = 5;
  row.groupHead = {3, 3}; // LDS, FMUL, FFMA
  row.zeroHead = 2;       // LDS, FFMA
  row.tileHead = 1;
  row.number = 12;
  row.numberHead = 2; // LDS, FFMA
  row.fold = 14;
  row.prepareColumn = 8;
  row.softmaxHead = 62; // five SHFL and as many maxima of four, two exp2
  row.maskHead = 4;
  row.block = 30;
  return row;
}

/// A CPU that is not known by its name runs the portable code; the only GPU arithmetic is f32.
Row getRow(const TargetInfo &target, Compute compute) {
  if (target.kind == TargetKind::Cuda)
    return makeGpuRow();
  return makeCpuRow(target.arch == "avx512_vnni", compute == Compute::Int8);
}

/// Counts the instructions of one block of 32 tokens of one KV head.
class BlockCounter {
public:
  BlockCounter(CacheType cache, ScheduleAttr schedule, const TargetInfo &target)
      : cache(cache), heads(double(schedule.getHeads())),
        rounds(target.kind == TargetKind::Cpu && schedule.getCompute() == Compute::Int8),
        row(getRow(target, schedule.getCompute())) {}

  /// A block of a page, one pass over it.
  double countPage() const {
    double count = countSide(cache.getKey(), Role::Key) + countSide(cache.getValue(), Role::Value) + countRest();
    if (cache.getWindow().getFlush() % kBlockTokens)
      count += heads * row.maskHead;
    return count * row.width;
  }
  /// A block of a window, one pass over it.
  double countWindow() const { return (2 * countNumbers() + countRest() + heads * row.maskHead) * row.width; }

private:
  double countRest() const { return row.block + heads * row.softmaxHead; }
  double elements() const { return double(kBlockTokens * cache.getHeadDim()); }

  /// A side that is stored as numbers.
  double countNumbers() const {
    double lanes = double(row.lanes);
    return elements() / lanes * (row.number + heads * row.numberHead);
  }

  /// Rounding and summing the small operand of a product, `rows` of `columns` in groups. Folded zero points leave
  /// the sums without a use.
  double countPrepare(double rows, double columns, double groups, bool twoBytes, bool needsSums = true) const {
    double perRow = columns / double(row.lanes) * row.prepare.get(twoBytes) + groups * row.prepareRow;
    return rows * perRow + (needsSums ? columns * row.prepareColumn : 0);
  }

  double countSide(QuantAttr quant, Role role) const {
    if (!quant.isQuantized())
      return countNumbers();
    bool isKey = role == Role::Key;
    Placement placement = choosePlacement(quant, role, cache.getHeadDim());
    bool folds = placement == Placement::Operand;
    double headDim = double(cache.getHeadDim()), tokens = double(kBlockTokens);
    double free = isKey ? tokens : headDim, reduced = isKey ? headDim : tokens;
    // A query and a folded operand have two bytes, weights one.
    bool twoBytes = rounds && (isKey || folds);

    double unpack = quant.getBits() == 8 ? row.unpack8 : row.unpack + row.unpackBit * quant.getBits();
    double chunks = elements() / double(row.chunk);
    double count = chunks * (unpack + row.decode + heads * row.product.get(twoBytes));

    double tiles = free / double(row.lanes);
    double groups = folds ? 1 : reduced / double(quant.getReducedExtent(role));
    double perGroup = row.group, perGroupHead = row.groupHead.get(twoBytes);
    if (!folds) {
      perGroup += row.scale;
      if (quant.hasZeros()) {
        perGroup += row.zero + (quant.getMap() == Map::Hybrid ? row.hybrid : 0);
        perGroupHead += row.zeroHead;
      }
    }
    count += tiles * (groups * (perGroup + heads * perGroupHead) + heads * row.tileHead);

    // The query is prepared once per step, weights for each block; an operand is folded and prepared for each block,
    // in as many rows as free indices have scales of their own.
    if (folds) {
      double rows = heads * free / double(isKey ? quant.getGroupTokens() : quant.getGroupChannels());
      count += rows * reduced / double(row.lanes) * (row.fold + (quant.hasZeros() ? row.foldZero : 0)) +
               countPrepare(rows, reduced, /*groups=*/1, twoBytes, /*needsSums=*/!quant.hasZeros());
    } else if (!isKey) {
      count += countPrepare(heads, reduced, groups, twoBytes);
    }
    return count;
  }

  CacheType cache;
  double heads;
  bool rounds;
  Row row;
};

} // namespace

StepCost kvcc::estimateStep(CacheType cache, int64_t queryHeads, ScheduleAttr schedule, const TargetInfo &target,
                            int64_t context, int64_t batch) {
  if (!schedule)
    schedule = planSchedule([&] { return emitError(UnknownLoc::get(cache.getContext())); }, cache, queryHeads,
                            target.kind, target.arch);
  CacheLayout layout(cache, schedule);
  WindowAttr window = cache.getWindow();
  int64_t quantized = window.getQuantizedTokens(context), sink = std::min(context, window.getSink());
  int64_t pageBlocks = int64_t(divideCeil(quantized, kBlockTokens));
  int64_t windowBlocks = int64_t(divideCeil(sink, kBlockTokens) + divideCeil(context - sink - quantized, kBlockTokens));

  StepCost cost;
  double kvHeads = double(cache.getKvHeads()), sequences = double(batch);
  cost.bytesPerToken = kvHeads * double(layout.page.bytes) / double(kBlockTokens);
  cost.bytes = sequences * kvHeads * double(pageBlocks * layout.page.bytes + windowBlocks * layout.window.bytes);

  BlockCounter counter(cache, schedule, target);
  double passes = double(queryHeads / cache.getKvHeads()) / double(schedule.getHeads());
  double elementsPerBlock = double(2 * kBlockTokens * cache.getHeadDim());
  cost.instructionsPerElement = passes * counter.countPage() / elementsPerBlock;
  double instructions = sequences * kvHeads * passes *
                        (double(pageBlocks) * counter.countPage() + double(windowBlocks) * counter.countWindow());

  bool gpu = target.kind == TargetKind::Cuda;
  cost.memorySeconds = cost.bytes / (target.bandwidth * (gpu ? kGpuBandwidthShare : 1));
  cost.issueSeconds = instructions / (double(target.units) * target.clockHz * target.issuePerCycle);
  cost.fixedSeconds = gpu ? kGpuFixedSeconds : target.units > 1 ? kCpuFixedSeconds : 0;
  double busy = std::max(cost.memorySeconds, cost.issueSeconds);
  cost.seconds = busy + cost.fixedSeconds;
  cost.bound = busy < cost.fixedSeconds                  ? Bound::Latency
               : cost.memorySeconds >= cost.issueSeconds ? Bound::Memory
                                                         : Bound::Issue;
  return cost;
}

CostAnalysis::CostAnalysis(Operation *op) {
  op->walk([&](AttendOp attend) { attends.push_back(attend); });
}

StepCost CostAnalysis::estimate(AttendOp attend, const TargetInfo &target, int64_t context, int64_t batch) const {
  int64_t queryHeads = cast<RankedTensorType>(attend.getQuery().getType()).getDimSize(1);
  return estimateStep(attend.getCache().getType(), queryHeads, attend.getSchedule().value_or(ScheduleAttr()), target,
                      context, batch);
}
