#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What context parallelism adds to a step: kvcc.distributed.all_gather_merge on gloo, and a model of when splitting pays.

Usage: merge.py [--world 2 4] [--batch ...] [--shape HEADSxDIM ...] [--rounds N] [--record]
       merge.py --model

Measures the all-gather of partial results and their merge, of one layer, with ranks on this host; rounds go through all
shapes in turn, so that what else the host does falls on all of them. A time is that of the slowest rank. The model of an
all-gather is a ring's: t(n) = (world - 1) * (a + n / b) for n bytes of every rank. `a` is fitted to the smallest n, `b` to the
largest; how far the others are from it says how good the model is.

--model prints, for Llama-3.1-8B's heads, when a step of W ranks is shorter than one rank's, with published figures of
links (see LINKS). Nothing of it is measured here.
"""
import argparse
import datetime
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("KVCC_BUILD_DIR", ROOT / "build"))
SHAPES = ["9x64", "32x128", "64x128"]  # SmolLM2-135M, Llama-3.1-8B, Llama-3.1-70B

# Seconds per hop of a small message, bytes per second and direction. Sources:
# NVLink 4: 6 us, all-reduce of 128 B to 64 KB on 2 H100 (github.com/NVIDIA/nccl/issues/1259); 365 GB/s, bus bandwidth of a
#   ring on 2 to 8 H100 (github.com/NVIDIA/nccl/issues/1455).
# InfiniBand: 19 us, all-reduce of 8 B between two nodes with HDR (github.com/NVIDIA/nccl-tests/issues/150); NDR's 400 Gb/s.
# Ethernet: sockets of the kernel, 20 to 60 us for a round trip and the upper end taken, as data is staged through the host
#   (kentino.com, "Latency Dissection: Where Every Microsecond Goes in an AI Cluster Network"); 100 Gb/s.
LINKS = {"NVLink 4": (6e-6, 365e9), "InfiniBand NDR": (19e-6, 50e9), "Ethernet 100G, TCP": (60e-6, 12.5e9)}
MEMORY = 3.35e12  # bytes per second of an H100 SXM (its data sheet)
LAUNCHES = 15e-6  # five small kernels of the merge, 3 us each: an assumption
HEADS, KV_HEADS, DIM, LAYERS, BITS = 32, 8, 128, 32, 3.125  # kvcc-3.5


def enter_environment():
    """Goes on in the environment that has the package."""
    python = Path(os.environ.get("KVCC_BENCH_PYTHON", BUILD / "python/env/bin/python"))
    if not python.exists():
        sys.exit(f"merge.py: expected the Python package in {python.parent.parent}, but got none; run tools/dev wheel")
    if Path(sys.executable).absolute() != python.absolute():
        os.execv(python, [str(python), *sys.argv])
    sys.path.pop(0)  # this folder has a kvcc.py of its own


def run_rank(rank, world, file, shapes, rounds, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    parts = [(torch.randn(batch, 1, heads, dim), torch.randn(batch, 1, heads)) for batch, heads, dim in shapes]
    packed = [torch.cat([out, lse.unsqueeze(-1)], -1) for out, lse in parts]
    gathered = [part.new_empty(world, *part.shape) for part in packed]
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    # The whole; the collective alone; the merge alone.
    kinds = [lambda i: distributed.all_gather_merge(*parts[i]),
             lambda i: gather(gathered[i].view(-1), packed[i].view(-1)),
             lambda i: distributed.merge(gathered[i][..., :-1], gathered[i][..., -1])]
    times = torch.zeros(rounds + 2, len(shapes), len(kinds))
    for turn in range(len(times)):
        for i in range(len(shapes)):
            for k, kind in enumerate(kinds):
                dist.barrier()
                start = time.perf_counter()
                kind(i)
                times[turn, i, k] = time.perf_counter() - start
    dist.all_reduce(times, dist.ReduceOp.MAX)
    if rank == 0:
        results.put(times[2:].numpy())
    dist.destroy_process_group()


def measure(world, shapes, rounds):
    """Seconds [rounds, shapes, 3] of the slowest rank."""
    results = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = torch.multiprocessing.spawn(run_rank, (world, f"{folder}/store", shapes, rounds, results), nprocs=world,
                                            join=False)
        times = results.get()
        ranks.join()
    return times


def table(rows):
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    for row in rows:
        lines.append("| " + " | ".join(f"{value:.0f}" if isinstance(value, float) else str(value)
                                       for value in row.values()) + " |")
    return "\n".join(lines) + "\n"


def describe(world, shapes, times):
    """Rows of one world size."""
    sizes = [4 * batch * heads * (dim + 1) for batch, heads, dim in shapes]
    gather = times[:, :, 1].min(0)
    least, most = min(range(len(sizes)), key=sizes.__getitem__), max(range(len(sizes)), key=sizes.__getitem__)
    slope = max(0, (gather[most] - gather[least]) / (sizes[most] - sizes[least]))
    for i, (batch, heads, dim) in enumerate(shapes):
        whole = sorted(times[:, i, 0])
        yield {"world": world, "batch": batch, "heads": heads, "head_dim": dim, "bytes per rank": sizes[i],
               "whole, median us": 1e6 * float(statistics.median(whole)), "minimum": 1e6 * float(whole[0]),
               "all-gather, minimum": 1e6 * float(gather[i]),
               "model": 1e6 * float(gather[least] + slope * (sizes[i] - sizes[least])),
               "merge, minimum": 1e6 * float(times[:, i, 2].min())}


def describe_model():
    token = 2 * KV_HEADS * DIM * BITS / 8
    lines = [f"Attention of one layer of Llama-3.1-8B at {BITS} bits ({token:.0f} bytes per token) on H100s, one sequence, 1 "
             "query: tokens from which W ranks beat one, and microseconds per layer of one rank and of W.", "",
             "| link | W | merge us | pays from tokens | 128k: 1, W | 1M: 1, W | 10M: 1, W |", "|---|---|---|---|---|---|---|"]
    n = 4 * HEADS * (DIM + 1)
    for link, (hop, speed) in LINKS.items():
        for world in (2, 4, 8):
            merge = (world - 1) * (hop + n / speed) + LAUNCHES
            pays = merge / (token / MEMORY * (1 - 1 / world))
            cells = []
            for tokens in (2 ** 17, 10 ** 6, 10 ** 7):
                one = token * tokens / MEMORY
                cells.append(f"{1e6 * one:.0f}, {1e6 * (one / world + merge):.0f}")
            lines.append(f"| {link} | {world} | {1e6 * merge:.0f} | {pays / 1000:.0f}k | " + " | ".join(cells) + " |")
    lines += ["", f"Memory of {LAYERS} layers: " + ", ".join(
        f"{name} {tokens * token * LAYERS / 2 ** 30:.1f} GiB" for name, tokens in
        (("128k", 2 ** 17), ("1M", 10 ** 6), ("10M", 10 ** 7)))]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--shape", nargs="+", default=SHAPES)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--model", action="store_true")
    parser.add_argument("--record", action="store_true", help="write tools/bench/results/merge-DATE.md")
    options = parser.parse_args()
    if options.model:
        print(describe_model(), end="")
        return
    shapes = [(batch, *map(int, shape.split("x"))) for shape in options.shape for batch in options.batch]
    rows = [row for world in options.world for row in describe(world, shapes, measure(world, shapes, options.rounds))]
    print(table(rows), end="")
    if options.record:
        name = next((text.split(":")[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines()
                     if text.startswith("model name")), "an unknown processor")
        today = datetime.date.today()
        head = (f"The merge of partial results of one layer, over gloo on one host: {name}, {os.cpu_count()} processors, load "
                f"average {os.getloadavg()[1]:.1f}, 1 thread per rank, PyTorch {torch.__version__}, {today}; `tools/dev bench "
                f"merge {' '.join(sys.argv[1:])}`. Microseconds of the slowest rank in {options.rounds} rounds; `whole` is "
                "kvcc.distributed.all_gather_merge. Times are minima where nothing else is said, as the host was shared: with "
                "more ranks than free processors medians are the scheduler's. `model` is fitted to the smallest and the "
                "largest all-gather of a world size.\n\n")
        (ROOT / f"tools/bench/results/merge-{today}.md").write_text(
            head + table(rows) + "\n## The model, with published figures of links (`tools/dev bench merge --model`)\n\n" +
            describe_model())


if __name__ == "__main__":
    enter_environment()
if __name__ in ("__main__", "__mp_main__"):
    import torch
    import torch.distributed as dist
    from kvcc import distributed
if __name__ == "__main__":
    main()
