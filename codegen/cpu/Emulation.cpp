// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The instructions of ProductBuilder, written out.
#include "codegen/cpu/Emulation.h"

#include "llvm/Analysis/VectorUtils.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/ErrorHandling.h"

using namespace llvm;

namespace {

/// What an instruction does with each of its outputs: sums of `count` neighbouring products.
struct Product {
  StringLiteral prefix; ///< of the intrinsic's name
  unsigned count;       ///< neighbours
  bool accumulates;     ///< the first operand is added to
  bool firstIsSigned, secondIsSigned;
  unsigned bits; ///< of an element of the operands; sums have `count` times as many
  bool saturates = false;
};
constexpr Product kProducts[] = {
    {"llvm.x86.avx512.vpdpbusd.", 4, true, false, true, 8},
    {"llvm.x86.avx512.pmaddubs.w.", 2, false, false, true, 8, /*saturates=*/true},
    {"llvm.x86.avx2.pmadd.ub.sw", 2, false, false, true, 8, /*saturates=*/true},
    {"llvm.x86.avx512.pmaddw.d.", 2, false, true, true, 16},
    {"llvm.x86.avx2.pmadd.wd", 2, false, true, true, 16},
    {"llvm.aarch64.neon.sdot.", 4, true, true, true, 8},
    {"llvm.aarch64.neon.udot.", 4, true, false, false, 8},
};

Value *emulate(IRBuilder<> &b, const Product &product, CallBase &call) {
  auto *result = cast<FixedVectorType>(call.getType());
  unsigned outputs = result->getNumElements();
  auto *elements = FixedVectorType::get(b.getIntNTy(product.bits), outputs * product.count);
  auto *wide = FixedVectorType::get(b.getInt32Ty(), outputs);
  unsigned operand = product.accumulates ? 1 : 0;
  Value *first = b.CreateBitCast(call.getArgOperand(operand), elements);
  Value *second = b.CreateBitCast(call.getArgOperand(operand + 1), elements);
  Value *sum = product.accumulates ? call.getArgOperand(0) : Constant::getNullValue(wide);
  for (unsigned e = 0; e < product.count; ++e) {
    SmallVector<int> every;
    for (unsigned i = 0; i < outputs; ++i)
      every.push_back(int(i * product.count + e));
    auto part = [&](Value *vector, bool isSigned) {
      return b.CreateIntCast(b.CreateShuffleVector(vector, every), wide, isSigned);
    };
    sum = b.CreateAdd(sum, b.CreateMul(part(first, product.firstIsSigned), part(second, product.secondIsSigned)));
  }
  if (!product.saturates)
    return sum;
  auto bound = [&](int32_t value) { return ConstantInt::getSigned(wide, value); };
  sum = b.CreateBinaryIntrinsic(Intrinsic::smin, sum, bound(INT16_MAX));
  sum = b.CreateBinaryIntrinsic(Intrinsic::smax, sum, bound(INT16_MIN));
  return b.CreateTrunc(sum, result);
}

/// A table of 16 bytes for each 16 bytes of indices.
struct Lookup {
  StringLiteral prefix;
  uint8_t mask; ///< of an index; the result is 0 unless it is below 16
};
constexpr Lookup kLookups[] = {
    {"llvm.x86.avx512.pshuf.b.", 0x8f}, {"llvm.x86.avx2.pshuf.b", 0x8f}, {"llvm.aarch64.neon.tbl1.", 0xff}};

Value *emulate(IRBuilder<> &b, const Lookup &lookup, CallBase &call) {
  auto *type = cast<FixedVectorType>(call.getType());
  auto constant = [&](uint64_t value) { return ConstantInt::get(type, value); };
  Value *table = call.getArgOperand(0), *index = b.CreateAnd(call.getArgOperand(1), constant(lookup.mask));
  Value *result = constant(0);
  for (unsigned entry = 0; entry < 16; ++entry) {
    SmallVector<int> every;
    for (unsigned i = 0; i < type->getNumElements(); ++i)
      every.push_back(int(i / 16 * 16 + entry));
    result = b.CreateSelect(b.CreateICmpEQ(index, constant(entry)), b.CreateShuffleVector(table, every), result);
  }
  return result;
}

/// Words of a table, or bytes of two: an index takes as many low bits as there are entries to tell apart.
Value *emulateWideLookup(IRBuilder<> &b, CallBase &call) {
  auto *type = cast<FixedVectorType>(call.getType());
  Value *table = call.getArgOperand(0), *indices = call.getArgOperand(1);
  unsigned entries = type->getNumElements();
  if (call.arg_size() == 3) {
    table = concatenateVectors(b, {table, call.getArgOperand(2)});
    entries *= 2;
  }
  Value *result = PoisonValue::get(type);
  for (unsigned i = 0; i < type->getNumElements(); ++i) {
    Value *index = b.CreateAnd(b.CreateExtractElement(indices, i), entries - 1);
    result = b.CreateInsertElement(result, b.CreateExtractElement(table, index), i);
  }
  return result;
}

/// Pairs of bf16 that are multiplied and added up.
Value *emulateBf16Product(IRBuilder<> &b, CallBase &call) {
  auto *type = cast<FixedVectorType>(call.getType());
  auto *words = FixedVectorType::get(b.getInt32Ty(), type->getNumElements());
  Value *sum = call.getArgOperand(0), *first = b.CreateBitCast(call.getArgOperand(1), words),
        *second = b.CreateBitCast(call.getArgOperand(2), words);
  for (bool isHigh : {true, false}) {
    auto part = [&](Value *pairs) {
      Value *bits = isHigh ? b.CreateAnd(pairs, ConstantInt::get(words, 0xffff0000u)) : b.CreateShl(pairs, 16);
      return b.CreateBitCast(bits, type);
    };
    sum = b.CreateFAdd(sum, b.CreateFMul(part(first), part(second)));
  }
  return sum;
}

/// Two vectors of f32 rounded to nearest even, the second one first.
Value *emulateBf16Rounding(IRBuilder<> &b, CallBase &call) {
  auto *type = cast<FixedVectorType>(call.getType());
  Value *both = concatenateVectors(b, {call.getArgOperand(1), call.getArgOperand(0)});
  auto *words = FixedVectorType::get(b.getInt32Ty(), type->getNumElements());
  auto constant = [&](uint64_t value) { return ConstantInt::get(words, value); };
  Value *bits = b.CreateBitCast(both, words);
  Value *odd = b.CreateAnd(b.CreateLShr(bits, 16), constant(1));
  Value *rounded = b.CreateLShr(b.CreateAdd(bits, b.CreateAdd(odd, constant(0x7fff))), 16);
  return b.CreateBitCast(b.CreateTrunc(rounded, FixedVectorType::get(b.getInt16Ty(), type->getNumElements())), type);
}

struct Other {
  StringLiteral prefix;
  Value *(*emulate)(IRBuilder<> &, CallBase &);
};
constexpr Other kOthers[] = {{"llvm.x86.avx512.permvar.hi.", emulateWideLookup},
                             {"llvm.x86.avx512.vpermi2var.qi.", emulateWideLookup},
                             {"llvm.x86.avx512bf16.dpbf16ps.", emulateBf16Product},
                             {"llvm.x86.avx512bf16.cvtne2ps2bf16.", emulateBf16Rounding}};
Value *emulate(IRBuilder<> &b, const Other &other, CallBase &call) { return other.emulate(b, call); }

/// Replaces a call of one of these.
template <typename Instructions> bool replace(CallBase &call, const Instructions &all) {
  auto *found =
      find_if(all, [&](const auto &one) { return call.getCalledFunction()->getName().starts_with(one.prefix); });
  if (found == std::end(all))
    return false;
  IRBuilder<> builder(&call);
  call.replaceAllUsesWith(emulate(builder, *found, call));
  call.eraseFromParent();
  return true;
}

} // namespace

void kvcc::cpu::emulateProducts(Module &module) {
  for (Function &function : module)
    for (Instruction &instruction : make_early_inc_range(instructions(function))) {
      auto *call = dyn_cast<CallBase>(&instruction);
      if (call && call->getCalledFunction())
        (void)(replace(*call, kProducts) || replace(*call, kLookups) || replace(*call, kOthers));
    }
}
