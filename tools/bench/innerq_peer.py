# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Decode attention over an InnerQ cache (arXiv 2602.23200) as separate kernels, a peer of cuda.py.

innerq_peer.cuh has the kernels and the layout of a cache, which is written here. NVRTC compiles them for a GPU, and the
host's C++ compiler for a run without one; both put kvcc's prelude in front of the text. The per-channel factors of the
keys, which InnerQ folds into the query, cost a step nothing and are left out. Needs NumPy; a GPU needs PyTorch as well.
"""
import ctypes
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from peers import Unavailable

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("KVCC_ROOT", HERE.parents[1]))
BUILD = Path(os.environ.get("KVCC_BUILD_DIR", ROOT / "build"))
PRELUDE = ROOT / "codegen/cuda/prelude"
KERNELS = ("innerq_scores", "innerq_softmax", "innerq_values")
KINDS = {"base": (3, 3), "small": (3, 2)}  # bits of keys and values, as kvcc's presets innerq-base and innerq-small
HEAD_DIMS = (32, 64, 128, 256)
BLOCK = 32  # tokens of a block, numbers of a group, tokens of the sink
RECENT = 96  # tokens in full precision at the end, at least
WARPS, UNITS_PER_WARP = 4, 2  # of innerq_peer.cuh


# The cache.


def quantize(x, bits):
    """Codes and scales of groups along the last axis: symmetric, with a code of 2^(bits-1) for zero."""
    zero = 1 << bits - 1
    scales = (np.abs(x).max(-1) / (zero - 1)).astype(np.float16)
    divisors = np.where(scales > 0, scales.astype(np.float32), np.inf)
    codes = np.clip(np.rint(x / divisors[..., None]), 1 - zero, zero - 1) + zero
    return codes.astype(np.uint32), scales


def dequantize(codes, scales, bits):
    return (codes.astype(np.float32) - (1 << bits - 1)) * scales.astype(np.float32)[..., None]


def pack(codes, bits):
    """Words of groups of 32 codes, on the first axis; the layout is that of innerq_peer.cuh."""
    pairs = codes[..., 0::2] | codes[..., 1::2] << 16
    words = np.zeros((bits, *codes.shape[:-1]), np.uint32)
    per_word = 16 // bits
    for n in range(16):
        if n < per_word * bits:
            words[n // per_word] |= pairs[..., n] << bits * (n % per_word)
        else:
            for w in range(bits):
                words[w] |= (pairs[..., n] >> w & 0x10001) << 15
    return words


def split(ctx):
    """Blocks that are quantized: all but the sink and the recent tokens."""
    return max(0, (ctx - BLOCK - RECENT) // BLOCK)


def quantize_both(keys, values, key_bits, value_bits):
    """(codes, scales) of the quantized tokens' keys, [head, block, token, group, channel], and of their values,
    [head, block, channel, token]."""
    heads, ctx, dim = keys.shape
    blocks = split(ctx)
    inner = slice(BLOCK, BLOCK + BLOCK * blocks)
    return (quantize(keys[:, inner].reshape(heads, blocks, BLOCK, dim // BLOCK, BLOCK), key_bits),
            quantize(values[:, inner].reshape(heads, blocks, BLOCK, dim).swapaxes(2, 3), value_bits))


def write(keys, values, key_bits, value_bits):
    """The cache of one sequence as arrays of 32- and 16-bit numbers whose first axis is the KV head.

    keys, values: [kv_heads, ctx, head_dim] in float32.
    """
    heads, ctx, _ = keys.shape
    (k_codes, k_scales), (v_codes, v_scales) = quantize_both(keys, values, key_bits, value_bits)
    words = lambda codes, bits: np.moveaxis(pack(codes, bits), 0, 2).reshape(heads, -1).view(np.int32)
    end = BLOCK + BLOCK * split(ctx)

    def rows(x):
        x = np.concatenate([x[:, :BLOCK], x[:, end:]], 1).astype(np.float16)
        return np.pad(x, ((0, 0), (0, -x.shape[1] % BLOCK), (0, 0)))

    arrays = {"k_codes": words(k_codes, key_bits), "k_scales": k_scales.reshape(heads, -1), "k_windows": rows(keys),
              "v_codes": words(v_codes, value_bits), "v_scales": v_scales.reshape(heads, -1),
              "v_windows": rows(values)}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def stored(keys, values, key_bits, value_bits):
    """The keys and values that a cache of `write` stands for."""
    heads, ctx, dim = keys.shape
    inner = slice(BLOCK, BLOCK + BLOCK * split(ctx))
    k, v = (x.astype(np.float16).astype(np.float32) for x in (keys, values))
    key_pair, value_pair = quantize_both(keys, values, key_bits, value_bits)
    k[:, inner] = dequantize(*key_pair, key_bits).reshape(heads, -1, dim)
    v[:, inner] = dequantize(*value_pair, value_bits).swapaxes(2, 3).reshape(heads, -1, dim)
    return k, v


# Compiling and launching.


def text(key_bits, value_bits, head_dim, queries):
    if head_dim not in HEAD_DIMS:
        raise Unavailable(f"expected a head_dim of {', '.join(map(str, HEAD_DIMS))}, but got {head_dim}")
    names = {"KEY_BITS": key_bits, "VALUE_BITS": value_bits, "HEAD_DIM": head_dim, "QUERIES": queries}
    defines = "".join(f"#define {name} {value}\n" for name, value in names.items())
    return f'{defines}#line 1 "innerq_peer.cuh"\n{(HERE / "innerq_peer.cuh").read_text()}'


def find_nvrtc():
    """Its path, by kvcc's search."""
    done = subprocess.run([str(BUILD / "bin/kvcc"), "doctor", "-o", "json"], capture_output=True, text=True)
    found = json.loads(done.stdout).get("nvrtc", {}) if done.stdout else {}
    if not found.get("found"):
        raise Unavailable("expected NVRTC, but `kvcc doctor` finds none; pip install nvidia-cuda-nvrtc, or set KVCC_NVRTC")
    return Path(found["path"])


