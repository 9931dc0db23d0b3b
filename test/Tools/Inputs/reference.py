#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Checks what `kvcc run` wrote against the definition of the schemes, written down here a second time.

Usage: reference.py INPUT OUTPUT SCHEME BOUND [LAYER]   (LAYER: INPUT is a capture, see test/data)

Everything is compared per sequence by relative L2 error; a sequence without tokens must give 0 and -inf exactly.
"""
import math
import operator
import struct
import sys

sys.dont_write_bytecode = True
import tensors

SINK, RECENT, FLUSH, GROUP = 32, 96, 32, 32
KEY_BITS = 3
VALUE_BITS = {"innerq-base": 3, "innerq-small": 2}


def quantize(group, bits):
    """Symmetric: codes from -top to top, the scale in 16 bits, its reciprocal in 32, ties to even (as Python's round)."""
    top = 2 ** (bits - 1) - 1
    scale, = struct.unpack("<e", struct.pack("<e", max(map(abs, group)) / top))
    if scale == 0:
        return [0.0] * len(group)
    inverse, = struct.unpack("<f", struct.pack("<f", 1 / scale))
    return [max(-top, min(top, round(x * inverse))) * scale for x in group]


def quantize_head(keys, values, value_bits):
    """What the cache holds of one head: `keys` and `values` are lists of tokens, which are changed in place."""
    dim = len(keys[0])
    norms = [math.sqrt(max(abs(key[c]) for key in keys)) or 1.0 for c in range(dim)]
    first = SINK
    last = first + FLUSH * max(0, (len(keys) - SINK - RECENT) // FLUSH)
    for t in range(first, last):
        for c in range(0, dim, GROUP):
            group = quantize([keys[t][c + i] / norms[c + i] for i in range(GROUP)], KEY_BITS)
            keys[t][c:c + GROUP] = [x * norms[c + i] for i, x in enumerate(group)]
    for t in range(first, last, GROUP):
        for c in range(dim):
            for i, x in enumerate(quantize([values[t + i][c] for i in range(GROUP)], value_bits)):
                values[t + i][c] = x
    return last - first


def attend(query, keys, values):
    scale = 1 / math.sqrt(len(query))
    scores = [scale * sum(map(operator.mul, query, key)) for key in keys]
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    total = sum(weights)
    out = [sum(map(operator.mul, weights, channel)) / total for channel in zip(*values)]
    return out, top + math.log(total)


def relative_error(got, expected):
    difference = math.sqrt(sum((a - b) ** 2 for a, b in zip(got, expected)))
    return difference / math.sqrt(sum(b * b for b in expected))


def split(numbers, *extents):
    """A flat list as nested lists of these extents."""
    if len(extents) == 1:
        return list(numbers)
    size = len(numbers) // extents[0] if extents[0] else 0
    return [split(numbers[i * size:(i + 1) * size], *extents[1:]) for i in range(extents[0])]


def load(path, layer):
    """q [batch][q_heads], k and v [batch][kv_heads][tokens], all lists of channels, and the lengths."""
    file = tensors.read(path)

    def numbers(name):
        dtype, shape, data = file[name]
        return split(tensors.decode(dtype, data), *shape)

    if layer is not None: # the last query of a capture sees all tokens
        q, k, v = (numbers(f"layer.{layer}.{name}") for name in "qkv")
        return [[head[-1] for head in q]], [k], [v], [len(k[0])]
    q, k, v = (numbers(name) for name in "qkv")
    return q, k, v, numbers("seq_lens") if "seq_lens" in file else [len(k[0][0])] * len(q)


def main(source, result, scheme, bound, layer=None):
    queries, keys, values, lens = load(source, layer)
    q_heads, kv_heads, dim = len(queries[0]), len(keys[0]), len(queries[0][0])
    written = tensors.read(result)
    shapes = {name: (dtype, shape) for name, (dtype, shape, _) in written.items()}
    expected = {"out": ("F32", [len(lens), q_heads, dim]), "lse": ("F32", [len(lens), q_heads])}
    if shapes != expected:
        sys.exit(f"reference.py: expected tensors {expected}, but got {shapes}")
    outs = split(tensors.decode("F32", written["out"][2]), len(lens), q_heads * dim)
    lses = split(tensors.decode("F32", written["lse"][2]), len(lens), q_heads)

    failed = False
    for b, length in enumerate(lens):
        if length == 0:
            zero = all(x == 0 for x in outs[b]) and all(x == -math.inf for x in lses[b])
            print(f"sequence {b}: 0 tokens:", "0 and -inf" if zero else "expected out 0 and lse -inf")
            failed |= not zero
            continue
        out, lse, quantized = [], [], 0
        for h in range(kv_heads):
            k, v = ([list(token) for token in tensor[b][h][:length]] for tensor in (keys, values))
            if scheme in VALUE_BITS:
                quantized = quantize_head(k, v, VALUE_BITS[scheme])
            for query in queries[b][h * q_heads // kv_heads:(h + 1) * q_heads // kv_heads]:
                head_out, head_lse = attend(query, k, v)
                out += head_out
                lse.append(head_lse)
        errors = relative_error(outs[b], out), relative_error(lses[b], lse)
        print(f"sequence {b}: {length} tokens, {quantized} quantized: out {errors[0]:.1e}, lse {errors[1]:.1e}")
        failed |= not max(errors) <= bound
    if failed:
        sys.exit(f"reference.py: expected errors of at most {bound:.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:4], float(sys.argv[4]), *sys.argv[5:])
