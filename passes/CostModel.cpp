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

/// A count for small operands (query, weights) of one byte or f32, and for those of two bytes.
struct Pair {
  double one, two;
  double get(bool twoBytes) const { return twoBytes ? two : one; }
};

/// Instructions of the lowerings, as issued: of a 512-bit vector (CPU) or a warp (GPU). Each counts what a compiler
/// emits for the named function of codegen/<target>/Products.cpp, with loads that fold into arithmetic as part of it.
struct Row {
  TargetKind kind;
  llvm::StringLiteral arch; ///< empty for all
  Compute compute;
  int64_t lanes;      ///< free indices of a tile; numbers of a vector
  int64_t chunk;      ///< codes that one unpackCodes makes
  double width;       ///< native vectors of a 512-bit one
  double unpackFixed; ///< unpackCodes ...
  double unpackBits;  ///< ... and per bit of a code
  double unpack8;     ///< the same for 8 bits, where codes are bytes already
  double decode;      ///< multiply(), per chunk: codes to lanes or floats, once for all heads
  Pair product;       ///< multiply(), per chunk and head
  double group;       ///< run(), per group: the scale, addresses, the loop
  double groupZero;   ///< ... the zero point
  double groupHybrid; ///< ... the choice by the sign
  Pair groupHead;     ///< initial() and the end of run(), per group and head
  double zeroHead;    ///< ... with a zero point
  double tileHead;    ///< the epilogue, per free tile and head
  double number;      ///< floatProduct(), per vector: load, convert, loop
  double numberHead;  ///< ... and head
  double fold;        ///< FoldPattern, per vector of a row
  double foldZero;    ///< ... with zero points
  Pair prepare;       ///< PreparePattern, per vector of a row
  double prepareRow;  ///< ... per row and group: reductions, the scale
  double prepareOnce; ///< ... per block
  double softmaxHead; ///< SoftmaxStepPattern, per block and head
  double maskHead;    ///< MaskPattern, per block and head
  double block;       ///< addresses and the loop over blocks
};

constexpr Row kRows[] = {
    // avx512_vnni, int8. unpack: vmovdqu, vpermb, vpmultishiftqb, vpandd. product: two vpdpbusd that broadcast the
    // query's low and high bytes from memory; vpbroadcastd and vpdpbusd for weights, whose codes are the signed side.
    // group: vcvtph2ps, addresses and branch. groupHead: vmulss, vcvttss2si, vpbroadcastd, vcvtdq2ps, vmulps,
    // vfmadd; two bytes add vpxor, vpslld, vpaddd. softmax: exp2 is 14 instructions for each of two vectors, the
    // maximum
    // 10, loads, stores and sums the rest. prepare: abs, max, mul, 2 rounding, convert, vpmovdb, sum; vpsrad, vpaddd,
    // vpmovdb for high bytes. prepareRow: two reductions of 16 lanes, a division.
    {TargetKind::Cpu,
     "avx512_vnni",
     Compute::Int8,
     16,
     64,
     1,
     4,
     0,
     1,
     0,
     {2, 2},
     5,
     1,
     4,
     {6, 9},
     3,
     2,
     4,
     1,
     4,
     2,
     {8, 11},
     28,
     0,
     56,
     8,
     30},
    // avx512_vnni, f32. decode: shifts left and right and a conversion for each of four lanes of codes. product: four
    // vfmadd that broadcast from memory. groupHead: vmulss, vpbroadcastd, vfmadd.
    {TargetKind::Cpu,
     "avx512_vnni",
     Compute::F32,
     16,
     64,
     1,
     4,
     0,
     1,
     11,
     {4, 4},
     5,
     1,
     4,
     {3, 3},
     2,
     2,
     4,
     1,
     4,
     2,
     {2, 2},
     10,
     0,
     56,
     8,
     30},
    // generic, int8: 256-bit vectors, so two for one. unpack: a shuffle of about 4, then shift, and, shift, or for each
    // of
    // eight codes of a 64-bit lane. decode: the codes' 32-bit lanes, two shifts for each of four. product: per byte of
    // the
    // small operand and lane, broadcast and two shifts (which compilers keep as vectors), vpmulld, vpaddd.
    {TargetKind::Cpu,
     "generic",
     Compute::Int8,
     16,
     64,
     2,
     35,
     0,
     1,
     8,
     {17, 34},
     5,
     1,
     4,
     {6, 9},
     3,
     2,
     4,
     1,
     4,
     2,
     {8, 11},
     28,
     0,
     56,
     8,
     30},
    // generic, f32: as avx512_vnni but for the unpacking.
    {TargetKind::Cpu,
     "generic",
     Compute::F32,
     16,
     64,
     2,
     35,
     0,
     1,
     11,
     {4, 4},
     5,
     1,
     4,
     {3, 3},
     2,
     2,
     4,
     1,
     4,
     2,
     {2, 2},
     10,
     0,
     56,
     8,
     30},
    // cuda, f32: a chunk is 32 codes in each of 32 lanes. unpack: a word's load per bit, shift and mask per code.
    // decode:
    // I2F per code. product: FFMA per code, an LDS.128 for four. group: LDG of the scale, conversion, address, loop.
    // groupHead: LDS, FMUL, FFMA. number: LDG, conversion, address, loop; numberHead: LDS, FFMA. softmax: five SHFL and
    // FMNMX, two exp2 of three, head_dim / 32 + 1 rescaled sums (5 at head_dim 128), LDS, STS. prepareOnce: a lane adds
    // up
    // the 32 weights of one head and group.
    {TargetKind::Cuda, "", Compute::F32, 32, 1024, 1, 64, 1, 72, 32, {40, 40}, 8, 3, 4, {3, 3}, 2, 1, 6, 2, 8, 4,
     {0, 0},           0,  80,           30, 4,    40},
};

