#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs a command that must fail in the way kvcc promises, and prints what it said.

Usage: fails.py [--details] [--full] CODE COMMAND...

The command must exit with CODE, write nothing to standard output, and exactly one line 'kvcc: error: ...' to standard
error, besides notes and warnings. --details allows lines that continue the message; --full gives the command a standard
output that is full.
"""
import subprocess
import sys


def main(arguments):
    options = {argument for argument in arguments[:2] if argument.startswith("--")}
    expected, *command = arguments[len(options):]
    out = open("/dev/full", "wb") if "--full" in options else subprocess.PIPE
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, timeout=120)
    lines = done.stderr.decode(errors="replace").splitlines()
    print(*lines, sep="\n")
    errors = [line for line in lines if line.startswith("kvcc: error: ")]
    others = [line for line in lines if not line.startswith(("kvcc: error: ", "kvcc: note: ", "kvcc: warning: "))]
    problems = []
    if done.returncode != int(expected):
        problems.append(f"exit code {expected}, but got {done.returncode}")
    if done.stdout:
        problems.append(f"nothing on standard output, but got {done.stdout[:200]}")
    if len(errors) != 1:
        problems.append(f"one line 'kvcc: error: ', but got {len(errors)}")
    if others and "--details" not in options:
        problems.append(f"no lines but errors, notes and warnings of kvcc, but got {others[0]!r}")
    for problem in problems:
        print("fails.py: expected", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
