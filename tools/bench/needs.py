# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What cuda.py finds on this machine, for run-gpu.sh of a bundle: fails in one line without a GPU or NVRTC, says what
optional packages would add, and prints the arguments that the benchmark should get, or `none` where it cannot run."""
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

BUILD = Path(os.environ.get("KVCC_BUILD_DIR", Path(__file__).resolve().parents[2] / "build"))
OPTIONAL = [("torch", "torch", "the benchmark"), ("numpy", "numpy", "the benchmark"),
            ("flashinfer", "flashinfer-python", "the peer flashinfer"), ("triton", "triton", "the peers triton-*")]


def check(facts, find):
    """(error, notes, arguments) of what `kvcc doctor -o json` printed; find(module) says whether there is one."""
    driver, nvrtc = facts.get("cuda", {}), facts.get("nvrtc", {})
    if not driver.get("devices"):
        reason = "the driver finds none" if driver.get("found") else "there is no driver (libcuda.so.1)"
        return f"expected a GPU, but {reason}", [], None
    if not nvrtc.get("found"):
        return "expected NVRTC, but there is none; pip install nvidia-cuda-nvrtc, or set KVCC_NVRTC to libnvrtc.so", [], None
    missing = [(module, package, what) for module, package, what in OPTIONAL if not find(module)]
    notes = [f"without {module}, which `pip install {package}` installs: not {what}" for module, package, what in missing]
    if any(module in ("torch", "numpy") for module, _, _ in missing):
        return None, notes, "none"
    if facts.get("host_compiler", {}).get("found"):
        return None, notes, "--check"
    return None, notes + ["without a C++ compiler with Boost.Context: no check against kernels on the host"], ""


def main():
    done = subprocess.run([str(BUILD / "bin/kvcc"), "doctor", "-o", "json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"needs.py: error: kvcc doctor: {done.stderr.strip()}")
    error, notes, arguments = check(json.loads(done.stdout), importlib.util.find_spec)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if error:
        sys.exit(f"needs.py: error: {error}")
    print(arguments)


if __name__ == "__main__":
    main()
