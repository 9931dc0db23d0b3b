#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Decode attention on a GPU: kvcc's schemes beside other attention kernels, and what memory could give.

Usage: cuda.py [--check] [--scheme S]... [--peer P]... [--shape M]... [--batch N]... [--ctx N]... [--split-tokens N]...
               [--rounds N] [--writers] [--record [NAME]] [--dry-run] [--plot CSV...]

Needs PyTorch with CUDA and NVRTC. Every subject is a CUDA graph of one step over each of several copies of its cache, whose
pages, and windows, are four times the L2 together (512 copies at most), so that no step finds its cache there; figures are the median of the rounds, subjects take
turns within a round. `GB/s` are the bytes of the cache that a step reads over its time, `of copy` their share of what a
device-to-device copy moves in the same run (bytes read and written), `error` the relative error of the output against
exact attention over the tensors before they were quantized, which are normal random numbers.

Peers, all by default; one that cannot run is named and left out:
  torch              PyTorch's scaled_dot_product_attention over a bf16 cache; the last column is relative to it
  flashinfer         FlashInfer over a bf16 and an fp8 cache, where it is installed (pip install flashinfer-python)
  innerq-base,       the InnerQ approach (arXiv 2602.23200) as separate kernels: products with quantized keys, a softmax,
  innerq-small       products with quantized values, in the formats of kvcc's schemes of these names; innerq_peer.py
  triton-int4,       a Triton kernel over 4-bit codes with a scale per token, and over 2-bit codes in groups of 32 along the
  triton-int2-inner  inner dimension, tuned by Triton; triton_peer.py, where Triton is installed (pip install triton)

--writers measures instead what filling a cache costs: a token appended to every sequence, beside a decode step, and a
prefill of all tokens. An append's figure is the mean of 128 in a row, what they flush included, the copies in turn.
--split-tokens measures each scheme with sequences split into parts of so many tokens, too; 0 is kvcc's choice.
--check first compares every scheme with the same kernels executed on the host: what the writers wrote, bit for bit, and
the outputs; and the kernels of this folder with attention in NumPy. It needs a C++ compiler and Boost.Context here, as
--target cuda-host does. --dry-run does all of it on the host, with small caches and meaningless times, to test this file.
--record writes results/cuda-DATE.md, .csv and .svg, or cuda-DATE-NAME.md and so on (cuda-DATE-writers.md of --writers, without
.svg); --plot only draws the .svg of such .csv.
"""
import argparse
import csv
import ctypes
import datetime
import importlib.util
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

import numpy as np

import innerq_peer
import kvcc as interface

ROOT = Path(os.environ.get("KVCC_ROOT", Path(__file__).resolve().parents[2]))
RESULTS = Path(__file__).resolve().parent / "results"
SCHEMES = ["innerq-base", "innerq-small", "innerq-hybrid", "kivi-2", "q4_0", "int4-token", "kvcc-3", "fp8", "fp16"]
CHECKED = SCHEMES + ["q8_0", "mxfp4", "nvfp4", "kvcc-2.5", "kvcc-3.5", "bf16"]
SHAPES = ["llama-3.1-8b", "llama-3.1-70b", "qwen2.5-7b-instruct", "llama-2-7b"]
L2_COPIES = 4
QUANTIZED_PEERS = ["innerq-base", "innerq-small", "triton-int4", "triton-int2-inner"]
PEERS = ["torch", "flashinfer"] + QUANTIZED_PEERS


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

    def parts(self):
        """Bytes that a step reads, of pages and of windows."""
        return [self.batch * part for part in interface.read_bytes(self.program.layer, self.ctx)]

    def bytes(self):
        return sum(self.parts())

    def append(self, keys, values, stream=None, lengths=None, counts=None):
        """[batch, kv_heads, tokens, head_dim]; all tokens, or the last `counts` of `lengths`."""
        lengths = self.lengths if lengths is None else lengths
        counts = lengths if counts is None else counts
        args = interface.AppendArgs(ctypes.sizeof(interface.AppendArgs), self.memory(), self.table.data_ptr(),
                                    self.pages_each, self.slot_ids.data_ptr(), lengths.data_ptr(), counts.data_ptr(),
                                    self.batch, keys.shape[2], keys.data_ptr(), values.data_ptr(), keys.stride(0),
                                    keys.stride(2), keys.stride(1))
        self.program.call("kvcc_append", ctypes.byref(args), ctypes.c_void_p(stream))

    def attend(self, query, out, lse, stream=None, split_tokens=0):
        args = interface.AttendArgs(ctypes.sizeof(interface.AttendArgs), self.memory(), self.table.data_ptr(),
                                    self.pages_each, self.slot_ids.data_ptr(), self.lengths.data_ptr(), self.batch,
                                    self.ctx, query.data_ptr(), out.data_ptr(), lse.data_ptr(),
                                    self.aligned(self.workspace), self.workspace.numel() - 64, 1, None, split_tokens)
        self.program.call("kvcc_attend", ctypes.byref(args), ctypes.c_void_p(stream))


def tensors(layer, batch, ctx, device, dtype):
    generator = torch.Generator().manual_seed(7)
    normal = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype).to(device)
    # One sequence's tokens for all: the values do not change what a kernel does.
    keys, values = (normal(1, layer.kv_heads, ctx, layer.head_dim) for _ in range(2))
    return normal(batch, layer.q_heads, layer.head_dim), keys, values


def exact_attention(layer, query, keys, values):
    """In single precision: [batch, q_heads, head_dim]. keys, values: [kv_heads, ctx, head_dim], of all sequences."""
    rows = query.float().view(len(query), layer.kv_heads, -1, layer.head_dim)
    scores = torch.einsum("bhgd,htd->bhgt", rows, keys.float()) * layer.scale
    return torch.einsum("bhgt,htd->bhgd", scores.softmax(-1), values.float()).reshape(query.shape)


def relative_error(out, exact):
    return float((out.reshape(exact.shape).float() - exact).norm() / exact.norm())


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


def check_peers(names, library, context, target, device):
    """The kernels of this folder against attention over the numbers in their caches."""
    failures = 0
    for shape in ("llama-3.1-8b", "llama-2-7b"):
        layer = interface.Program(library, context, ROOT / f"test/models/{shape}.json", 0, "fp16", target=target,
                                  dtype="bf16").layer
        query, keys, values = tensors(layer, 2, 700, device, torch.bfloat16)
        for peer in quantized_peers(names, layer, query, keys, values):
            stored = (torch.from_numpy(x).to(device) for x in peer.stored())
            error = relative_error(peer.attention.out, exact_attention(layer, query, *stored))
            failures += error >= 5e-3
            print(f"check {shape:24} {peer.name:27} error of outputs {error:.1e} {'' if error < 5e-3 else 'FAILED'}",
                  flush=True)
    if failures:
        fail(f"{failures} checks of peers failed")


def elapsed(launch):
    """Seconds of the GPU."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    launch()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


