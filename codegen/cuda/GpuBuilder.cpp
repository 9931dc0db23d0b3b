// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Building blocks of the GPU lowerings.
#include "codegen/cuda/GpuBuilder.h"

#include "mlir/Dialect/EmitC/IR/EmitC.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "passes/Passes.h"

#include <cmath>
#include <limits>
#include <numbers>

using namespace mlir;
using namespace kvcc::cuda;

SmallVector<Value> GpuBuilder::call(StringRef function, TypeRange results, ValueRange operands,
                                    std::optional<int64_t> templateArgument) {
  ArrayAttr templates;
  if (templateArgument)
    templates = getArrayAttr({getI32IntegerAttr(int32_t(*templateArgument))});
  // Memory goes as a pointer to its bytes or words.
  SmallVector<Value> arguments(operands);
  for (Value &argument : arguments)
    if (auto type = dyn_cast<MemRefType>(argument.getType())) {
      Type pointer = emitc::PointerType::get(type.getElementType());
      argument = UnrealizedConversionCastOp::create(*this, pointer, argument).getResult(0);
    }
  auto op = emitc::CallOpaqueOp::create(*this, results, getStringAttr(function), arguments, ArrayAttr(), templates);
  return SmallVector<Value>(op.getResults());
}

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

void GpuBuilder::storeF32(Value number, Value memory, ValueRange at) {
  Type element = cast<MemRefType>(memory.getType()).getElementType();
  store(element.isF32() ? number : arith::TruncFOp::create(*this, element, number).getResult(), memory, at);
}

Value GpuBuilder::arrive(Value counters, Value at, Value count) {
  auto word = [&](Value index) { return arith::IndexCastOp::create(*this, getI32Type(), index).getResult(); };
  return call1("kv_arrive", getI1Type(), {counters, word(at), word(count)});
}

std::pair<Value, Value> GpuBuilder::finish(Value sum, Value lse) {
  Value seen = arith::CmpFOp::create(*this, arith::CmpFPredicate::OGT, sum, f32(0));
  Value inverse = arith::SelectOp::create(*this, seen, arith::DivFOp::create(*this, f32(1), sum), f32(0));
  return {inverse, arith::SelectOp::create(*this, seen, lse, f32(-std::numeric_limits<float>::infinity()))};
}

Value GpuBuilder::getLse(Value max, Value sum, int64_t exponent) {
  Value lse = add(max, math::Log2Op::create(*this, sum));
  if (exponent)
    lse = add(lse, f32(-float(exponent)));
  return mul(lse, f32(float(std::numbers::ln2)));
}

Value GpuBuilder::getRow(Value row, int64_t heads, std::optional<uint64_t> stride) {
  if (!stride)
    return row;
  Value query = arith::DivUIOp::create(*this, row, index(heads)),
        head = arith::RemUIOp::create(*this, row, index(heads));
  return add(mulIndex(query, int64_t(*stride)), head);
}

SmallVector<Value> GpuBuilder::loadFour(Value memory, Value at) {
  SmallVector<Value> numbers;
  for (int64_t i = 0; i < 4; ++i)
    numbers.push_back(load(memory, addIndex(at, i)));
  return numbers;
}

