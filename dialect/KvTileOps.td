// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Level 2 of the kv dialect: tile operations over blocks of 32 tokens, shared by all targets.
#ifndef KVCC_DIALECT_KVTILEOPS_TD
#define KVCC_DIALECT_KVTILEOPS_TD

include "dialect/KvOps.td"

class Kv_TileOp<string mnemonic, list<Trait> traits = []> : Kv_Op<"tile." # mnemonic, traits>;

def Kv_Tile : VectorOfRankAndType<[2], [AnyFloat, AnyInteger]>;
def Kv_F32Tile : VectorOfRankAndType<[2], [F32]>;
def Kv_Bytes : MemRefRankOf<[I8], [1]>;
def Kv_Floats : MemRefRankOf<[F32], [1]>;
def Kv_Numbers : MemRefRankOf<[F16, BF16, F32], [1]>;

def Kv_TileLoadQueryOp : Kv_TileOp<"load_query", [MemoryEffects<[MemRead]>]> {
  let summary = "heads x channels of the query, times a constant";
  let description = [{
    Reads heads * head_dim consecutive elements from `offset` on and multiplies them by `scale` (the
    softmax scale and log2(e), so that logits are powers of two). With `queries`, rows are `heads` heads of one query
    after the other, queries are `stride` elements apart, and only `queries` of them are there: the other rows are not
    read and hold any numbers.

    Constraint: (C1) queries, heads and stride are all there or none of them is, and heads divides the rows.
  }];
  let arguments = (ins MemRefRankOf<[F16, BF16, F32], [1]>:$source, Index:$offset, F32Attr:$scale,
                       Optional<Index>:$queries, OptionalAttr<I64Attr>:$heads, OptionalAttr<I64Attr>:$stride);
  let results = (outs Kv_F32Tile:$result);
  let assemblyFormat = [{
    $source `[` $offset `]` `scale` $scale (`queries` $queries^ `heads` $heads `stride` $stride)? attr-dict `:`
    type($source) `->` type($result)
  }];
  let builders = [
    OpBuilder<(ins "::mlir::Type":$result, "::mlir::Value":$source, "::mlir::Value":$offset,
                   "::mlir::FloatAttr":$scale), [{
      build($_builder, $_state, result, source, offset, scale, ::mlir::Value(), ::mlir::IntegerAttr(),
            ::mlir::IntegerAttr());
    }]>,
  ];
  let hasVerifier = 1;
}

def Kv_TileScaleChannelsOp : Kv_TileOp<"scale_channels", [MemoryEffects<[MemRead]>]> {
  let summary = "a tile times one factor per channel";
  let description = [{
    Folds a diagonal transform of the keys into the query. The factors are f32 at byte `offset` of the cache.
    Constraint: (C1) the result has the type of the tile.
  }];
  let arguments = (ins Kv_F32Tile:$tile, Kv_Bytes:$factors, Index:$offset);
  let results = (outs Kv_F32Tile:$result);
  let assemblyFormat = [{
    $tile `,` $factors `[` $offset `]` attr-dict `:` type($tile) `,` type($factors) `->` type($result)
  }];
  let hasVerifier = 1;
}

def Kv_TileDotChannelsOp : Kv_TileOp<"dot_channels", [MemoryEffects<[MemRead]>]> {
  let summary = "the product of each row of a tile with a vector of the cache";
  let description = [{
    result[h, 0] = sum over channels of tile[h, c] * vector[c], times `scale` if there is one: what centred keys lack in
    every logit. The vector is f32 at byte `offset`. Constraint: (C1) the result is rows of the tile x 1.
  }];
  let arguments = (ins Kv_F32Tile:$tile, Kv_Bytes:$vector, Index:$offset, OptionalAttr<F32Attr>:$scale);
  let results = (outs Kv_F32Tile:$result);
  let assemblyFormat = [{
    $tile `,` $vector `[` $offset `]` (`scale` $scale^)? attr-dict `:` type($tile) `,` type($vector) `->` type($result)
  }];
  let hasVerifier = 1;
}

def Kv_TileRotateOp : Kv_TileOp<"rotate", [Pure]> {
  let summary = "blocks of channels of each row, times the normalized Hadamard matrix";
  let description = [{
    Rotates the query like the keys. Constraints:
    - (C1) the result has the type of the tile;
    - (C2) size is a power of two from 16 to 256 that divides the columns.
  }];
  let arguments = (ins Kv_F32Tile:$tile, I64Attr:$size);
  let results = (outs Kv_F32Tile:$result);
  let assemblyFormat = "$tile `size` $size attr-dict `:` type($tile) `->` type($result)";
  let hasVerifier = 1;
}

