#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Decode attention on the CPU: kvcc's schemes beside its peers, interleaved in one process and one run.

A round measures the machine's read bandwidth and then every subject once, so that noise of the machine meets all of
them alike; all run on the same number of threads. Caches lie in pages of 4 KiB and are cold: what measures the
bandwidth reads as much memory as evicts all of them. The relative error is that of the output against exact attention
over the tensors before they were quantized. peers.py says how each peer is driven.
"""
import argparse
import csv
import datetime
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-bench"


def enter_environment():
    """Runs this script again inside an environment with PyTorch, which is made once."""
    if Path(sys.prefix).resolve() == VENV.resolve() or os.environ.get("KVCC_BENCH_PYTHON") == sys.executable:
        return
    python = os.environ.get("KVCC_BENCH_PYTHON")
    if not python:
        pin = ROOT / "tools/bench/requirements.txt"
        stamp = VENV / "installed.txt"
        if not stamp.exists() or stamp.read_text() != pin.read_text():
            note("installing PyTorch into .venv-bench")
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
            subprocess.run([VENV / "bin/pip", "install", "--quiet", "-r", pin], check=True)
            stamp.write_text(pin.read_text())
        python = str(VENV / "bin/python")
    # Pages of 4 KiB for all: numpy would ask for huge ones for arrays from 4 MiB on, and so for some of the subjects.
    environment = {**os.environ, "KVCC_BENCH_PYTHON": python, "NUMPY_MADVISE_HUGEPAGE": "0"}
    os.execve(python, [python, *sys.argv], environment)


def install_peers():
    """One by one, so that a package that this machine cannot have does not keep the others away."""
    lines = (ROOT / "tools/bench/requirements-peers.txt").read_text().splitlines()
    failed = [line for line in lines if line and not line.startswith("#") and not install(line)]
    if failed:
        sys.exit(f"cpu.py: cannot install {', '.join(failed)}")


def install(requirement):
    # llama.cpp is compiled here, for this processor, without its support for images; a cached wheel may be another's.
    environment = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF", **os.environ}
    note(f"installing {requirement}")
    return subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", requirement],
                          env=environment).returncode == 0


def note(text):
    print(f"cpu.py: {text}", file=sys.stderr)


# Attention shapes, by the model that has them, and a layer of that shape.
SHAPES = {
    "llama-3.1-8b": ("llama-3.1-8b.json", 0),
    "llama-2-7b": ("llama-2-7b.json", 0),
    "qwen2.5-7b": ("qwen2.5-7b-instruct.json", 0),
    "gemma-2-9b": ("gemma-2-9b.json", 1),  # layer 0 slides
    "smollm2-135m": ("smollm2-135m-instruct.json", 0),
}
REFERENCE = "PyTorch SDPA bf16"  # what speedups are over
SITTINGS = 3  # how often subjects are set up, with a share of the rounds each
NO_WINDOWS = "innerq-small; window = <sink = 0, recent = 0, flush = 32>"  # what the hand-written kernel computes
SCHEMES = ["kvcc-3", "innerq-small", "innerq-small:int16", NO_WINDOWS, "innerq-base", "q4_0", "q8_0", "kivi-2", "int4-token",
           "fp16"]


def model_without_softcap(shape, folder):
    """The model's configuration; kvcc refuses layers with a softcap, so it is dropped, for the peers too."""
    config = json.loads((ROOT / "test/models" / SHAPES[shape][0]).read_text())
    if "attn_logit_softcapping" in config:
        config["attn_logit_softcapping"] = None  # leaving it out would mean the default of the family
    path = Path(folder) / f"{shape}.json"
    path.write_text(json.dumps(config))
    return path


class Tensors:
    """One layer of one sequence. Some key channels are loud and values have a mean per channel, as in models."""

    def __init__(self, layer, ctx):
        random = np.random.default_rng(1)
        shape = (layer.kv_heads, ctx, layer.head_dim)
        channel = np.arange(layer.head_dim)
        self.q = random.standard_normal((layer.q_heads, layer.head_dim), np.float32)
        self.k = random.standard_normal(shape, np.float32) * np.where(channel % 24 == 5, 8, 1).astype(np.float32)
        self.v = random.standard_normal(shape, np.float32) + np.where(channel % 2, 1, -1).astype(np.float32)
        self.q, self.k, self.v = (x.astype(np.float16) for x in (self.q, self.k, self.v))

    def exact(self, layer):
        return np.concatenate([self.exact_head(q, k, v, layer.scale) for q, k, v in
                               zip(np.split(self.q, layer.kv_heads), self.k, self.v)])

    @staticmethod
    def exact_head(*tensors):
        q, k, v, scale = (np.asarray(x, np.float64) for x in tensors)
        scores = q @ k.T * scale
        p = np.exp(scores - scores.max(-1, keepdims=True))
        return p / p.sum(-1, keepdims=True) @ v


