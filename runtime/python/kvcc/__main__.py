# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""`python -m kvcc` and `kvcc`: the command line tool."""
import os
import sys
from pathlib import Path


def main() -> None:
    tool = Path(__file__).parent / "bin" / "kvcc"
    os.execv(tool, ["kvcc", *sys.argv[1:]])


if __name__ == "__main__":
    main()
