// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Level 1 of the kv dialect: what is done with a cache. No target, no loops.
#ifndef KVCC_DIALECT_KVOPS_TD
#define KVCC_DIALECT_KVOPS_TD

include "mlir/IR/OpBase.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "dialect/KvTypes.td"

class Kv_Op<string mnemonic, list<Trait> traits = []> : Op<Kv_Dialect, mnemonic, traits>;

def Kv_LayerOp : Kv_Op<"layer"> {
  let summary = "one attention layer of a model: facts, and how its cache is stored";
  let description = [{
    Stands in a module, one for each layer with keys and values. What passes need to know is there as attributes, and
    what they decide is written down as attributes: `key`, `value` and `window` by `kv-choose-layout`,
    `kv-choose-windows` and `kv-choose-modes`, with the `reasons`. What is there already stays. A table of schemes
    for a model is a module of layers with these three and, if one likes, without the facts.

    `reach` says which earlier tokens count: all (`full`), the last `window_tokens` ones (`sliding`), or those of the
    current chunk (`chunked`). `scale` multiplies q.k, `softcap` bounds the logits, `sink_logits`: one learned logit per
    query head joins the softmax; `no_rope`: positions are not rotated in. `key_bias`: the projection of keys has a bias; `qk_norm`: queries and keys are
    normalized; `unserved`: why the decode kernels do not compute this layer. `measured` comes from a profile.
    `open` lists the sides whose modes are still to be chosen.

    Constraints:
    - (C1) index is not negative;
    - (C2) q_heads, kv_heads, head_dim and dtype are all there or none of them is;
    - (C3) q_heads is a multiple of kv_heads;
    - (C4) the facts are those of a cache, and with key, value and window make a valid one, see `!kv.cache`;
    - (C5) window_tokens are there and positive exactly if reach is not full;
    - (C6) measured is a list of `#kv.measured`, open of "key" and "value", for sides that are there.

    Example: `kv.layer 0 {q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f16}`.
  }];
  let arguments = (ins I64Attr:$index, OptionalAttr<I64Attr>:$q_heads, OptionalAttr<I64Attr>:$kv_heads,
                       OptionalAttr<I64Attr>:$head_dim, OptionalAttr<TypeAttr>:$dtype,
                       OptionalAttr<Kv_ReachAttr>:$reach, OptionalAttr<I64Attr>:$window_tokens, OptionalAttr<F64Attr>:$scale,
                       OptionalAttr<F64Attr>:$softcap, UnitAttr:$sink_logits, UnitAttr:$no_rope, UnitAttr:$key_bias,
                       UnitAttr:$qk_norm, OptionalAttr<StrAttr>:$unserved, OptionalAttr<ArrayAttr>:$measured,
                       OptionalAttr<Kv_QuantAttr>:$key, OptionalAttr<Kv_QuantAttr>:$value,
                       OptionalAttr<Kv_WindowAttr>:$window, OptionalAttr<StrArrayAttr>:$open,
                       OptionalAttr<DictionaryAttr>:$reasons);
  let assemblyFormat = "$index attr-dict";
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// The tokens that the cache of the layer holds at a context.
    int64_t getHeldTokens(int64_t context);
    /// The cache of the layer once everything is chosen.
    ::kvcc::kv::CacheType getCacheType();
    bool isOpen(::kvcc::kv::Role role);
    ::kvcc::kv::QuantAttr getQuant(::kvcc::kv::Role role);
    void setQuant(::kvcc::kv::Role role, ::kvcc::kv::QuantAttr quant);
    void addReason(::llvm::StringRef pass, const ::llvm::Twine &reason);
  }];
}