def Kv_TileFoldOp : Kv_TileOp<"fold", [Pure]> {
  let summary = "the small operand of a product, times scales that every reduced index has of its own";
  let description = [{
    For scales placed at `operand`: a block's elements of one free group f (free indices that share scales)
    need small[h, r] * scale[f, r]. The result has a row per (free group, row of the tile), groups outermost.
    `offsets` are sum over r of small[h, r] * (zero[f, r] + middle * scale[f, r]): the product is then with
    codes that count from `middle`, which are half as large and so are its rounding errors. Token norms are scales with one free group: of values
    they multiply the weights, of keys the logits.

    Constraints:
    - (C1) scales are a block of a scale's type with as many reduced indices as the tile has columns;
    - (C2) the result has (free groups * rows) x columns of the tile's type, f32 or halves, or bf16 of f32; offsets one
      column;
    - (C3) offsets are there exactly if zeros are, and zeros have the type of scales, f16 or bf16.
  }];
  let arguments = (ins Kv_Tile:$tile, Kv_BlockType:$scales, Optional<Kv_BlockType>:$zeros,
                       DefaultValuedAttr<I64Attr, "0">:$middle);
  let results = (outs Kv_Tile:$result, Optional<Kv_F32Tile>:$offsets);
  let assemblyFormat = [{
    $tile `,` $scales (`zeros` $zeros^ `middle` $middle)? attr-dict `:` type($tile) `,` type($scales)
    (`zeros` type($zeros)^)? `->` type($result) (`offsets` type($offsets)^)?
  }];
  let hasVerifier = 1;
}

def Kv_TilePrepareOp : Kv_TileOp<"prepare", [Pure]> {
  let summary = "the small operand of a product with codes, with the sums its zero codes need";
  let description = [{
    Cuts each row into groups of `group` elements. `sums` holds the sum of each group: sum(x * (code - o))
    = sum(x * code) - o * sum(x). With an integer result each group is rounded with a scale of its own
    (max / 127 for i8, max / 255 for ui8, max / 32639 for i16), and sums are those of the rounded numbers
    times their scale. With a result of halves each row is rounded with a power of two of its own, and a scale is this
    power times `factor`; `elements` says what codes the halves will multiply, at whose bits they aim (see
    codegen/cuda/README.md). Halves stay as they are. bf16, whose exponents are those of f32, need no powers of
    two: on a CPU each number is rounded, sums are those of the tile, and a scale, if there are any, is `factor`.

    Constraints:
    - (C1) `values` has the shape of the tile and is f32, i8, ui8, i16, f16 or bf16; a tile of halves gives halves;
    - (C2) group divides the columns; sums are rows x columns/group, scales too, or of halves rows x 1;
    - (C3) scales are there exactly if values are integers or f16 that were rounded; with such bf16 they may be.
  }];
  let arguments = (ins Kv_Tile:$tile, I64Attr:$group, OptionalAttr<TypeAttr>:$elements, OptionalAttr<F32Attr>:$factor);
  let results = (outs Kv_Tile:$values, Kv_F32Tile:$sums, Optional<Kv_F32Tile>:$scales);
  let assemblyFormat = [{
    $tile `group` $group (`for` $elements^)? (`factor` $factor^)? attr-dict `:` type($tile) `->` type($values) `,`
    type($sums) (`,` type($scales)^)?
  }];
  let builders = [
    OpBuilder<(ins "::mlir::Type":$values, "::mlir::Type":$sums, "::mlir::Type":$scales, "::mlir::Value":$tile,
                   "::mlir::IntegerAttr":$group), [{
      build($_builder, $_state, values, sums, scales, tile, group, ::mlir::TypeAttr(), ::mlir::FloatAttr());
    }]>,
  ];
  let hasVerifier = 1;
}

def Kv_TileLoadOp : Kv_TileOp<"load", [MemoryEffects<[MemRead]>]> {
  let summary = "a block of codes, scales or numbers of the cache";
  let description = [{
    The block begins at byte `offset`. Codes have their real width:
    `!kv.block<key, 32x128xi3, packing = <16x32, lanes = 64>>`.
  }];
  let arguments = (ins Kv_Bytes:$source, Index:$offset);
  let results = (outs Kv_BlockType:$result);
  let assemblyFormat = "$source `[` $offset `]` attr-dict `:` type($source) `->` type($result)";
}

