#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Damages the one entry of a kernel cache whose label begins with a scheme.

Usage: damage.py FOLDER flip|cut|foreign SCHEME
"""
import os
import sys

folder, how, scheme = sys.argv[1:]
found = []
for name in sorted(os.listdir(folder)):
    path = os.path.join(folder, name)
    with open(path, "rb") as file:
        content = bytearray(file.read())
    if content[88:].startswith(scheme.encode() + b" "): # the label follows the header
        found.append(path)
        if how == "flip":
            content[-1] ^= 1
        elif how == "cut":
            del content[len(content) // 2:]
        else:
            content[:] = b"#!/bin/sh\necho foreign\n" * 10
        changed = content
assert len(found) == 1, f"expected one entry of {scheme}, but got {found}"
with open(found[0], "wb") as file:
    file.write(changed)
