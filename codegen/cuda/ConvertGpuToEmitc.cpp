// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// kv-convert-gpu-to-emitc: kernels to EmitC that prints as header-free CUDA C++ against the prelude.
#include "passes/Passes.h"

#include "mlir/Conversion/ArithToEmitC/ArithToEmitC.h"
#include "mlir/Conversion/SCFToEmitC/SCFToEmitC.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/EmitC/IR/EmitC.h"
#include "mlir/Dialect/EmitC/Transforms/TypeConversions.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Transforms/DialectConversion.h"

using namespace mlir;

namespace kvcc {
#define GEN_PASS_DEF_CONVERTGPUTOEMITCPASS
#include "passes/Passes.h.inc"
} // namespace kvcc

namespace {

/// An operation that the device prelude has a function for, of f32.
template <typename Op> struct CallPattern : OpConversionPattern<Op> {
  CallPattern(const TypeConverter &converter, MLIRContext *context, StringRef callee)
      : OpConversionPattern<Op>(converter, context), callee(callee) {}
  LogicalResult matchAndRewrite(Op op, typename Op::Adaptor in, ConversionPatternRewriter &rewriter) const override {
    if (!llvm::all_of(op->getResultTypes(), llvm::IsaPred<Float32Type>))
      return rewriter.notifyMatchFailure(op, "only f32 is known");
    rewriter.replaceOpWithNewOp<emitc::CallOpaqueOp>(op, op->getResultTypes(), callee, in.getOperands());
    return success();
  }
  std::string callee;
};

/// gpu.thread_id, gpu.block_id: a function per dimension, x to `last`.
template <typename Op> struct IdPattern : OpConversionPattern<Op> {
  IdPattern(const TypeConverter &converter, MLIRContext *context, StringRef prefix, gpu::Dimension last)
      : OpConversionPattern<Op>(converter, context), prefix(prefix), last(last) {}
  LogicalResult matchAndRewrite(Op op, typename Op::Adaptor, ConversionPatternRewriter &rewriter) const override {
    if (op.getDimension() > last)
      return rewriter.notifyMatchFailure(op, "the prelude has no such dimension");
    std::string callee = prefix + gpu::stringifyDimension(op.getDimension()).str();
    Type type = this->getTypeConverter()->convertType(op.getType());
    rewriter.replaceOpWithNewOp<emitc::CallOpaqueOp>(op, type, callee, ValueRange());
    return success();
  }
  std::string prefix;
  gpu::Dimension last;
};

struct ShufflePattern : OpConversionPattern<gpu::ShuffleOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(gpu::ShuffleOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    APInt width;
    if (op.getMode() != gpu::ShuffleMode::XOR || !op.getValue().getType().isF32() ||
        !matchPattern(op.getWidth(), m_ConstantInt(&width)) || width != 32 || !op.getValid().use_empty())
      return rewriter.notifyMatchFailure(op, "only butterfly shuffles of f32 over 32 lanes are known");
    Value result = emitc::CallOpaqueOp::create(rewriter, op.getLoc(), rewriter.getF32Type(), "kv_shfl_xor_f32",
                                               ValueRange{in.getValue(), in.getOffset()})
                       .getResult(0);
    rewriter.replaceOp(op, {result, Value()});
    return success();
  }
};

/// 16-bit floats are kept as their bits and widened by the prelude.
struct ExtFPattern : OpConversionPattern<arith::ExtFOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(arith::ExtFOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    Type from = op.getIn().getType();
    if (!op.getType().isF32() || !(from.isF16() || from.isBF16()))
      return failure();
    rewriter.replaceOpWithNewOp<emitc::CallOpaqueOp>(
        op, op.getType(), from.isF16() ? "kv_f16_to_f32" : "kv_bf16_to_f32", ValueRange{in.getIn()});
    return success();
  }
};

