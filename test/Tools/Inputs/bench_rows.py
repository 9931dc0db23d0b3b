#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Checks the rows that `kvcc bench -o json` wrote to a file, and prints what does not depend on the machine."""
import json
import sys

with open(sys.argv[1]) as file:
    rows = json.load(file)
for row in rows:
    print(row["scheme"], row["target"], "ctx", row["ctx"], "batch", row["batch"], "threads", row["threads"])
    assert set(row) == {"scheme", "target", "ctx", "batch", "threads", "median_us", "min_us", "bytes", "gbps",
                        "bandwidth_gbps", "rel_error"}, sorted(row)
    assert 0 < row["min_us"] <= row["median_us"] and row["bandwidth_gbps"] > 0, row
    assert abs(row["gbps"] - row["bytes"] / row["median_us"] / 1e3) <= 1e-6 * row["gbps"], row
    # Only what is quantized loses something: the schemes agree where all tokens are in the windows.
    exact = row["scheme"] == "fp16" or row["ctx"] < 160
    assert row["rel_error"] < 1e-3 if exact else 1e-3 < row["rel_error"] < 0.5, row
