#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Decode attention on the CPU: kvcc's schemes beside PyTorch, interleaved in one process and one run.

Every subject gets enough copies of its cache that memory has to be read (at least 256 MB and eight times the
last-level cache). A round measures the machine's read bandwidth and then every subject once, so that noise of the
machine meets all of them alike. PyTorch's scaled_dot_product_attention runs in its fair form: the query heads that
share a KV head are packed as query rows, so that K and V are read once.
"""
import argparse
import csv
import ctypes
import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("KVCC_BUILD_DIR", ROOT / "build"))
VENV = ROOT / ".venv-bench"


def enter_environment():
    """Runs this script again inside an environment with the peers, which is made once."""
    if Path(sys.prefix).resolve() == VENV.resolve() or os.environ.get("KVCC_BENCH_PYTHON") == sys.executable:
        return
    python = os.environ.get("KVCC_BENCH_PYTHON")
    if not python:
        pin = ROOT / "tools/bench/requirements.txt"
        stamp = VENV / "installed.txt"
        if not stamp.exists() or stamp.read_text() != pin.read_text():
            print("installing the peers into .venv-bench", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
            subprocess.run([VENV / "bin/pip", "install", "--quiet", "-r", pin], check=True)
            stamp.write_text(pin.read_text())
        python = str(VENV / "bin/python")
    os.execve(python, [python, *sys.argv], {**os.environ, "KVCC_BENCH_PYTHON": python})


# Attention shapes, by the model that has them.
SHAPES = {
    "llama-3.1-8b": "llama-3.1-8b.json",
    "llama-2-7b": "llama-2-7b.json",
    "qwen2.5-7b": "qwen2.5-7b-instruct.json",
    "smollm2-135m": "smollm2-135m-instruct.json",
}


class Memory(ctypes.Structure):
    _fields_ = [("pages", ctypes.c_void_p), ("num_pages", ctypes.c_int64), ("slots", ctypes.c_void_p),
                ("num_slots", ctypes.c_int64)]


class ContextOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("cache_dir", ctypes.c_char_p), ("threads", ctypes.c_uint32)]


class CompileOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("model", ctypes.c_char_p), ("scheme", ctypes.c_char_p),
                ("target", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("compute", ctypes.c_char_p),
                ("page_tokens", ctypes.c_int64)]


class LayerInfo(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("served", ctypes.c_int32), ("unserved_reason", ctypes.c_char_p),
                ("q_heads", ctypes.c_int64), ("kv_heads", ctypes.c_int64), ("head_dim", ctypes.c_int64),
                ("scale", ctypes.c_double), ("dtype", ctypes.c_char_p), ("sink", ctypes.c_int64),
                ("recent", ctypes.c_int64), ("flush", ctypes.c_int64), ("page_tokens", ctypes.c_int64),
                ("page_bytes", ctypes.c_int64), ("slot_bytes", ctypes.c_int64),
                ("kernel_error_bound", ctypes.c_double)]


class PrefillArgs(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("memory", Memory), ("table", ctypes.c_void_p),
                ("table_length", ctypes.c_int64), ("slot", ctypes.c_int32), ("keys", ctypes.c_void_p),
                ("values", ctypes.c_void_p), ("key_head_stride", ctypes.c_int64),
                ("value_head_stride", ctypes.c_int64), ("tokens", ctypes.c_int64)]


class AttendArgs(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("memory", Memory), ("table", ctypes.c_void_p),
                ("table_stride", ctypes.c_int64), ("slots", ctypes.c_void_p), ("seq_lens", ctypes.c_void_p),
                ("batch", ctypes.c_int64), ("max_tokens", ctypes.c_int64), ("query", ctypes.c_void_p),
                ("out", ctypes.c_void_p), ("lse", ctypes.c_void_p), ("workspace", ctypes.c_void_p),
                ("workspace_bytes", ctypes.c_size_t)]


class Library:
    def __init__(self):
        self.lib = ctypes.CDLL(str(BUILD / "lib/libkvcc.so"))
        self.lib.kvcc_last_message.restype = ctypes.c_char_p

    def call(self, name, *args):
        if getattr(self.lib, name)(*args) != 0:
            sys.exit(f"cpu.py: {name}: {self.lib.kvcc_last_message().decode()}")


def copies_for(nbytes):
    cache = max((os.sysconf(n) for n in ("SC_LEVEL3_CACHE_SIZE", "SC_LEVEL4_CACHE_SIZE") if n in os.sysconf_names),
                default=0)
    return max(2, max(256 << 20, 8 * cache) // nbytes + 1)


def aligned(nbytes, np):
    raw = np.zeros(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + nbytes]


class Tensors:
    """One layer of one sequence. Some key channels are loud and values have a mean per channel, as in models."""

    def __init__(self, info, ctx, np):
        random = np.random.default_rng(1)
        shape = (info.kv_heads, ctx, info.head_dim)
        channel = np.arange(info.head_dim)
        self.q = random.standard_normal((info.q_heads, info.head_dim), np.float32)
        self.k = random.standard_normal(shape, np.float32) * np.where(channel % 24 == 5, 8, 1).astype(np.float32)
        self.v = random.standard_normal(shape, np.float32) + np.where(channel % 2, 1, -1).astype(np.float32)
        self.q, self.k, self.v = (x.astype(np.float16) for x in (self.q, self.k, self.v))

    def exact(self, info, np):
        group = info.q_heads // info.kv_heads
        q = self.q.astype(np.float64).reshape(info.kv_heads, group, info.head_dim)
        k, v = self.k.astype(np.float64), self.v.astype(np.float64)
        scores = q @ k.transpose(0, 2, 1) * info.scale
        p = np.exp(scores - scores.max(-1, keepdims=True))
        return ((p / p.sum(-1, keepdims=True)) @ v).reshape(info.q_heads, info.head_dim)


class Kvcc:
    def __init__(self, library, context, model, scheme, compute, np):
        self.library, self.np = library, np
        self.name = f"kvcc {scheme}" + (f" {compute}" if compute != "auto" else "")
        self.program = ctypes.c_void_p()
        options = CompileOptions(ctypes.sizeof(CompileOptions), str(model).encode(), scheme.encode(), b"cpu", b"f16",
                                 compute.encode(), 0)
        library.call("kvcc_compile", context, ctypes.byref(options), ctypes.byref(self.program))
        self.info = LayerInfo(ctypes.sizeof(LayerInfo))
        library.call("kvcc_program_get_layer", self.program, 0, ctypes.byref(self.info))

    def load(self, tensors, ctx):
        np, info = self.np, self.info
        count = ctypes.c_int64()
        self.library.call("kvcc_pages_for", self.program, 0, ctypes.c_int64(ctx), ctypes.byref(count))
        pages = count.value
        self.table = np.arange(max(pages, 1), dtype=np.int32)
        self.slots, self.lens = np.zeros(1, np.int32), np.full(1, ctx, np.int32)
        self.copies = []
        first = None
        self.bytes = pages * info.page_bytes + info.slot_bytes
        for _ in range(copies_for(self.bytes)):
            memory = aligned(pages * info.page_bytes, np), aligned(info.slot_bytes, np)
            if first is None:
                first = memory
                args = PrefillArgs(ctypes.sizeof(PrefillArgs), self.memory(memory, pages), self.table.ctypes.data, pages,
                                   0, tensors.k.ctypes.data, tensors.v.ctypes.data, 0, 0, ctx)
                self.library.call("kvcc_prefill", self.program, 0, ctypes.byref(args))
            else:
                for to, source in zip(memory, first):
                    to[:] = source
            self.copies.append((memory, self.memory(memory, pages)))
        size = ctypes.c_size_t()
        self.library.call("kvcc_workspace_bytes", self.program, 0, ctypes.c_int64(1), ctypes.c_int64(ctx),
                          ctypes.byref(size))
        self.workspace = aligned(max(size.value, 1), np)
        self.query = tensors.q
        self.out = np.zeros((info.q_heads, info.head_dim), np.float32)
        self.lse = np.zeros(info.q_heads, np.float32)
        self.args = [AttendArgs(ctypes.sizeof(AttendArgs), memory, self.table.ctypes.data, pages,
                                self.slots.ctypes.data, self.lens.ctypes.data, 1, ctx, self.query.ctypes.data,
                                self.out.ctypes.data, self.lse.ctypes.data, self.workspace.ctypes.data, size.value)
                     for _, memory in self.copies]
        self.next = 0

    @staticmethod
    def memory(arrays, pages):
        return Memory(arrays[0].ctypes.data, pages, arrays[1].ctypes.data, 1)

    def step(self):
        args = self.args[self.next % len(self.args)]
        self.next += 1
        start = time.perf_counter()
        self.library.call("kvcc_attend", self.program, 0, ctypes.byref(args), None)
        return time.perf_counter() - start

    def result(self):
        return self.out


class Torch:
    def __init__(self, torch, dtype):
        self.torch, self.dtype = torch, getattr(torch, dtype)
        self.name = f"PyTorch {torch.__version__} SDPA {dtype}"

    def load(self, tensors, ctx):
        torch = self.torch
        kv_heads, _, head_dim = tensors.k.shape
        tensor = lambda x: torch.from_numpy(x).to(self.dtype)
        self.q = tensor(tensors.q).view(1, kv_heads, -1, head_dim)
        k, v = tensor(tensors.k)[None], tensor(tensors.v)[None]
        self.bytes = k.nbytes + v.nbytes
        self.copies = [(k.clone(), v.clone()) for _ in range(copies_for(self.bytes))]
        self.next = 0

    def step(self):
        k, v = self.copies[self.next % len(self.copies)]
        self.next += 1
        start = time.perf_counter()
        self.out = self.torch.nn.functional.scaled_dot_product_attention(self.q, k, v)
        return time.perf_counter() - start

    def result(self):
        return self.out.float().numpy().reshape(-1, self.out.shape[-1])


class Bandwidth:
    """Read bandwidth: a sum over a buffer that no cache holds."""

    def __init__(self, torch):
        self.data = torch.ones(copies_for(1) // 8, dtype=torch.int64)

    def step(self):
        start = time.perf_counter()
        self.data.sum()
        return self.data.nbytes / (time.perf_counter() - start) / 1e9


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", default=["llama-3.1-8b"], choices=SHAPES)
    parser.add_argument("--ctx", nargs="+", type=int, default=[4096, 16384])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--scheme", nargs="+", default=["innerq-small", "innerq-base", "fp16"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--record", action="store_true", help="write tools/bench/results/cpu-DATE.{csv,md}")
    options = parser.parse_args()

    import numpy as np
    import torch

    library = Library()
    rows = []
    for shape in options.shape:
        model = ROOT / "test/models" / SHAPES[shape]
        for threads in options.threads:
            torch.set_num_threads(threads)
            context = ctypes.c_void_p()
            library.call("kvcc_context_create",
                         ctypes.byref(ContextOptions(ctypes.sizeof(ContextOptions), None, threads)),
                         ctypes.byref(context))
            for ctx in options.ctx:
                subjects = [Kvcc(library, context, model, scheme, "auto", np) for scheme in options.scheme]
                info = subjects[0].info
                tensors = Tensors(info, ctx, np)
                exact = tensors.exact(info, np)
                subjects += [Torch(torch, "bfloat16")]
                bandwidth = Bandwidth(torch)
                errors = []
                for subject in subjects:
                    subject.load(tensors, ctx)
                    subject.step()
                    errors.append(np.linalg.norm(subject.result() - exact) / np.linalg.norm(exact))
                times, rates = [[] for _ in subjects], []
                for _ in range(options.rounds):
                    rates.append(bandwidth.step())
                    for subject, samples in zip(subjects, times):
                        time.sleep(0.002)  # the threads of the one before go to sleep
                        samples.append(subject.step())
                reference = statistics.median(times[-1])
                rate = statistics.median(rates)
                for subject, samples, error in zip(subjects, times, errors):
                    middle = statistics.median(samples)
                    rows.append({"shape": shape, "ctx": ctx, "threads": threads, "subject": subject.name,
                                 "median_us": f"{middle * 1e6:.0f}", "min_us": f"{min(samples) * 1e6:.0f}",
                                 "MB": f"{subject.bytes / 1e6:.1f}", "gbps": f"{subject.bytes / middle / 1e9:.1f}",
                                 "bandwidth_gbps": f"{rate:.1f}", "rel_error": f"{error:.1e}",
                                 "speedup": f"{reference / middle:.2f}"})
                    print(rows[-1], flush=True)
    text = (f"{cpu_name()}, {os.cpu_count()} processors, {datetime.date.today()}, PyTorch {torch.__version__}; "
            f"command: tools/dev bench cpu {' '.join(sys.argv[1:])}\n\n")
    text += "| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]) + "\n"
    text += "".join("| " + " | ".join(str(x) for x in row.values()) + " |\n" for row in rows)
    print(text)
    if options.record:
        stem = ROOT / f"tools/bench/results/cpu-{datetime.date.today()}"
        stem.with_suffix(".md").write_text(text)
        with open(stem.with_suffix(".csv"), "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    enter_environment()
    main()