struct TruncFPattern : OpConversionPattern<arith::TruncFOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(arith::TruncFOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    if (!op.getIn().getType().isF32() || (!op.getType().isF16() && !op.getType().isBF16()))
      return failure();
    StringRef function = op.getType().isF16() ? "kv_f32_to_f16" : "kv_f32_to_bf16";
    rewriter.replaceOpWithNewOp<emitc::CallOpaqueOp>(op, getTypeConverter()->convertType(op.getType()), function,
                                                     ValueRange{in.getIn()});
    return success();
  }
};

struct BitcastPattern : OpConversionPattern<arith::BitcastOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(arith::BitcastOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    Type word = rewriter.getIntegerType(32, /*isSigned=*/false);
    if (op.getIn().getType().isSignlessInteger(16) && (op.getType().isF16() || op.getType().isBF16())) {
      rewriter.replaceOpWithNewOp<emitc::CastOp>(op, getTypeConverter()->convertType(op.getType()), in.getIn());
      return success();
    }
    if (op.getIn().getType().isSignlessInteger(32) && op.getType().isF32()) {
      Value bits = emitc::CastOp::create(rewriter, op.getLoc(), word, in.getIn());
      rewriter.replaceOpWithNewOp<emitc::CallOpaqueOp>(op, op.getType(), "kv_bits_to_f32", bits);
      return success();
    }
    if (!op.getIn().getType().isF32() || !op.getType().isSignlessInteger(32))
      return rewriter.notifyMatchFailure(op, "only between f32 and i32, and from i16, is known");
    Value bits = emitc::CallOpaqueOp::create(rewriter, op.getLoc(), word, "kv_f32_to_bits", in.getIn()).getResult(0);
    rewriter.replaceOpWithNewOp<emitc::CastOp>(op, op.getType(), bits);
    return success();
  }
};

/// EmitC prints an infinity as a macro of a header; its bits need none.
struct InfinityPattern : OpConversionPattern<arith::ConstantOp> {
  InfinityPattern(const TypeConverter &converter, MLIRContext *context)
      : OpConversionPattern(converter, context, /*benefit=*/2) {}
  LogicalResult matchAndRewrite(arith::ConstantOp op, OpAdaptor, ConversionPatternRewriter &rewriter) const override {
    auto value = dyn_cast<FloatAttr>(op.getValue());
    if (!value || !value.getType().isF32() || value.getValue().isFinite())
      return failure();
    auto bits =
        rewriter.getIntegerAttr(rewriter.getIntegerType(32, /*isSigned=*/false), value.getValue().bitcastToAPInt());
    Value word = emitc::ConstantOp::create(rewriter, op.getLoc(), bits.getType(), bits);
    rewriter.replaceOpWithNewOp<emitc::CallOpaqueOp>(op, op.getType(), "kv_bits_to_f32", ValueRange{word});
    return success();
  }
};

/// Workgroup buffers get the prelude's qualifier, which stands before the declaration that follows.
struct AllocaPattern : OpConversionPattern<memref::AllocaOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(memref::AllocaOp op, OpAdaptor, ConversionPatternRewriter &rewriter) const override {
    auto space = dyn_cast_or_null<gpu::AddressSpaceAttr>(op.getType().getMemorySpace());
    Type type = getTypeConverter()->convertType(op.getType());
    if (!space || !isa_and_nonnull<emitc::ArrayType>(type))
      return rewriter.notifyMatchFailure(op, "only static workgroup and private buffers are known");
    if (space.getValue() == gpu::AddressSpace::Workgroup)
      emitc::VerbatimOp::create(rewriter, op.getLoc(), rewriter.getStringAttr("KV_SHARED"));
    auto none = emitc::OpaqueAttr::get(getContext(), "");
    rewriter.replaceOpWithNewOp<emitc::VariableOp>(op, type, none);
    return success();
  }
};

/// memory[i][j] of a pointer or an array.
Value subscript(OpBuilder &b, Location loc, Value memory, ValueRange indices) {
  if (auto array = dyn_cast<TypedValue<emitc::ArrayType>>(memory))
    return emitc::SubscriptOp::create(b, loc, array, indices);
  return emitc::SubscriptOp::create(b, loc, cast<TypedValue<emitc::PointerType>>(memory), indices[0]);
}

