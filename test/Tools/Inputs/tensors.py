#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Makes and shows safetensors files for the tests of `kvcc run`; the numbers depend on the options alone.

  tensors.py step OUT [options]      q, k, v and seq_lens of a decode step, perhaps with something wrong (see --help)
  tensors.py hostile CASE OUT        a file that is no proper safetensors file
  tensors.py show FILE               one line per tensor: name, dtype, shape
  tensors.py last ONE SEVERAL        fails unless the last of several steps gave what one step gave
"""
import argparse
import json
import math
import random
import re
import struct
import sys

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1}
FORMATS = {"F64": "d", "F32": "f", "F16": "e", "I64": "q", "I32": "i", "U8": "B"}


def encode(dtype, numbers):
    if dtype != "BF16":
        return struct.pack(f"<{len(numbers)}{FORMATS[dtype]}", *numbers)
    # The upper halves of the numbers in 32 bits.
    wide, narrow = encode("F32", numbers), bytearray(2 * len(numbers))
    narrow[0::2], narrow[1::2] = wide[2::4], wide[3::4]
    return bytes(narrow)


def decode(dtype, data):
    if dtype != "BF16":
        return struct.unpack(f"<{len(data) // BYTES[dtype]}{FORMATS[dtype]}", data)
    wide = bytearray(2 * len(data))
    wide[2::4], wide[3::4] = data[0::2], data[1::2]
    return decode("F32", bytes(wide))


def write(path, tensors):
    """`tensors`: name -> (dtype, shape, bytes)."""
    header, data = {}, b""
    for name, (dtype, shape, payload) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(payload)]}
        data += payload
    write_raw(path, json.dumps(header), data)


def write_raw(path, header, data, length=None):
    header = header.encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header) if length is None else length) + header + data)


def read(path):
    with open(path, "rb") as file:
        content = file.read()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    tensors = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = (entry["dtype"], entry["shape"], content[start + begin:start + end])
    return tensors


def step(options):
    """As in models, some key channels are loud, and values have a mean per channel; one channel of each is silent."""
    numbers = random.Random(options.seed)
    batch, tokens, dim = options.batch, options.tokens, options.head_dim
    cache_shape = [batch, options.kv_heads, tokens, dim]

    def fill(shape, number):
        return shape, [number(numbers.gauss(0, 1), i % dim) for i in range(math.prod(shape))]

    query_shape = [batch] + ([options.steps] if options.steps else []) + [options.q_heads, dim]
    tensors = {"q": fill(query_shape, lambda x, channel: x),
               "k": fill(cache_shape, lambda x, channel: 0 if channel == 7 else 4 * x if channel % 24 == 5 else x),
               "v": fill(cache_shape, lambda x, channel: 0 if channel == 9 else x + (1 if channel % 2 else -1))}
    if options.sinks:
        tensors["sinks"] = fill([options.q_heads], lambda x, channel: x)
    for change in options.set:
        name, index, number = re.split("[:=]", change)
        tensors[name][1][int(index)] = float(number)
    dtypes = {name: options.dtype for name in tensors} | dict(change.split("=") for change in options.dtype_of)
    result = {name: (dtypes[name], shape, encode(dtypes[name], values)) for name, (shape, values) in tensors.items()}
    if options.lens is not None:
        lens = [int(length) for length in options.lens.split(",")]
        dtype = dtypes.get("seq_lens", "I32")
        result["seq_lens"] = (dtype, [len(lens)], encode(dtype, lens))
    for change in options.shape_of:
        name, shape = change.split("=")
        dtype, _, payload = result[name]
        result[name] = (dtype, [int(extent) for extent in shape.split("x")], payload)
    for name in options.drop:
        del result[name]
    write(options.out, result)
    if options.cut:
        with open(options.out, "r+b") as file:
            file.truncate(file.seek(0, 2) - options.cut)


def hostile(options):
    def header(**offsets):
        return json.dumps({name: {"dtype": "F16", "shape": [2], "data_offsets": pair} for name, pair in offsets.items()})

    cases = {
        "empty": ("", b"", 0),
        "huge-length": ("{}", b"", 2**63 + 5),
        "long-length": ("{}", b"", 1000),
        "bad-json": ('{"q": {"dtype": ', b""),
        "no-object": ("[1, 2]", b""),
        "deep": ("[" * 100000, b""),
        "overlap": (header(q=[0, 4], k=[2, 6]), bytes(6)),
        "hole": (header(q=[0, 4], k=[8, 12]), bytes(12)),
        "beyond": (header(q=[0, 4], k=[4, 8]), bytes(6)),
        "negative": (header(q=[-4, 0]), bytes(4)),
        "falling": (header(q=[4, 0]), bytes(4)),
        "huge-offset": (header(q=[0, 2**70]), bytes(4)),
        "negative-extent": ('{"q": {"dtype": "F16", "shape": [-2, -1], "data_offsets": [0, 4]}}', bytes(4)),
        "overflow": ('{"q": {"dtype": "F16", "shape": [4294967296, 4294967296, 4294967296], "data_offsets": [0, 4]}}',
                     bytes(4)),
        "twice": ('{"q": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}, '
                  '"q": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]}}', bytes(8)),
        "dtype": ('{"q": {"dtype": "F12", "shape": [2], "data_offsets": [0, 3]}}', bytes(3)),
    }
    if options.case == "short":
        with open(options.out, "wb") as file:
            file.write(b"abc")
    else:
        write_raw(options.out, *cases[options.case])


def last(options):
    one, several = read(options.one), read(options.several)
    for name, (dtype, shape, data) in one.items():
        _, all_shape, all_data = several[name]
        batch, steps = all_shape[:2]
        size = len(data) // batch
        rows = [all_data[((b + 1) * steps - 1) * size:(b + 1) * steps * size] for b in range(batch)]
        if all_shape != [batch, steps, *shape[1:]] or b"".join(rows) != data:
            sys.exit(f"{name}: the last of {steps} steps gave something else")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("step")
    command.add_argument("out")
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--dtype", default="F16", help="F16, BF16, F32, ...")
    command.add_argument("--batch", type=int, default=1)
    command.add_argument("--tokens", type=int, default=200)
    command.add_argument("--q-heads", type=int, default=9)
    command.add_argument("--kv-heads", type=int, default=3)
    command.add_argument("--head-dim", type=int, default=64)
    command.add_argument("--steps", type=int, default=0, help="queries of each sequence; 0: q without that dimension")
    command.add_argument("--sinks", action="store_true", help="sink logits, too")
    command.add_argument("--lens", help="seq_lens, such as 200,0,137; default: no such tensor")
    command.add_argument("--set", action="append", default=[], metavar="NAME:INDEX=NUMBER",
                         help="one number, which may be nan or inf")
    command.add_argument("--dtype-of", action="append", default=[], metavar="NAME=DTYPE")
    command.add_argument("--shape-of", action="append", default=[], metavar="NAME=AxBxC",
                         help="another shape over the same bytes")
    command.add_argument("--drop", action="append", default=[], metavar="NAME")
    command.add_argument("--cut", type=int, default=0, help="bytes to cut off at the end")
    command.set_defaults(run=step)

    command = commands.add_parser("hostile")
    command.add_argument("case")
    command.add_argument("out")
    command.set_defaults(run=hostile)

    command = commands.add_parser("show")
    command.add_argument("file")
    command.set_defaults(run=lambda options: [
        print(name, dtype, shape) for name, (dtype, shape, _) in sorted(read(options.file).items())])

    command = commands.add_parser("last")
    command.add_argument("one")
    command.add_argument("several")
    command.set_defaults(run=last)

    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    sys.exit(main())
