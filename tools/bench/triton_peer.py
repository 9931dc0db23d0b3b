# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Decode attention over quantized caches in Triton, a peer of cuda.py: what a plain kernel in that language costs.

Tokens are split over programs, each with an online softmax and sums of its own; a second kernel merges them. The query
heads of a KV head are the rows of one product, padded to 16 for tensor cores. Block size, warps, stages and splits are
tuned by Triton on a GPU; without one, TRITON_INTERPRET=1 runs the same text and `compile_cubin` compiles it.

Two formats, both symmetric:
  int4        4 bits, one scale per token and head for keys and for values
  int2-inner  2 bits, groups of 32 along the inner dimension: channels of the keys, tokens of the values

A word of 16 bits has the codes of 16 / BITS channels, head_dim / (16 / BITS) apart: part s of a row, at bit BITS * s, are
consecutive channels. So a part is a matrix without a shuffle, and queries and sums are kept part by part.
"""
import os

import numpy as np
import triton
import triton.language as tl

from innerq_peer import dequantize, quantize
from peers import Unavailable

FORMATS = {"int4": (4, False), "int2-inner": (2, True)}  # bits, groups along the inner dimension
GROUP = 32
ROWS = 16  # of a product
PADDING = 128  # tokens, the largest block
MOST_SPLITS = 64
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def configs():
    return [triton.Config({"TOKENS": tokens, "splits": splits}, num_warps=warps, num_stages=stages)
            for tokens, choices in ((32, (1, 2)), (64, (2, 4)), (128, (4, 8))) for warps in choices
            for stages in (2, 3, 4) for splits in (4, 16, MOST_SPLITS)]


def usable(every, arguments, **constants):
    """Configurations that give every split a block; with inner groups, a block is a group of the values' tokens."""
    sizes = (GROUP,) if constants["INNER"] else (32, 64, 128)
    found = [c for c in every if c.kwargs["TOKENS"] in sizes]
    return [c for c in found if c.kwargs["TOKENS"] * c.kwargs["splits"] <= arguments["ctx"]] or found[:1]


@triton.constexpr_function
def unpack_text(shift, bits):
    """(words >> shift & mask) | 0x6400 on two words at once."""
    mask = ((1 << bits) - 1) * 0x10001
    return f"{{ .reg .b32 t; shr.b32 t, $1, {shift}; lop3.b32 $0, t, {mask}, 0x64006400, 0xEA; }}"


@triton.jit
def unpack(words, shift: tl.constexpr, bits: tl.constexpr, PACKED: tl.constexpr):
    """One code of every word minus its offset, exact: 0x6400 is the fp16 number 1024, whose last bit counts ones."""
    if PACKED:
        codes = tl.inline_asm_elementwise(unpack_text(shift, bits), "=r,r", [words], tl.int16, True, 2)
    else:
        codes = (words >> shift & ((1 << bits) - 1)) | 0x6400
    return codes.to(tl.float16, bitcast=True) - (1024.0 + (1 << (bits - 1)))