struct ViewPattern : OpConversionPattern<memref::ViewOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(memref::ViewOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    Type type = getTypeConverter()->convertType(op.getType());
    Value byte = subscript(rewriter, op.getLoc(), in.getSource(), in.getByteShift());
    Value at = emitc::AddressOfOp::create(rewriter, op.getLoc(), in.getSource().getType(), byte);
    rewriter.replaceOpWithNewOp<emitc::CastOp>(op, type, at);
    return success();
  }
};

struct LoadPattern : OpConversionPattern<memref::LoadOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(memref::LoadOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    Value place = subscript(rewriter, op.getLoc(), in.getMemref(), in.getIndices());
    rewriter.replaceOpWithNewOp<emitc::LoadOp>(op, getTypeConverter()->convertType(op.getType()), place);
    return success();
  }
};

struct StorePattern : OpConversionPattern<memref::StoreOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(memref::StoreOp op, OpAdaptor in, ConversionPatternRewriter &rewriter) const override {
    Value place = subscript(rewriter, op.getLoc(), in.getMemref(), in.getIndices());
    rewriter.replaceOpWithNewOp<emitc::AssignOp>(op, place, in.getValue());
    return success();
  }
};

/// Memory as the pointer it becomes, and back.
struct CastPattern : OpConversionPattern<UnrealizedConversionCastOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(UnrealizedConversionCastOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    if (op->getNumOperands() != 1 || op->getNumResults() != 1 ||
        in.getInputs()[0].getType() != getTypeConverter()->convertType(op.getResultTypes()[0]))
      return rewriter.notifyMatchFailure(op, "only memory as a pointer is known");
    rewriter.replaceOp(op, in.getInputs());
    return success();
  }
};

struct SpaceCastPattern : OpConversionPattern<memref::MemorySpaceCastOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(memref::MemorySpaceCastOp op, OpAdaptor in,
                                ConversionPatternRewriter &rewriter) const override {
    if (in.getSource().getType() != getTypeConverter()->convertType(op.getType()))
      return rewriter.notifyMatchFailure(op, "only memory of unknown extent is known");
    rewriter.replaceOp(op, in.getSource());
    return success();
  }
};

struct DynamicSharedPattern : OpConversionPattern<gpu::DynamicSharedMemoryOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(gpu::DynamicSharedMemoryOp op, OpAdaptor,
                                ConversionPatternRewriter &rewriter) const override {
    rewriter.replaceOpWithNewOp<emitc::CallOpaqueOp>(op, getTypeConverter()->convertType(op.getType()),
                                                     "kv_dynamic_shared", ValueRange());
    return success();
  }
};

/// Operations on indices, which are size_t, that upstream has for integers only.
template <typename Op, typename EmitcOp> struct IndexPattern : OpConversionPattern<Op> {
  using OpConversionPattern<Op>::OpConversionPattern;
  LogicalResult matchAndRewrite(Op op, typename Op::Adaptor in, ConversionPatternRewriter &rewriter) const override {
    if (!op.getType().isIndex())
      return failure();
    rewriter.replaceOpWithNewOp<EmitcOp>(op, in.getLhs().getType(), in.getLhs(), in.getRhs());
    return success();
  }
};

/// Shifts by a constant below the width, which need no guard.
template <typename Op, typename EmitcOp> struct ShiftPattern : OpConversionPattern<Op> {
  ShiftPattern(const TypeConverter &converter, MLIRContext *context)
      : OpConversionPattern<Op>(converter, context, /*benefit=*/2) {}
  LogicalResult matchAndRewrite(Op op, typename Op::Adaptor in, ConversionPatternRewriter &rewriter) const override {
    APInt amount;
    auto type = dyn_cast<IntegerType>(op.getType());
    if (!type || !matchPattern(op.getRhs(), m_ConstantInt(&amount)) || amount.uge(type.getWidth()))
      return failure();
    Type word = IntegerType::get(op.getContext(), type.getWidth(), IntegerType::Unsigned);
    Value shifted = emitc::CastOp::create(rewriter, op.getLoc(), word, in.getLhs());
    shifted = EmitcOp::create(rewriter, op.getLoc(), word, shifted, in.getRhs());
    rewriter.replaceOpWithNewOp<emitc::CastOp>(op, type, shifted);
    return success();
  }
};