def Kv_TileScoreOp : Kv_TileOp<"score", [Pure, AttrSizedOperandSegments]> {
  let summary = "logits of a block: query times keys";
  let description = [{
    result[h, t] = sum over channels of q[h, c] * key[t, c], the scales multiplied in at `placement`. With
    `zeros`, an element is code * scale + zero, or with `hybrid` only where the scale is negative, |scale|
    then, and symmetric elsewhere. With placement `operand` the query has been folded with the scales, and
    has a row per (group of keys that share scales, head); `offsets` are added to the logits.

    Constraints:
    - (C1) query is rows x head_dim, keys a key block 32 x head_dim, the result heads x 32;
    - (C2) keys that are codes have scales, a placement other than none, and, unless the query is of halves and there are
      no zeros, sums; other keys do not;
    - (C3) query_scales are there exactly if the query is of integers, or of f16: heads x 1 then, and may be with bf16;
    - (C4) the query is f32, f16, or bf16 or, times codes, i8, ui8 or i16;
    - (C5) scales are a key block of a scale's type whose extents divide those of keys; every token has scales
      of its own with `accumulator` and `result`, every channel with `operand`;
    - (C6) the rows of the query are heads, with `operand` (tokens of scales * heads); query_sums and
      query_scales are rows x channels of scales, or x 1 with `operand`;
    - (C7) zeros have the type of scales, f16 or bf16, `hybrid` needs zeros, neither goes with `operand`, and
      only there are offsets (rows of the query x 1);
    - (C8) `ahead`, its offset and its bytes, which are positive, come together: memory that is needed soon, for targets
      that can ask for it while they multiply. It changes nothing.
  }];
  let arguments = (ins Kv_Tile:$query, Kv_BlockType:$keys, Optional<Kv_BlockType>:$scales,
                       Optional<Kv_BlockType>:$zeros,
                       Optional<Kv_F32Tile>:$query_sums, Optional<Kv_F32Tile>:$query_scales,
                       Optional<Kv_F32Tile>:$offsets, Kv_PlacementAttr:$placement, UnitAttr:$hybrid,
                       Optional<Kv_Bytes>:$ahead, Optional<Index>:$ahead_offset, OptionalAttr<I64Attr>:$ahead_bytes);
  let results = (outs Kv_F32Tile:$result);
  let assemblyFormat = [{
    $query `,` $keys (`scales` $scales^)? (`zeros` $zeros^)? (`hybrid` $hybrid^)? (`sums` $query_sums^)?
    (`query_scales` $query_scales^)? (`offsets` $offsets^)? `placement` $placement
    (`ahead` $ahead^ `[` $ahead_offset `]` `bytes` $ahead_bytes)? attr-dict `:` type($query)
    `,` type($keys) (`,` `scales` type($scales)^)? (`zeros` type($zeros)^)? (`,` `sums` type($query_sums)^)?
    (`query_scales` type($query_scales)^)? (`offsets` type($offsets)^)? (`ahead` type($ahead)^)?
    `->` type($result)
  }];
  let hasVerifier = 1;
}

def Kv_TileMaskOp : Kv_TileOp<"mask", [Pure, AttrSizedOperandSegments]> {
  let summary = "logits of a block without those of tokens before `from` and from `valid` on";
  let description = [{
    Tokens are counted as `first` is, the first of the block. What is not seen gets a logit of -1e30, or less. Rows of
    several queries, `heads` each, do not see the same tokens: with `later` queries after the first one, query i
    is d = max(later - i, 0) tokens behind the last, and sees the tokens from `from` - d on, before `valid` and before
    `end` - d.

    Constraints:
    - (C1) the result has the type of the tile;
    - (C2) end, later and heads are all there or none of them is, and heads divides the rows.
  }];
  let arguments = (ins Kv_F32Tile:$tile, Index:$first, Optional<Index>:$valid, Optional<Index>:$from,
                       Optional<Index>:$end, Optional<Index>:$later, OptionalAttr<I64Attr>:$heads);
  let results = (outs Kv_F32Tile:$result);
  let assemblyFormat = [{
    $tile `at` $first (`valid` $valid^)? (`from` $from^)? (`end` $end^ `later` $later `heads` $heads)? attr-dict `:` type($tile) `->`
    type($result)
  }];
  let hasVerifier = 1;
}

def Kv_TileSoftcapOp : Kv_TileOp<"softcap", [Pure]> {
  let summary = "logits, bounded";
  let description = [{
    cap * tanh((x + amount) / cap), with an amount per head or none. Constraints:
    - (C1) the result has the type of the tile;
    - (C2) the cap is positive and finite;
    - (C3) amounts are rows of the tile x 1.
  }];
  let arguments = (ins Kv_F32Tile:$tile, Optional<Kv_F32Tile>:$amounts, F32Attr:$cap);
  let results = (outs Kv_F32Tile:$result);
  let assemblyFormat = [{
    $tile (`plus` $amounts^)? `cap` $cap attr-dict `:` type($tile) (`plus` type($amounts)^)? `->` type($result)
  }];
  let hasVerifier = 1;
}

def Kv_TileInitStateOp : Kv_TileOp<"init_state", [MemoryEffects<[MemAlloc, MemWrite]>]> {
  let summary = "the state of an online softmax that has seen no token";
  let results = (outs Kv_StateType:$state);
  let assemblyFormat = "attr-dict `:` type($state)";
}

