// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the tensor-core lowerings are written with: registers of a lane, words of blocks, fragments of codes.
#ifndef KVCC_CODEGEN_CUDA_FRAGMENTBUILDER_H
#define KVCC_CODEGEN_CUDA_FRAGMENTBUILDER_H

#include "codegen/cuda/GpuBuilder.h"
#include "dialect/Fragments.h"
#include "mlir/Dialect/EmitC/IR/EmitC.h"

#include "llvm/ADT/DenseMap.h"

namespace kvcc::cuda {

/// Four f32 registers: element (row 8*(i/2) + gid, column 2*tig + i%2) of a 16x8 product.
using Quad = std::array<mlir::Value, 4>;

/// An offset in bytes that depends on the lane: the lane, lane / 4 or lane % 4, times `stride`.
struct LaneOffset {
  enum Kind { Lane, Gid, Tig } kind;
  int64_t stride;
};

/// Builds the code of one lane of a warp that works on fragments.
class FragmentBuilder : public GpuBuilder {
public:
  using GpuBuilder::GpuBuilder;

  mlir::Type opaque(llvm::StringRef name) { return mlir::emitc::OpaqueType::get(getContext(), name); }
  mlir::Value element(mlir::Value fragment, int64_t i, mlir::Type type) { return call1("kv_elt", type, fragment, i); }

  mlir::Value word(uint32_t value) { return i32(int32_t(value)); }
  mlir::Value bitAnd(mlir::Value x, uint32_t mask) { return mlir::arith::AndIOp::create(*this, x, word(mask)); }
  mlir::Value bitOr(mlir::Value x, mlir::Value y) { return mlir::arith::OrIOp::create(*this, x, y); }
  /// To the right, or to the left where negative.
  mlir::Value shift(mlir::Value x, int64_t by);
  mlir::Value toI32(mlir::Value x) { return mlir::arith::IndexCastOp::create(*this, getI32Type(), x); }
  mlir::Value bitsToF32(mlir::Value x) { return mlir::arith::BitcastOp::create(*this, getF32Type(), x); }
  mlir::Value f32ToBits(mlir::Value x) { return mlir::arith::BitcastOp::create(*this, getI32Type(), x); }
  /// One instruction; arith.maxnumf is expanded into comparisons on its way to EmitC.
  mlir::Value max(mlir::Value x, mlir::Value y) { return call1("kv_max", getF32Type(), {x, y}); }
  mlir::Value exp2(mlir::Value x) { return call1("kv_exp2", getF32Type(), x); }
  mlir::Value minIndex(mlir::Value x, int64_t y) { return mlir::arith::MinUIOp::create(*this, x, index(y)); }
  mlir::Value shuffle(mlir::Value x, mlir::Value lane) { return call1("kv_shfl_idx_f32", getF32Type(), {x, lane}); }
  mlir::Value shuffleXor(mlir::Value x, int32_t mask) { return call1("kv_shfl_xor_f32", getF32Type(), {x, i32(mask)}); }
  void syncWarp() { call("kv_syncwarp", {}, {}); }

  mlir::Value makeQuad(const Quad &quad);
  Quad splitQuad(mlir::Value fragment);
  mlir::Value zeroQuad() { return makeQuad({f32(0), f32(0), f32(0), f32(0)}); }
  mlir::Value makeA(const std::array<mlir::Value, 4> &words);
  /// a * b + c, a 16x16 (kv_u32x4), b 16x8 (two words), c and the result 16x8 (kv_f32x4).
  mlir::Value mma(mlir::Type half, mlir::Value a, mlir::Value b0, mlir::Value b1, mlir::Value c);
  /// Two f32 as halves of a word.
  mlir::Value pack(mlir::Type half, mlir::Value low, mlir::Value high);
  /// Both halves times 2^-exponent.
  mlir::Value scaleHalves(mlir::Value word, int64_t exponent);
  /// A half of a word, an f16, bf16, f8E4M3FN or f8E8M0FNU, as f32; `at` counts in elements.
  mlir::Value extract(mlir::Type type, mlir::Value word, int64_t at);

  mlir::Value getLane(LaneOffset offset);
  /// A pointer to shared memory plus an offset of the lane, made once where the pointer is made.
  mlir::Value addLane(mlir::Value pointer, LaneOffset offset);
  /// Memory from an element on, as a pointer that is kept.
  mlir::Value advance(mlir::Value memory, mlir::Value offset);
  mlir::Value addBytes(mlir::Value pointer, mlir::Value bytes) {
    return mlir::emitc::AddOp::create(*this, pointer.getType(), pointer, bytes);
  }

  // The lane; set once at the entry of a function.
  mlir::Value thread, warp, gid, tig; ///< index

private:
  llvm::DenseMap<mlir::Value, llvm::SmallVector<std::pair<LaneOffset, mlir::Value>>> pointers;
};

/// A block of the cache in global memory, or in the memory of this warp.
struct BlockMemory {
  kv::BlockType type;
  mlir::Value memory, offset; ///< global: bytes and where it begins
  mlir::Value ring;           ///< else a kv_smem_ptr to memory of the warp, in which it begins at `offset`, an i32
  int64_t bytes = 0;          ///< plus this
};

/// Words of a block: runs of consecutive words that a lane loads 16 bytes at a time, when the first of them is asked
/// for.
class WordReader {
public:
  /// `count` words from byte `offset` + `lane` on.
  WordReader(FragmentBuilder &b, const BlockMemory &block, LaneOffset lane, int64_t offset, int64_t count);
  mlir::Value get(int64_t word);

private:
  FragmentBuilder &b;
  BlockMemory block;
  mlir::Value base;
  int64_t offset, width;
  llvm::SmallVector<mlir::Value> words;
};

/// The elements of a block of codes, or of 16-bit numbers, as operand fragments.
class FragmentReader {
public:
  FragmentReader(FragmentBuilder &b, const BlockMemory &block);
  /// Rows t*16.., k-step s, as a kv_u32x4. Codes are multiplied by 2^exponent of their pair.
  mlir::Value getA(int64_t t, int64_t s);

private:
  mlir::Value getWord(int64_t x);
  mlir::Value getShifted(int64_t x, int64_t by);
  mlir::Value getPair(int64_t u, int64_t n, int64_t exponent);

  FragmentBuilder &b;
  mlir::Type element;
  kv::FragmentOrder order;
  unsigned bits;
  llvm::SmallVector<std::unique_ptr<WordReader>> runs;
  llvm::DenseMap<std::pair<int64_t, int64_t>, mlir::Value> shifted;
};

/// The power of two that codes of `element` carry in row tile t (its parity counts), pair n of `reduceExtent` / 8:
/// what multiplies them is divided by it.
int64_t getPairExponent(mlir::Type element, int64_t reduceExtent, int64_t t, int64_t n);

} // namespace kvcc::cuda

#endif