void GpuBuilder::mergeParts(kv::TileMergeOp op, Value thread, int64_t threads,
                            function_ref<SmallVector<Value>(Value, Value)> loadFour) {
  auto headDim = int64_t(op.getHeadDim());
  // Channels that a thread takes, and parts whose numbers are on their way together.
  constexpr int64_t kChannels = 4, kParts = 16;
  Value numbers = index(int64_t(op.getHeads()) * headDim / kChannels);
  if (op.getQueries())
    numbers = mul(op.getQueries(), numbers);
  loop(thread, numbers, threads, false, [&](Value i) {
    Value head = arith::DivUIOp::create(*this, i, index(headDim / kChannels)),
          channel = mulIndex(arith::RemUIOp::create(*this, i, index(headDim / kChannels)), kChannels);
    Value row = getRow(head, int64_t(op.getHeads()), op.getStride());
    Value at = add(mulIndex(row, headDim), channel);
    Value outAt = add(op.getPartOffset(), at), lseAt = add(op.getLseOffset(), row);
    // The largest lse so far, the sum of weights relative to it, and that of weighted outputs.
    SmallVector<Value> initial(2 + kChannels, f32(0));
    initial[0] = f32(kv::kMaskedLogit);
    auto parts = scf::ForOp::create(*this, index(0), op.getCount(), index(kParts), initial);
    {
      OpBuilder::InsertionGuard guard(*this);
      setInsertionPointToStart(parts.getBody());
      SmallVector<Value> state(parts.getRegionIterArgs()), lses, outs;
      Value last = arith::SubIOp::create(*this, op.getCount(), index(1));
      for (int64_t u = 0; u < kParts; ++u) {
        Value part = addIndex(parts.getInductionVar(), u);
        Value isThere = arith::CmpIOp::create(*this, arith::CmpIPredicate::ult, part, op.getCount());
        Value first = mul(arith::MinUIOp::create(*this, part, last), op.getRows());
        lses.push_back(arith::SelectOp::create(*this, isThere, load(op.getLses(), add(lseAt, first)),
                                               f32(-std::numeric_limits<float>::infinity())));
        llvm::append_range(outs, loadFour(op.getParts(), add(outAt, mulIndex(first, headDim))));
      }
      Value largest = state[0];
      for (Value lse : lses)
        largest = max(largest, lse);
      // One part alone stays as it is, to the last bit.
      auto weigh = [&](Value lse) -> Value {
        Value power = mul(arith::SubFOp::create(*this, lse, largest), f32(float(std::numbers::log2e)));
        return math::Exp2Op::create(*this, power);
      };
      Value factor = weigh(state[0]);
      for (Value &sum : llvm::drop_begin(state))
        sum = mul(sum, factor);
      for (auto [u, lse] : enumerate(lses)) {
        Value weight = weigh(lse);
        state[1] = add(state[1], weight);
        for (size_t c = 0; c < kChannels; ++c)
          state[2 + c] = fma(outs[u * kChannels + c], weight, state[2 + c]);
      }
      state[0] = largest;
      scf::YieldOp::create(*this, state);
    }
    ValueRange merged = parts.getResults();
    Value natural = mul(math::Log2Op::create(*this, merged[1]), f32(float(std::numbers::ln2)));
    auto [inverse, lse] = finish(merged[1], add(merged[0], natural));
    for (int64_t c = 0; c < kChannels; ++c)
      storeF32(mul(merged[size_t(2 + c)], inverse), op.getOut(), add(op.getOutOffset(), addIndex(at, c)));
    auto branch = scf::IfOp::create(*this, arith::CmpIOp::create(*this, arith::CmpIPredicate::eq, channel, index(0)),
                                    /*withElseRegion=*/false);
    OpBuilder::InsertionGuard guard(*this);
    setInsertionPointToStart(branch.thenBlock());
    store(lse, op.getLse(), add(op.getOutLseOffset(), row));
  });
}

