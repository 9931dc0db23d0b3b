// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Building blocks of the CPU lowerings.
#include "codegen/cpu/CpuBuilder.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace kvcc::cpu;

static arith::FastMathFlagsAttr contract(MLIRContext *context) {
  return arith::FastMathFlagsAttr::get(context, arith::FastMathFlags::contract);
}

static Value splatConstant(OpBuilder &b, Location loc, VectorType type, Attribute value) {
  return arith::ConstantOp::create(b, loc, DenseElementsAttr::get(type, value));
}

Value CpuBuilder::f32Splat(float value) { return splatConstant(*this, getLoc(), f32Vector(), getF32FloatAttr(value)); }
Value CpuBuilder::i32Splat(int32_t value) {
  return splatConstant(*this, getLoc(), i32Vector(), getI32IntegerAttr(value));
}
Value CpuBuilder::splat(Value scalar) {
  return vector::BroadcastOp::create(*this, VectorType::get({kLanes}, scalar.getType()), scalar);
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
  scf::YieldOp::create(*this, body(op.getInductionVar(), op.getRegionIterArgs()));
  return SmallVector<Value>(op.getResults());
}

Value CpuBuilder::loadF32(Value memory, ValueRange at, Type element) {
  Type stored = cast<MemRefType>(memory.getType()).getElementType();
  Value loaded = vector::LoadOp::create(*this, VectorType::get({kLanes}, stored), memory, at);
  if (stored.isF32())
    return loaded;
  if (stored.isBF16()) {
    // Shifted by hand: LLVM lowers some uses of bf16 to calls that a process need not have.
    Value bits = arith::BitcastOp::create(*this, VectorType::get({kLanes}, getI16Type()), loaded);
    Value words = arith::ShLIOp::create(*this, arith::ExtUIOp::create(*this, i32Vector(), bits), i32Splat(16));
    return arith::BitcastOp::create(*this, f32Vector(), words);
  }
  if (!stored.isInteger(8))
    return arith::ExtFOp::create(*this, f32Vector(), loaded);
  Value lanes = arith::ExtUIOp::create(*this, i32Vector(), loaded);
  if (llvm::isa<Float8E8M0FNUType>(element)) // the exponent of an f32
    return arith::BitcastOp::create(*this, f32Vector(), arith::ShLIOp::create(*this, lanes, i32Splat(23)));
  return mul(decodeE4m3(lanes), f32Splat(kE4m3Scale));
}
Value CpuBuilder::decodeE4m3(Value lanes) {
  // An f16 with the same exponent field and the fraction's bits on top: f16 conversions keep subnormal numbers
  // whatever the mode of the processor.
  Value magnitude = arith::ShLIOp::create(*this, arith::AndIOp::create(*this, lanes, i32Splat(0x7f)), i32Splat(7));
  Value sign = arith::ShLIOp::create(*this, arith::AndIOp::create(*this, lanes, i32Splat(0x80)), i32Splat(8));
  Value bits = arith::TruncIOp::create(*this, VectorType::get({kLanes}, getI16Type()),
                                       arith::OrIOp::create(*this, magnitude, sign));
  Value halves = arith::BitcastOp::create(*this, VectorType::get({kLanes}, getF16Type()), bits);
  return arith::ExtFOp::create(*this, f32Vector(), halves);
}
Value CpuBuilder::decodeE2m1(Value codes) {
  auto bytes = [&](int8_t value) -> Value {
    return arith::ConstantOp::create(*this, DenseElementsAttr::get(byteVector(), value));
  };
  // Twice the magnitudes 0 .. 7 are 0 1 2 3 4 6 8 12: m + (m over 4) + 2 (m over 6).
  Value magnitude = arith::AndIOp::create(*this, codes, bytes(7));
  auto over = [&](int8_t limit) {
    return arith::SubIOp::create(*this, arith::MaxUIOp::create(*this, magnitude, bytes(limit)), bytes(limit));
  };
  Value top = over(6), twice = add(add(magnitude, over(4)), add(top, top));
  Value isNegative =
      arith::CmpIOp::create(*this, arith::CmpIPredicate::ugt, arith::AndIOp::create(*this, codes, bytes(8)), bytes(0));
  return arith::SelectOp::create(*this, isNegative, arith::SubIOp::create(*this, bytes(12), twice),
                                 add(bytes(12), twice));
}
Value CpuBuilder::loadSplat(Value memory, ValueRange at) { return splat(memref::LoadOp::create(*this, memory, at)); }
void CpuBuilder::store(Value vector, Value memory, ValueRange at) {
  vector::StoreOp::create(*this, vector, memory, at);
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

Value CpuBuilder::exp2(Value x) {
  // 2^x = 2^n * 2^f with n = round(x): adding 1.5 * 2^23 rounds to an integer and leaves it in the low
  // bits, where a shift makes it an exponent. 2^f on [-0.5, 0.5] by a polynomial of degree 6 (Taylor
  // with the last coefficient fitted).
  Value clamped = arith::MaximumFOp::create(*this, x, f32Splat(-126.0f));
  Value shifter = f32Splat(12582912.0f);
  Value shifted = arith::AddFOp::create(*this, clamped, shifter);
  Value n = arith::SubFOp::create(*this, shifted, shifter);
  Value f = arith::SubFOp::create(*this, clamped, n);
  Value p = f32Splat(1.5403530e-4f);
  for (float c : {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f})
    p = fma(p, f, f32Splat(c));
  Value exponent = arith::ShLIOp::create(*this, arith::BitcastOp::create(*this, i32Vector(), shifted), i32Splat(23));
  Value bits = add(arith::BitcastOp::create(*this, i32Vector(), p), exponent);
  Value result = arith::BitcastOp::create(*this, f32Vector(), bits);
  Value tiny = arith::CmpFOp::create(*this, arith::CmpFPredicate::OLT, x, f32Splat(-126.0f));
  return arith::SelectOp::create(*this, tiny, f32Splat(0.0f), result);
}

Value CpuBuilder::unpackCodes(Value bytes, Value at, unsigned bits) {
  // Eight codes are `bits` bytes. Reading up to the next power of two is safe: scales follow every area
  // of codes in a block.
  int64_t wide = std::min<int64_t>(kCodes, int64_t(llvm::PowerOf2Ceil(8 * bits)));
  Value packed = vector::LoadOp::create(*this, VectorType::get({wide}, getI8Type()), bytes, ValueRange{at});
  if (bits == 8)
    return packed;
  // Spread each `bits` bytes to eight, then move code i of them to byte i.
  SmallVector<int64_t> spread;
  for (int64_t i = 0; i < kCodes; ++i)
    spread.push_back(i % 8 < bits ? i / 8 * bits + i % 8 : 0);
  Value words = vector::ShuffleOp::create(*this, packed, packed, spread);
  auto mask = [&](VectorType type, uint64_t value) {
    return splatConstant(*this, getLoc(), type,
                         IntegerAttr::get(type.getElementType(), APInt(type.getElementTypeBitWidth(), value)));
  };
  if (isa == Isa::Avx512Vnni) {
    SmallVector<int8_t> shifts;
    for (int64_t i = 0; i < kCodes; ++i)
      shifts.push_back(int8_t(i % 8 * bits));
    Value control = arith::ConstantOp::create(*this, DenseElementsAttr::get(byteVector(), ArrayRef(shifts)));
    Value moved =
        LLVM::CallIntrinsicOp::create(*this, byteVector(), getStringAttr("llvm.x86.avx512.pmultishift.qb.512"),
                                      ValueRange{control, words})
            .getResult(0);
    return arith::AndIOp::create(*this, moved, mask(byteVector(), (1u << bits) - 1));
  }
  auto type = VectorType::get({kCodes / 8}, getI64Type());
  Value lanes = vector::BitCastOp::create(*this, type, words), result;
  for (unsigned i = 0; i < 8; ++i) {
    Value code = arith::ShRUIOp::create(*this, lanes, mask(type, i * bits));
    code = arith::AndIOp::create(*this, code, mask(type, (1u << bits) - 1));
    code = arith::ShLIOp::create(*this, code, mask(type, 8 * i));
    result = result ? arith::OrIOp::create(*this, result, code).getResult() : code;
  }
  return vector::BitCastOp::create(*this, byteVector(), result);
}

Value CpuBuilder::codeLanes(Value codes, unsigned e, bool isSigned) {
  Value lanes = vector::BitCastOp::create(*this, i32Vector(), codes);
  lanes = arith::ShLIOp::create(*this, lanes, i32Splat(int32_t(24 - 8 * e)));
  if (isSigned)
    return arith::ShRSIOp::create(*this, lanes, i32Splat(24));
  return arith::ShRUIOp::create(*this, lanes, i32Splat(24));
}

Value CpuBuilder::loadFourBytes(Value memory, ValueRange at) {
  Value four = vector::LoadOp::create(*this, VectorType::get({4}, getI8Type()), memory, at);
  Value word = vector::BitCastOp::create(*this, VectorType::get({1}, getI32Type()), four);
  Value scalar = vector::ExtractOp::create(*this, word, ArrayRef<int64_t>{0});
  return vector::BitCastOp::create(*this, byteVector(), splat(scalar));
}

Value CpuBuilder::dotBytes(Value acc, Value unsignedBytes, Value signedBytes) {
  if (isa == Isa::Avx512Vnni)
    return LLVM::CallIntrinsicOp::create(*this, i32Vector(), getStringAttr("llvm.x86.avx512.vpdpbusd.512"),
                                         ValueRange{acc, unsignedBytes, signedBytes})
        .getResult(0);
  for (unsigned e = 0; e < 4; ++e)
    acc = add(acc, mul(codeLanes(unsignedBytes, e, false), codeLanes(signedBytes, e, true)));
  return acc;
}