class Subject:
    """Steps over copies of a cache; `launches` are functions of a stream, one for each copy."""

    def __init__(self, name, nbytes, launches, device, out=None):
        """`out` is where a step's output is, or one."""
        self.name, self.bytes, self.count, self.times, self.out = name, nbytes, len(launches), [], out
        self.launches, self.device, self.graph = launches, device, None
        if device == "cuda":
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
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
        self.times.append(elapsed(self.graph.replay) / self.count)

    @property
    def seconds(self):
        return statistics.median(self.times)


def copies_for(nbytes, l2, limit):
    return int(max(1, min(limit, -(-L2_COPIES * l2 // max(nbytes, 1)))))


def filled_caches(program, splits, batch, ctx, device, l2, limit):
    """Copies of a cache, with a workspace for such `splits`, and a query."""
    first = Cache(program, batch, ctx, device)
    if any(splits):
        size = ctypes.c_size_t()
        program.call("kvcc_split_workspace_bytes", ctypes.c_int64(batch), ctypes.c_int64(ctx),
                     ctypes.c_int64(min(filter(None, splits))), ctypes.byref(size))
        nbytes = max(size.value, first.workspace.numel()) + 64
        first.workspace = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    query, keys, values = tensors(program.layer, batch, ctx, device, torch.bfloat16)
    first.append(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1))
    synchronize(device)
    caches = [first]
    if device == "cuda":  # all schemes have copies at a time
        limit = min(limit, torch.cuda.mem_get_info()[1] // 20 // (first.pages.nbytes + first.slots.nbytes))
    # Windows, too: what lies in pages is the first that leaves the L2, so that they would stay.
    while len(caches) < copies_for(min(filter(None, first.parts()), default=0), l2, limit):
        caches.append(first.copy())
    return caches, query


def kvcc_subjects(program, splits, batch, ctx, device, l2, limit):
    """One for each number of tokens of `splits` that a sequence is split into, 0 for those that kvcc chooses."""
    caches, query = filled_caches(program, splits, batch, ctx, device, l2, limit)
    return steps(caches, query, splits)


def steps(caches, query, splits):
    first = caches[0]
    program, ctx, device = first.program, first.ctx, first.device
    for tokens in splits:
        if tokens >= 2 * ctx:
            continue
        out = torch.empty(query.shape, dtype=torch.float32, device=device)
        lse = torch.empty(query.shape[:2], dtype=torch.float32, device=device)
        # The first call fetches nothing lazily any more.
        first.attend(query, out, lse, split_tokens=tokens)
        synchronize(device)
        launch = lambda stream, c, tokens=tokens, out=out, lse=lse: c.attend(query, out, lse, stream, tokens)
        yield Subject(program.name + (f" split {tokens}" if tokens else ""), first.bytes(),
                      [lambda stream, c=c, launch=launch: launch(stream, c) for c in caches], device, out)


APPENDS = 128  # in a row: the windows of all presets flush at least once


def writer_subjects(program, batch, ctx, device, l2, limit):
    """A decode step, a token appended to every sequence, a prefill."""
    caches, query = filled_caches(program, [0], batch, ctx, device, l2, limit)
    step, = steps(caches, query, [0])
    _, keys, values = tensors(program.layer, batch, ctx, device, torch.bfloat16)
    keys, values = (x.expand(batch, -1, -1, -1) for x in (keys, values))
    one = torch.ones(batch, dtype=torch.int32, device=device)
    last = [keys[:, :, -1:], values[:, :, -1:]]
    lengths = [torch.full_like(one, length) for length in range(max(1, ctx + 1 - APPENDS), ctx + 1)]
    append = Subject("append", last[0].nbytes + last[1].nbytes,
                     [lambda stream, c=caches[i % len(caches)], n=n: c.append(*last, stream, n, one)
                      for i, n in enumerate(lengths)], device)
    prefill = Subject("prefill", keys.nbytes + values.nbytes,
                      [lambda stream, c=c: c.append(keys, values, stream) for c in caches], device)
    return step, append, prefill


def torch_subject(layer, batch, ctx, device, l2, limit):
    query, keys, values = tensors(layer, batch, ctx, device, torch.bfloat16)
    nbytes = 2 * batch * ctx * layer.kv_heads * layer.head_dim * 2
    contiguous = lambda t: t.expand(batch, -1, -1, -1).contiguous()
    pairs = [(contiguous(keys), contiguous(values)) for _ in range(copies_for(nbytes, l2, limit))]
    # The heads of a KV head as rows of the query: decoding with enable_gqa is many times slower.
    rows = query.view(batch, layer.kv_heads, -1, layer.head_dim)
    attend = lambda stream, k, v: torch.nn.functional.scaled_dot_product_attention(rows, k, v, scale=layer.scale)
    return Subject("torch sdpa bf16", nbytes, [lambda stream, k=k, v=v: attend(stream, k, v) for k, v in pairs], device,
                   attend(None, *pairs[0]))


def flashinfer_subjects(layer, batch, ctx, device, l2, limit):
    try:
        import flashinfer
    except ImportError:
        print("flashinfer: not measured: it is not installed; pip install flashinfer-python")
        return []
    query, keys, values = tensors(layer, batch, ctx, device, torch.bfloat16)
    subjects, page = [], 64
    pages_each = -(-ctx // page)
    for name, dtype in (("flashinfer bf16", torch.bfloat16), ("flashinfer fp8", torch.float8_e4m3fn)):
        try:
            wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
                torch.empty(256 << 20, dtype=torch.uint8, device=device), "HND",
                use_tensor_cores=layer.q_heads // layer.kv_heads >= 4)
            pointers = torch.arange(0, batch + 1, dtype=torch.int32, device=device) * pages_each
            indices = torch.arange(batch * pages_each, dtype=torch.int32, device=device)
            last = torch.full((batch,), ctx - (pages_each - 1) * page, dtype=torch.int32, device=device)
            wrapper.plan(pointers, indices, last, layer.q_heads, layer.kv_heads, layer.head_dim, page,
                         q_data_type=torch.bfloat16, kv_data_type=dtype, sm_scale=layer.scale)
            pool = paged(keys, values, page).repeat(batch, 1, 1, 1, 1).to(dtype)
            nbytes = 2 * batch * ctx * layer.kv_heads * layer.head_dim * pool.element_size()
            pools = [pool] + [pool.clone() for _ in range(copies_for(nbytes, l2, limit) - 1)]
            subjects.append(Subject(name, nbytes, [lambda stream, p=p, w=wrapper: w.run(query, p) for p in pools], device,
                                    wrapper.run(query, pool)))
        except Exception as error:  # of a version that cannot: said, and left out
            print(f"{name}: not measured: {str(error).splitlines()[0]}")
    return subjects


def paged(keys, values, page):
    """[pages, 2, kv_heads, page, head_dim] of one sequence's [1, kv_heads, ctx, head_dim]."""
    pad = lambda x: torch.nn.functional.pad(x[0], (0, 0, 0, -x.shape[2] % page))
    return torch.stack([pad(x).unflatten(1, (-1, page)).transpose(0, 1) for x in (keys, values)], 1).contiguous()


class QuantizedPeer:
    """A kernel of this folder and the cache that its writer writes; every sequence has the same tokens."""
    kernels, written = {}, {}  # what was compiled, and the last caches, by name

    def __init__(self, name, layer, query, keys, values):
        self.name, self.query, self.layer = name, query, layer
        self.batch, self.device = len(query), query.device.type
        family, self.kind = name.split("-", 1)
        self.exact = [x[0].float().cpu().numpy() for x in (keys, values)]
        ctx = keys.shape[2]
        place = lambda array: torch.from_numpy(array).to(self.device)
        if family == "innerq":
            self.module, self.format = innerq_peer, innerq_peer.KINDS[self.kind]
            self.write_cache(lambda: innerq_peer.write(*self.exact, *self.format))
            self.attention = innerq_peer.Attention(self.compile(), layer, self.batch, ctx, self.arrays, place,
                                                   self.multiprocessors())
        else:
            self.module = import_triton_peer(self.device)
            self.module.check_shape(self.kind, layer.head_dim, layer.q_heads // layer.kv_heads)
            self.write_cache(lambda: self.module.write(self.kind, *self.exact))
            self.attention = self.module.Attention(self.kind, layer, self.batch, ctx, self.arrays, place,
                                                   None if self.device == "cuda" else (32 if "inner" in self.kind else 128, 2))
        self.bytes = self.attention.bytes

    def write_cache(self, write):
        """Every batch has the same tokens; what was written for another batch is used again."""
        shape = self.exact[0].shape
        if self.written.get(self.name, (None,))[0] != shape:
            self.written[self.name] = shape, write()
        self.arrays = self.written[self.name][1]

    def compile(self):
        layer = self.layer
        source = innerq_peer.text(*self.format, layer.head_dim, layer.q_heads // layer.kv_heads)
        if source not in self.kernels:
            if self.device == "cuda":
                arch = "sm_{}{}".format(*torch.cuda.get_device_capability())
                self.kernels[source] = innerq_peer.CudaKernels(source, arch)
            else:
                self.kernels[source] = innerq_peer.HostKernels(source)
        return self.kernels[source]

    def multiprocessors(self):
        return torch.cuda.get_device_properties(0).multi_processor_count if self.device == "cuda" else 1

    def cache(self):
        return {name: torch.from_numpy(array).to(self.device).repeat(self.batch, *[1] * (array.ndim - 1))
                for name, array in self.arrays.items()}

    def launch(self, stream, cache):
        self.attention.run(self.query, cache, stream)

    def stored(self):
        """What the cache stands for, as NumPy arrays."""
        return self.module.stored(*self.exact, *self.format) if self.module is innerq_peer else self.module.stored(
            self.kind, *self.exact)


def import_triton_peer(device):
    if device != "cuda":
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        import triton_peer
    except ImportError as error:
        raise interface.Unavailable(f"{error}; pip install triton") from None
    return triton_peer


def quantized_peers(names, layer, query, keys, values):
    """Those that can run, a line for each that cannot."""
    for name in names:
        try:
            peer = QuantizedPeer(name, layer, query, keys, values)
            # The first run of a Triton kernel compiles and tunes it.
            peer.launch(None, peer.cache())
            synchronize(peer.device)
            yield peer
        except Exception as error:  # of a version that cannot: said, and left out
            print(f"{name}: not measured: {(str(error).splitlines() or [repr(error)])[0]}", flush=True)


def quantized_subjects(names, layer, batch, ctx, device, l2, limit):
    query, keys, values = tensors(layer, batch, ctx, device, torch.bfloat16)
    for peer in quantized_peers(names, layer, query, keys, values):
        caches = [peer.cache() for _ in range(copies_for(peer.bytes, l2, limit))]
        yield Subject(peer.name, peer.bytes, [lambda stream, c=c, p=peer: p.launch(stream, c) for c in caches], device,
                      peer.attention.out)


def subjects_of(chosen, programs, splits, batch, ctx, device, l2, limit):
    layer = programs[0].layer
    size = (batch, ctx, device, l2, limit)
    subjects = [torch_subject(layer, *size)] if "torch" in chosen else []
    if "flashinfer" in chosen:
        subjects += flashinfer_subjects(layer, *size)
    subjects += quantized_subjects([name for name in QUANTIZED_PEERS if name in chosen], layer, *size)
    return subjects + [subject for program in programs for subject in kvcc_subjects(program, splits, *size)]


def copy_rate(device, nbytes):
    """Bytes per second, read and written, of a copy far beyond the L2."""
    source = torch.randint(0, 256, (nbytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    if device == "cpu":
        start = time.perf_counter()
        target.copy_(source)
        return 2 * nbytes / (time.perf_counter() - start)
    # Not in a graph, where it would be another kind of copy, and slower.
    return 2 * nbytes / statistics.median(elapsed(lambda: target.copy_(source)) for _ in range(9))


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
    parser.add_argument("--peer", nargs="+", default=PEERS, metavar="P")
    parser.add_argument("--shape", nargs="+", default=["llama-3.1-8b"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--ctx", nargs="+", type=int, default=[4096, 32768])
    parser.add_argument("--split-tokens", nargs="+", type=int, default=[0], metavar="N")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--writers", action="store_true")
    parser.add_argument("--record", nargs="?", const="", metavar="NAME")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--plot", nargs="+", metavar="CSV", type=Path)
    options = parser.parse_args()
    for path in options.plot or []:
        with open(path) as file:
            plot(list(csv.DictReader(file)), path.with_suffix(".svg"))
    if options.plot:
        return
    for shape in options.shape:
        if not (ROOT / f"test/models/{shape}.json").exists():
            fail(f"expected a model of test/models such as {', '.join(SHAPES)}, but got {shape}")
    for peer in options.peer:
        if peer not in PEERS + ["none"]:
            fail(f"expected peers ({', '.join(PEERS)}) or none, but got {peer}")
    if min(options.batch + options.ctx + [options.rounds]) < 1:
        fail(f"expected batch, ctx and rounds of at least 1, but got {options.batch}, {options.ctx}, {options.rounds}")
    device, target = ("cpu", "cuda-host") if options.dry_run else ("cuda", "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        fail("expected a GPU that PyTorch sees, but there is none (--dry-run does without)")
    if options.dry_run:
        torch.set_num_threads(1)  # interpreted kernels are many small operations
    library = interface.Library()
    context = library.context(0)
    if options.check:
        check(library, context, target, device)
        check_peers([name for name in QUANTIZED_PEERS if name in options.peer], library, context, target, device)
    l2, free, limit = 1 << 20, 1 << 30, 2
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        l2, free, limit = getattr(properties, "L2_cache_size", 50 << 20), torch.cuda.mem_get_info()[0], 512
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
                nbytes = 2 * batch * ctx * layer.kv_heads * layer.head_dim * 2
                # bf16 caches of up to three subjects, and all the quantized ones, live at the same time.
                if 8 * max(nbytes, L2_COPIES * l2) > free:
                    print(f"{shape}, batch {batch}, ctx {ctx}: left out, too much for {free >> 30} GiB")
                    continue
                measured = writer_rows if options.writers else attention_rows
                for row in measured(options, programs, batch, ctx, device, l2, limit, rate):
                    rows.append([shape, batch, ctx, *row])
                    print(" | ".join(map(str, rows[-1])), flush=True)
                if device == "cuda":
                    torch.cuda.empty_cache()
                if options.record is not None:  # after each case: a run may be ended
                    stem = record(options, rows, f"{machine(device)}; a copy moves {rate / 1e9:.0f} GB/s.")
    if options.record is not None and rows:
        print(f"recorded {stem}.md, .csv and, where Matplotlib is installed, .svg")


CASE = ["shape", "batch", "ctx"]
NAMES = CASE + ["subject", "us", "least us", "MB", "GB/s", "% of copy", "error", "x sdpa"]
WRITER_NAMES = CASE + ["scheme", "step us", "append us", "% of step", "prefill us", "prefill GB/s", "% of copy"]


def measure(subjects, rounds):
    for _ in range(rounds):
        for subject in subjects:
            subject.measure()


def attention_rows(options, programs, batch, ctx, device, l2, limit, rate):
    layer = programs[0].layer
    subjects = subjects_of(options.peer, programs, options.split_tokens, batch, ctx, device, l2, limit)
    measure(subjects, options.rounds)
    query, keys, values = tensors(layer, batch, ctx, device, torch.bfloat16)
    exact = exact_attention(layer, query, keys[0], values[0])
    base = next((subject.seconds for subject in subjects if subject.name.startswith("torch")), None)
    for subject in subjects:
        read = subject.bytes / subject.seconds
        yield [subject.name, f"{1e6 * subject.seconds:.1f}", f"{1e6 * min(subject.times):.1f}",
               f"{subject.bytes / 1e6:.1f}", f"{read / 1e9:.0f}", f"{100 * read / rate:.0f}",
               f"{relative_error(subject.out, exact):.1e}", f"{base / subject.seconds:.2f}" if base else ""]


def writer_rows(options, programs, batch, ctx, device, l2, limit, rate):
    for program in programs:
        subjects = writer_subjects(program, batch, ctx, device, l2, limit)
        measure(subjects, options.rounds)
        step, append, prefill = (subject.seconds for subject in subjects)
        read = subjects[-1].bytes / prefill  # of keys and values; a copy moves every byte twice
        yield [program.name, f"{1e6 * step:.1f}", f"{1e6 * append:.2f}", f"{100 * append / step:.0f}",
               f"{1e6 * prefill:.1f}", f"{read / 1e9:.0f}", f"{200 * read / rate:.0f}"]


def record(options, rows, head):
    names = WRITER_NAMES if options.writers else NAMES
    what = "writers" if options.writers else None
    stem = RESULTS / "-".join(filter(None, ["cuda", str(datetime.date.today()), what, options.record]))
    stem.parent.mkdir(exist_ok=True)
    with open(f"{stem}.csv", "w", newline="") as file:
        csv.writer(file).writerows([names] + rows)
    with open(f"{stem}.md", "w") as file:
        file.write(f"# {'Filling a cache' if options.writers else 'Decode attention'} on a GPU\n\n{head} `tools/dev bench cuda {' '.join(sys.argv[1:])}`\n\n")
        for row in [names, ["---"] * len(names)] + rows:
            file.write("| " + " | ".join(map(str, row)) + " |\n")
    if not options.writers and importlib.util.find_spec("matplotlib"):
        plot([dict(zip(NAMES, map(str, row))) for row in rows], f"{stem}.svg")
    return stem


def plot(rows, path):
    """Two panels for each shape: a step's time against the tokens of all sequences, and the part of a copy's rate that is
    reached against bits, at the most tokens."""
    from matplotlib import colormaps, pyplot
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    figure, axes = pyplot.subplots(len(shapes), 2, figsize=(15, 6 * len(shapes)), squeeze=False, layout="constrained")
    for shape, (times, rates) in zip(shapes, axes):
        lines = [row for row in rows if row["shape"] == shape]
        names = list(dict.fromkeys(row["subject"] for row in lines))
        style = {name: {"color": colormaps["tab20"].colors[i % 20], "marker": "o" if name.startswith("kvcc") else "x",
                        "linewidth": 2 if name.startswith("kvcc") else 1} for i, name in enumerate(names)}
        tokens = lambda row: int(row["batch"]) * int(row["ctx"])
        for name in names:
            for batch in sorted({int(row["batch"]) for row in lines}):
                points = sorted((tokens(row), float(row["us"])) for row in lines
                                if row["subject"] == name and int(row["batch"]) == batch)
                if points:
                    times.loglog(*zip(*points), **style[name])
        times.set_xlabel("tokens of all sequences; a line for each batch")
        times.set_ylabel("one layer's decode step, us")
        times.set_title(shape)
        most = max(map(tokens, lines))
        last = [row for row in lines if tokens(row) == most]
        exact = [float(row["MB"]) for row in last if row["subject"].endswith(" bf16") or row["subject"] == "kvcc fp16"]
        for row in last if exact else []:
            rates.plot(16 * float(row["MB"]) / exact[0], float(row["% of copy"]), label=row["subject"],
                       **style[row["subject"]])
        rates.set_xlabel("bits per number, windows included")
        rates.set_ylabel("bytes read per second, % of a copy's")
        rates.set_ylim(0)
        rates.set_title(f"{most} tokens")
        for axis in (times, rates):
            axis.grid(True, which="both", alpha=0.2)
        rates.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
