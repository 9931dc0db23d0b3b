// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Building blocks of the GPU lowerings.
#include "codegen/cuda/GpuBuilder.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "passes/Passes.h"

using namespace mlir;
using namespace kvcc::cuda;

Value GpuBuilder::add(Value x, Value y) {
  if (isa<FloatType>(x.getType()))
    return arith::AddFOp::create(*this, x, y);
  return arith::AddIOp::create(*this, x, y);
}

Value GpuBuilder::mul(Value x, Value y) {
  if (isa<FloatType>(x.getType()))
    return arith::MulFOp::create(*this, x, y);
  return arith::MulIOp::create(*this, x, y);
}

Value GpuBuilder::reduce(Value value, function_ref<Value(Value, Value)> combine) {
  for (int32_t distance = kWarp / 2; distance; distance /= 2) {
    auto other = gpu::ShuffleOp::create(*this, value, i32(distance), i32(kWarp), gpu::ShuffleMode::XOR);
    value = combine(value, other.getShuffleResult());
  }
  return value;
}

static Value allocate(GpuBuilder &b, ArrayRef<int64_t> shape, gpu::AddressSpace space) {
  OpBuilder::InsertionGuard guard(b);
  Operation *parent = b.getInsertionBlock()->getParentOp();
  auto func = isa<func::FuncOp>(parent) ? cast<func::FuncOp>(parent) : parent->getParentOfType<func::FuncOp>();
  b.setInsertionPointToStart(&func.front());
  auto spaceAttr = gpu::AddressSpaceAttr::get(b.getContext(), space);
  return memref::AllocaOp::create(b, MemRefType::get(shape, b.getF32Type(), MemRefLayoutAttrInterface(), spaceAttr));
}

Value GpuBuilder::shared(ArrayRef<int64_t> shape) { return allocate(*this, shape, gpu::AddressSpace::Workgroup); }
Value GpuBuilder::registers(ArrayRef<int64_t> shape) { return allocate(*this, shape, gpu::AddressSpace::Private); }

Value GpuBuilder::loadF32(Value memory, ValueRange at) {
  Value value = load(memory, at);
  return value.getType().isF32() ? value : arith::ExtFOp::create(*this, getF32Type(), value).getResult();
}

void GpuBuilder::loop(Value from, int64_t to, int64_t step, bool unroll, function_ref<void(Value)> body) {
  auto op = scf::ForOp::create(*this, from, index(to), index(step));
  if (unroll)
    op->setAttr(kUnrollAttrName, getUnitAttr());
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(op.getBody());
  body(op.getInductionVar());
}

SmallVector<Value> GpuBuilder::loop(int64_t from, int64_t to, ValueRange initial,
                                    function_ref<SmallVector<Value>(Value, ValueRange)> body) {
  auto op = scf::ForOp::create(*this, index(from), index(to), index(1), initial);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(op.getBody());
  scf::YieldOp::create(*this, body(op.getInductionVar(), op.getRegionIterArgs()));
  return SmallVector<Value>(op.getResults());
}

SmallVector<Value> GpuBuilder::unpackCodes(Value memory, Value first, unsigned bits) {
  SmallVector<Value> words, codes;
  for (unsigned k = 0; k < bits; ++k)
    words.push_back(load(memory, addIndex(first, k * kWarp)));
  Value mask = i32((1 << bits) - 1);
  for (unsigned i = 0; i < 32; ++i) {
    unsigned word = i * bits / 32, shift = i * bits % 32;
    Value code = words[word];
    if (shift)
      code = arith::ShRUIOp::create(*this, code, i32(int32_t(shift)));
    if (shift + bits > 32)
      code = arith::OrIOp::create(*this, code, arith::ShLIOp::create(*this, words[word + 1], i32(int32_t(32 - shift))));
    if (shift + bits != 32)
      code = arith::AndIOp::create(*this, code, mask);
    codes.push_back(code);
  }
  return codes;
}
