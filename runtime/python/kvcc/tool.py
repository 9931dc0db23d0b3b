# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Where the command line tool is."""
from pathlib import Path

TOOL = Path(__file__).parent / "bin" / "kvcc"
