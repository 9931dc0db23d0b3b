# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The peers of `tools/dev bench cuda` that are written here, without a GPU: InnerQ's kernels run on the host, Triton's in
# its interpreter, both against attention over the numbers that their caches stand for; and compilers for GPUs take them.
import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "tools/bench"
BUILD = Path(os.environ.get("KVCC_BUILD_DIR", BENCH.parents[1] / "build"))
BOUND = 3e-3  # fp16 query, probabilities and sums of a group

# The folder has a kvcc.py of its own, so it must not stay on the path.
sys.path.insert(0, str(BENCH))
import innerq_peer
import needs
from peers import Unavailable
sys.path.remove(str(BENCH))


def layer_of(kv_heads, queries, head_dim):
    return SimpleNamespace(q_heads=kv_heads * queries, kv_heads=kv_heads, head_dim=head_dim, scale=head_dim ** -0.5)


def to_bf16(x):
    bits = x.astype(np.float32).view(np.uint32)
    return (bits + 0x7fff + (bits >> 16 & 1) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def attention(layer, query, keys, values):
    rows = query.astype(np.float64).reshape(len(query), layer.kv_heads, -1, layer.head_dim)
    logits = np.einsum("bhgd,htd->bhgt", rows, keys) * layer.scale
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    out = np.einsum("bhgt,htd->bhgd", weights / weights.sum(-1, keepdims=True), values)
    return out.reshape(query.shape)


def error(out, expected):
    return np.linalg.norm(out - expected) / np.linalg.norm(expected)


def tensors(layer, batch, ctx):
    rng = np.random.default_rng(ctx)
    keys, values = (rng.standard_normal((layer.kv_heads, ctx, layer.head_dim)).astype(np.float32) for _ in "kv")
    return to_bf16(rng.standard_normal((batch, layer.q_heads, layer.head_dim))), keys, values


def repeated(arrays, batch):
    return {name: np.concatenate([array] * batch) for name, array in arrays.items()}


# InnerQ.


def needs_host_compiler():
    compiler = next(filter(None, map(shutil.which, (os.environ.get("KVCC_HOST_CXX", "c++"), "g++", "clang++"))), None)
    include = b"#include <boost/context/detail/fcontext.hpp>\n"
    if not compiler or subprocess.run([compiler, "-x", "c++", "-fsyntax-only", "-"], input=include,
                                      capture_output=True).returncode:
        pytest.skip("no C++ compiler with Boost.Context")


@pytest.mark.parametrize("kind, kv_heads, queries, head_dim, lengths", [
    ("small", 2, 4, 128, (1, 33, 160, 300)),  # a part of the sink, windows only, one block, several
    ("base", 1, 7, 64, (259,)),
])
def test_innerq_on_the_host(kind, kv_heads, queries, head_dim, lengths):
    needs_host_compiler()
    layer, bits = layer_of(kv_heads, queries, head_dim), innerq_peer.KINDS[kind]
    kernels = innerq_peer.HostKernels(innerq_peer.text(*bits, head_dim, queries), seed=5)
    for ctx in lengths:
        query, keys, values = tensors(layer, 2, ctx)
        arrays = innerq_peer.write(keys, values, *bits)
        step = innerq_peer.Attention(kernels, layer, 2, ctx, arrays, lambda array: array, multiprocessors=2)
        cache = repeated(arrays, 2)
        # The second step finds the counters as the first one left them.
        for _ in range(2):
            step.out[:] = np.nan
            step.run(query, cache)
            expected = attention(layer, from_bf16(query), *innerq_peer.stored(keys, values, *bits))
            assert error(step.out, expected) < BOUND, ctx
        exact = error(step.out, attention(layer, from_bf16(query), keys, values))
        assert exact < BOUND if innerq_peer.split(ctx) == 0 else exact > 10 * BOUND


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_innerq_packs_every_code(bits):
    """Each code alone, by the rule that innerq_peer.cuh states."""
    per_word = 16 // bits
    for at in range(32):
        codes = np.zeros((1, 32), np.uint32)
        codes[0, at] = (1 << bits) - 1
        words = innerq_peer.pack(codes, bits)[:, 0]
        pair, half = divmod(at, 2)
        if pair < bits * per_word:
            expected = np.zeros(bits, np.uint32)
            expected[pair // per_word] = (1 << bits) - 1 << bits * (pair % per_word) + 16 * half
        else:
            expected = np.full(bits, 1 << 15 + 16 * half, np.uint32)
        assert (words == expected).all(), at


def test_innerq_sizes():
    """What a cache takes is what its format says: 3.5 and 2.5 bits, and 16 in the windows."""
    layer = layer_of(2, 1, 128)
    _, keys, values = tensors(layer, 1, 1024)
    numbers, windows = 2 * 128 * (1024 - 128), 2 * 128 * 128
    size = sum(array.nbytes for array in innerq_peer.write(keys, values, 3, 2).values())
    assert size == numbers * (3.5 + 2.5) / 8 + 2 * windows * 2


def test_innerq_refuses_a_head_dim():
    with pytest.raises(Unavailable, match="expected a head_dim of 32, 64, 128, 256, but got 96"):
        innerq_peer.text(3, 2, 96, 4)


@pytest.mark.parametrize("arch", ["sm_90"])
def test_innerq_compiles_for_a_gpu(arch):
    try:
        innerq_peer.find_nvrtc()
    except (Unavailable, OSError) as reason:
        pytest.skip(str(reason))
    cubin = innerq_peer.compile_cubin(innerq_peer.text(3, 2, 128, 4), arch)
    assert cubin[:4] == b"\x7fELF" and all(name.encode() in cubin for name in innerq_peer.KERNELS)
    with pytest.raises(Unavailable, match=f"NVRTC cannot compile the kernels for {arch}: .*error: "):
        innerq_peer.compile_cubin("nothing", arch)


def test_innerq_launches_on_a_driver(monkeypatch):
    """The calls and their arguments, by the driver of the tests, whose modules have one kernel."""
    path = BUILD / "lib/fake_libcuda.so"
    if not path.exists():
        pytest.skip("the build has no fake_libcuda.so")
    driver = ctypes.CDLL(str(path))
    driver.fakeCudaPrimaryContext.restype = ctypes.c_void_p
    driver.fakeCudaLog.restype = ctypes.c_char_p
    monkeypatch.setenv("KVCC_LIBCUDA", str(path))
    monkeypatch.setattr(innerq_peer, "compile_cubin", lambda source, arch: b"\x7fELF")
    monkeypatch.setattr(innerq_peer, "KERNELS", ("kernel",))
    driver.fakeCudaReset()
    with pytest.raises(Unavailable, match="cuModuleLoadDataEx failed with error 201"):
        innerq_peer.CudaKernels("", "sm_90")
    driver.cuCtxPushCurrent_v2(ctypes.c_void_p(driver.fakeCudaPrimaryContext()))
    kernels = innerq_peer.CudaKernels("", "sm_90")
    driver.fakeCudaReset()
    kernels.launch("kernel", (3, 4, 5), 128, [42, 0.5, np.zeros(1)], stream=1)
    assert driver.fakeCudaLog().decode() == "cuLaunchKernel(3x4x5, 128x1x1, 0, stream, 42, null)\n"
    launch = innerq_peer.CudaModule("", "sm_90").function("kernel", shared=65536)
    driver.fakeCudaReset()
    launch((2, 1, 1), 64, [42, 0.5, np.zeros(1)])
    assert driver.fakeCudaLog().decode() == "cuLaunchKernel(2x1x1, 64x1x1, 65536, default, 42, null)\n"
    with pytest.raises(Unavailable, match="cuLaunchKernel failed with error 1"):
        kernels.launch("kernel", (1, 1, 1), 2048, [0])
    monkeypatch.setenv("KVCC_LIBCUDA", "libnone.so")
    with pytest.raises(Unavailable, match="cannot load the driver 'libnone.so'"):
        innerq_peer.CudaKernels("", "sm_90")


# Triton.


TRITON_CASES = [  # kind, query heads per KV head, head_dim, ctx, tokens of a block, splits
    ("int4", 4, 128, 140, 128, 2),
    ("int4", 1, 64, 70, 32, 4),  # one split has nothing to do
    ("int2-inner", 8, 128, 70, 32, 2),
]


def interpret_triton():
    """Prints the errors of each case, against what the cache stands for and against exact attention."""
    import torch
    sys.path.insert(0, str(BENCH))
    import triton_peer as peer
    for kind, queries, head_dim, ctx, tokens, splits in TRITON_CASES:
        layer = layer_of(2 if queries == 1 else 1, queries, head_dim)
        query, keys, values = tensors(layer, 1, ctx)
        arrays = peer.write(kind, keys, values)
        step = peer.Attention(kind, layer, 1, ctx, arrays, torch.from_numpy, (tokens, splits))
        cache = {name: torch.from_numpy(array) for name, array in arrays.items()}
        step.run(torch.from_numpy(query.view(np.int16)).view(torch.bfloat16), cache)
        out = step.out.numpy()
        print(error(out, attention(layer, from_bf16(query), *peer.stored(kind, keys, values))),
              error(out, attention(layer, from_bf16(query), keys, values)))


def test_triton_interpreted():
    pytest.importorskip("torch", reason="PyTorch is not installed: tools/dev setup --python")
    needs_triton()
    # Triton decides at its import whether it interprets.
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True,
                          env={**os.environ, "TRITON_INTERPRET": "1"})
    assert done.returncode == 0, done.stderr
    errors = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(errors) == len(TRITON_CASES)
    for case, (stored, exact) in zip(TRITON_CASES, errors):
        assert stored < BOUND and exact > 10 * BOUND, case


def needs_triton():
    if not importlib.util.find_spec("triton"):
        pytest.skip("Triton is not installed: pip install triton")


@pytest.fixture
def triton_peer(monkeypatch, tmp_path):
    needs_triton()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setitem(sys.modules, "innerq_peer", innerq_peer)
    return importlib.import_module("triton_peer")


@pytest.mark.parametrize("kind, tokens", [("int4", 64), ("int2-inner", 32)])
def test_triton_compiles_for_a_gpu(triton_peer, kind, tokens):
    cubin = triton_peer.compile_cubin(kind, "sm_90", tokens, tokens // 32, 2)
    assert cubin[:4] == b"\x7fELF" and b"split_kernel" in cubin


def test_triton_assembly(triton_peer):
    """The assembly, which the interpreter cannot run, does what the other form does."""
    pairs = np.random.default_rng(0).integers(0, 1 << 32, 100, np.uint64)
    for bits in (2, 4):
        for shift in range(0, 16, bits):
            text = str(triton_peer.unpack_text(shift, bits))
            found = re.search(r"shr\.b32 t, \$1, (\d+); lop3\.b32 \$0, t, (\d+), (0x\w+), 0xEA; }$", text)
            by, mask, magic = (int(number, 0) for number in found.groups())
            result = pairs >> np.uint64(by) & np.uint64(mask) | np.uint64(magic)  # 0xEA is (a & b) | c
            for half in (0, 16):
                code = pairs >> np.uint64(half + shift) & np.uint64((1 << bits) - 1)
                assert ((result >> np.uint64(half) & np.uint64(0xffff)) == (code | np.uint64(0x6400))).all()


def test_triton_configurations(triton_peer):
    """What is tuned gives every split a block, and there is always something."""
    for inner in (False, True):
        for ctx in (1, 128, 4096):
            found = triton_peer.usable(triton_peer.configs(), {"ctx": ctx}, INNER=inner)
            blocks = [(c.kwargs["TOKENS"], c.kwargs["TOKENS"] * c.kwargs["splits"]) for c in found]
            assert blocks and all(whole <= ctx for _, whole in blocks) == (ctx >= 128)
            assert {tokens for tokens, _ in blocks} == ({32} if inner or ctx < 4096 else {32, 64, 128})


# The benchmark.


def run_bench(*arguments):
    pytest.importorskip("torch", reason="PyTorch is not installed: tools/dev setup --python")
    return subprocess.run([sys.executable, str(BENCH / "cuda.py"), *arguments], capture_output=True, text=True,
                          env={**os.environ, "KVCC_BUILD_DIR": str(BUILD)})


def test_bench_dry_run():
    needs_host_compiler()
    done = run_bench("--dry-run", "--scheme", "fp16", "--peer", "torch", "innerq-small", "--batch", "2", "--ctx", "161",
                     "--rounds", "1")
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()]
    errors = {row[3]: float(row[9]) for row in rows}
    assert list(errors) == ["torch sdpa bf16", "innerq-small", "kvcc fp16"]
    assert errors["torch sdpa bf16"] < 5e-3 and errors["kvcc fp16"] < 5e-3 < errors["innerq-small"] < 1


def test_bench_refuses_a_peer():
    done = run_bench("--dry-run", "--peer", "tritn")
    assert done.returncode == 1 and done.stderr == (
        "cuda.py: error: expected peers (torch, flashinfer, innerq-base, innerq-small, triton-int4, triton-int2-inner) or "
        "none, but got tritn\n")


def test_what_a_gpu_machine_needs():
    """One line where it cannot go on, notes where something is left out."""
    gpu = {"cuda": {"found": True, "devices": [{}]}, "nvrtc": {"found": True}, "host_compiler": {"found": True}}
    everything, nothing = lambda module: True, lambda module: False
    assert needs.check(gpu, everything) == (None, [], "--check")
    assert needs.check({}, everything)[0] == "expected a GPU, but there is no driver (libcuda.so.1)"
    assert needs.check(gpu | {"cuda": {"found": True, "devices": []}}, everything)[0].endswith("the driver finds none")
    assert needs.check(gpu | {"nvrtc": {"found": False}}, everything)[0].startswith("expected NVRTC, but there is none")
    error, notes, arguments = needs.check(gpu, nothing)
    assert error is None and arguments == "none" and len(notes) == 4
    error, notes, arguments = needs.check(gpu, lambda module: module != "triton")
    assert (error, arguments) == (None, "--check")
    assert notes == ["without triton, which `pip install triton` installs: not the peers triton-*"]
    error, notes, arguments = needs.check(gpu | {"host_compiler": {"found": False}}, everything)
    assert (error, arguments) == (None, "") and "no check" in notes[0]


if __name__ == "__main__":
    interpret_triton()