void ResultWriter::choose(function_ref<void()> storePart, function_ref<void()> storeWhole) {
  if (!op.getIsPart())
    return storeWhole();
  auto branch = scf::IfOp::create(b, op.getIsPart(), /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(branch.thenBlock());
  storePart();
  b.setInsertionPointToStart(branch.elseBlock());
  storeWhole();
}

Value ResultWriter::getRow(Value row) { return b.getRow(row, int64_t(op.getHeads().value_or(1)), op.getStride()); }

void ResultWriter::storeOut(Value number, Value head, Value channel) {
  Value at = b.add(b.mulIndex(getRow(head), op.getState().getType().getHeadDim()), channel);
  choose([&] { b.store(number, op.getParts(), b.add(op.getPartOffset(), at)); },
         [&] { b.storeF32(number, op.getOut(), b.add(op.getOutOffset(), at)); });
}

void ResultWriter::storeLse(Value number, Value head) {
  Value row = getRow(head);
  choose([&] { b.store(number, op.getParts(), b.add(op.getPartLseOffset(), row)); },
         [&] { b.store(number, op.getLse(), b.add(op.getLseOffset(), row)); });
}

Value GpuBuilder::bound(Value x, float cap) {
  // tanh(y) = 1 - 2 / (1 + exp(2 y)); the ends come from infinity and zero.
  Value e = math::Exp2Op::create(*this, mul(x, f32(2 * float(std::numbers::log2e) / cap)));
  return fma(call1("kv_rcp", getF32Type(), add(e, f32(1))), f32(-2 * cap), f32(cap));
}

Value GpuBuilder::reduce(Value value, function_ref<Value(Value, Value)> combine) {
  for (int32_t distance = kWarp / 2; distance; distance /= 2) {
    auto other = gpu::ShuffleOp::create(*this, value, i32(distance), i32(kWarp), gpu::ShuffleMode::XOR);
    value = combine(value, other.getShuffleResult());
  }
  return value;
}

static Value allocate(GpuBuilder &b, MemRefType type) {
  OpBuilder::InsertionGuard guard(b);
  Operation *parent = b.getInsertionBlock()->getParentOp();
  auto func = isa<func::FuncOp>(parent) ? cast<func::FuncOp>(parent) : parent->getParentOfType<func::FuncOp>();
  b.setInsertionPointToStart(&func.front());
  return memref::AllocaOp::create(b, type);
}

static MemRefType typeIn(gpu::AddressSpace space, ArrayRef<int64_t> shape, Type element,
                         MemRefLayoutAttrInterface layout = {}) {
  return MemRefType::get(shape, element, layout, gpu::AddressSpaceAttr::get(element.getContext(), space));
}

MemRefType kvcc::cuda::getMatrixType(ArrayRef<int64_t> shape, Type element) {
  int64_t bank = 32 / element.getIntOrFloatBitWidth();
  auto layout = StridedLayoutAttr::get(element.getContext(), 0, {shape[1] + bank, 1});
  return typeIn(gpu::AddressSpace::Workgroup, shape, element, layout);
}

MemRefType kvcc::cuda::getSharedType(ArrayRef<int64_t> shape, Type element) {
  return typeIn(gpu::AddressSpace::Workgroup, shape, element);
}

MemRefType kvcc::cuda::getPrivateType(ArrayRef<int64_t> shape, Type element) {
  return typeIn(gpu::AddressSpace::Private, shape, element);
}

Value GpuBuilder::shared(ArrayRef<int64_t> shape, Type element) {
  return shared(getSharedType(shape, element ? element : getF32Type()));
}
Value GpuBuilder::shared(MemRefType type) { return allocate(*this, type); }
Value GpuBuilder::registers(ArrayRef<int64_t> shape) { return allocate(*this, getPrivateType(shape, getF32Type())); }

Value GpuBuilder::toF32(Value number) {
  return number.getType().isF32() ? number : arith::ExtFOp::create(*this, getF32Type(), number).getResult();
}

Value GpuBuilder::loadF32(Value memory, ValueRange at, Type element) {
  Value value = load(memory, at);
  if (!value.getType().isInteger(8))
    return toF32(value);
  Value byte = arith::ExtUIOp::create(*this, getI32Type(), value);
  if (isa<Float8E8M0FNUType>(element)) // the exponent of an f32
    return arith::BitcastOp::create(*this, getF32Type(), arith::ShLIOp::create(*this, byte, i32(23)));
  return decodeE4m3(byte);
}

Value GpuBuilder::decodeE4m3(Value code) {
  // An f32 with the same exponent field (whose bias is 120 more) and the fraction's bits on top.
  Value magnitude = arith::ShLIOp::create(*this, arith::AndIOp::create(*this, code, i32(0x7f)), i32(20));
  Value sign = arith::ShLIOp::create(*this, arith::AndIOp::create(*this, code, i32(0x80)), i32(24));
  Value bits = arith::OrIOp::create(*this, magnitude, sign);
  return mul(arith::BitcastOp::create(*this, getF32Type(), bits), f32(0x1p120f));
}

Value GpuBuilder::decodeE2m1(Value code) {
  // Nibble m of the word is twice magnitude m: 0 1 2 3 4 6 8 12.
  Value magnitude = arith::AndIOp::create(*this, code, i32(7));
  Value shift = arith::ShLIOp::create(*this, magnitude, i32(2));
  Value twice = arith::AndIOp::create(*this, arith::ShRUIOp::create(*this, i32(int32_t(0xc8643210)), shift), i32(15));
  Value isNegative = arith::CmpIOp::create(*this, arith::CmpIPredicate::ugt, code, i32(7));
  return arith::SelectOp::create(*this, isNegative, arith::SubIOp::create(*this, i32(12), twice), add(i32(12), twice));
}

void GpuBuilder::loop(Value from, Value to, int64_t step, bool unroll, function_ref<void(Value)> body) {
  auto op = scf::ForOp::create(*this, from, to, index(step));
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

void kvcc::cuda::rotateRows(GpuBuilder &b, Value buffer, ArrayRef<int64_t> shape, int64_t size, int64_t threads) {
  int64_t pairs = shape[1] / 2;
  auto scale = float(1 / std::sqrt(double(size)));
  for (int64_t half = 1; half < size; half *= 2) {
    Value factor = b.f32(2 * half == size ? scale : 1.0f); // in the last stage
    b.loop(b.lane(), shape[0] * pairs, threads, false, [&](Value i) {
      Value row = arith::DivUIOp::create(b, i, b.index(pairs)), pair = arith::RemUIOp::create(b, i, b.index(pairs));
      Value block = arith::DivUIOp::create(b, pair, b.index(half));
      Value first = b.add(b.mulIndex(block, 2 * half), arith::RemUIOp::create(b, pair, b.index(half)));
      Value at[] = {row, first}, other[] = {row, b.addIndex(first, half)};
      Value x = b.load(buffer, at), y = b.load(buffer, other);
      b.store(b.mul(b.add(x, y), factor), buffer, at);
      b.store(b.mul(arith::SubFOp::create(b, x, y), factor), buffer, other);
    });
    b.barrier();
  }
}
