// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Counts that follow codegen/cpu line by line.
#include "passes/CpuCost.h"

#include "passes/Passes.h"

using namespace kvcc;
using namespace kvcc::kv;

namespace {

constexpr double kPrepareVector = 8, kFoldVector = 4, kPrepareBf16 = 2;
/// What a row of `rows` costs beside its vectors: two reductions of 16 lanes, a division. Rows are reduced together, as
/// many as are a power of two that divides them all.
double countPrepareRow(double rows) { return int64_t(rows) % 4 ? 24 : 12; }
/// Addresses, lines that are touched and the loop over blocks; masks.
constexpr double kBlock = 60, kMask = 4;

class Counter {
public:
  Counter(CacheType cache, ScheduleAttr schedule, const CpuLevel &level)
      : cache(cache), schedule(schedule), level(level), heads(double(schedule.getHeads())),
        lanes(double(level.vectorBytes) / 4), wide(64.0 / double(level.vectorBytes)),
        vectors(double(level.getUnitVectors(schedule.getHeads(), schedule.getAccumulators()))) {}

  double countPage() const {
    double mask = cache.getWindow().getFlush() % kBlockTokens ? heads * 2 * wide * kMask : 0;
    return countSide(cache.getKey(), Role::Key) + countSide(cache.getValue(), Role::Value) + countSoftmax() + mask;
  }
  double countWindow() const { return 2 * countNumbers() + countSoftmax() + heads * 2 * wide * kMask; }

private:
  /// Comparisons with the maximum so far, which seldom grows, then two exponentials and their sum.
  double countSoftmax() const { return kBlock + heads * (7 + 38 * wide); }
  double elements() const { return double(kBlockTokens * cache.getHeadDim()); }

  /// floatProduct: load and convert, then multiply, with what was broadcast for all vectors of a unit.
  double countNumbers() const { return elements() / lanes * (2.25 + heads * (1 + 1.0 / vectors)); }

  bool splitsWords(mlir::Type operand) const { return operand.isInteger(16) && level.splitsWords(); }

  /// ProductBuilder::extractCodes for the codes of a vector of bytes: loads; a shift and a mask for each part; three
  /// more for codes that lie in two words.
  double countExtract(QuantAttr quant, mlir::Type operand) const {
    if (llvm::isa<mlir::Float8E4M3FNType>(quant.getElement()))
      return operand.isBF16() ? 8 : 18; // ProductBuilder::lookUpE4m3 or decodeE4m3Pairs, twice
    unsigned bits = quant.getBits(), productBits = splitsWords(operand) ? 8 : operand.getIntOrFloatBitWidth();
    double parts = productBits / 8, crossing = 0;
    for (unsigned code = 0; code < 8; ++code)
      crossing += code * bits % 8 + bits > 8;
    // A lookup is there instead of a mask.
    double count = bits / 8.0 + parts * (bits == 8 && productBits == 8 ? 0 : 1.75 + 3 * crossing / 8);
    if (llvm::isa<mlir::Float4E2M1FNType>(quant.getElement()) && !operand.isBF16())
      count += level.hasByteProducts() ? 1 : 13;
    if (productBits == 32)
      count += parts;
    return count;
  }

  /// The products of a vector of codes with one head's operand.
  double countProduct(unsigned bits, unsigned productBits) const {
    double parts = productBits / 8;
    if (productBits == 32)
      return parts;
    bool isWord = productBits == 16;
    switch (level.product) {
    case ByteProduct::Mixed:
    case ByteProduct::Matching:
      return parts;
    case ByteProduct::Pairs:
      return isWord ? 2 * parts : bits == 8 ? 4.5 : 2.25;
    case ByteProduct::None:
      return isWord ? 8 * parts : 24;
    }
    llvm_unreachable("unknown product");
  }

  /// Of rows of `columns` columns.
  double countPrepare(mlir::Type operand, double rows, double columns) const {
    double vectors = rows * columns / 16 * wide;
    return operand.isBF16() ? vectors * kPrepareBf16 : vectors * kPrepareVector + rows * countPrepareRow(rows);
  }

  double countSide(QuantAttr quant, Role role) const {
    if (!quant.isQuantized())
      return countNumbers();
    bool isKey = role == Role::Key;
    Placement placement = choosePlacement(quant, role, cache.getHeadDim());
    bool folds = placement == Placement::Operand;
    double headDim = double(cache.getHeadDim()), tokens = double(kBlockTokens);
    double free = isKey ? tokens : headDim, reduced = isKey ? headDim : tokens;
    mlir::Type operand = getOperandType(cache, role, placement, schedule.getCompute());
    unsigned productBits = operand.getIntOrFloatBitWidth();
    double perHead = countProduct(quant.getBits(), productBits);
    if (productBits == 32 && llvm::isa<mlir::Float8E4M3FNType>(quant.getElement())) // pairs, and two sums of them
      perHead += 2 / double(level.getUnitVectors(2 * schedule.getHeads(), schedule.getAccumulators()));
    else
      perHead += productBits / 8 / vectors;
    double count = elements() / double(level.vectorBytes) * (countExtract(quant, operand) + heads * perHead);

    // CodeProduct::finish, with what is added to all vectors of a unit, and the epilogue.
    double groups = folds ? 1 : reduced / double(quant.getReducedExtent(role));
    double perGroup = folds              ? 1
                      : quant.hasZeros() ? 5 + (quant.getMap() == Map::Hybrid ? 4 : 0)
                                         : 3 + 2 * heads / vectors;
    double perSum = (operand.isInteger() ? 4 : 2) + (quant.hasZeros() ? 1 : 0) + (splitsWords(operand) ? 2 : 0);
    count += free / lanes * (groups * (perGroup + heads * perSum) + heads * (isKey ? 1 : 2));

    // Small operands: a query is prepared once per step, weights for each block, what is folded likewise.
    if (folds) {
      double rows = heads * free / double(isKey ? quant.getGroupTokens() : quant.getGroupChannels());
      count += rows * reduced / 16 * wide * (kFoldVector + (quant.hasZeros() ? 1 + 2 / heads : 0));
      count += countPrepare(operand, rows, reduced);
    } else if (!isKey) {
      count += countPrepare(operand, heads * tokens / double(quant.getGroupTokens()), double(quant.getGroupTokens()));
    }
    if (!isKey && productBits == 8) // a token may dominate
      count += heads * (int64_t(heads) % 4 ? 16 : 8);
    return count;
  }

  CacheType cache;
  ScheduleAttr schedule;
  const CpuLevel &level;
  double heads, lanes;
  double wide, vectors; // vectors that 16 lanes take, and those of a unit
};

} // namespace

CpuBlockCost kvcc::countCpuBlock(CacheType cache, ScheduleAttr schedule, const CpuLevel &level) {
  Counter counter(cache, schedule, level);
  return {counter.countPage(), counter.countWindow()};
}