def compile_cubin(source, arch):
    """Machine code for an architecture such as sm_90; needs NVRTC and no GPU."""
    path = find_nvrtc()
    # NVRTC opens this one by its bare name.
    for builtins in sorted(path.resolve().parent.glob("libnvrtc-builtins.so.*")):
        ctypes.CDLL(str(builtins))
    nvrtc = ctypes.CDLL(str(path))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    whole = (PRELUDE / "device.cuh").read_text() + source
    options = [f"--gpu-architecture={arch}".encode(), b"--std=c++17"]

    def call(name, *arguments):
        if status := getattr(nvrtc, name)(*arguments):
            raise Unavailable(f"{name} failed with {status}")

    def fetch(what):
        call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        call(f"nvrtcGet{what}", program, data)
        return data.raw

    call("nvrtcCreateProgram", ctypes.byref(program), whole.encode(), b"innerq_peer.cu", 0, None, None)
    try:
        if nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)):
            log = fetch("ProgramLog").decode(errors="replace").strip("\0 \n").splitlines()
            raise Unavailable(f"NVRTC cannot compile the kernels for {arch}: {log[0] if log else 'no message'}")
        return fetch("CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def pointer(array):
    return array.data_ptr() if hasattr(array, "data_ptr") else array.ctypes.data


def arguments(values):
    """Kernel arguments as the launch functions take them, and what must outlive the launch."""
    kinds = {int: ctypes.c_int32, float: ctypes.c_float}
    boxes = [kinds[type(v)](v) if type(v) in kinds else ctypes.c_void_p(pointer(v)) for v in values]
    return (ctypes.c_void_p * len(boxes))(*map(ctypes.addressof, boxes)), boxes


class CudaModule:
    """Kernels on the GPU that PyTorch uses, in its context."""

    def __init__(self, source, arch):
        cubin = compile_cubin(source, arch)
        name = os.environ.get("KVCC_LIBCUDA", "libcuda.so.1")
        try:
            self.driver = ctypes.CDLL(name)
        except OSError as error:
            raise Unavailable(f"cannot load the driver '{name}': {error}") from None
        self.module = ctypes.c_void_p()
        self.call("cuModuleLoadDataEx", ctypes.byref(self.module), cubin, 0, None, None)

    def call(self, name, *args):
        if status := getattr(self.driver, name)(*args):
            raise Unavailable(f"{name} failed with error {status}")

    def function(self, name, shared=0):
        """A kernel that takes a grid, threads, values and a stream; `shared`: bytes of dynamic shared memory."""
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), self.module, name.encode())
        if shared:
            self.call("cuFuncSetAttribute", function, 8, shared)  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

        def launch(grid, threads, values, stream=None):
            pointers, boxes = arguments(values)
            self.call("cuLaunchKernel", function, *grid, threads, 1, 1, shared, ctypes.c_void_p(stream), pointers, None)

        return launch


class CudaKernels:
    """The kernels of this peer on a GPU."""

    def __init__(self, source, arch):
        module = CudaModule(source, arch)
        self.functions = {name: module.function(name) for name in KERNELS}

    def launch(self, name, grid, threads, values, stream=None):
        self.functions[name](grid, threads, values, stream)