def Kv_TileSoftmaxStepOp : Kv_TileOp<"softmax_step", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "weights of a block; the state is rescaled to the new maximum";
  let description = [{
    m' = max(m, max of the logits); acc, sum *= 2^(m - m'); result = 2^(logits - m' + exponent); sum += the
    result's row sums. With weights of halves the maximum may stay up to 4 below the logits'.
    Constraint: (C1) logits are heads x 32 for the state's heads, weights f32, f16 or bf16.
  }];
  let arguments = (ins Kv_StateType:$state, Kv_F32Tile:$logits, DefaultValuedAttr<I64Attr, "0">:$exponent);
  let results = (outs Kv_Tile:$weights);
  let assemblyFormat =
      "$state `,` $logits (`exponent` $exponent^)? attr-dict `:` type($state) `,` type($logits) `->` type($weights)";
  let hasVerifier = 1;
}

def Kv_TileIsDominatedOp : Kv_TileOp<"is_dominated", [MemoryEffects<[MemRead]>]> {
  let summary = "whether a token of a block has a large share of all weight so far";
  let description = [{
    True if a weight of some head is more than `share` times the sum of that head's weights in `state`, which
    includes the block's.

    Constraint: (C1) weights have a row per head of the state and a column per token of a block.
  }];
  let arguments = (ins Kv_StateType:$state, Kv_F32Tile:$weights, F32Attr:$share);
  let results = (outs I1:$result);
  let assemblyFormat = "$state `,` $weights `share` $share attr-dict `:` type($state) `,` type($weights)";
  let hasVerifier = 1;
}

def Kv_TileAccumulateOp
    : Kv_TileOp<"accumulate", [MemoryEffects<[MemRead, MemWrite]>, AttrSizedOperandSegments]> {
  let summary = "adds weights times values to the state's output";
  let description = [{
    acc[h, c] += sum over tokens of weight[h, t] * value[t, c], the scales multiplied in at `placement`. Zeros,
    `hybrid`, folded weights and offsets are as for kv.tile.score. Weights of halves count codes in units of the
    element type (kv.tile.scale_state undoes it).

    Constraints:
    - (C1) weights are rows x 32, values a value block 32 x head_dim of the state;
    - (C2) values that are codes have scales, a placement other than none, and, unless the weights are halves and there
      are no zeros, sums; other values do not;
    - (C3) weight_scales are there exactly if the weights are integers;
    - (C4) the weights are f32, f16 or bf16 or, times codes, i8, ui8 or i16;
    - (C5) scales are a value block of a scale's type whose extents divide those of values; every channel has
      scales of its own with `accumulator` and `result`, every token with `operand`;
    - (C6) the rows of the weights are heads, with `operand` (channels of scales * heads); weight_sums and
      weight_scales are rows x tokens of scales, or x 1 with `operand`;
    - (C7) zeros have the type of scales, f16 or bf16, `hybrid` needs zeros, neither goes with `operand`, and
      only there are offsets (rows of the weights x 1);
    - (C8) `ahead` is as in kv.tile.score.
  }];
  let arguments = (ins Kv_StateType:$state, Kv_Tile:$weights, Kv_BlockType:$values,
                       Optional<Kv_BlockType>:$scales, Optional<Kv_BlockType>:$zeros,
                       Optional<Kv_F32Tile>:$weight_sums, Optional<Kv_F32Tile>:$weight_scales,
                       Optional<Kv_F32Tile>:$offsets, Kv_PlacementAttr:$placement, UnitAttr:$hybrid,
                       Optional<Kv_Bytes>:$ahead, Optional<Index>:$ahead_offset, OptionalAttr<I64Attr>:$ahead_bytes);
  let assemblyFormat = [{
    $state `,` $weights `,` $values (`scales` $scales^)? (`zeros` $zeros^)? (`hybrid` $hybrid^)?
    (`sums` $weight_sums^)? (`weight_scales` $weight_scales^)? (`offsets` $offsets^)? `placement` $placement
    (`ahead` $ahead^ `[` $ahead_offset `]` `bytes` $ahead_bytes)? attr-dict
    `:` type($state) `,` type($weights) `,` type($values) (`,` `scales` type($scales)^)?
    (`zeros` type($zeros)^)? (`,` `sums` type($weight_sums)^)? (`weight_scales` type($weight_scales)^)?
    (`offsets` type($offsets)^)? (`ahead` type($ahead)^)?
  }];
  let hasVerifier = 1;
}

def Kv_TileScaleStateOp : Kv_TileOp<"scale_state", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "the output that a state has summed, times a constant";
  let arguments = (ins Kv_StateType:$state, F32Attr:$factor);
  let assemblyFormat = "$state `by` $factor attr-dict `:` type($state)";
}

