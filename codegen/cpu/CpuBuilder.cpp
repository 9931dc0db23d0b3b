// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Building blocks of the CPU lowerings.
#include "codegen/cpu/CpuBuilder.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

#include <cmath>

using namespace mlir;
using namespace kvcc::cpu;

static arith::FastMathFlagsAttr contract(MLIRContext *context) {
  return arith::FastMathFlagsAttr::get(context, arith::FastMathFlags::contract);
}

static Value splatConstant(OpBuilder &b, Location loc, VectorType type, Attribute value) {
  return arith::ConstantOp::create(b, loc, DenseElementsAttr::get(type, value));
}

Value CpuBuilder::f32Splat(float value, int64_t lanes) {
  return splatConstant(*this, getLoc(), f32Vector(lanes), getF32FloatAttr(value));
}
Value CpuBuilder::i32Splat(int32_t value, int64_t lanes) {
  return splatConstant(*this, getLoc(), i32Vector(lanes), getI32IntegerAttr(value));
}
Value CpuBuilder::constantLike(VectorType type, uint64_t value) {
  unsigned width = type.getElementTypeBitWidth();
  return splatConstant(*this, getLoc(), type, IntegerAttr::get(type.getElementType(), APInt(64, value).trunc(width)));
}
Value CpuBuilder::splat(Value scalar, int64_t lanes) {
  return vector::BroadcastOp::create(*this, VectorType::get({lanes}, scalar.getType()), scalar);
}
Value CpuBuilder::add(Value x, Value y) {
  if (getElementTypeOrSelf(x.getType()).isFloat())
    return arith::AddFOp::create(*this, x, y, contract(getContext()));
  return arith::AddIOp::create(*this, x, y);
}
Value CpuBuilder::mul(Value x, Value y) {
  if (getElementTypeOrSelf(x.getType()).isFloat())
    return arith::MulFOp::create(*this, x, y, contract(getContext()));
  return arith::MulIOp::create(*this, x, y);
}
Value CpuBuilder::fma(Value x, Value y, Value z) { return add(mul(x, y), z); }
Value CpuBuilder::max(Value x, Value y) {
  return arith::SelectOp::create(*this, arith::CmpFOp::create(*this, arith::CmpFPredicate::OGT, x, y), x, y);
}
Value CpuBuilder::addIndex(Value x, Value y) { return arith::AddIOp::create(*this, x, y); }
Value CpuBuilder::mulIndex(Value x, int64_t y) { return arith::MulIOp::create(*this, x, index(y)); }

Value CpuBuilder::scratch(ArrayRef<int64_t> shape, Type element) {
  OpBuilder::InsertionGuard guard(*this);
  auto func = getInsertionBlock()->getParent()->getParentOfType<func::FuncOp>();
  if (auto parent = dyn_cast<func::FuncOp>(getInsertionBlock()->getParentOp()))
    func = parent;
  setInsertionPointToStart(&func.front());
  return memref::AllocaOp::create(*this, MemRefType::get(shape, element), getI64IntegerAttr(64));
}

void CpuBuilder::loop(int64_t from, int64_t to, int64_t step, function_ref<void(Value)> body) {
  auto op = scf::ForOp::create(*this, index(from), index(to), index(step));
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(op.getBody());
  body(op.getInductionVar());
}

SmallVector<Value> CpuBuilder::loop(int64_t from, int64_t to, ValueRange initial,
                                    function_ref<SmallVector<Value>(Value, ValueRange)> body) {
  auto op = scf::ForOp::create(*this, index(from), index(to), index(1), initial);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(op.getBody());
  SmallVector<Value> next = body(op.getInductionVar(), op.getRegionIterArgs());
  if (!next.empty()) // a loop that carries nothing has its terminator
    scf::YieldOp::create(*this, next);
  return SmallVector<Value>(op.getResults());
}

