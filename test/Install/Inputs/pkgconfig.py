# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""pkgconfig.py PREFIX CC SOURCE PROGRAM: compiles a C program against the package that pkg-config finds in PREFIX."""
import glob
import os
import subprocess
import sys

prefix, compiler, source, program = sys.argv[1:]
[folder] = [os.path.dirname(path) for path in glob.glob(prefix + "/lib*/**/kvcc.pc", recursive=True)]


def pkg_config(*options):
    done = subprocess.run(["pkg-config", *options, "kvcc"], check=True, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PKG_CONFIG_LIBDIR": folder, "PKG_CONFIG_PATH": ""})
    return done.stdout.split()


[libdir] = pkg_config("--variable=libdir")
subprocess.run([compiler, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", source, "-o", program,
                *pkg_config("--cflags", "--libs"), "-lm", "-Wl,-rpath," + libdir], check=True)