def Kv_TileShiftStateOp : Kv_TileOp<"shift_state", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "adds a number per head to every logit that the state has seen";
  let description = [{
    m += amount: what is summed is relative to the maximum. Constraint: (C1) amounts are heads of the
    state x 1.
  }];
  let arguments = (ins Kv_StateType:$state, Kv_F32Tile:$amounts);
  let assemblyFormat = "$state `,` $amounts attr-dict `:` type($state) `,` type($amounts)";
  let hasVerifier = 1;
}

def Kv_TileRestoreOp : Kv_TileOp<"restore", [MemoryEffects<[MemRead, MemWrite]>, AttrSizedOperandSegments]> {
  let summary = "undoes the transforms of the values in the state's output";
  let description = [{
    acc = (rotated back acc + sum * means) * factors, for the values that the state has seen. `size` is the
    block of the rotation, absent without one. Means and factors are f32 at byte offsets of the cache.

    Constraints:
    - (C1) size is a power of two from 16 to 256 that divides the channels of the state;
    - (C2) an offset is there exactly if its vector is.
  }];
  let arguments = (ins Kv_StateType:$state, Optional<Kv_Bytes>:$means, Optional<Index>:$means_offset,
                       Optional<Kv_Bytes>:$factors, Optional<Index>:$factors_offset,
                       OptionalAttr<I64Attr>:$size);
  let assemblyFormat = [{
    $state (`size` $size^)? (`means` $means^ `[` $means_offset `]`)? (`factors` $factors^ `[` $factors_offset `]`)?
    attr-dict `:` type($state) (`means` type($means)^)? (`factors` type($factors)^)?
  }];
  let hasVerifier = 1;
}

def Kv_TileJoinSinksOp : Kv_TileOp<"join_sinks", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "takes a logit per head, without a value, into the state";
  let description = [{
    The logits, as the model has them, stand from `offset` on. m' = max(m, log2(e) * logit); acc, sum *= 2^(m - m');
    sum += 2^(log2(e) * logit - m' + exponent). Row r of the state is of head r modulo `heads`. Constraint: (C1) heads
    divides the rows.
  }];
  let arguments = (ins Kv_StateType:$state, Kv_Floats:$sinks, Index:$offset, DefaultValuedAttr<I64Attr, "0">:$exponent,
                       I64Attr:$heads);
  let assemblyFormat = [{
    $state `,` $sinks `[` $offset `]` (`exponent` $exponent^)? `heads` $heads attr-dict `:` type($state) `,` type($sinks)
  }];
  let hasVerifier = 1;
}

def Kv_TileStoreResultOp
    : Kv_TileOp<"store_result", [MemoryEffects<[MemRead, MemWrite]>, AttrSizedOperandSegments]> {
  let summary = "writes out = acc / sum, rounded to its type, and lse = ln 2 * (m + log2 sum)";
  let description = [{
    heads x head_dim outputs from `out_offset` on, one lse per head from `lse_offset` on. A state that has
    seen no token gives out = 0 and lse = -inf. The states of all warps of the work item are merged. Sums are of weights
    times 2^exponent. Where `is_part` is true, what is a part of the result goes to `parts` instead, as f32: outputs from
    `part_offset` on, lses from `part_lse_offset` on. With `queries`, rows of the state are `heads` heads of one query
    after the other, whose results are `stride` rows apart, and only `queries` of them are there.

    Constraints:
    - (C1) parts have all of their operands or none;
    - (C2) queries, heads and stride are all there or none of them is, and heads divides the rows.
  }];
  let arguments = (ins Kv_StateType:$state, Kv_Numbers:$out, Index:$out_offset, Kv_Floats:$lse,
                       Index:$lse_offset, Optional<I1>:$is_part, Optional<Kv_Floats>:$parts,
                       Optional<Index>:$part_offset, Optional<Index>:$part_lse_offset, Optional<Index>:$queries,
                       DefaultValuedAttr<I64Attr, "0">:$exponent, OptionalAttr<I64Attr>:$heads,
                       OptionalAttr<I64Attr>:$stride);
  let assemblyFormat = [{
    $state `,` $out `[` $out_offset `]` `,` $lse `[` $lse_offset `]` (`exponent` $exponent^)?
    (`queries` $queries^ `heads` $heads `stride` $stride)?
    (`part` `if` $is_part^ `into` $parts `[` $part_offset `]` `,` `[` $part_lse_offset `]`)? attr-dict `:`
    type($state) `,` type($out) `,` type($lse) (`into` type($parts)^)?
  }];
  let hasVerifier = 1;
}