Value CpuBuilder::loadF32(Value memory, ValueRange at, Type element, int64_t lanes) {
  Type stored = cast<MemRefType>(memory.getType()).getElementType();
  Value loaded = vector::LoadOp::create(*this, VectorType::get({lanes}, stored), memory, at);
  if (stored.isF32())
    return loaded;
  if (stored.isBF16()) {
    // Shifted by hand: LLVM lowers some uses of bf16 to calls that a process need not have.
    Value bits = arith::BitcastOp::create(*this, VectorType::get({lanes}, getI16Type()), loaded);
    Value words =
        arith::ShLIOp::create(*this, arith::ExtUIOp::create(*this, i32Vector(lanes), bits), i32Splat(16, lanes));
    return arith::BitcastOp::create(*this, f32Vector(lanes), words);
  }
  if (!stored.isInteger(8))
    return arith::ExtFOp::create(*this, f32Vector(lanes), loaded);
  if (llvm::isa<Float8E8M0FNUType>(element)) { // the exponent of an f32
    Value wide = arith::ExtUIOp::create(*this, i32Vector(lanes), loaded);
    return arith::BitcastOp::create(*this, f32Vector(lanes), arith::ShLIOp::create(*this, wide, i32Splat(23, lanes)));
  }
  auto words = VectorType::get({lanes}, getI16Type());
  Value upper = arith::ShLIOp::create(*this, arith::ExtUIOp::create(*this, words, loaded), constantLike(words, 8));
  return mul(arith::ExtFOp::create(*this, f32Vector(lanes), decodeE4m3(upper)), f32Splat(kE4m3Scale, lanes));
}
Value CpuBuilder::decodeE4m3(Value words) {
  // The same exponent field, and the fraction's bits on top: conversions of f16 keep subnormal numbers whatever the
  // mode of the processor.
  auto type = cast<VectorType>(words.getType());
  Value magnitude = arith::ShRUIOp::create(*this, words, constantLike(type, 1));
  magnitude = arith::AndIOp::create(*this, magnitude, constantLike(type, 0x3f80));
  Value sign = arith::AndIOp::create(*this, words, constantLike(type, 0x8000));
  return arith::BitcastOp::create(*this, VectorType::get(type.getShape(), getF16Type()),
                                  arith::OrIOp::create(*this, magnitude, sign));
}
Value CpuBuilder::loadSplat(Value memory, ValueRange at, int64_t lanes) {
  return splat(memref::LoadOp::create(*this, memory, at), lanes);
}
void CpuBuilder::store(Value vector, Value memory, ValueRange at) {
  vector::StoreOp::create(*this, vector, memory, at);
}
void CpuBuilder::prefetch(Value memory, Value at) {
  memref::PrefetchOp::create(*this, memory, at, /*isWrite=*/false, /*localityHint=*/2, /*isDataCache=*/true);
}
Value CpuBuilder::reduceAdd(Value vector) {
  // Any order of additions will do.
  auto flags = arith::FastMathFlagsAttr::get(getContext(), arith::FastMathFlags::reassoc);
  if (!getElementTypeOrSelf(vector.getType()).isFloat())
    flags = {};
  return vector::ReductionOp::create(*this, vector::CombiningKind::ADD, vector,
                                     flags ? flags.getValue() : arith::FastMathFlags::none);
}
Value CpuBuilder::reduceMax(Value vector) {
  return vector::ReductionOp::create(*this, vector::CombiningKind::MAXNUMF, vector, arith::FastMathFlags::nnan);
}

Value CpuBuilder::reduceEach(ArrayRef<Value> vectors, function_ref<Value(Value, Value)> combine) {
  SmallVector<Value> left(vectors);
  // Pairs of vectors become one. Then it has the rows of both, one beside the other, for half as many lanes of each.
  // Lanes stay within their 128 bits as long as these hold a row's: such shuffles are the cheap ones.
  for (int64_t rows = 1; left.size() > 1; rows *= 2) {
    int64_t span = rows < 4 ? 4 : kLanes, half = span / 2;
    SmallVector<int64_t> lower, upper;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      int64_t inSpan = lane % span, row = inSpan % (2 * rows);
      lower.push_back(lane - inSpan + inSpan / (2 * rows) * rows + row % rows + (row < rows ? 0 : kLanes));
      upper.push_back(lower.back() + half);
    }
    SmallVector<Value> next;
    for (size_t i = 0; i < left.size(); i += 2)
      next.push_back(combine(vector::ShuffleOp::create(*this, left[i], left[i + 1], lower),
                             vector::ShuffleOp::create(*this, left[i], left[i + 1], upper)));
    left = next;
  }
  Value result = left[0];
  for (int64_t lanes = kLanes / 2; lanes >= int64_t(vectors.size()); lanes /= 2) {
    auto part = [&](int64_t from) {
      return vector::ExtractStridedSliceOp::create(*this, result, ArrayRef<int64_t>{from}, ArrayRef<int64_t>{lanes},
                                                   ArrayRef<int64_t>{1});
    };
    result = combine(part(0), part(lanes));
  }
  return result;
}

