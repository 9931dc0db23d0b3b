# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Configuration of the lit tests. Run lit on the test folder of a build, whose lit.site.cfg.py loads this.
import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile

import lit.formats
from lit.llvm import llvm_config
from lit.llvm.subst import FindTool, ToolSubst

if llvm_config is None:
    lit_config.fatal("run lit on the test folder of a build, such as build/test")

config.name = "kvcc"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["Inputs", "data", "models", "unit"]
config.test_source_root = os.path.join(config.kvcc_src_root, "test")
config.test_exec_root = os.path.join(config.kvcc_obj_root, "test")

# Tests neither see nor change the kernels that the user has cached.
cache = tempfile.mkdtemp(prefix="kvcc-lit-cache-")
atexit.register(shutil.rmtree, cache, ignore_errors=True)
config.environment["KVCC_CACHE_DIR"] = cache
config.environment["KVCC_TEST_DIR"] = config.test_source_root
config.environment["FILECHECK_OPTS"] = "--enable-var-scope"

# Everything that decides where NVRTC, the driver and the host's compiler are found.
llvm_config.with_system_environment([
    "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH", "HOME", "KVCC_HOST_CXX", "KVCC_LIBCUDA", "KVCC_NVDISASM",
    "KVCC_NVRTC", "KVCC_PYTHON_ENV", "VIRTUAL_ENV"])

llvm_config.use_default_substitutions()  # FileCheck, not, count, %python
llvm_config.add_tool_substitutions(
    ["split-file", ToolSubst("llc", unresolved="ignore"), ToolSubst("mlir-translate", unresolved="ignore")],
    config.llvm_tools_dir)
llvm_config.add_tool_substitutions(
    ["kvcc-opt", ToolSubst("kvcc", unresolved="ignore")], config.kvcc_tools_dir)
config.substitutions.append(("%models", os.path.join(config.test_source_root, "models")))
config.substitutions.append(("%source", os.path.dirname(config.test_source_root)))
config.substitutions.append(("%data", os.path.join(config.test_source_root, "data")))
config.substitutions.append(("%tools", config.kvcc_tools_dir))
# Of a build, not of a bundle.
config.substitutions.append(("%llvm", config.llvm_tools_dir))
config.substitutions.append(("%build", config.kvcc_obj_root))
config.substitutions.append(("%cxx", getattr(config, "cxx", "")))
config.substitutions.append(("%cc", getattr(config, "cc", "")))


def doctor():
    """What `kvcc doctor` sees of this machine; without the tool no test can use any of it."""
    tool = lit.util.which("kvcc", config.kvcc_tools_dir)
    if not tool:
        return {}
    done = subprocess.run([tool, "doctor", "-o", "json"], env=config.environment, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        return json.loads(done.stdout)
    except ValueError:
        lit_config.warning("`kvcc doctor -o json` printed no JSON, so tests that need NVRTC or a GPU are "
                           "skipped: " + (done.stdout + done.stderr).decode(errors="replace").strip())
        return {}


def has_host_compiler():
    """Whether emitted CUDA can be built for the host: a C++ compiler and Boost.Context."""
    for name in [config.environment.get("KVCC_HOST_CXX"), "c++", "g++", "clang++", "clang++-22"]:
        compiler = name and shutil.which(name)
        if compiler:
            return subprocess.run(
                [compiler, "-x", "c++", "-fsyntax-only", "-"], capture_output=True,
                input=b"#include <boost/context/detail/fcontext.hpp>\n").returncode == 0
    return False


def has_llc_for_aarch64():
    """Whether LLVM's tools can make AArch64 assembly of MLIR's LLVM dialect."""
    llc = lit.util.which("llc", config.llvm_tools_dir)
    if not llc or not lit.util.which("mlir-translate", config.llvm_tools_dir):
        return False
    done = subprocess.run([llc, "--version"], capture_output=True)
    return b"aarch64" in done.stdout


facts = doctor()
if facts.get("nvrtc", {}).get("found"):
    config.available_features.add("nvrtc")
if facts.get("cuda", {}).get("devices"):
    config.available_features.add("cuda-device")
if has_host_compiler():
    config.available_features.add("host-cxx")
if has_llc_for_aarch64():
    config.available_features.add("aarch64-llc")
# An instrumented library asks its consumers for the same instrumentation.
if getattr(config, "cmake", "") and not config.sanitize:
    llvm_config.with_environment("PATH", os.path.dirname(config.cmake), append_path=True)
    if shutil.which("pkg-config") and shutil.which("ninja"):
        config.available_features.add("cmake-build")
if getattr(config, "is_clang", False):
    config.available_features.add("clang")
# A bundle has the tests only.
sass = os.path.join(os.path.dirname(config.test_source_root), "tools", "bench", "sass.py")
if os.path.exists(sass):
    config.available_features.add("sources")
    if subprocess.run([sys.executable, sass, "--find"], env=config.environment, capture_output=True).returncode == 0:
        config.available_features.add("nvdisasm")
    if os.path.exists(os.path.join(os.path.dirname(sass), "results", "sass-baseline.csv")):
        config.available_features.add("sass-baseline")
if shutil.which("readelf"):
    config.available_features.add("readelf")