def Kv_TileMergeOp : Kv_TileOp<"merge", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "parts of a result, over disjoint tokens, merged";
  let description = [{
    Of `count` parts, part i has heads x head_dim outputs from `part_offset` + i * `rows` * head_dim on and an lse per
    head from `lse_offset` + i * `rows` on. The result goes to `out` and `lse` as from kv.tile.store_result. Parts without
    tokens have lse = -inf and do not count. With `queries`, there are the heads of so many queries, `stride` rows apart.

    Constraints:
    - (C1) heads and head_dim are positive, head_dim a multiple of 32;
    - (C2) queries and stride are both there or neither is.
  }];
  let arguments = (ins Kv_Floats:$parts, Index:$part_offset, Kv_Floats:$lses, Index:$lse_offset, Index:$count, Index:$rows,
                       Kv_Numbers:$out, Index:$out_offset, Kv_Floats:$lse, Index:$out_lse_offset,
                       Optional<Index>:$queries, I64Attr:$heads, I64Attr:$head_dim, OptionalAttr<I64Attr>:$stride);
  let assemblyFormat = [{
    $parts `[` $part_offset `]` `,` $lses `[` $lse_offset `]` `count` $count `rows` $rows `into` $out `[` $out_offset `]`
    `,` $lse `[` $out_lse_offset `]` `heads` $heads `x` $head_dim (`queries` $queries^ `stride` $stride)? attr-dict `:` type($parts) `,` type($lses) `into`
    type($out) `,` type($lse)
  }];
  let hasVerifier = 1;
}

def Kv_TileArriveOp : Kv_TileOp<"arrive", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "whether all other parts of a work item have arrived before this one";
  let description = [{
    `count` work items arrive at `counters`[`at`], an i32 that is zero before the first of them and after the last. What
    the others have stored before they arrived is seen by the last.
  }];
  let arguments = (ins MemRefRankOf<[I32], [1]>:$counters, Index:$at, Index:$count);
  let results = (outs I1:$is_last);
  let assemblyFormat = "$counters `[` $at `]` `of` $count attr-dict `:` type($counters)";
}

//===-- Warps ---------------------------------------------------------------------------------===//

def Kv_TileWarpOp : Kv_TileOp<"warp", [Pure]> {
  let summary = "which of the warps that share a work item this one is";
  let results = (outs Index:$result);
  let assemblyFormat = "attr-dict";
}

def Kv_TileAdvanceOp : Kv_TileOp<"advance", [Pure]> {
  let summary = "memory from an element on";
  let description = [{
    Where it begins is computed once and kept, rather than computed again where it is used. Constraint: (C1) the result
    has the type of the memory.
  }];
  let arguments = (ins AnyTypeOf<[Kv_Bytes, MemRefRankOf<[I32], [1]>]>:$memory, Index:$offset);
  let results = (outs AnyTypeOf<[Kv_Bytes, MemRefRankOf<[I32], [1]>]>:$result);
  let assemblyFormat = "$memory `[` $offset `]` attr-dict `:` type($memory) `->` type($result)";
  let hasVerifier = 1;
}

def Kv_TileRingOp : Kv_TileOp<"ring", [MemoryEffects<[MemAlloc]>]> {
  let summary = "memory of a warp for blocks on their way";
  let description = [{
    `stages` times `bytes` bytes. Constraint: (C1) stages are positive, bytes a positive multiple of 16.
  }];
  let arguments = (ins I64Attr:$stages, I64Attr:$bytes);
  let results = (outs Kv_Bytes:$memory);
  let assemblyFormat = "`stages` $stages `bytes` $bytes attr-dict `:` type($memory)";
  let hasVerifier = 1;
}

def Kv_TileFetchOp : Kv_TileOp<"fetch", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "starts to copy bytes of the cache into a ring";
  let description = [{
    Offsets are in bytes. Constraint: (C1) bytes are a positive multiple of 16.
  }];
  let arguments = (ins Kv_Bytes:$source, Index:$offset, Kv_Bytes:$ring, Index:$to, I64Attr:$bytes);
  let assemblyFormat = [{
    $source `[` $offset `]` `to` $ring `[` $to `]` `bytes` $bytes attr-dict `:` type($source) `to` type($ring)
  }];
  let hasVerifier = 1;
}

def Kv_TileCommitOp : Kv_TileOp<"commit", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "makes the copies that were started since the last one a group";
  let assemblyFormat = "attr-dict";
}

def Kv_TileAwaitOp : Kv_TileOp<"await", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "waits until at most `pending` groups of copies are on their way";
  let description = [{
    After it all lanes of the warp see what has arrived, and have done what they were to do before. Constraint: (C1)
    pending is not negative.
  }];
  let arguments = (ins I64Attr:$pending);
  let assemblyFormat = "`pending` $pending attr-dict";
  let hasVerifier = 1;
}

