# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""headers.py FOLDER COMPILER...: compiles the headers of FOLDER with those of the compilers that are here. Fails with the
first that does."""
import shutil
import subprocess
import sys

folder, *compilers = sys.argv[1:]
HEADERS = {"kvcc.h": ["c99", "c11", "c++17", "c++20"], "kvcc.hpp": ["c++17", "c++20"]}
for compiler in filter(shutil.which, compilers):
    is_cxx = compiler.rsplit("/", 1)[-1].count("+") > 0
    for header, standards in HEADERS.items():
        for standard in standards:
            if ("++" in standard) != is_cxx:
                continue
            # Included twice, from a file of its own: guards hold, and nothing has to come before it.
            source = f'#include "{header}"\n#include "{header}"\nint used(void);\nint used(void) {{ return KVCC_OK; }}\n'
            subprocess.run([compiler, "-x", "c++" if is_cxx else "c", "-std=" + standard, "-Wall", "-Wextra", "-Wpedantic",
                            "-Werror", "-fsyntax-only", "-I", folder, "-"], input=source, text=True, check=True)
            print(standard.upper(), compiler, header)
