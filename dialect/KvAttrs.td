// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Attributes of the kv dialect: formats, windows, and the choices that passes write down.
#ifndef KVCC_DIALECT_KVATTRS_TD
#define KVCC_DIALECT_KVATTRS_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/BuiltinAttributeInterfaces.td"
include "dialect/KvEnums.td"

class Kv_Attr<string name, string attrMnemonic> : AttrDef<Kv_Dialect, name> {
  let mnemonic = attrMnemonic;
}

def Kv_DiagAttr : Kv_Attr<"Diag", "diag"> {
  let summary = "one factor per channel, divided out before quantization";
  let description = [{
    Keys: the query is multiplied by the factors once per step. Values: the output is, where the
    quantized tokens end. Nothing is paid per cached element. Factors are per KV head, over the tokens of
    the prefill, and 1 where the statistic is 0:
    - `sqrt_max`: sqrt(max over tokens of |x[t,c]|), InnerQ, arXiv 2602.23200;
    - `rms`: the root of the mean square over tokens, to the power of `strength`;
    - `tensor`: the same for all channels, max |x| / (largest element * largest scale of the format), so
      that the scales of 8-bit types fit their range (the tensor scale of NVFP4);
    - `given`: factors that the writer is handed.

    `tied`: the channels of a rotary pair, c and c + head_dim/2, share the statistic of both, so that
    the factors commute with the rotary embedding. `weights`: the factors have been folded into the
    projections that make q and k; neither writer nor reader applies them.

    Constraints:
    - (C1) strength is over 0 and at most 1, and 1 unless the statistic is `rms`;
    - (C2) `weights` goes with `given`.

    Examples: `#kv.diag<sqrt_max>`, `#kv.diag<rms, strength = 0.2, tied>`, `#kv.diag<given, tied, weights>`.
  }];
  let parameters = (ins EnumParameter<Kv_DiagStat>:$stat, APFloatParameter<"">:$strength, "bool":$tied,
                        "bool":$weights);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

def Kv_CenterAttr : Kv_Attr<"Center", "center"> {
  let summary = "the mean of each channel, subtracted before quantization";
  let description = [{
    The mean over the tokens of the prefill, per KV head. Of keys it adds q.mean to the logits of all
    quantized tokens, one number per query head; of values sum(weights) * mean to the output. Both are
    added where the quantized tokens end. Example: `#kv.center`.
  }];
}

def Kv_HadamardAttr : Kv_Attr<"Hadamard", "hadamard"> {
  let summary = "a rotation of blocks of channels by a Hadamard matrix";
  let description = [{
    Every block of `size` channels is multiplied by the normalized Hadamard matrix (Sylvester's order).
    Of keys the query is rotated too; of values the output is rotated back, where the quantized tokens
    end. Constraint: (C1) size is a power of two from 16 to 256. Example: `#kv.hadamard<64>`.
  }];
  let parameters = (ins "int64_t":$size);
  let assemblyFormat = "`<` $size `>`";
  let genVerifyDecl = 1;
}

def Kv_TokenNormAttr : Kv_Attr<"TokenNorm", "token_norm"> {
  let summary = "one factor per token, divided out before quantization";
  let description = [{
    The root of the mean square over the channels of a token and head (1 if it is 0), stored in `type`: f16,
    or f8E8M0FNU for the nearest power of two. Of keys it multiplies the logit, of values the weight.
    Constraint: (C1) the type is f16 or f8E8M0FNU. Example: `#kv.token_norm<f8E8M0FNU>`.
  }];
  let parameters = (ins "::mlir::Type":$type);
  let assemblyFormat = "`<` $type `>`";
  let genVerifyDecl = 1;
}

def Kv_QuantAttr : Kv_Attr<"Quant", "quant"> {
  let summary = "the storage format of the keys or of the values of a cache";
  let description = [{
    Properties, independent of each other:
    - `element`: `i2`..`i8`, `f8E4M3FN` and `f4E2M1FN` are codes; `f16`, `bf16` and `f32` store the number as
      it is (and then have no map, group or scale);
    - `map`: how a number becomes a code, `sym`, `sym_full`, `sym_signed`, `asym` or `hybrid`;
    - `group`: tokens x channels that share one scale;
    - `scale`: the type of a stored scale, and of a zero point;
    - `transforms`: applied before quantization in the order they are listed, undone elsewhere than per element;
    - `search`, `feedback`: how the writer chooses scales and codes; the format and its readers are the same.

    With `o = 2^(bits-1)` an element is `(code - o) * scale`, codes in `[0, 2^bits)`:
    - `sym`: scale = max|x| / (o - 1), codes o-(o-1) .. o+(o-1);
    - `sym_full`: scale = max|x| / o, codes 0 .. 2o-1;
    - `sym_signed`: scale = -x_extreme / o, so that the element of largest magnitude is exact;
    - `asym`: scale = (max - min) / (2^bits - 1), zero = min, an element is `code * scale + zero`;
    - `hybrid`: per group the one of `sym_full` and `asym` with the smaller sum of |errors|, ties
      symmetric; the sign bit of the scale marks an `asym` group. Zero points are stored for all groups.
    Codes come from the scale as it is stored (rounded): the product with its reciprocal in f32, rounded half to even,
    then clamped. A scale that rounds to zero gives the code `o`, that is, zeros. Floating-point codes have the map `sym`: scale
    = max|x| / (largest number of the element type, 448 or 6), an element is `code * scale`. A scale of
    f8E8M0FNU is rounded up to a power of two, so that no code saturates.

    `search = n` tries n scales from 1 down to 0.78 times the one above and keeps the one with the least
    squared error, the largest among equals. `feedback` rounds the channels of a token in order and pushes each
    rounding error into the channels to come, weighted by the second moment of the query where the writer
    knows it.

    Constraints:
    - (C1) `element` is one of i2..i8, f8E4M3FN, f4E2M1FN, f16, bf16, f32;
    - (C2) codes have a map, a group and a scale;
    - (C3) f16, bf16 and f32 have none of map, group, scale, search, feedback;
    - (C4) one extent of the group is 1, the other 16 or a multiple of 32 of at most 256;
    - (C5) the scale is f16 or bf16; or f8E4M3FN with a map without zero points; or f8E8M0FNU with sym or
      sym_full;
    - (C6) transforms are `#kv.diag`, `#kv.center`, `#kv.hadamard`, `#kv.token_norm`, in this order, each at
      most once;
    - (C7) floating-point codes have the map sym;
    - (C8) search is 0 to 16.

    Examples: `#kv.quant<f16>`,
    `#kv.quant<i3, map = sym, group = 1x32, scale = f16, transforms = [#kv.diag<sqrt_max>]>`,
    `#kv.quant<i4, map = sym_signed, group = 1x128, scale = f16, transforms = [#kv.center, #kv.hadamard<128>],
    feedback>`.
  }];
  let parameters = (ins "::mlir::Type":$element, EnumParameter<Kv_Map>:$map,
                        "int64_t":$groupTokens, "int64_t":$groupChannels,
                        "::mlir::Type":$scale, "::mlir::ArrayAttr":$transforms, "int64_t":$search,
                        "bool":$feedback);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Numbers as they are.
    static QuantAttr getPlain(::mlir::Type element);
    /// Whether elements are codes with scales rather than numbers as they are.
    bool isQuantized() const;
    /// Bits that one element occupies, scales not counted.
    unsigned getBits() const;
    /// The integer code that stands for zero: 2^(bits-1).
    int64_t getZeroCode() const { return int64_t(1) << (getBits() - 1); }
    /// The transform of a kind, or null.
    template <typename T> T getTransform() const {
      for (::mlir::Attribute transform : getTransforms())
        if (auto found = ::mlir::dyn_cast<T>(transform))
          return found;
      return {};
    }
    /// The diagonal transform that writer and reader apply, or null.
    ::kvcc::kv::DiagAttr getDiag() const;
    /// Whether groups have a zero point beside the scale.
    bool hasZeros() const {
      return getMap() == ::kvcc::kv::Map::Asym || getMap() == ::kvcc::kv::Map::Hybrid;
    }
    /// The extent of a group along the dimension that a product with a block reduces.
    int64_t getReducedExtent(::kvcc::kv::Role role) const {
      return role == ::kvcc::kv::Role::Key ? getGroupChannels() : getGroupTokens();
    }
    /// Elements that share one scale.
    int64_t getGroupSize() const { return getGroupTokens() * getGroupChannels(); }
    /// Bits per element with the share of scales and token norms, for heads of `headDim` channels.
    double getBitsPerElement(int64_t headDim) const;
  }];
}

