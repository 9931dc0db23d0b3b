# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""list.py FOLDER: its files and where its links point, sorted."""
import os
import sys

for path in sorted(os.path.relpath(os.path.join(folder, name), sys.argv[1])
                   for folder, _, names in os.walk(sys.argv[1]) for name in names):
    whole = os.path.join(sys.argv[1], path)
    print(path + (" -> " + os.readlink(whole) if os.path.islink(whole) else ""))
