#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What decides the design of CUDA kernels, measured on this machine's GPU.

Usage: micro.py [--record] [--compile-only ARCH]

1. Whether tensor cores multiply subnormal halves, which raw codes are, exactly and at the full rate.
2. How many bytes a multiprocessor must have on their way to read at the memory's speed: by loads to registers, by
   cp.async, by cp.async of lines that leave the L2 first, and by cp.async.bulk; in order, and in parts that lie anywhere.

Needs PyTorch with CUDA and NVRTC. --record writes results/micro-DATE.md; --compile-only needs no GPU."""
import argparse
import datetime
import itertools
from pathlib import Path
import statistics
import sys

import numpy as np

import innerq_peer

HERE = Path(__file__).resolve().parent
KINDS = ["loads", "cp.async", "cp.async evict_first", "cp.async.bulk evict_first", "cp.async.bulk"]
WARPS = 4


def source(kind=1, nbytes=2048, stages=3):
    return (f"#define STREAM_KIND {kind}\n#define STREAM_BYTES {nbytes}\n#define STREAM_STAGES {stages}\n"
            + (HERE / "micro.cuh").read_text())


def median_ms(torch, launch, times=5):
    launch()
    measured = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        launch()
        end.record()
        end.synchronize()
        measured.append(begin.elapsed_time(end))
    return statistics.median(measured)


def products(torch, arch, say):
    module = innerq_peer.CudaModule(source(), arch)
    random = np.random.default_rng(1)
    warps = 4096
    codes = random.integers(0, 1024, (warps, 16, 16), dtype=np.uint16)  # subnormal: code * 2^-24
    right = np.ldexp(1 + random.random((warps, 16, 8)), 13).astype(np.float16)
    right *= random.choice(np.array([-1, 1], np.float16), right.shape)
    lane = np.arange(32)
    gid, tig = lane // 4, lane % 4
    # Fragments, see device.cuh. A: rows gid and gid + 8 of channels 2 tig.. and 8 + 2 tig..
    left_of = lambda x: np.stack([x[:, gid + 8 * (w % 2), 8 * (w // 2) + 2 * tig + e] for w in range(4) for e in range(2)], -1)
    sums_of = lambda x: np.stack([x[:, gid + 8 * (i // 2), 2 * tig + i % 2] for i in range(4)], -1)
    product = lambda x, y: sums_of(np.einsum("wij,wjk->wik", x.astype(np.float64) * 2.0**-24, y.astype(np.float64)))
    place = lambda x: torch.from_numpy(np.ascontiguousarray(x).view(np.int32)).cuda()
    operand = place(np.stack([right.view(np.uint16)[:, 8 * w + 2 * tig + e, gid] for w in range(2) for e in range(2)], -1))
    out = torch.zeros((warps, 32, 4), dtype=torch.float32, device="cuda")
    multiply = module.function("micro_mma")

    def measured(x):
        multiply((warps, 1, 1), 32, (place(left_of(x)), operand, out))
        return out.cpu().numpy().astype(np.float64)

    error = np.abs(measured(codes) - product(codes, right)) / product(codes, np.abs(right))
    say("subnormal halves: largest error", f"{np.max(error):.1e}", "of the sum of magnitudes")
    small = (codes & 7).astype(np.uint16)
    differ = int((measured(small) != product(small, right)).sum())
    say("codes of 3 bits: products that differ from the exact ones", str(differ), f"of {error.size}")
    a, left = left_of(codes), place(left_of(codes))
    normal = place((a & 0x3FF) | 0x3C00)
    blocks = torch.cuda.get_device_properties(0).multi_processor_count * 4
    sums = torch.zeros(blocks * 128 * 4, device="cuda")
    rate, rounds = module.function("micro_mma_rate"), 2000
    for name, operands in (("normal", normal), ("subnormal", left)):
        ms = median_ms(torch, lambda: rate((blocks, 1, 1), 128, (operands, operand, sums, rounds)))
        say(f"m16n8k16 of {name} halves", f"{blocks * 4 * rounds * 8 * 4096 / ms / 1e9:.0f}", "TFLOP/s")


def streams(torch, arch, say):
    properties = torch.cuda.get_device_properties(0)
    multiprocessors = properties.multi_processor_count
    has_bulk = torch.cuda.get_device_capability() >= (9, 0)
    total = 2 << 30
    data = torch.randint(-(2**31), 2**31 - 1, (total // 4,), dtype=torch.int32, device="cuda")
    target = torch.empty_like(data)
    ms = median_ms(torch, lambda: target.copy_(data))
    say("copy", f"{2 * total / ms / 1e6:.0f}", "GB/s read and written")
    del target
    for kind, nbytes, stages, blocks, order in itertools.chain(
            itertools.product([1, 2, 3, 4], [1024, 3072], [2, 3, 4, 6], [1, 2, 3], ["random"]),
            itertools.product([1, 3], [3072], [4], [3], ["in order"]),
            itertools.product([0], [1024], [1, 2, 4], [4, 8], ["random"])):
        # A multiprocessor holds as many blocks as are launched.
        shared = WARPS * stages * (nbytes + 8) if kind else 0
        if blocks * (shared + 1024) > properties.shared_memory_per_multiprocessor or (kind >= 3 and not has_bulk):
            continue
        count = total // nbytes
        table = torch.randperm(count, device="cuda").int() if order == "random" else torch.arange(
            count, dtype=torch.int32, device="cuda")
        stream = innerq_peer.CudaModule(source(kind, nbytes, stages), arch).function("micro_stream", shared)
        grid = multiprocessors * blocks
        sums = torch.zeros(grid * 32 * WARPS, dtype=torch.int32, device="cuda")
        ms = median_ms(torch, lambda: stream((grid, 1, 1), 32 * WARPS, (data, table, sums, count)), 3)
        flight = blocks * WARPS * (stages - 1 if kind else stages) * nbytes >> 10
        say(f"{KINDS[kind]}, {nbytes} bytes {order}, {blocks} x {WARPS} warps, {stages} stages, {flight} KiB on their way",
            f"{count * nbytes / ms / 1e6:.0f}", "GB/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--compile-only", metavar="ARCH")
    options = parser.parse_args()
    if options.compile_only:
        for kind in range(len(KINDS)):
            innerq_peer.compile_cubin(source(kind), options.compile_only)
        return
    import torch
    if not torch.cuda.is_available():
        sys.exit("micro.py: error: expected a GPU that PyTorch sees, but there is none")
    torch.zeros(1, device="cuda")
    rows = []

    def say(what, value, unit):
        rows.append((what, value, unit))
        print(f"{what}: {value} {unit}", flush=True)

    arch = "sm_{}{}".format(*torch.cuda.get_device_capability())
    try:
        products(torch, arch, say)
        streams(torch, arch, say)
    except innerq_peer.Unavailable as error:
        sys.exit(f"micro.py: error: {error}")
    if options.record:
        path = HERE / f"results/micro-{datetime.date.today()}.md"
        path.parent.mkdir(exist_ok=True)
        lines = [f"# What decides the design of CUDA kernels\n\n{torch.cuda.get_device_name()}, PyTorch {torch.__version__}. "
                 "`tools/dev bench micro --record`\n", "| what | measured | unit |", "|---|---|---|"]
        path.write_text("\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n")
        print(f"recorded {path}")


if __name__ == "__main__":
    main()
