// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Level 1 of the kv dialect: what is done with a cache. No target, no loops.
#ifndef KVCC_DIALECT_KVOPS_TD
#define KVCC_DIALECT_KVOPS_TD

include "mlir/IR/OpBase.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "dialect/KvTypes.td"

class Kv_Op<string mnemonic, list<Trait> traits = []> : Op<Kv_Dialect, mnemonic, traits>;

def Kv_AttendOp : Kv_Op<"attend", [Pure]> {
  let summary = "one decode step of attention over a cache";
  let description = [{
    softmax(scale * q k^T) v per query head over all tokens of the sequence; query head h reads KV head
    h / (q_heads / kv_heads). `lse` is the natural logarithm of the sum of exp of the scaled logits. A
    sequence of no tokens gives out = 0 and lse = -inf.

    `key_scales` and `value_scales` (written by `kv-place-scales`) say where a scale is multiplied in;
    `schedule` (written by `kv-plan-schedule`) how the work is done.

    Constraints:
    - (C1) q is [batch, q_heads, head_dim] of f16, bf16 or f32;
    - (C2) q_heads is a multiple of the cache's kv_heads;
    - (C3) q's head_dim is the cache's;
    - (C4) out has the shape of q and is f32;
    - (C5) lse is [batch, q_heads] of f32;
    - (C6) scale is positive and finite;
    - (C7) the heads of the schedule divide the group, q_heads / kv_heads.
  }];
  let arguments = (ins AnyTypeOf<[RankedTensorOf<[F16, BF16, F32]>]>:$query, Kv_CacheType:$cache,
                       F64Attr:$scale, OptionalAttr<Kv_PlacementAttr>:$key_scales,
                       OptionalAttr<Kv_PlacementAttr>:$value_scales,
                       OptionalAttr<Kv_ScheduleAttr>:$schedule);
  let results = (outs RankedTensorOf<[F32]>:$out, RankedTensorOf<[F32]>:$lse);
  let assemblyFormat = [{
    $query `,` $cache attr-dict `:` type($query) `,` type($cache) `->` type($out) `,` type($lse)
  }];
  let hasVerifier = 1;
}

def Kv_AppendOp : Kv_Op<"append", [Pure]> {
  let summary = "a cache with new tokens at the end of its sequences";
  let description = [{
    The new tokens enter the recent window; blocks that leave it are quantized.

    Constraints:
    - (C1) key and value are [batch, kv_heads, tokens, head_dim] of one type and shape;
    - (C2) kv_heads and head_dim are the cache's;
    - (C3) the result has the type of the cache.
  }];
  let arguments = (ins RankedTensorOf<[F16, BF16, F32]>:$key, RankedTensorOf<[F16, BF16, F32]>:$value,
                       Kv_CacheType:$cache);
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
