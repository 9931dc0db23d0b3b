#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The error of the attention output on captured tensors: every preset, and auto at several budgets with a profile.

For each layer of the capture, `kvcc run --check` fills a cache with the captured keys and values, decodes the last
captured query with the compiled kernel and compares with exact attention over the captured tensors. The table has the
mean over the layers of the squared relative error, beside the bits that the quantized part of the cache takes. The
profile takes its statistics from the capture's even queries; the query that is decoded is an odd one.
"""
import argparse
import csv
import datetime
import json
import os
import re
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=ROOT / "test/models/smollm2-135m-instruct.json")
    parser.add_argument("--input", required=True, help="captured layer.N.q, .k, .v of every layer")
    parser.add_argument("--profile", help="default: measured now")
    parser.add_argument("--budgets", default="2.5,3,3.5,4,4.5,5", help="bits, for auto")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--out", help="folder for the table and the numbers; default: standard output only")
    args = parser.parse_args()

    presets = run("explain", args.model, "--scheme", "fp16", "-o", "json")
    layers = [i for group in json.loads(presets)["groups"] if group["served"] for i in group["layers"]]
    with tempfile.TemporaryDirectory() as folder:
        profile = args.profile
        if not profile:
            profile = Path(folder) / "profile.json"
            run("profile", args.model, "--input", args.input, "-o", profile)
        names = re.search(r"expected scheme (.*), but got", subprocess.run(
            [KVCC, "explain", args.model, "--scheme", "?"], capture_output=True, text=True).stderr).group(1).split(", ")
        # The writers of all schemes may use the statistics; only centring and feedback do.
        subjects = [(name, ["--scheme", name, "--profile", profile]) for name in names]
        subjects += [(f"auto {budget}", ["--scheme", "auto", "--budget", budget, "--profile", profile])
                     for budget in args.budgets.split(",")]

        def measure(subject):
            name, options = subject
            bits = json.loads(run("explain", args.model, *options, "-o", "json"))["totals"]["bits_per_number"]
            errors = []
            for layer in layers:
                text = run("run", args.model, "--input", args.input, "--layer", layer, "--target", args.target, "--check",
                           *options)
                errors.append(float(re.search(r"total error: (\S+)", text).group(1)) ** 2)
            print(f"{name}: {sum(errors) / len(errors):.3e}", file=sys.stderr)
            return name, bits, sum(errors) / len(errors), max(errors)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = sorted(pool.map(measure, subjects), key=lambda row: (row[1], row[2]))

    date = datetime.date.today().isoformat()
    lines = [f"Mean and largest squared relative error of the attention output over {len(layers)} layers of "
             f"{Path(args.model).stem}, {date}, target {args.target}; bits of the quantized part, scales included.", "",
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
