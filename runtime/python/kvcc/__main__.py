# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""`python -m kvcc` and `kvcc`: the command line tool, and the commands that need a model of Transformers."""
import os
import sys

from .tool import TOOL

HELP = """
With PyTorch and Transformers (pip install 'kvcc[transformers]'):
  kvcc eval MODEL --text FILE --scheme S [-o table.md] [-o plot.svg]   what schemes do to a model's next tokens
  kvcc profile MODEL --text FILE -o P.json                             capture a model's tensors and measure them
"""


def main() -> None:
    arguments = sys.argv[1:]
    command = arguments[0] if arguments else ""
    if command == "eval":
        from .eval import main as evaluate
        sys.exit(evaluate(arguments[1:]))
    if command == "profile" and any(a == "--text" or a.startswith("--text=") for a in arguments):
        from .profile import main as profile
        sys.exit(profile(arguments[1:]))
    if command in ("-h", "--help", "help"):
        sys.stdout.flush()
        code = os.spawnv(os.P_WAIT, TOOL, ["kvcc", "--help"])
        print(HELP, end="")
        sys.exit(code)
    os.execv(TOOL, ["kvcc", *arguments])


if __name__ == "__main__":
    main()
