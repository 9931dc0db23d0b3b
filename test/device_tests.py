#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The unit tests of emitted CUDA on this machine's GPU: what they ask of `cuda-host` runs on `cuda`.

Usage: device_tests.py KVCC-UNIT-TESTS [-j N] [--filter GTEST_FILTER] [--sanitize TOOL]

Every test is a process of its own, since a kernel that faults takes its context with it. --sanitize runs a few of them
under a tool of compute-sanitizer: memcheck, racecheck, initcheck or synccheck. Prints the output of those that fail and
one closing line."""
import argparse
import concurrent.futures
import os
import subprocess
import sys
import time

FILTER = ("*FragmentTest*:FragmentsTest.*:*SchemeTest*:*CombinationTest*:*TransformTest*:*AppendTest*:Append.*:*Reaches*:"
          "KernelTest.*:NvrtcTest.*:*CudaDriver*-*OnEveryLevel*:*ForAnyHeadDim*:*LongContexts*:*QueriesInBytes*:Portable*")
# Rings, numbers as they are, transforms, several queries, a merge of splits.
FEW = ("*SchemeTest.SplitsAndThreads*/innerq_base:*SchemeTest.SplitsAndThreads*/kvcc_3:*SchemeTest.SplitsAndThreads*/fp16:"
       "*AppendTest.TakesWhatItIsGiven/1:*Reaches.AllOfThem/10")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("-j", type=int, default=os.cpu_count())
    parser.add_argument("--filter")
    parser.add_argument("--sanitize", metavar="TOOL", choices=["memcheck", "racecheck", "initcheck", "synccheck"])
    options = parser.parse_args()
    options.filter = options.filter or (FEW if options.sanitize else FILTER)
    prefix = ["compute-sanitizer", "--tool", options.sanitize, "--error-exitcode", "9"] if options.sanitize else []
    listed = subprocess.run([options.binary, "--gtest_list_tests", f"--gtest_filter={options.filter}"],
                            stdout=subprocess.PIPE, text=True)
    if listed.returncode:
        sys.exit(f"device_tests.py: error: {options.binary} cannot list its tests")
    tests, suite = [], ""
    for line in listed.stdout.splitlines():
        name = line.split("#")[0].strip()
        if line.startswith(" "):
            tests.append(suite + name)
        elif name.endswith("."):
            suite = name
    if not tests:
        sys.exit(f"device_tests.py: error: expected a filter of tests that exist, but got {options.filter}")
    environment = {"KVCC_TEST_CUDA_TARGET": "cuda"} | os.environ
    start = time.monotonic()

    def run(test):
        try:
            done = subprocess.run(prefix + [options.binary, "--gtest_brief=1", f"--gtest_filter={test}"], env=environment,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                  timeout=600)
        except subprocess.TimeoutExpired:
            return test, "after ten minutes", ""
        return test, done.returncode, done.stdout

    failed, skipped = [], 0
    with concurrent.futures.ThreadPoolExecutor(options.j) as pool:
        running = [pool.submit(run, test) for test in tests]
        for count, done in enumerate(concurrent.futures.as_completed(running), 1):
            test, code, output = done.result()
            skipped += "SKIPPED" in output
            if code:
                failed.append(test)
                print(f"---- {test} failed ({code})\n{output}", flush=True)
            if count % 50 == 0:
                print(f"{count} of {len(tests)} tests ran, {time.monotonic() - start:.0f} s", flush=True)
    print(f"device tests{f' under {options.sanitize}' if options.sanitize else ''}: {len(tests) - len(failed) - skipped} passed, {skipped} skipped, {len(failed)} failed, "
          f"{time.monotonic() - start:.0f} s")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