def Kv_WindowAttr : Kv_Attr<"Window", "window"> {
  let summary = "which tokens stay in the model's dtype";
  let description = [{
    Tokens 0..sink-1 and the last recent..recent+flush-1 tokens stay in the dtype of the cache; a block
    of `flush` tokens is quantized when it leaves the recent window. With T tokens,
    n = flush * floor((T - sink - recent) / flush) tokens (0 if negative) from token `sink` on are
    quantized.

    Constraints:
    - (C1) sink and recent are not negative and at most 4096;
    - (C2) flush is 1, or a multiple of 32 of at most 4096;
    - (C3) recent is a multiple of flush, and 0 if flush is 1.

    Example: `#kv.window<sink = 32, recent = 96, flush = 32>`.
  }];
  let parameters = (ins "int64_t":$sink, "int64_t":$recent, "int64_t":$flush);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// How many of `tokens` tokens are quantized; they are tokens sink .. sink+n-1.
    int64_t getQuantizedTokens(int64_t tokens) const;
    /// How many of the last tokens may be taken back: as many as are recent, and enough for speculation. Without
    /// blocks that leave a window, nothing more is needed for that.
    int64_t getRollback() const { return ::std::max<int64_t>(getRecent(), 32); }
  }];
}

def Kv_PackingAttr : Kv_Attr<"Packing", "packing"> {
  let summary = "the order of the elements of one block of 32 tokens; a schedule, never a format";
  let description = [{
    `#kv.packing<FxR>` or `#kv.packing<FxR, lanes = L>`. A block is a matrix of free x reduction
    indices: for keys the tokens are free and the channels are reduced, for values the other way. It is
    cut into tiles of F free x R reduction indices. Elements follow each other with the reduction index
    fastest inside a tile, then the free index, then tiles along the reduction, then tiles along the
    free dimension. Element n of b bits lies at bit n*b, least significant bit first.

    With `lanes = L`, the codes of a tile belong to L lanes, L/F neighbouring lanes to each free index:
    reduction index r of free index f belongs to lane f*(L/F) + r%(L/F), as its code r/(L/F). A lane has
    w = F*R/L codes of b bits: they are b words of w bits, and word k of all lanes stands together (L
    words 0, then L words 1, ...), so that one vector load (or the lanes of a warp side by side) gets a
    word of every lane, and shifting and masking it by constants gets a code of every lane.

    Worked example, `16x4`, keys, 3 bits, head_dim 64: token 17, channel 6. Tile row 17/16 = 1, tile
    column 6/4 = 1, 64/4 = 16 tiles in a row: tile 17; inside it (17%16)*4 + 6%4 = 6; n = 17*64+6 =
    1094: bits 3282..3284, that is byte 410, bits 2..4.
    Worked example, `32x32, lanes = 32`, the same code: tile row 0, tile column 0: free index 17 is lane
    17, code 6 of it: bits 18..20 of its three words of 32 bits, so word 0, which stands at word 0*32 + 17.
    Worked example, `16x32, lanes = 64`, the same code: tile row 1, tile column 0 of 2: tile 2, which
    begins at byte 2*64*3. Free index 1 has lanes 4 to 7, channel 6 is code 1 of lane 4 + 6%4 = 6: bits
    3..5 of its three bytes, so of byte 0, which stands at byte 384 + 0*64 + 6 = 390.

    `#kv.packing<fragments>` is the order of the operand fragments of the tensor cores' 16x8x16 products (rows are free
    indices): every lane of a warp loads its own words, 16 bytes at a time, and has the elements of its fragments in
    them. With f = 16t + 2*gid + hi and r = 16s + 4*tig + 2e + h, element (f, r) belongs to lane 4*gid + tig, as half e
    of the pair (u = 2t + hi, n = 2s + h): rows hi, k-step s, register h. The 16 pairs of four rows u and four indices n
    (of two rows and eight, of one row and 16, where the reduced extent allows) are a line: the b words that b-bit codes
    fill, with both halves of a pair at the same bits of the halves of a word. Word x of a lane's X words stands at
    word 128*(x/4) + 4*lane + x%4; the X%4 last ones in the same way with two or one words a lane. Numbers of 16 bits are
    codes of 16. FragmentOrder in dialect/Fragments.h has the bits.
    Worked example, keys, 3 bits, head_dim 128: token 9, channel 70: t 0, gid 4, hi 1, so u 1; s 4, tig 1, e 1, h 0, so
    n 8: line 1, position 8 (word 1, bit 10), of lane 17: word 4 of its 12, bits 26..28 (10..12 of the upper half), which
    stands at word 128*1 + 4*17 + 0 = 196, byte 784.

    Beside fragments, scales of rows (`fragment_rows`) stand as [gid][u][groups of reduced indices], so that a lane's are
    consecutive; scales that fold into what multiplies (`fragment_columns`) as [groups of free indices][tig][n][e].

    Constraints:
    - (C1) F and R are powers of two of 1 to 256;
    - (C2) lanes is 1, or a multiple of F such that w is 8 or 32.
  }];
  let parameters = (ins "int64_t":$freeTile, "int64_t":$reduceTile, "int64_t":$lanes,
                        DefaultValuedParameter<"::kvcc::kv::Order", "::kvcc::kv::Order::Tiles">:$order);
  let builders = [
    AttrBuilder<(ins "::kvcc::kv::Order":$order), [{
      // What orders of fragments tile: a lane's elements of 32 x 32.
      int64_t reduceTile = order == ::kvcc::kv::Order::Fragments ? 32 : 1;
      return $_get($_ctxt, order == ::kvcc::kv::Order::FragmentColumns ? 1 : reduceTile, reduceTile, 1, order);
    }]>,
    AttrBuilder<(ins "int64_t":$freeTile, "int64_t":$reduceTile, "int64_t":$lanes), [{
      return $_get($_ctxt, freeTile, reduceTile, lanes, ::kvcc::kv::Order::Tiles);
    }]>,
  ];
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