Value CpuBuilder::reshape(Value memory, ArrayRef<int64_t> shape) {
  auto type = MemRefType::get(shape, cast<MemRefType>(memory.getType()).getElementType());
  auto [strides, offset] = type.getStridesAndOffset();
  return memref::ReinterpretCastOp::create(*this, type, memory, offset, shape, strides);
}

Value CpuBuilder::exp2(Value x) {
  // 2^x = 2^n * 2^f with n = round(x): adding kRoundingShift rounds to an integer and leaves it in the low
  // bits, where a shift makes it an exponent. 2^f on [-0.5, 0.5] by a polynomial of degree 5 that is exact at 0 and
  // elsewhere off by at most 1.1e-7 of it (least squares, weights moved until errors were even, then rounded).
  Value clamped = max(x, f32Splat(-126.0f));
  Value shifter = f32Splat(kv::kRoundingShift);
  Value shifted = arith::AddFOp::create(*this, clamped, shifter);
  Value n = arith::SubFOp::create(*this, shifted, shifter);
  Value f = arith::SubFOp::create(*this, clamped, n);
  Value p = f32Splat(1.32647261e-3f);
  for (float c : {9.67151392e-3f, 5.55073358e-2f, 2.40222424e-1f, 6.93147004e-1f, 1.0f})
    p = fma(p, f, f32Splat(c));
  Value exponent = arith::ShLIOp::create(*this, arith::BitcastOp::create(*this, i32Vector(), shifted), i32Splat(23));
  Value bits = add(arith::BitcastOp::create(*this, i32Vector(), p), exponent);
  Value result = arith::BitcastOp::create(*this, f32Vector(), bits);
  Value tiny = arith::CmpFOp::create(*this, arith::CmpFPredicate::OLT, x, f32Splat(-126.0f));
  return arith::SelectOp::create(*this, tiny, f32Splat(0.0f), result);
}

void kvcc::cpu::rotateRow(CpuBuilder &b, Value buffer, Value row, int64_t columns, int64_t size) {
  // Every target multiplies by the factor last, and so gets the same bits.
  Value factor = b.f32Splat(float(1 / std::sqrt(double(size))));
  // Butterflies inside a vector: lane i gets lane i^half, plus or minus itself.
  int64_t inside = std::min(size, kLanes);
  b.loop(0, columns, kLanes, [&](Value column) {
    Value vector = b.loadF32(buffer, {row, column});
    for (int64_t half = 1; half < inside; half *= 2) {
      SmallVector<int64_t> partner;
      SmallVector<float> signs;
      for (int64_t i = 0; i < kLanes; ++i) {
        partner.push_back(i ^ half);
        signs.push_back(i & half ? -1.0f : 1.0f);
      }
      Value sign = arith::ConstantOp::create(b, DenseElementsAttr::get(b.f32Vector(), ArrayRef(signs)));
      vector = b.fma(vector, sign, vector::ShuffleOp::create(b, vector, vector, partner));
    }
    b.store(size == inside ? b.mul(vector, factor) : vector, buffer, {row, column});
  });
  // And between vectors.
  for (int64_t half = kLanes; half < size; half *= 2)
    b.loop(0, columns, 2 * half, [&](Value first) {
      b.loop(0, half, kLanes, [&](Value i) {
        Value at[] = {row, b.addIndex(first, i)}, other[] = {row, b.addIndex(at[1], b.index(half))};
        Value x = b.loadF32(buffer, at), y = b.loadF32(buffer, other);
        Value sum = b.add(x, y), difference = arith::SubFOp::create(b, x, y);
        b.store(2 * half == size ? b.mul(sum, factor) : sum, buffer, at);
        b.store(2 * half == size ? b.mul(difference, factor) : difference, buffer, other);
      });
    });
}