const Row &findRow(const TargetInfo &target, Compute compute) {
  // The only GPU arithmetic is f32; a CPU of another name runs the portable code.
  const Row *found = &kRows[target.kind == TargetKind::Cuda ? 4 : compute == Compute::Int8 ? 2 : 3];
  for (const Row &row : kRows)
    if (row.kind == target.kind && row.compute == compute && (row.arch.empty() || row.arch == target.arch))
      found = &row;
  return *found;
}

/// Counts the instructions of one block of 32 tokens of one KV head.
class BlockCounter {
public:
  BlockCounter(CacheType cache, ScheduleAttr schedule, const TargetInfo &target)
      : cache(cache), heads(double(schedule.getHeads())), rounds(schedule.getCompute() == Compute::Int8),
        row(findRow(target, schedule.getCompute())) {}

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

  /// Rounding and summing the small operand of a product, `rows` of `columns` in groups.
  double countPrepare(double rows, double columns, double groups, bool twoBytes) const {
    return row.prepareOnce + rows * (columns / double(row.lanes) * row.prepare.get(twoBytes) + groups * row.prepareRow);
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

    double unpack = quant.getBits() == 8 ? row.unpack8 : row.unpackFixed + row.unpackBits * quant.getBits();
    double chunks = elements() / double(row.chunk);
    double count = chunks * (unpack + row.decode + heads * row.product.get(twoBytes));

    double tiles = free / double(row.lanes);
    double groups = folds ? 1 : reduced / double(quant.getReducedExtent(role));
    double perGroup = folds ? row.group - 1 : row.group, perGroupHead = row.groupHead.get(twoBytes);
    if (quant.hasZeros()) {
      perGroup += folds ? 0 : row.groupZero + (quant.getMap() == Map::Hybrid ? row.groupHybrid : 0);
      perGroupHead += folds ? 1 : row.zeroHead;
    }
    count += tiles * (groups * (perGroup + heads * perGroupHead) + heads * row.tileHead);

    if (folds) {
      // A row for each free index that has scales of its own.
      double rows = heads * free / double(isKey ? quant.getGroupTokens() : quant.getGroupChannels());
      count += rows * reduced / double(row.lanes) * (row.fold + (quant.hasZeros() ? row.foldZero : 0)) +
               countPrepare(rows, reduced, /*groups=*/1, twoBytes);
    } else if (!isKey) { // the query is prepared once per step
      count += countPrepare(heads, reduced, groups, twoBytes);
    }
    return count;
  }

  CacheType cache;
  double heads;
  bool rounds;
  const Row &row;
};

} // namespace

StepCost kvcc::estimateStep(CacheType cache, int64_t queryHeads, ScheduleAttr schedule, const TargetInfo &target,
                            int64_t context, int64_t batch) {
  if (!schedule)
    schedule =
        planSchedule([&] { return emitError(UnknownLoc::get(cache.getContext())); }, cache, queryHeads, target.kind);
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