def Kv_AttendOp : Kv_Op<"attend", [Pure]> {
  let summary = "one decode step of attention over a cache";
  let description = [{
    softmax(scale * q k^T) v per query head over the tokens of the sequence that the query reaches; query head h reads
    KV head h / (q_heads / kv_heads). `lse` is the natural logarithm of the sum of exp of the logits. A
    sequence of no tokens gives out = 0 and lse = -inf. Several queries of a sequence are those of its last tokens:
    query i of n sees all but the last n-1-i tokens.

    `softcap` c makes a logit x = scale * q.k c * tanh(x / c). `reach` says which of these tokens a query, that of the
    last of T, reaches: all (`full`, the default), the last `window_tokens` ones (`sliding`), or those from
    window_tokens * floor((T - 1) / window_tokens) on (`chunked`). `sinks` is a logit for each query head that joins the
    softmax without a value: lse has it, too.

    `key_scales` and `value_scales` (written by `kv-place-scales`) say where a scale is multiplied in;
    `schedule` (written by `kv-plan-schedule`) how the work is done.

    Constraints:
    - (C1) q is [batch, q_heads, head_dim] or [batch, queries, q_heads, head_dim] of f16, bf16 or f32;
    - (C2) q_heads is a multiple of the cache's kv_heads;
    - (C3) q's head_dim is the cache's;
    - (C4) out has the shape of q and is f32 or of q's elements;
    - (C5) lse has the shape of q without head_dim and is f32;
    - (C6) scale is positive and finite;
    - (C7) the heads of the schedule divide the group, q_heads / kv_heads;
    - (C8) softcap is positive and finite;
    - (C9) window_tokens are there and positive exactly if reach is not full;
    - (C10) sinks are [q_heads].
  }];
  let arguments = (ins AnyTypeOf<[RankedTensorOf<[F16, BF16, F32]>]>:$query, Kv_CacheType:$cache,
                       Optional<RankedTensorOf<[F32]>>:$sinks, F64Attr:$scale, OptionalAttr<F64Attr>:$softcap,
                       OptionalAttr<Kv_ReachAttr>:$reach, OptionalAttr<I64Attr>:$window_tokens,
                       OptionalAttr<Kv_PlacementAttr>:$key_scales,
                       OptionalAttr<Kv_PlacementAttr>:$value_scales,
                       OptionalAttr<Kv_ScheduleAttr>:$schedule);
  let results = (outs RankedTensorOf<[F32, F16, BF16]>:$out, RankedTensorOf<[F32]>:$lse);
  let assemblyFormat = [{
    $query `,` $cache (`sinks` $sinks^)? attr-dict `:` type($query) `,` type($cache) (`sinks` type($sinks)^)? `->`
    type($out) `,` type($lse)
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    int64_t getQueryHeads() {
      auto shape = ::mlir::cast<::mlir::RankedTensorType>(getQuery().getType()).getShape();
      return shape[shape.size() - 2];
    }
  }];
}

def Kv_AppendOp : Kv_Op<"append", [Pure]> {
  let summary = "a cache with new tokens at the end of its sequences";
  let description = [{
    The new tokens enter the windows; blocks that leave the recent one are quantized. With the first tokens of a
    sequence (its prefill) the cache begins: what transforms need to know of channels is measured on these tokens.
    However the tokens of a sequence are cut into appends after that, the cache is the same, bit for bit.

    `schedule` (written by `kv-plan-schedule`) says where everything lies; it is that of the kv.attend that reads the
    cache.

    Constraints:
    - (C1) key and value are [batch, kv_heads, tokens, head_dim] of one type and shape;
    - (C2) kv_heads and head_dim are the cache's;
    - (C3) the result has the type of the cache;
    - (C4) the elements have the dtype of the cache.
  }];
  let arguments = (ins RankedTensorOf<[F16, BF16, F32]>:$key, RankedTensorOf<[F16, BF16, F32]>:$value,
                       Kv_CacheType:$cache, OptionalAttr<Kv_ScheduleAttr>:$schedule);
  let results = (outs Kv_CacheType:$result);
  let assemblyFormat = [{
    $key `,` $value `into` $cache attr-dict `:` type($key) `,` type($value) `into` type($cache) `->`
    type($result)
  }];
  let hasVerifier = 1;
}

def Kv_MergeOp : Kv_Op<"merge", [Pure]> {
  let summary = "partial attention results over disjoint sets of tokens, merged";
  let description = [{
    out = sum_i exp(lse_i) out_i / sum_i exp(lse_i) and lse = log sum_i exp(lse_i) over the leading
    dimension. Parts without tokens have lse = -inf and do not count.

    Constraints:
    - (C1) outs is [parts, batch, q_heads, head_dim], lses is [parts, batch, q_heads];
    - (C2) out and lse are outs and lses without the leading dimension.
  }];
  let arguments = (ins RankedTensorOf<[F32]>:$outs, RankedTensorOf<[F32]>:$lses);
  let results = (outs RankedTensorOf<[F32]>:$out, RankedTensorOf<[F32]>:$lse);
  let assemblyFormat = [{
    $outs `,` $lses attr-dict `:` type($outs) `,` type($lses) `->` type($out) `,` type($lse)
  }];
  let hasVerifier = 1;
}

#endif