@triton.autotune(configs(), key=["ctx", "heads", "QUERIES", "BITS"], prune_configs_by={"early_config_prune": usable})
@triton.jit(do_not_specialize=["ctx", "heads", "splits"])
def split_kernel(query, k_codes, k_scales, v_codes, v_scales, partial, maxima, sums, ctx, padded, heads, splits, factor,
                 QUERIES: tl.constexpr, DIM: tl.constexpr, BITS: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr,
                 PACKED: tl.constexpr, TOKENS: tl.constexpr):
    PER: tl.constexpr = 16 // BITS
    WIDTH: tl.constexpr = DIM // PER
    GROUP: tl.constexpr = 32
    GROUPS: tl.constexpr = DIM // GROUP
    PARTS: tl.constexpr = PER // GROUPS
    tl.static_assert(not INNER or TOKENS == GROUP)
    head = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    live = rows < QUERIES
    q = ()
    acc = ()
    for s in tl.static_range(PER):
        part = query + (head * QUERIES + rows)[:, None] * DIM + s * WIDTH + columns[None, :]
        q = q + ((tl.load(part, live[:, None], 0.0).to(tl.float32) * factor).to(tl.float16),)
        acc = acc + (tl.zeros((ROWS, WIDTH), tl.float32),)
    m = tl.full((ROWS,), -1e30, tl.float32)
    l = tl.zeros((ROWS,), tl.float32)
    blocks = tl.cdiv(ctx, TOKENS)
    for block in range(split * blocks // splits, (split + 1) * blocks // splits):
        tokens = block * TOKENS + tl.arange(0, TOKENS)
        at = head * padded + tokens
        words = tl.load(k_codes + at[:, None] * WIDTH + columns[None, :])
        scores = tl.zeros((ROWS, TOKENS), tl.float32)
        if INNER:
            for g in tl.static_range(GROUPS):
                products = tl.zeros((ROWS, TOKENS), tl.float32)
                for s in tl.static_range(g * PARTS, (g + 1) * PARTS):
                    products = tl.dot(q[s], tl.trans(unpack(words, s * BITS, BITS, PACKED)), products)
                scores += products * tl.load(k_scales + at * GROUPS + g).to(tl.float32)[None, :]
        else:
            for s in tl.static_range(PER):
                scores = tl.dot(q[s], tl.trans(unpack(words, s * BITS, BITS, PACKED)), scores)
            scores *= tl.load(k_scales + at).to(tl.float32)[None, :]
        scores = tl.where((tokens < ctx)[None, :], scores, -1e30)
        most = tl.maximum(m, tl.max(scores, 1))
        p = tl.exp2(scores - most[:, None])
        shrink = tl.exp2(m - most)
        l = l * shrink + tl.sum(p, 1)
        m = most
        if not INNER:
            p *= tl.load(v_scales + at).to(tl.float32)[None, :]
        p = p.to(tl.float16)
        words = tl.load(v_codes + at[:, None] * WIDTH + columns[None, :])
        updated = ()
        for s in tl.static_range(PER):
            v = unpack(words, s * BITS, BITS, PACKED)
            if INNER:
                scale = tl.load(v_scales + (head * (padded // GROUP) + block) * DIM + s * WIDTH + columns)
                updated = updated + (acc[s] * shrink[:, None] + tl.dot(p, v) * scale.to(tl.float32)[None, :],)
            else:
                updated = updated + (tl.dot(p, v, acc[s] * shrink[:, None]),)
        acc = updated
    out = (head * splits + split) * QUERIES + rows
    for s in tl.static_range(PER):
        tl.store(partial + out[:, None] * DIM + s * WIDTH + columns[None, :], acc[s], live[:, None])
    tl.store(maxima + out, m, live)
    tl.store(sums + out, l, live)


@triton.jit
def merge_kernel(partial, maxima, sums, out, QUERIES: tl.constexpr, DIM: tl.constexpr, SPLITS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    splits = (row // QUERIES * SPLITS + tl.arange(0, SPLITS)) * QUERIES + row % QUERIES
    columns = tl.arange(0, DIM)
    m = tl.load(maxima + splits)
    weights = tl.exp2(m - tl.max(m, 0))
    total = tl.sum(tl.load(sums + splits) * weights, 0)
    values = tl.load(partial + splits[:, None] * DIM + columns[None, :])
    tl.store(out + row * DIM + columns, tl.sum(values * weights[:, None], 0) / total)


def check_shape(kind, head_dim, queries):
    bits, inner = FORMATS[kind]
    # Products reduce over at least 16 channels; a group is a whole number of parts.
    dims = (128, 256, 512) if inner else (64, 128, 256, 512)
    if head_dim not in dims:
        raise Unavailable(f"expected a head_dim of {', '.join(map(str, dims))}, but got {head_dim}")
    if queries > ROWS:
        raise Unavailable(f"expected at most {ROWS} query heads per KV head, but got {queries}")
    return bits, inner


def quantize_both(kind, keys, values):
    """(codes, scales) of keys and of values; with inner groups, those of the values are [..., channel, token of group]."""
    bits, inner = FORMATS[kind]
    heads, _, dim = keys.shape
    if inner:
        keys = keys.reshape(heads, -1, dim // GROUP, GROUP)
        values = values.reshape(heads, -1, GROUP, dim).swapaxes(2, 3)
    return quantize(keys, bits), quantize(values, bits)


def pad(x):
    return np.pad(x, ((0, 0), (0, -x.shape[1] % PADDING), (0, 0)))


def write(kind, keys, values):
    """The cache of one sequence as arrays whose first axis is the KV head. keys, values: [kv_heads, ctx, head_dim]."""
    bits, inner = FORMATS[kind]
    heads, _, dim = keys.shape
    per = 16 // bits
    (k_codes, k_scales), (v_codes, v_scales) = quantize_both(kind, pad(keys), pad(values))

    def words(codes):
        parts = codes.reshape(heads, -1, per, dim // per).astype(np.uint16) << bits * np.arange(per, dtype=np.uint16)[:, None]
        return np.bitwise_or.reduce(parts, 2).view(np.int16)

    arrays = {"k_codes": words(k_codes), "k_scales": k_scales,
              "v_codes": words(v_codes.swapaxes(2, 3) if inner else v_codes), "v_scales": v_scales}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def stored(kind, keys, values):
    """The keys and values that a cache of `write` stands for."""
    bits, inner = FORMATS[kind]
    k, v = (dequantize(*pair, bits) for pair in quantize_both(kind, pad(keys), pad(values)))
    return tuple(x.reshape(len(keys), -1, keys.shape[2])[:, :keys.shape[1]] for x in (k, v.swapaxes(2, 3) if inner else v))


class Attention:
    """One step over `batch` sequences of `ctx` tokens. `place` puts a NumPy array where the kernels run.

    `fixed`: tokens of a block and splits, instead of tuning, which needs a GPU.
    """

    def __init__(self, kind, layer, batch, ctx, arrays, place, fixed=None):
        self.layer, self.heads, self.ctx, self.fixed = layer, batch * layer.kv_heads, ctx, fixed
        self.queries = layer.q_heads // layer.kv_heads
        self.bits, self.inner = check_shape(kind, layer.head_dim, self.queries)
        self.bytes = batch * sum(array.nbytes for array in arrays.values())
        rows = self.heads * MOST_SPLITS * self.queries
        self.partial = place(np.zeros((rows, layer.head_dim), np.float32))
        self.maxima, self.sums = place(np.zeros(rows, np.float32)), place(np.zeros(rows, np.float32))
        self.out = place(np.zeros((batch, layer.q_heads, layer.head_dim), np.float32))

    def run(self, query, cache, stream=None):
        """query: [batch, q_heads, head_dim] in bf16; cache: the arrays of `write` of all sequences. Stream: PyTorch's."""
        layer = self.layer
        arrays = [cache[name] for name in ("k_codes", "k_scales", "v_codes", "v_scales")]
        arguments = [query, *arrays, self.partial, self.maxima, self.sums, self.ctx, -(-self.ctx // PADDING) * PADDING,
                     self.heads]
        constants = {"factor": layer.scale * float(np.log2(np.e)), "QUERIES": self.queries, "DIM": layer.head_dim,
                     "BITS": self.bits, "INNER": self.inner, "ROWS": ROWS, "PACKED": not INTERPRETED}
        if self.fixed:
            tokens, splits = self.fixed
            split_kernel.fn[(self.heads, splits)](*arguments, splits, TOKENS=tokens, **constants)
        else:
            split_kernel[lambda meta: (self.heads, meta["splits"])](*arguments, **constants)
            splits = split_kernel.best_config.kwargs["splits"]
        merge_kernel[(self.heads * self.queries,)](self.partial, self.maxima, self.sums, self.out, QUERIES=self.queries,
                                                   DIM=layer.head_dim, SPLITS=splits)


def compile_cubin(kind, arch, tokens, warps, stages, head_dim=128, queries=4,
                  packed=True):
    """Machine code of split_kernel for an architecture such as sm_90, as on a GPU; needs none."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    bits, inner = check_shape(kind, head_dim, queries)
    constants = {"QUERIES": queries, "DIM": head_dim, "BITS": bits, "INNER": inner, "ROWS": ROWS, "PACKED": packed,
                 "TOKENS": tokens}
    types = {"query": "*bf16", "k_codes": "*i16", "k_scales": "*fp16", "v_codes": "*i16", "v_scales": "*fp16",
             "partial": "*fp32", "maxima": "*fp32", "sums": "*fp32", "ctx": "i32", "padded": "i32", "heads": "i32",
             "splits": "i32", "factor": "fp32"}
    kernel = split_kernel.fn
    divisible = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names)
                 if types.get(name, "").startswith("*") or name == "padded"}
    source = ASTSource(kernel, types | dict.fromkeys(constants, "constexpr"), constexprs=constants, attrs=divisible)
    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    return triton.compile(source, target=target, options={"num_warps": warps, "num_stages": stages}).asm["cubin"]