def Kv_TilePrefetchOp : Kv_TileOp<"prefetch", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "says that these bytes of the cache are loaded later";
  let description = [{
    They are on their way to where loads find them sooner, or what is needed to find them is; nothing waits for them.
    Constraint: (C1) bytes are a positive multiple of 16.
  }];
  let arguments = (ins Kv_Bytes:$source, Index:$offset, I64Attr:$bytes);
  let assemblyFormat = "$source `[` $offset `]` `bytes` $bytes attr-dict `:` type($source)";
  let hasVerifier = 1;
}

//===-- Writers ------------------------------------------------------------------------------===//
// A writer's tile holds 32 tokens x head_dim numbers, a row per token. Operations change it in place.

def Kv_TileScratchOp : Kv_TileOp<"scratch", [MemoryEffects<[MemAlloc]>]> {
  let summary = "memory for a writer's tile";
  let description = [{
    One for all blocks that a work item writes. Constraint: (C1) the tile has 32 rows.
  }];
  let results = (outs Kv_F32Tile:$tile);
  let assemblyFormat = "attr-dict `:` type($tile)";
  let hasVerifier = 1;
}

def Kv_TileGatherOp : Kv_TileOp<"gather", [MemoryEffects<[MemRead, MemWrite]>, AttrSizedOperandSegments]> {
  let summary = "the tokens of a block, from the windows and from the new tokens, less what a format takes from channels";
  let description = [{
    Rows up to `from` come from `block`, a block of the window, and hold nothing without one; rows from `from` to `to` come
    from `source`, row i at element `offset` + i * `stride`; those from `to` to `end` are zero. Each row that is there
    becomes row / factors - means, which are f32 at byte offsets of the cache: the inverse of kv.tile.restore, but for the
    rotation. An `oriented` tile is left in the form in which lanes that are tokens read it, which kv.tile.encode must know.

    Constraints:
    - (C1) the block is 32 x channels of the tile and holds numbers;
    - (C2) an offset is there exactly if its vector is.
  }];
  let arguments = (ins Kv_F32Tile:$tile, Optional<Kv_BlockType>:$block, Kv_Numbers:$source, Index:$offset,
                       Index:$stride, Index:$from, Index:$to, Index:$end, Optional<Kv_Bytes>:$means,
                       Optional<Index>:$means_offset, Optional<Kv_Bytes>:$factors, Optional<Index>:$factors_offset,
                       UnitAttr:$oriented);
  let assemblyFormat = [{
    $tile (`oriented` $oriented^)? (`window` $block^)? `,` $source `[` $offset `]` `stride` $stride `rows` $from `to` $to
    `end` $end (`means` $means^ `[` $means_offset `]`)? (`factors` $factors^ `[` $factors_offset `]`)? attr-dict `:`
    type($tile) (`window` type($block)^)? `,` type($source) (`means` type($means)^)? (`factors` type($factors)^)?
  }];
  let hasVerifier = 1;
}

def Kv_TileRotateRowsOp
    : Kv_TileOp<"rotate_rows", [MemoryEffects<[MemRead, MemWrite]>, AttrSizedOperandSegments]> {
  let summary = "kv.tile.rotate of rows of a tile, before numbers are quantized";
  let description = [{
    Of all rows, or of those from `from` to `to`: others may be lost then. Constraints:
    - (C1) size is a power of two from 16 to 256 that divides the columns;
    - (C2) `from` and `to` come together.
  }];
  let arguments = (ins Kv_F32Tile:$tile, Optional<Index>:$from, Optional<Index>:$to, I64Attr:$size);
  let assemblyFormat = "$tile (`rows` $from^ `to` $to)? `size` $size attr-dict `:` type($tile)";
  let hasVerifier = 1;
}

def Kv_TileNormalizeTokensOp : Kv_TileOp<"normalize_tokens", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "rows divided by their root mean square, which is stored";
  let description = [{
    See `#kv.token_norm`. Of rows from `from` to `to`; the norms of others stay as they are. That of a row of zeros is 1.
    Constraint: (C1) norms are a block of 32 x 1 of f16 or f8E8M0FNU.
  }];
  let arguments = (ins Kv_F32Tile:$tile, Kv_BlockType:$norms, Index:$from, Index:$to);
  let assemblyFormat = [{
    $tile `,` $norms `rows` $from `to` $to attr-dict `:` type($tile) `,` type($norms)
  }];
  let hasVerifier = 1;
}