class Bandwidth:
    """Read bandwidth: a sum over a buffer that no cache holds."""

    def __init__(self, threads):
        import torch
        torch.set_num_threads(threads)
        self.data = torch.ones(cold_bytes() // 8, dtype=torch.int64)

    def step(self):
        self.data.sum()  # as the subjects: threads are awake then
        start = time.perf_counter()
        self.data.sum()
        return self.data.nbytes / (time.perf_counter() - start) / 1e9


def present(names):
    """Those of the peers that this machine has."""
    left_out = {}
    for name in names:
        if reason := PEERS[name][0].missing():
            left_out.setdefault(reason, []).append(name)
    for reason, missing in left_out.items():
        note(f"{', '.join(missing)} left out: {reason}")
    return [name for name in names if not any(name in missing for missing in left_out.values())]


def free_memory():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo does not say how much memory is available")


def prepare(make, name, tensors, where):
    """A loaded subject that has made its first step, or None where it cannot be had."""
    try:
        subject = make()
        if subject.memory() > free_memory() / 2:
            raise Unavailable(f"its copies take {subject.memory() / 1e9:.1f} GB, more than half of the free memory")
        subject.load(tensors)
        subject.step()
        return subject
    except Exception as error:  # a peer that fails must not take the run along
        at = ", ".join(f"{key} {value}" for key, value in where.items())
        note(f"{name} left out at {at}: {(str(error).strip() or repr(error)).splitlines()[0]}")
        return None


def settle():
    """Waits until the threads of the subject before are asleep: some spin for a while when its step is done."""
    for _ in range(100):
        before = time.process_time()
        time.sleep(0.005)
        if time.process_time() - before < 0.0005:
            return


def measure(makers, layer, ctx, rounds, where):
    """Medians and minima of the subjects that can be had, with the bandwidth measured beside them."""
    tensors = Tensors(layer, ctx)
    exact = tensors.exact(layer)
    bandwidth, rates = Bandwidth(where["threads"]), []
    makers, results = dict(makers), {name: Result() for name, _ in makers}
    # Subjects are set up several times, in another order each time: where the memory of a cache comes to lie decides
    # up to a fifth of what reading it takes on a virtual machine.
    sittings = min(SITTINGS, rounds)
    for sitting in range(sittings):
        subjects = {}
        for name in random.Random(f"{where} {sitting}").sample(list(makers), len(makers)):
            if subject := prepare(makers[name], name, tensors, where):
                subjects[name] = subject
                results[name].add(subject, exact)
        makers = {name: makers[name] for name in makers if name in subjects}
        for turn in range(sitting, rounds, sittings):
            settle()
            rates.append(bandwidth.step())
            # In another order each time: whoever comes next pays for what the one before has left, if anything.
            for name, subject in random.Random(turn).sample(list(subjects.items()), len(subjects)):
                if turn // sittings % subject.interval == 0:
                    settle()
                    results[name].times.append(subject.step())
        subject = None  # the last one's memory goes with the others'
    rate = statistics.median(rates)
    measured = [result for result in results.values() if result.times]
    reference = next((statistics.median(result.times) for result in measured if result.name == REFERENCE), None)
    return [row(result, rate, reference) for result in measured]


class Result:
    """What is known of a subject when it has been measured."""

    def __init__(self):
        self.times = []

    def add(self, subject, exact):
        self.name, self.bytes, self.error = subject.name, subject.bytes, subject.error(exact)


def row(result, rate, reference):
    middle = statistics.median(result.times)
    gbps = result.bytes / middle / 1e9
    return {"subject": result.name, "median_us": f"{middle * 1e6:.0f}", "min_us": f"{min(result.times) * 1e6:.0f}",
            "MB": f"{result.bytes / 1e6:.2f}", "gbps": f"{gbps:.2f}", "bandwidth_gbps": f"{rate:.2f}",
            "percent_of_bandwidth": f"{100 * gbps / rate:.0f}", "rel_error": f"{result.error:.1e}",
            "speedup_over_bf16": f"{reference / middle:.2f}" if reference else ""}


def run(options, peers):
    library = Library()
    with tempfile.TemporaryDirectory() as folder:
        for shape in options.shape:
            model = model_without_softcap(shape, folder)
            for threads in options.threads:
                context = library.context(threads)
                # A scheme may name its arithmetic: "innerq-small:int16".
                programs = [Program(library, context, model, SHAPES[shape][1], *scheme.split(":"))
                            for scheme in options.scheme]
                layer = programs[0].layer
                for batch in options.batch:
                    for ctx in options.ctx:
                        where = {"shape": shape, "batch": batch, "ctx": ctx, "threads": threads}
                        makers = [(p.name, functools.partial(Kvcc, p, batch, ctx)) for p in programs]
                        for name in peers:
                            cls, kind = PEERS[name]
                            makers.append((name, functools.partial(cls, kind, layer, batch, ctx, threads)))
                        for measured in measure(makers, layer, ctx, options.rounds, where):
                            print({**where, **measured}, flush=True)
                            yield {**where, **measured}


def cpu_name():
    """The model, which virtual machines may hide, and what says more of it: the widest instructions it has."""
    facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = facts.get("flags", "").split()
    telling = "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8"
    return " ".join([facts.get("model name", platform.processor()), *(name for name in telling if name in flags)])


def versions(peers):
    packages = ["torch"] + [package for name in peers for package in (PEERS[name][0].pip or "").split()]
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in dict.fromkeys(packages))