def Kv_ScheduleAttr : Kv_Attr<"Schedule", "schedule"> {
  let summary = "how attention is computed; it never changes what is computed";
  let description = [{
    `heads`: query heads of one KV head that share a pass over the codes; `page`: quantized tokens per
    page; `compute`: the arithmetic of products with codes, `f32`, or integers: `int16` rounds the query to
    words, the weights to bytes or, where that would show (codes of more than 4 bits, a token that dominates its
    block), words; `int8` rounds the query to bytes, and weights to words only where a token dominates; `bf16`
    rounds weights into which scales fold to bf16, and the query where that is enough, and is `int16` for the rest; `f16`
    multiplies codes as halves on tensor cores, query and weights rounded to halves; `key`, `value`,
    `floats`: the packing of key codes, of value codes, and of tiles that are stored as numbers (windows and
    fp16 pages); `accumulators`: vector registers that sums of a product with codes take, 0 for what the
    target's level says; `page_bytes`: bytes of a page, 0 for as many as it needs, so that layers that are stored
    differently may share a pool; `warps`: warps that share a work item, each with blocks of its own; `stages`: blocks
    of pages that a warp has in memory of its own or on their way there, 0 for none; `queries`:
    queries of a sequence that share a work item, so that a pass over the codes serves all of them; `ahead`: by how many
    blocks pages are asked for before they are needed (windows by one), 0 where nothing is.

    Constraints:
    - (C1) heads is 1 to 16;
    - (C2) page is a multiple of 32 from 32 to 65536;
    - (C3) accumulators is 0 to 32;
    - (C4) page_bytes is 0 or a positive multiple of 64;
    - (C5) warps is 1 to 32, stages 0 to 16;
    - (C6) queries is 1 to 16, and 1 unless compute is f16;
    - (C7) ahead is 0 to 16, and 0 with stages, which are filled early themselves, or several warps, whose next blocks are
      not the next ones.
  }];
  let parameters = (ins "int64_t":$heads, "int64_t":$page, EnumParameter<Kv_Compute>:$compute,
                        "::kvcc::kv::PackingAttr":$key, "::kvcc::kv::PackingAttr":$value,
                        "::kvcc::kv::PackingAttr":$floats, DefaultValuedParameter<"int64_t", "0">:$accumulators,
                        DefaultValuedParameter<"int64_t", "0">:$page_bytes,
                        DefaultValuedParameter<"int64_t", "1">:$warps, DefaultValuedParameter<"int64_t", "0">:$stages,
                        DefaultValuedParameter<"int64_t", "1">:$queries,
                        DefaultValuedParameter<"int64_t", "0">:$ahead);
  let assemblyFormat = [{
    `<` struct($heads, $page, custom<Enum>($compute), $key, $value, $floats, $accumulators, $page_bytes, $warps,
               $stages, $queries, $ahead) `>`
  }];
  let genVerifyDecl = 1;
}