def Kv_TileEncodeOp : Kv_TileOp<"encode", [MemoryEffects<[MemRead, MemWrite]>, AttrSizedOperandSegments]> {
  let summary = "a tile, written in a format";
  let description = [{
    Chooses scales (and zeros), rounds numbers to codes and packs them as the type of `data` says. With `from` and `to`,
    only the rows between them are written, and groups are of one token: what the block holds of others stays. A block
    begins as a whole: where `from` is 0, `to` is 32. With `weights`, and where `gives_weights` is not 0, rounding errors
    are fed back: channels x channels of them stand at element `weights_offset`, see kv::Feedback. The tile is `oriented`
    if it was gathered so. What it holds is lost.

    Constraints:
    - (C1) data is a block of 32 x columns of the tile of the format's element;
    - (C2) scales are there exactly if the format is quantized, with as many tokens and channels as there are groups, and
      zeros exactly if it has zeros, of the type of scales;
    - (C3) `from` and `to` come together, and only with groups of one token;
    - (C4) weights, their offset and `gives_weights` are there exactly if the format has feedback;
    - (C5) a tile is oriented only for lanes that are tokens: groups of one token, or keys that are not quantized.
  }];
  let arguments = (ins Kv_F32Tile:$tile, Kv_BlockType:$data, Optional<Kv_BlockType>:$scales,
                       Optional<Kv_BlockType>:$zeros, Optional<Index>:$from, Optional<Index>:$to,
                       Optional<Kv_Floats>:$weights, Optional<Index>:$weights_offset, Optional<Index>:$gives_weights,
                       Kv_QuantAttr:$quant, UnitAttr:$oriented);
  let extraClassDeclaration = [{
    /// Whether lanes of the writer are tokens, each with groups of its own.
    static bool hasTokenLanes(::kvcc::kv::QuantAttr quant, bool isKey) {
      return quant.isQuantized() ? quant.getGroupTokens() == 1 : isKey;
    }
    bool hasTokenLanes() { return hasTokenLanes(getQuant(), getData().getType().isKey()); }
  }];
  let assemblyFormat = [{
    $tile (`oriented` $oriented^)? (`rows` $from^ `to` $to)? `into` $data (`scales` $scales^)? (`zeros` $zeros^)?
    (`weights` $weights^ `[` $weights_offset `]` `if` $gives_weights)? `as` $quant attr-dict `:` type($tile) `into`
    type($data) (`scales` type($scales)^)? (`zeros` type($zeros)^)? (`weights` type($weights)^)?
  }];
  let hasVerifier = 1;
}

def Kv_TileWriteRowsOp : Kv_TileOp<"write_rows", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "new tokens, copied into a block of the windows";
  let description = [{
    Rows from `from` to `to`; row i stands at element `offset` + i * `stride` of the source.
    Constraint: (C1) the block has 32 tokens of the source's type.
  }];
  let arguments = (ins Kv_Numbers:$source, Index:$offset, Index:$stride, Index:$from, Index:$to, Kv_BlockType:$block);
  let assemblyFormat = [{
    $source `[` $offset `]` `stride` $stride `rows` $from `to` $to `into` $block attr-dict `:` type($source) `into`
    type($block)
  }];
  let hasVerifier = 1;
}

def Kv_TileClearOp : Kv_TileOp<"clear", [MemoryEffects<[MemWrite]>]> {
  let summary = "bytes of the cache, set to zero";
  let description = [{
    Constraint: (C1) bytes are a positive multiple of 64.
  }];
  let arguments = (ins Kv_Bytes:$memory, Index:$offset, I64Attr:$bytes);
  let assemblyFormat = "$memory `[` $offset `]` `bytes` $bytes attr-dict `:` type($memory)";
  let hasVerifier = 1;
}

def Kv_TileMeasureOp : Kv_TileOp<"measure", [MemoryEffects<[MemRead, MemWrite]>, AttrSizedOperandSegments]> {
  let summary = "what the transforms of a format need to know of channels, measured and stored";
  let description = [{
    Over `rows` tokens, row i at element `offset` + i * `stride` of the source: the factors of a `#kv.diag` and the means
    of a `#kv.center`, f32 at byte offsets of the cache. Sums are of f32, 32 tokens at a time. `given` holds factors and then
    means, one per channel, which are taken instead: the factors of `#kv.diag<given>`, the means where `gives_means` is not
    0.

    Constraints:
    - (C1) an offset is there exactly if the format has its transform, and one of them is;
    - (C2) the channels are a multiple of 32.
  }];
  let arguments = (ins Kv_Numbers:$source, Index:$offset, Index:$stride, Index:$rows, Kv_Floats:$given,
                       Index:$given_offset, Index:$gives_means, Kv_Bytes:$memory, Optional<Index>:$factors_offset,
                       Optional<Index>:$means_offset, I64Attr:$channels, Kv_QuantAttr:$quant);
  let assemblyFormat = [{
    $source `[` $offset `]` `stride` $stride `rows` $rows `given` $given `[` $given_offset `]` `means` $gives_means
    `into` $memory (`factors` $factors_offset^)? (`means` $means_offset^)? `channels` $channels `as` $quant attr-dict
    `:` type($source) `,` type($given) `,` type($memory)
  }];
  let hasVerifier = 1;
}

#endif