class HostLaunch(ctypes.Structure):
    """KvHostLaunch of codegen/cuda/prelude/host_abi.h."""
    _fields_ = [("size", ctypes.c_uint32), ("grid", ctypes.c_uint32 * 3), ("threads", ctypes.c_uint32),
                ("shared_bytes", ctypes.c_uint32), ("num_args", ctypes.c_uint32), ("error_size", ctypes.c_uint32),
                ("args", ctypes.POINTER(ctypes.c_void_p)), ("seed", ctypes.c_uint64), ("error", ctypes.c_char_p)]


class HostKernels:
    """The same text on the host; collectives and shared memory are checked while it runs."""

    def __init__(self, source, seed=0):
        self.seed = seed
        names = [os.environ.get("KVCC_HOST_CXX"), "c++", "g++", "clang++", "clang++-22"]
        compiler = next(filter(None, (name and shutil.which(name) for name in names)), None)
        if not compiler:
            raise Unavailable("expected a C++ compiler (c++, g++, clang++), but PATH has none; name one in KVCC_HOST_CXX")
        entries = "".join(f"\nKV_HOST_ENTRY({name})" for name in KERNELS)
        with tempfile.TemporaryDirectory(prefix="kvcc-innerq-") as folder:
            unit, library = Path(folder) / "kernels.cpp", f"{folder}/kernels.so"
            unit.write_text(f'#include "codegen/cuda/prelude/host.h"\n{source}{entries}\n')
            done = subprocess.run([compiler, "-std=c++20", "-O1", "-w", "-fPIC", "-shared", "-fno-strict-aliasing",
                                   "-I", str(ROOT), str(unit), "-o", library, "-lboost_context"],
                                  capture_output=True, text=True)
            if done.returncode:
                first = next((line for line in done.stderr.splitlines() if "error" in line), "no message")
                raise Unavailable(f"{compiler} cannot compile the kernels: {first}")
            self.library = ctypes.CDLL(library)

    def launch(self, name, grid, threads, values, stream=None):
        pointers, boxes = arguments(values)
        message = ctypes.create_string_buffer(2048)
        launch = HostLaunch(ctypes.sizeof(HostLaunch), (ctypes.c_uint32 * 3)(*grid), threads, 0, len(boxes), len(message),
                            pointers, self.seed, ctypes.cast(message, ctypes.c_char_p))
        if getattr(self.library, f"kv_host_launch_{name}")(ctypes.byref(launch)):
            raise Unavailable(f"{name}: {message.value.decode()}")


class Attention:
    """One step over `batch` sequences of `ctx` tokens. `place` puts a NumPy array where the kernels run."""

    def __init__(self, kernels, layer, batch, ctx, arrays, place, multiprocessors=1):
        self.kernels, self.layer, self.batch, self.ctx = kernels, layer, batch, ctx
        self.bytes = batch * sum(array.nbytes for array in arrays.values())
        self.rows = arrays["k_windows"].shape[1]
        self.stride = -(-ctx // BLOCK) * BLOCK
        units = self.stride // BLOCK
        # CTAs of the values kernel fill the GPU several times.
        self.per_split = -(-units // max(1, min(units, -(-8 * multiprocessors // (batch * layer.kv_heads)))))
        self.splits = -(-units // self.per_split)
        heads = batch * layer.q_heads
        buffer = lambda shape, kind: place(np.zeros(shape, kind))
        self.scores = buffer((heads, self.stride), np.float32)
        self.probabilities = buffer((heads, self.stride), np.float16)
        self.sums = buffer(heads, np.float32)
        self.partial = buffer((heads * self.splits, layer.head_dim), np.float32)
        self.counters = buffer(batch * layer.kv_heads, np.int32)
        self.out = buffer((batch, layer.q_heads, layer.head_dim), np.float32)

    def run(self, query, cache, stream=None):
        """query: [batch, q_heads, head_dim] in bf16; cache: the arrays of `write`, one after the other per sequence."""
        layer, kernels = self.layer, self.kernels
        sizes = (self.ctx, split(self.ctx), self.rows, self.stride)
        per_cta = BLOCK * WARPS * UNITS_PER_WARP
        kernels.launch("innerq_scores", (-(-self.ctx // per_cta), layer.kv_heads, self.batch), 32 * WARPS,
                       [query, cache["k_codes"], cache["k_scales"], cache["k_windows"], self.scores, *sizes,
                        layer.scale * float(np.log2(np.e))], stream)
        kernels.launch("innerq_softmax", (self.batch * layer.q_heads, 1, 1), 512,
                       [self.scores, self.probabilities, self.sums, self.ctx, self.stride], stream)
        kernels.launch("innerq_values", (self.splits, layer.kv_heads, self.batch), layer.head_dim,
                       [self.probabilities, self.sums, cache["v_codes"], cache["v_scales"], cache["v_windows"],
                        self.partial, self.counters, self.out, *sizes, self.per_split], stream)