struct FuncPattern : OpConversionPattern<func::FuncOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(func::FuncOp op, OpAdaptor, ConversionPatternRewriter &rewriter) const override {
    auto threads = op->getAttrOfType<IntegerAttr>(kvcc::kThreadsAttrName);
    if (!threads || op.getNumResults())
      return rewriter.notifyMatchFailure(op, "only kernels (kv.threads, no results) are known");
    TypeConverter::SignatureConversion signature(op.getNumArguments());
    if (failed(getTypeConverter()->convertSignatureArgs(op.getArgumentTypes(), signature)))
      return failure();
    auto type = rewriter.getFunctionType(signature.getConvertedTypes(), {});
    auto kernel = emitc::FuncOp::create(rewriter, op.getLoc(), op.getName(), type);
    // 256 threads of a multiprocessor leave each 255 registers.
    auto wanted = op->getAttrOfType<IntegerAttr>(kvcc::kBlocksAttrName);
    int64_t blocks = wanted ? wanted.getInt() : std::max<int64_t>(256 / threads.getInt(), 1);
    std::string specifier = "KV_KERNEL(" + std::to_string(threads.getInt()) + ", " + std::to_string(blocks) + ")";
    kernel.setSpecifiersAttr(rewriter.getStrArrayAttr({specifier}));
    rewriter.inlineRegionBefore(op.getBody(), kernel.getBody(), kernel.end());
    if (failed(rewriter.convertRegionTypes(&kernel.getBody(), *getTypeConverter(), &signature)))
      return failure();
    rewriter.eraseOp(op);
    return success();
  }
};

struct ReturnPattern : OpConversionPattern<func::ReturnOp> {
  using OpConversionPattern::OpConversionPattern;
  LogicalResult matchAndRewrite(func::ReturnOp op, OpAdaptor, ConversionPatternRewriter &rewriter) const override {
    rewriter.replaceOpWithNewOp<emitc::ReturnOp>(op, Value());
    return success();
  }
};

void populateTypes(TypeConverter &converter) {
  converter.addConversion([](Type type) -> std::optional<Type> {
    if (emitc::isSupportedEmitCType(type) && !type.isF16() && !type.isBF16())
      return type;
    return std::nullopt;
  });
  populateEmitCSizeTTypeConversions(converter);
  converter.addConversion([](FloatType type) -> std::optional<Type> {
    if (type.isF16() || type.isBF16())
      return IntegerType::get(type.getContext(), 16, IntegerType::Unsigned);
    return type;
  });
  // Cache memory is reached through pointers, buffers of the kernel are arrays.
  converter.addConversion([&converter](MemRefType type) -> std::optional<Type> {
    Type element = converter.convertType(type.getElementType());
    if (!element)
      return std::nullopt;
    if (type.getMemorySpace() && type.hasStaticShape()) {
      SmallVector<int64_t> shape(type.getShape());
      // Rows of a matrix may be padded.
      auto layout = dyn_cast<StridedLayoutAttr>(type.getLayout());
      if (layout && type.getRank() == 2 && layout.getOffset() == 0 && layout.getStrides().back() == 1 &&
          layout.getStrides().front() >= shape.back())
        shape.back() = layout.getStrides().front();
      else if (!type.getLayout().isIdentity())
        return std::nullopt;
      return emitc::ArrayType::get(shape, element);
    }
    if (!type.getLayout().isIdentity())
      return std::nullopt;
    if (type.getRank() != 1)
      return std::nullopt;
    return emitc::PointerType::get(element);
  });
}

