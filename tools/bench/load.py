#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""How long a framework waits for kvcc_compile: all kernels of a model, cold and from the cache, on 1 and 2 processors.

Usage: load.py [--runs N] [--target T]... [--export] [--record]

Every figure is the median, and in brackets the minimum, of N fresh processes (default 5), which load libkvcc.so, create a
context and compile; the cache is empty for `cold` and holds everything for `warm`. With --export the processes are
`kvcc cache export`, which does the same but for the driver's part, and needs no device. --record writes
results/load-DATE-TARGETS.md.
"""
import argparse
import ctypes
import datetime
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("KVCC_BUILD_DIR", ROOT / "build"))
FORMATS = ["<bf16>"] + [f"<i{bits}, map = {kind}, group = 1x64, scale = f16>" for kind in ("asym", "sym")
                        for bits in (2, 3, 4, 8)]
MODELS = [("smollm2-135m-instruct", 30), ("llama-3.1-8b", 32), ("qwen3-30b-a3b", 48)]
VARIANTS = [1, 4, 8]


class CompileOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t)] + [(name, ctypes.c_char_p) for name in (
        "model", "scheme", "target", "dtype", "compute")] + [("page_tokens", ctypes.c_int64)]


def load(model, scheme, target):
    """In a process of its own: prints milliseconds."""
    start = time.perf_counter()
    library = ctypes.CDLL(str(BUILD / "lib/libkvcc.so"))
    library.kvcc_last_message.restype = ctypes.c_char_p
    context, program = ctypes.c_void_p(), ctypes.c_void_p()
    options = CompileOptions(ctypes.sizeof(CompileOptions), model.encode(), scheme.encode(), target.encode())
    if library.kvcc_context_create(None, ctypes.byref(context)) or library.kvcc_compile(
            context, ctypes.byref(options), ctypes.byref(program)):
        sys.exit(library.kvcc_last_message().decode())
    print(1000 * (time.perf_counter() - start))


def table(layers, variants):
    """A scheme with so many distinct pairs of formats, by layer in turn."""
    return "".join(f"kv.layer {i} {{key = #kv.quant{FORMATS[i % variants]}, value = #kv.quant{FORMATS[i % variants]}, "
                   "window = #kv.window<sink = 0, recent = 0, flush = 32>}\n" for i in range(layers))


def export(arguments, cpus, cache):
    """The same without a device."""
    model, scheme, target = arguments
    start = time.perf_counter()
    subprocess.run(["taskset", "-c", cpus, str(BUILD / "bin/kvcc"), "cache", "export", f"--model={model}",
                    f"--scheme={scheme}", f"--targets={target}", "-o", "/dev/null"], check=True,
                   env={**os.environ, "KVCC_CACHE_DIR": cache}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - start)


def run(arguments, cpus, cache):
    """One process on these processors, in milliseconds."""
    done = subprocess.run(["taskset", "-c", cpus, sys.executable, __file__, "--load", *arguments], check=True,
                          env={**os.environ, "KVCC_CACHE_DIR": cache}, stdout=subprocess.PIPE)
    return float(done.stdout)


def measure(run, arguments, sets, runs, cache):
    """Times of every set of processors, cold and then warm; round by round, so that the machine's moods fall on all."""
    run(arguments, sets[-1], cache)
    times = [[] for _ in range(2 * len(sets))]
    for _ in range(runs):
        for i, cpus in enumerate(sets):
            with tempfile.TemporaryDirectory(prefix="kvcc-load-") as empty:
                times[i].append(run(arguments, cpus, empty))
            times[len(sets) + i].append(run(arguments, cpus, cache))
    return times


def format_times(times):
    return " ".join(text.format(f"{time:.0f}" if time >= 100 else f"{time:.1f}")
                    for text, time in (("{}", statistics.median(times)), ("({})", min(times))))


def main():
    if sys.argv[1:2] == ["--load"]:
        return load(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--target", action="append", help="default: cpu")
    parser.add_argument("--export", action="store_true", help="compile with `kvcc cache export`: no device is needed")
    parser.add_argument("--record", action="store_true", help="write results/load-DATE-TARGETS.md")
    options = parser.parse_args()
    options.target = options.target or ["cpu"]
    processors = sorted(os.sched_getaffinity(0))
    sets = [",".join(map(str, processors[:count])) for count in (1, 2) if count <= len(processors)]
    header = ["model", "target", "kernels"] + [f"{how}, {1 + cpus.count(',')} processor{'s' if ',' in cpus else ''}"
                                               for how in ("cold", "warm") for cpus in sets]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(prefix="kvcc-load-") as folder:
        for model, layers in MODELS:
            for target in options.target:
                for variants in VARIANTS:
                    scheme, cache = Path(folder) / f"{model}-{variants}.mlir", f"{folder}/{model}-{target}-{variants}"
                    scheme.write_text(table(layers, variants))
                    arguments = [str(ROOT / f"test/models/{model}.json"), str(scheme), target]
                    times = measure(export if options.export else run, arguments, sets, options.runs, cache)
                    cells = [model, target, str(variants)] + [format_times(each) for each in times]
                    lines.append("| " + " | ".join(cells) + " |")
                    print(lines[-1], flush=True)
    if options.record:
        name = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                     if line.startswith("model name")), "an unknown processor")
        load_average = os.getloadavg()[2]
        today = datetime.date.today()
        command = "tools/dev bench load " + " ".join(sys.argv[1:])
        until = "are compiled, without what the driver does" if options.export else "can run"
        text = (f"Milliseconds from loading libkvcc.so until all kernels of a model {until}, medians and (minima) of "
                f"{options.runs} processes; {name}, {len(processors)} processors, which others used as well (load "
                f"average {load_average:.1f}), {today}; `{command}`. Kernels: distinct pairs of formats, given by a table.\n\n")
        targets = "-".join(target.split(":")[-1] for target in options.target)
        (ROOT / f"tools/bench/results/load-{today}-{targets}.md").write_text(text + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
