#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Decode attention on a GPU: kvcc's schemes beside PyTorch's and FlashInfer's attention, and what memory could give.

Usage: cuda.py [--check] [--scheme S]... [--shape M]... [--batch N]... [--ctx N]... [--rounds N] [--record] [--dry-run]

Needs PyTorch with CUDA; FlashInfer is measured where it is installed. Every subject is a CUDA graph of one step over each
of several copies of its cache, which together are four times the L2, so that no step finds its cache there; figures are the
median of the rounds, subjects take turns within a round. `GB/s` are the bytes of the cache that a step reads over its
time, `of copy` their share of what a device-to-device copy moves in the same run (bytes read and written).

--check first compares every scheme with the same kernels executed on the host: what the writers wrote, bit for bit, and
the outputs. It needs a C++ compiler and Boost.Context here, as --target cuda-host does. --dry-run does all of it on the
host, with small caches and meaningless times, to test this file. --record writes results/cuda-DATE.md and .csv.
"""
import argparse
import csv
import ctypes
import datetime
import os
from pathlib import Path
import statistics
import subprocess
import sys
import time

try:
    import torch
except ImportError:
    sys.exit("cuda.py: error: expected PyTorch, but it is not installed; 'pip install torch'")

import kvcc as interface

ROOT = Path(os.environ.get("KVCC_ROOT", Path(__file__).resolve().parents[2]))
SCHEMES = ["innerq-base", "innerq-small", "innerq-hybrid", "kivi-2", "q4_0", "int4-token", "kvcc-3", "fp8", "fp16"]
CHECKED = SCHEMES + ["q8_0", "mxfp4", "nvfp4", "kvcc-2.5", "kvcc-3.5", "bf16"]
SHAPES = ["llama-3.1-8b", "llama-3.1-70b", "qwen2.5-7b-instruct", "llama-2-7b"]
L2_COPIES = 4


def fail(message):
    sys.exit(f"cuda.py: error: {message}")


class Cache:
    """Sequences of one layer, all of the same length, in memory of `device`."""

    def __init__(self, program, batch, ctx, device):
        self.program, self.batch, self.ctx, self.device = program, batch, ctx, device
        layer = program.layer
        count = ctypes.c_int64()
        program.call("kvcc_pages_for", ctypes.c_int64(ctx), ctypes.byref(count))
        self.pages_each = max(count.value, 1)
        whole = lambda *shape, dtype: torch.zeros(shape, dtype=dtype, device=device)
        self.pages = whole(batch * self.pages_each * layer.page_bytes + 64, dtype=torch.uint8)
        self.slots = whole(batch * layer.slot_bytes + 64, dtype=torch.uint8)
        # Pages of a sequence are not neighbours in a serving engine either.
        order = torch.randperm(batch * self.pages_each, generator=torch.Generator().manual_seed(1)).int()
        self.table = order.to(device)
        self.slot_ids = torch.arange(batch, dtype=torch.int32, device=device)
        self.lengths = torch.full((batch,), ctx, dtype=torch.int32, device=device)
        size = ctypes.c_size_t()
        program.call("kvcc_workspace_bytes", ctypes.c_int64(batch), ctypes.c_int64(ctx), ctypes.byref(size))
        self.workspace = whole(max(size.value, 1) + 64, dtype=torch.uint8)

    @staticmethod
    def aligned(tensor):
        return tensor.data_ptr() + -tensor.data_ptr() % 64

    def copy(self):
        other = object.__new__(Cache)
        other.__dict__.update(self.__dict__)
        other.pages, other.slots = self.pages.clone(), self.slots.clone()
        return other

    def memory(self):
        return interface.Memory(self.aligned(self.pages), self.batch * self.pages_each, self.aligned(self.slots),
                                self.batch)

    def bytes(self):
        """What a step reads."""
        return self.batch * (self.pages_each * self.program.layer.page_bytes + self.program.layer.slot_bytes)

    def append(self, keys, values, stream=None):
        """[batch, kv_heads, ctx, head_dim]."""
        layer = self.program.layer
        args = interface.AppendArgs(ctypes.sizeof(interface.AppendArgs), self.memory(), self.table.data_ptr(),
                                    self.pages_each, self.slot_ids.data_ptr(), self.lengths.data_ptr(),
                                    self.lengths.data_ptr(), self.batch, self.ctx, keys.data_ptr(), values.data_ptr(),
                                    keys.stride(0), layer.head_dim, keys.stride(1))
        self.program.call("kvcc_append", ctypes.byref(args), ctypes.c_void_p(stream))

    def attend(self, query, out, lse, stream=None):
        args = interface.AttendArgs(ctypes.sizeof(interface.AttendArgs), self.memory(), self.table.data_ptr(),
                                    self.pages_each, self.slot_ids.data_ptr(), self.lengths.data_ptr(), self.batch,
                                    self.ctx, query.data_ptr(), out.data_ptr(), lse.data_ptr(),
                                    self.aligned(self.workspace), self.workspace.numel() - 64)
        self.program.call("kvcc_attend", ctypes.byref(args), ctypes.c_void_p(stream))


def tensors(layer, batch, ctx, device, dtype):
    generator = torch.Generator().manual_seed(7)
    normal = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype).to(device)
    # One sequence's tokens for all: the values do not change what a kernel does.
    keys, values = (normal(1, layer.kv_heads, ctx, layer.head_dim) for _ in range(2))
    return normal(batch, layer.q_heads, layer.head_dim), keys, values


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def check(library, context, target, device):
    """Every scheme against its kernels on the host."""
    failures = 0
    for shape in ("smollm2-135m-instruct", "llama-3.1-8b"):
        for scheme in CHECKED:
            made = []
            for where, memory in ((target, device), ("cuda-host", "cpu")):
                program = interface.Program(library, context, ROOT / f"test/models/{shape}.json", 0, scheme,
                                            target=where, dtype="bf16")
                cache = Cache(program, 2, 700, memory)
                query, keys, values = tensors(program.layer, 2, 700, memory, torch.bfloat16)
                cache.append(keys.expand(2, -1, -1, -1).contiguous(), values.expand(2, -1, -1, -1).contiguous())
                out = torch.empty(query.shape, dtype=torch.float32, device=memory)
                lse = torch.empty(query.shape[:2], dtype=torch.float32, device=memory)
                cache.attend(query, out, lse)
                synchronize(memory)
                start = lambda t: -t.data_ptr() % 64
                made.append((cache.pages[start(cache.pages):].cpu()[:-64], cache.slots[start(cache.slots):].cpu()[:-64],
                             out.cpu(), lse.cpu()))
            (pages, slots, out, lse), (host_pages, host_slots, host_out, host_lse) = made
            length = min(len(pages), len(host_pages))
            differ = int((pages[:length] != host_pages[:length]).sum())
            length = min(len(slots), len(host_slots))
            differ += int((slots[:length] != host_slots[:length]).sum())
            error = float((out - host_out).norm() / host_out.norm())
            lse_error = float((lse - host_lse).abs().max())
            good = error < 2e-3 and lse_error < 2e-3
            failures += not good
            print(f"check {shape:24} {scheme:16} bytes that differ {differ:6}, error of outputs {error:.1e}, of lse "
                  f"{lse_error:.1e} {'' if good else 'FAILED'}", flush=True)
    if failures:
        fail(f"{failures} of {2 * len(CHECKED)} checks failed")


class Subject:
    """Steps over copies of a cache; `launches` are functions of a stream, one for each copy."""

    def __init__(self, name, nbytes, launches, device):
        self.name, self.bytes, self.count, self.times = name, nbytes, len(launches), []
        self.launches, self.device, self.graph = launches, device, None
        if device == "cuda":
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for launch in launches:
                    launch(side.cuda_stream)
            side.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=side):
                for launch in launches:
                    launch(side.cuda_stream)

    def measure(self):
        if self.graph is None:
            start = time.perf_counter()
            for launch in self.launches:
                launch(None)
            self.times.append((time.perf_counter() - start) / self.count)
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self.graph.replay()
        end.record()
        end.synchronize()
        self.times.append(begin.elapsed_time(end) / 1e3 / self.count)

    @property
    def seconds(self):
        return statistics.median(self.times)


def copies_for(nbytes, l2, limit):
    return int(max(1, min(limit, -(-L2_COPIES * l2 // max(nbytes, 1)))))


def kvcc_subject(program, batch, ctx, device, l2, limit):
    first = Cache(program, batch, ctx, device)
    query, keys, values = tensors(program.layer, batch, ctx, device, torch.bfloat16)
    first.append(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1))
    synchronize(device)
    caches = [first]
    while len(caches) < copies_for(first.bytes(), l2, limit):
        caches.append(first.copy())
    out = torch.empty(query.shape, dtype=torch.float32, device=device)
    lse = torch.empty(query.shape[:2], dtype=torch.float32, device=device)
    # The first call fetches nothing lazily any more.
    first.attend(query, out, lse)
    synchronize(device)
    return Subject(program.name, first.bytes(), [lambda stream, c=c: c.attend(query, out, lse, stream) for c in caches],
                   device)


def peers(layer, batch, ctx, device, l2, limit):
    """PyTorch's attention over the exact cache, and FlashInfer's, in bf16."""
    query, keys, values = tensors(layer, batch, ctx, device, torch.bfloat16)
    nbytes = 2 * batch * ctx * layer.kv_heads * layer.head_dim * 2
    count = copies_for(nbytes, l2, limit)
    group = layer.q_heads // layer.kv_heads
    subjects = []
    contiguous = lambda t: t.expand(batch, -1, -1, -1).contiguous()
    pairs = [(contiguous(keys), contiguous(values)) for _ in range(count)]
    # The heads of a KV head as rows of the query: decoding with enable_gqa is many times slower.
    rows = query.view(batch, layer.kv_heads, group, layer.head_dim)
    attention = torch.nn.functional.scaled_dot_product_attention
    subjects.append(Subject("torch sdpa bf16", nbytes,
                            [lambda stream, k=k, v=v: attention(rows, k, v) for k, v in pairs], device))
    try:
        import flashinfer
    except ImportError:
        print("flashinfer is not installed, and so not measured")
        return subjects
    page = 64
    pages_each = -(-ctx // page)
    for name, dtype in (("flashinfer bf16", torch.bfloat16), ("flashinfer fp8", torch.float8_e4m3fn)):
        try:
            wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
                torch.empty(256 << 20, dtype=torch.uint8, device=device), "HND", use_tensor_cores=group >= 4)
            pointers = torch.arange(0, batch + 1, dtype=torch.int32, device=device) * pages_each
            indices = torch.arange(batch * pages_each, dtype=torch.int32, device=device)
            last = torch.full((batch,), ctx - (pages_each - 1) * page, dtype=torch.int32, device=device)
            wrapper.plan(pointers, indices, last, layer.q_heads, layer.kv_heads, layer.head_dim, page,
                         q_data_type=torch.bfloat16, kv_data_type=dtype)
            size = (batch * pages_each, 2, layer.kv_heads, page, layer.head_dim)
            pools = [torch.randn(size, device=device, dtype=torch.bfloat16).to(dtype) for _ in range(count)]
            width = torch.empty((), dtype=dtype).element_size()
            subjects.append(Subject(name, nbytes // 2 * width,
                                    [lambda stream, p=p: wrapper.run(query, p) for p in pools], device))
        except Exception as error:  # of a version that cannot: said, and left out
            print(f"{name}: not measured: {str(error).splitlines()[0]}")
    return subjects


def copy_rate(device, nbytes):
    """Bytes per second, read and written, of a copy far beyond the L2."""
    source = torch.empty(nbytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    subject = Subject("copy", 2 * nbytes, [lambda stream: target.copy_(source)] * 4, device)
    for _ in range(7):
        subject.measure()
    return subject.bytes / subject.seconds


def machine(device):
    if device != "cuda":
        return "dry run on the host"
    query = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem", "--format=csv,noheader"],
                           stdout=subprocess.PIPE, text=True)
    return f"{query.stdout.strip() or torch.cuda.get_device_name()}; PyTorch {torch.__version__}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--scheme", nargs="+", default=SCHEMES)
    parser.add_argument("--shape", nargs="+", default=["llama-3.1-8b"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--ctx", nargs="+", type=int, default=[4096, 32768])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    for shape in options.shape:
        if not (ROOT / f"test/models/{shape}.json").exists():
            fail(f"expected a model of test/models such as {', '.join(SHAPES)}, but got {shape}")
    if min(options.batch + options.ctx + [options.rounds]) < 1:
        fail(f"expected batch, ctx and rounds of at least 1, but got {options.batch}, {options.ctx}, {options.rounds}")
    device, target = ("cpu", "cuda-host") if options.dry_run else ("cuda", "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        fail("expected a GPU that PyTorch sees, but there is none (--dry-run does without)")
    library = interface.Library()
    context = library.context(0)
    if options.check:
        check(library, context, target, device)
    l2, free, limit = 1 << 20, 1 << 30, 2
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        l2, free, limit = getattr(properties, "L2_cache_size", 50 << 20), torch.cuda.mem_get_info()[0], 64
    rate = copy_rate(device, 1 << 22 if options.dry_run else 2 << 30)
    rows = []
    for shape in options.shape:
        programs = []
        for scheme in options.scheme:
            try:
                programs.append(interface.Program(library, context, ROOT / f"test/models/{shape}.json", 0, scheme,
                                                  target=target, dtype="bf16"))
            except interface.Unavailable as error:
                print(f"{shape}, {scheme}: {error}")
        for batch in options.batch:
            for ctx in options.ctx:
                layer = programs[0].layer
                exact = 2 * batch * ctx * layer.kv_heads * layer.head_dim * 2
                if 3 * max(exact, L2_COPIES * l2) > free:
                    print(f"{shape}, batch {batch}, ctx {ctx}: left out, too much for {free >> 30} GiB")
                    continue
                subjects = peers(layer, batch, ctx, device, l2, limit)
                for program in programs:
                    subjects.append(kvcc_subject(program, batch, ctx, device, l2, limit))
                for _ in range(options.rounds):
                    for subject in subjects:
                        subject.measure()
                base = subjects[0].seconds
                for subject in subjects:
                    gigabytes = subject.bytes / subject.seconds / 1e9
                    rows.append([shape, batch, ctx, subject.name, f"{1e6 * subject.seconds:.1f}",
                                 f"{1e6 * min(subject.times):.1f}", f"{subject.bytes / 1e6:.1f}", f"{gigabytes:.0f}",
                                 f"{100 * gigabytes * 1e9 / rate:.0f}", f"{base / subject.seconds:.2f}"])
                    print(" | ".join(map(str, rows[-1])), flush=True)
                del subjects
                if device == "cuda":
                    torch.cuda.empty_cache()
    names = ["shape", "batch", "ctx", "subject", "us", "least us", "MB", "GB/s", "% of copy", "x sdpa"]
    if not options.record:
        return
    stem = Path(__file__).resolve().parent / f"results/cuda-{datetime.date.today()}"
    stem.parent.mkdir(exist_ok=True)
    with open(f"{stem}.csv", "w", newline="") as file:
        csv.writer(file).writerows([names] + rows)
    with open(f"{stem}.md", "w") as file:
        file.write(f"# Decode attention on a GPU\n\n{machine(device)}; a copy moves {rate / 1e9:.0f} GB/s. "
                   f"`tools/dev bench cuda {' '.join(sys.argv[1:])}`\n\n")
        for row in [names, ["---"] * len(names)] + rows:
            file.write("| " + " | ".join(map(str, row)) + " |\n")
    print(f"recorded {stem}.md and .csv")


if __name__ == "__main__":
    main()