struct ConvertGpuToEmitcPass : kvcc::impl::ConvertGpuToEmitcPassBase<ConvertGpuToEmitcPass> {
  void runOnOperation() override {
    // The pragma stands before the loop that follows it. Variables of iter_args would come between.
    WalkResult result = getOperation().walk([](scf::ForOp loop) {
      Attribute unroll = loop->removeAttr(kvcc::kUnrollAttrName);
      if (!unroll)
        return WalkResult::advance();
      if (loop.getNumRegionIterArgs()) {
        loop.emitError("expected kv.unroll on a loop without iter_args, but got ") << loop.getNumRegionIterArgs();
        return WalkResult::interrupt();
      }
      OpBuilder b(loop);
      auto count = dyn_cast<IntegerAttr>(unroll);
      std::string pragma = count ? "KV_UNROLL_BY(" + std::to_string(count.getInt()) + ")" : "KV_UNROLL";
      emitc::VerbatimOp::create(b, loop.getLoc(), b.getStringAttr(pragma));
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      return signalPassFailure();

    MLIRContext *context = &getContext();
    TypeConverter converter;
    populateTypes(converter);
    RewritePatternSet patterns(context);
    populateArithToEmitCPatterns(converter, patterns);
    populateSCFToEmitCConversionPatterns(patterns, converter);
    patterns
        .add<AllocaPattern, CastPattern, DynamicSharedPattern, ExtFPattern, FuncPattern, InfinityPattern, LoadPattern,
             ReturnPattern, ShufflePattern, SpaceCastPattern, StorePattern, TruncFPattern, ViewPattern>(converter,
                                                                                                        context);
    patterns.add<IndexPattern<arith::AndIOp, emitc::BitwiseAndOp>, IndexPattern<arith::DivUIOp, emitc::DivOp>,
                 IndexPattern<arith::RemUIOp, emitc::RemOp>>(converter, context);
    patterns.add<ShiftPattern<arith::ShRUIOp, emitc::BitwiseRightShiftOp>,
                 ShiftPattern<arith::ShLIOp, emitc::BitwiseLeftShiftOp>>(converter, context);
    patterns.add<CallPattern<gpu::BarrierOp>>(converter, context, "kv_barrier");
    patterns.add<BitcastPattern>(converter, context);
    patterns.add<CallPattern<math::AbsFOp>>(converter, context, "kv_abs");
    patterns.add<CallPattern<math::Exp2Op>>(converter, context, "kv_exp2");
    patterns.add<CallPattern<math::FmaOp>>(converter, context, "kv_fma");
    patterns.add<CallPattern<math::Log2Op>>(converter, context, "kv_log2");
    patterns.add<CallPattern<math::PowFOp>>(converter, context, "kv_pow");
    patterns.add<CallPattern<math::SqrtOp>>(converter, context, "kv_sqrt");
    patterns.add<CallPattern<arith::MaxNumFOp>>(converter, context, "kv_max");
    patterns.add<IdPattern<gpu::ThreadIdOp>>(converter, context, "kv_thread_id_", gpu::Dimension::x);
    patterns.add<IdPattern<gpu::BlockIdOp>>(converter, context, "kv_block_id_", gpu::Dimension::z);
    ConversionTarget legality(*context);
    // Whatever is left that is not EmitC fails the pass, at its location.
    legality.addLegalDialect<emitc::EmitCDialect>();
    legality.addLegalOp<ModuleOp>();
    if (failed(applyFullConversion(getOperation(), legality, std::move(patterns))))
      return signalPassFailure();
    // All other loops stay loops: the device compiler would unroll long ones, load for all iterations at
    // once, and spill.
    getOperation().walk([](emitc::ForOp loop) {
      if (isa_and_nonnull<emitc::VerbatimOp>(loop->getPrevNode()))
        return;
      OpBuilder b(loop);
      emitc::VerbatimOp::create(b, loop.getLoc(), b.getStringAttr("KV_NOUNROLL"));
    });
  }
};

} // namespace
