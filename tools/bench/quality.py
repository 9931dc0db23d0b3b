#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The error of the attention output on captured tensors: every preset, and auto at several budgets with a profile.

For each layer of the capture, `kvcc run --check` fills a cache with the captured keys and values, decodes the last
captured queries with the compiled kernel, each over the tokens that it sees, and compares with exact attention over the
captured tensors. The table has the mean over layers and queries of the squared relative error, beside the bits that the
quantized part of the cache takes. The profile is measured on the queries before those.
"""
import argparse
import csv
import datetime
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("KVCC_BUILD_DIR", ROOT / "build"))
KVCC = BUILD / "bin/kvcc"


def run(*args):
    result = subprocess.run([KVCC, *map(str, args)], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"kvcc {' '.join(map(str, args))}: {result.stderr.strip()}")
    return result.stdout


def read_safetensors(path):
    data = Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], data[8 + length + entry["data_offsets"][0]:
                                                        8 + length + entry["data_offsets"][1]])
            for name, entry in header.items()}


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def write_steps(capture, layer, queries, path):
    """The last captured queries of a layer as a batch of steps."""
    dtype, (heads, count, dim), q = capture[f"layer.{layer}.q"]
    row = dim * len(q) // (heads * count * dim)
    picked = range(count - queries, count)
    steps = b"".join(q[(head * count + i) * row:(head * count + i + 1) * row] for i in picked for head in range(heads))
    tensors = {"q": (dtype, [queries, heads, dim], steps)}
    for name in "kv":
        _, shape, data = capture[f"layer.{layer}.{name}"]
        tensors[name] = (dtype, [queries, *shape], data * queries)
    lens = [shape[1] - count + i + 1 for i in picked]
    tensors["seq_lens"] = ("I32", [queries], struct.pack(f"<{queries}i", *lens))
    write_safetensors(path, tensors)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=ROOT / "test/models/smollm2-135m-instruct.json")
    parser.add_argument("--input", required=True, help="captured layer.N.q, .k, .v of every layer")
    parser.add_argument("--profile", help="default: measured now")
    parser.add_argument("--budgets", default="2.5,3,3.5,4,4.5,5", help="bits, for auto")
    parser.add_argument("--schemes", help="only these, separated by commas; default: every preset, and auto")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--compute", default="auto", help="arithmetic of the kernels, as in kvcc run")
    parser.add_argument("--queries", type=int, default=8, help="the last so many of the captured ones are decoded")
    parser.add_argument("--out", help="folder for the table and the numbers; default: standard output only")
    args = parser.parse_args()

    presets = run("explain", args.model, "--scheme", "fp16", "-o", "json")
    layers = [i for group in json.loads(presets)["groups"] if group["served"] for i in group["layers"]]
    with tempfile.TemporaryDirectory() as folder:
        capture = read_safetensors(args.input)
        for layer in layers:
            write_steps(capture, layer, args.queries, Path(folder) / f"{layer}.safetensors")
        profile = args.profile
        if not profile:
            profile = Path(folder) / "profile.json"
            before = capture[f"layer.{layers[0]}.q"][1][1] - args.queries
            run("profile", args.model, "--input", args.input, "--queries", before, "-o", profile)
        names = args.schemes or re.search(r"expected scheme (.*), but got", subprocess.run(
            [KVCC, "explain", args.model, "--scheme", "?"], capture_output=True, text=True).stderr).group(1)
        # The writers of all schemes may use the statistics; only centring and feedback do.
        subjects = [(name, ["--scheme", name, "--profile", profile]) for name in re.split(", ?", names)]
        if not args.schemes:
            subjects += [(f"auto {budget}", ["--scheme", "auto", "--budget", budget, "--profile", profile])
                         for budget in args.budgets.split(",")]

        def measure(subject):
            name, options = subject
            bits = json.loads(run("explain", args.model, *options, "-o", "json"))["totals"]["bits_per_number"]
            errors = []
            for layer in layers:
                text = run("run", args.model, "--input", Path(folder) / f"{layer}.safetensors", "--layer", layer,
                           "--target", args.target, "--compute", args.compute, "--check", *options)
                errors.append(float(re.search(r"over sequences: (\S+)", text).group(1)) ** 2)
            print(f"{name}: {sum(errors) / len(errors):.3e}", file=sys.stderr)
            return name, bits, sum(errors) / len(errors), max(errors)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = sorted(pool.map(measure, subjects), key=lambda row: (row[1], row[2]))

    date = datetime.date.today().isoformat()
    lines = [f"Mean and largest squared relative error of the attention output, {len(layers)} layers x {args.queries} queries of "
             f"{Path(args.model).stem}, {date}, target {args.target}, arithmetic {args.compute}; bits of the quantized part, scales "
             "included.", "",
             "| scheme | bits | mean error | largest |", "|---|---|---|---|"]
    lines += [f"| {name} | {bits:.2f} | {mean:.2e} | {largest:.2e} |" for name, bits, mean, largest in rows]
    print("\n".join(lines))
    if args.out:
        stem = Path(args.out) / f"quality-{date}"
        stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
        with open(stem.with_suffix(".csv"), "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["scheme", "bits", "mean_squared_relative_error", "largest"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