def Kv_TargetAttr : Kv_Attr<"Target", "target"> {
  let summary = "what the kernels are compiled for";
  let description = [{
    `#kv.target<cpu, "avx512_vnni">` (or another level of a CPU) or `#kv.target<cuda, "sm_90">`. Stands on the
    module as `kv.target`.
  }];
  let parameters = (ins EnumParameter<Kv_TargetKind>:$kind, StringRefParameter<"">:$arch);
  let assemblyFormat = "`<` custom<Enum>($kind) `,` $arch `>`";
}

def Kv_MeasuredAttr : Kv_Attr<"Measured", "measured"> {
  let summary = "what a format does to one layer, from a profile";
  let description = [{
    `#kv.measured<key, <i3, ...>, damage = 1.2e-3>`: with the layer's keys (or values) in this format and all else
    exact, an estimate of the KL(exact || quantized) of next-token logits, in nats.
    Constraint: (C1) damage is a number that is not negative.
  }];
  let parameters = (ins EnumParameter<Kv_Role>:$role, "::kvcc::kv::QuantAttr":$quant, APFloatParameter<"">:$damage);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

def Kv_ObjectiveAttr : Kv_Attr<"Objective", "objective"> {
  let summary = "what the selection passes aim at";
  let description = [{
    Stands on the module as `kv.objective`. All parts are optional:
    - `budget`: bits per cached element, on average over the keys and values of all layers at `context`, scales
      included and windows not; 0: none;
    - `memory`: bytes for `batch` sequences of `context` tokens, windows included; 0: none;
    - `max_kl`: the damage that is accepted, as an estimate of KL(exact || quantized) of next-token logits; 0: none;
    - `prefer`: the least damage (`quality`), time per step (`speed`) or bytes (`memory`) within these;
    - `specs`: how many distinct pairs of formats a model may have, so many kernels per shape.

    Constraints:
    - (C1) budget and max_kl are finite and not negative; memory is not negative;
    - (C2) context is 1 to 2^31-1, batch 1 to 65536, specs 1 to 64.

    Example: `#kv.objective<budget = 3.5, context = 32768>`.
  }];
  let parameters = (ins APFloatParameter<"">:$budget, "int64_t":$memory, APFloatParameter<"">:$maxKl,
                        "int64_t":$tokens, "int64_t":$batch, EnumParameter<Kv_Prefer>:$prefer, "int64_t":$specs);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

def Kv_ReachAttr : EnumAttr<Kv_Dialect, Kv_Reach, "reach"> {
  let assemblyFormat = "`<` custom<Enum>($value) `>`";
}

def Kv_PlacementAttr : EnumAttr<Kv_Dialect, Kv_Placement, "placement"> {
  let assemblyFormat = "`<` custom<Enum>($value) `>`";
}

#endif
