#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What filling a cache costs on this processor: a prefill beside copying its keys and values, an appended token (flushes
included) beside a decode step.

Usage: writers.py [--rounds N] [--record]

Runs `kvcc bench --writers` for two shapes on 1 and 2 threads. --record writes results/writers-DATE.md.
"""
import argparse
import datetime
import os
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("KVCC_BUILD_DIR", ROOT / "build"))
SCHEMES = "innerq-small,innerq-base,kvcc-3.5,q8_0,q4_0,int4-token,kivi-2,fp16"
MODELS = ["llama-3.1-8b", "llama-2-7b"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--record", action="store_true", help="write results/writers-DATE.md")
    options = parser.parse_args()
    sections = []
    for model in MODELS:
        command = ["kvcc", "bench", "--writers", f"test/models/{model}.json", "--scheme", SCHEMES, "--ctx", "4096",
                   "--threads", "1,2", "--rounds", str(options.rounds), "-o", "md"]
        done = subprocess.run([str(BUILD / "bin/kvcc"), *command[1:]], cwd=ROOT, check=True, stdout=subprocess.PIPE,
                              text=True)
        sections.append(f"`{' '.join(command)}`:\n\n{done.stdout}")
        print(sections[-1], flush=True)
    if options.record:
        name = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                     if line.startswith("model name")), "an unknown processor")
        today = datetime.date.today()
        text = (f"What filling a cache costs: {name}, {os.cpu_count()} processors, which others used as well (load average "
                f"{os.getloadavg()[2]:.1f}), {today}; `tools/dev bench writers {' '.join(sys.argv[1:])}`. Medians of "
                f"{options.rounds} rounds: `step_us` a decode step, `append_us` an appended token of every KV head, "
                "flushes included, `append_part` the latter by the former; `prefill_us` a prefill of all tokens, "
                "`prefill_gbps` its keys and values by that, `copy_gbps` memcpy, counted once, `prefill_part` the former "
                "by the latter.\n\n")
        (ROOT / f"tools/bench/results/writers-{today}.md").write_text(text + "\n".join(sections))


if __name__ == "__main__":
    main()