def table(rows, peers):
    text = (f"{cpu_name()}, {os.cpu_count()} processors, {datetime.date.today()}; {versions(peers)}; "
            f"command: tools/dev bench cpu {' '.join(sys.argv[1:])}\n\n")
    text += "| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]) + "\n"
    return text + "".join("| " + " | ".join(str(x) for x in line.values()) + " |\n" for line in rows)


def record(name, rows, text):
    stem = ROOT / f"tools/bench/results/cpu-{datetime.date.today()}{name and '-' + name}"
    stem.with_suffix(".md").write_text(text)
    with open(stem.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    if importlib.util.find_spec("matplotlib"):
        plot(rows, stem.with_suffix(".svg"))
    else:
        note(f"no plot: {sys.executable} -m pip install matplotlib")


def plot(rows, path):
    """A panel for each shape, batch and number of threads: latency against context."""
    from matplotlib import pyplot
    panels = {}
    for line in rows:
        panels.setdefault((line["shape"], line["batch"], line["threads"]), []).append(line)
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(9, 6 * len(panels)), squeeze=False, layout="constrained")
    for (key, lines), axis in zip(panels.items(), axes[:, 0]):
        plot_panel(axis, lines)
        axis.set_title("{}, batch {}, threads {}".format(*key))
    figure.savefig(path)


def plot_panel(axis, lines):
    from matplotlib import colormaps
    colors = (*colormaps["tab20"].colors, *colormaps["tab20b"].colors)
    for index, name in enumerate(dict.fromkeys(line["subject"] for line in lines)):
        points = [(line["ctx"], float(line["median_us"])) for line in lines if line["subject"] == name]
        own = name.startswith("kvcc")
        axis.loglog(*zip(*points), label=name, color=colors[index % len(colors)], marker="o" if own else "x",
                    linewidth=2 if own else 1, linestyle="-" if own else ":")
    contexts = sorted({line["ctx"] for line in lines})
    fastest = [min((line for line in lines if line["ctx"] == ctx), key=lambda line: float(line["median_us"]))
               for ctx in contexts]
    axis.loglog(contexts, [float(line["MB"]) * 1e3 / float(line["bandwidth_gbps"]) for line in fastest], "k--",
                label="reading the fastest one's cache")
    axis.set_xticks(contexts, contexts)
    axis.xaxis.minorticks_off()
    axis.set_xlabel("context, tokens")
    axis.set_ylabel("one layer's decode step, us")
    axis.grid(True, which="both", alpha=0.2)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--install", action="store_true", help="install the peers beside PyTorch, and do nothing else")
    parser.add_argument("--shape", nargs="+", default=["llama-3.1-8b"], choices=SHAPES)
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--ctx", nargs="+", type=int, default=[4096, 16384])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--scheme", nargs="+", default=SCHEMES)
    parser.add_argument("--peers", nargs="+", default=["all"], metavar="PEER",
                        help="all, none, or names: torch, onnxruntime, openvino, llama.cpp, anchor, or with a format "
                             "such as llama.cpp-q4_0")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--record", nargs="?", const="", metavar="NAME",
                        help="write tools/bench/results/cpu-DATE.{csv,md,svg}, or cpu-DATE-NAME and so on")
    return parser.parse_args()


def main():
    options = arguments()
    if options.install:
        install_peers()
        return
    try:
        peers = present(select(options.peers))
        rows = list(run(options, peers))
    except (Unavailable, ValueError) as error:
        sys.exit(f"cpu.py: {error}")
    if not rows:
        sys.exit("cpu.py: nothing was measured")
    text = table(rows, peers)
    print(text)
    if options.record is not None:
        record(options.record, rows, text)


if __name__ == "__main__":
    enter_environment()
    import numpy as np

    from kvcc import Kvcc, Library, Program
    from peers import PEERS, Unavailable, cold_bytes, select
    main()
