# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The package without PyTorch: NumPy in and out.
import copy
import json
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

import kvcc
from kvcc.cache import HostMemory

F32 = "k = <f32>; v = <f32>; window = <sink = 0, recent = 0, flush = 32>"
HEADS, KV_HEADS, DIM = 9, 3, 64  # of the model


@pytest.fixture(scope="module")
def exact(model_path):
    return kvcc.compile(model_path, F32, dtype="f32")


@pytest.fixture(scope="module")
def small(model_path):
    return kvcc.compile(model_path, "innerq-small", dtype="f16")


def tensors(batch, tokens, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    keys, values = (rng.standard_normal((batch, KV_HEADS, tokens, DIM)).astype(dtype) for _ in "kv")
    return keys, values, rng.standard_normal((batch, 1, HEADS, DIM)).astype(dtype)


def reference(query, keys, values):
    """Attention of each query over all tokens, and the logarithm of the sum."""
    keys, values = (np.repeat(x.astype(np.float64), HEADS // KV_HEADS, 1) for x in (keys, values))
    logits = np.einsum("bqhd,bhtd->bqht", query.astype(np.float64), keys) / np.sqrt(DIM)
    largest = logits.max(-1, keepdims=True)
    weights = np.exp(logits - largest)
    total = weights.sum(-1, keepdims=True)
    return np.einsum("bqht,bhtd->bqhd", weights / total, values), (largest + np.log(total))[..., 0]


def with_window(tokens):
    """A model of one layer whose queries reach back so many tokens; None: all."""
    return {"model_type": "mistral", "num_hidden_layers": 1, "hidden_size": HEADS * DIM, "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS, "head_dim": DIM, "sliding_window": tokens, "torch_dtype": "float16"}


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_import_brings_neither_torch_nor_llvm():
    done = run("import sys, kvcc\n"
               "assert not {'torch', 'transformers'} & set(sys.modules)\n"
               "maps = open('/proc/self/maps').read()\n"
               "assert 'libLLVM' not in maps and 'libMLIR' not in maps\n"
               "folder = kvcc.__path__[0]\n"
               "assert all(folder in line for line in maps.splitlines() if 'libkvcc' in line)")
    assert done.returncode == 0, done.stderr


def test_what_was_compiled(small):
    assert kvcc.__version__.count(".") == 2
    assert (small.info.layers, small.info.variants, len(small.layers)) == (30, 1, 30)
    layer = small.layer(29)
    assert layer.served and layer.unserved_reason is None and layer.dtype == "f16"
    assert (layer.q_heads, layer.kv_heads, layer.head_dim, layer.scale) == (HEADS, KV_HEADS, DIM, 0.125)
    assert (layer.sink, layer.recent, layer.flush) == (32, 96, 32)
    assert small.quantized_tokens(0, 1000) == 864
    assert repr(small) == "<kvcc.Program for cpu: 30 of 30 layers, 1 kernels>"


def test_models_by_path_folder_mapping_and_configuration(model_path, tmp_path):
    facts = json.loads(open(model_path).read())

    class Configuration:
        def to_dict(self):
            return facts

    (tmp_path / "config.json").write_text(json.dumps(facts))
    for model in (tmp_path, facts, Configuration()):
        assert kvcc.compile(model, "fp16").info.layers == 30


def test_layers_left_to_the_framework(models):
    program = kvcc.compile(models / "gemma-4-26b-a4b.json", "fp16")
    assert program.layers[0].served and not program.layers[5].served
    assert (program.layers[0].window_tokens, program.layers[0].chunked, program.layers[0].softcap) == (1024, False, 0)
    assert program.expired_pages(0, 5000) > 0 == program.expired_pages(0, 1024)
    assert "K used as V" in program.layers[5].unserved_reason
    with pytest.raises(kvcc.Unsupported, match="layer 5: K used as V"):
        program.layer(5)


def test_sink_logits(models):
    program = kvcc.compile(models / "gpt-oss-20b.json", "fp16", dtype="f16")
    assert program.layers[0].sink_logits
    keys = np.zeros((1, 8, 3, 64), np.float16)
    cache = kvcc.LayerCache(program, 0, batch=1)
    cache.append(keys, keys + 1)
    query = np.ones((1, 1, 64, 64), np.float16)
    # Three logits of 0 beside the sink.
    sinks = np.arange(64, dtype=np.float32) / 32
    out, lse = cache.attend(query, sinks)
    np.testing.assert_allclose(lse[0, 0], np.log(3 + np.exp(sinks)), rtol=1e-5)
    np.testing.assert_allclose(out[0, 0, :, 0], 3 / (3 + np.exp(sinks)), rtol=1e-5)
    for wrong, words in ((None, "sinks"), (sinks[:3], "sinks"), (sinks.astype(np.float64), "sinks")):
        with pytest.raises(kvcc.InvalidArgument, match=words):
            cache.attend(query, wrong)


def test_sinks_of_a_layer_without(model_path):
    cache = kvcc.LayerCache(kvcc.compile(model_path, "fp16", dtype="f16"), 0, batch=1)
    cache.append(np.zeros((1, 3, 2, 64), np.float16), np.zeros((1, 3, 2, 64), np.float16))
    with pytest.raises(kvcc.InvalidArgument, match="expected sinks of None for a layer without sink logits"):
        cache.attend(np.zeros((1, 1, 9, 64), np.float16), np.zeros(9, np.float32))


@pytest.mark.parametrize("scheme, dtype, bound", [(F32, np.float32, 2e-6), ("fp16", np.float16, 2e-5)])
def test_attention_is_the_definition(model_path, scheme, dtype, bound):
    program = kvcc.compile(model_path, scheme, dtype="f32" if dtype == np.float32 else "f16")
    keys, values, query = tensors(2, 300, dtype)
    cache = kvcc.LayerCache(program, 3, batch=2)
    cache.append(keys[:, :, :200], values[:, :, :200])
    # Another order of axes, as engines have it.
    tokens_first = [np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for x in (keys, values)]
    cache.append(*(x[:, :, 200:299] for x in tokens_first))
    cache.append(keys[:, :, 299:], values[:, :, 299:])
    out, lse = cache.attend(query)
    wanted, wanted_lse = reference(query, keys, values)
    assert np.abs(out - wanted).max() < bound and np.abs(lse - wanted_lse).max() < bound
    assert cache.lengths == [300, 300] and out.dtype == np.float32


def test_several_queries_see_what_was_there(exact):
    keys, values, _ = tensors(1, 64)
    cache = kvcc.LayerCache(exact)
    cache.append(keys, values)
    query = np.random.default_rng(1).standard_normal((1, 4, HEADS, DIM)).astype(np.float32)
    out, _ = cache.attend(query)
    for i in range(4):
        wanted, _ = reference(query[:, i:i + 1], keys[:, :, :61 + i], values[:, :, :61 + i])
        assert np.abs(out[:, i:i + 1] - wanted).max() < 2e-6


def test_sequences_of_their_own_length(exact):
    keys, values, query = tensors(3, 200)
    cache = kvcc.LayerCache(exact, batch=3)
    cache.append(keys, values, new_lens=[200, 5, 150])
    cache.append(keys[1:2, :, :40], values[1:2, :, :40], sequences=[1])
    assert cache.lengths == [200, 45, 150]
    out, _ = cache.attend(query)
    joined = [np.concatenate([x[1:2, :, :5], x[1:2, :, :40]], 2) for x in (keys, values)]
    for row, (k, v) in enumerate([(keys[:1], values[:1]), joined, (keys[2:, :, :150], values[2:, :, :150])]):
        assert np.abs(out[row:row + 1] - reference(query[row:row + 1], k, v)[0]).max() < 2e-6


def test_a_step_of_some_sequences_with_some_of_their_tokens(exact):
    keys, values, query = tensors(3, 100)
    cache = kvcc.LayerCache(exact, batch=3)
    cache.append(keys, values)
    out, lse = cache.attend(query[[2, 0, 2, 2]], sequences=[2, 0, 2, 2], lengths=[100, 70, 68, 0])
    for i, (row, length) in enumerate([(2, 100), (0, 70), (2, 68)]):
        wanted = reference(query[row:row + 1], keys[row:row + 1, :, :length], values[row:row + 1, :, :length])
        assert np.abs(out[i:i + 1] - wanted[0]).max() < 2e-6 and np.abs(lse[i:i + 1] - wanted[1]).max() < 1e-5
    assert (out[3] == 0).all() and (lse[3] == -np.inf).all()
    cache.rollback([3, 0, 32])
    assert cache.lengths == [97, 100, 68]


def test_the_life_of_sequences(small):
    keys, values, query = tensors(2, 400, np.float16)
    cache = kvcc.LayerCache(small, batch=2)
    cache.append(keys[:, :, :380], values[:, :, :380])
    before, _ = cache.attend(query)
    cache.append(keys[:, :, 380:], values[:, :, 380:])
    after, _ = cache.attend(query)

    cache.rollback(20)
    assert np.array_equal(cache.attend(query)[0], before)
    cache.append(keys[:, :, 380:], values[:, :, 380:])
    assert np.array_equal(cache.attend(query)[0], after)

    cache.select([1, 0, 1, 1])  # forks, two of which go on by themselves
    assert np.array_equal(cache.attend(query[[1, 0, 1, 1]])[0], after[[1, 0, 1, 1]])
    cache.append(keys[[0]][:, :, :300], values[[0]][:, :, :300], sequences=[2])
    assert np.array_equal(cache.attend(query[[1, 0, 1, 1]])[0][[0, 1, 3]], after[[1, 0, 1]])
    cache.select([3, 1])
    assert np.array_equal(cache.attend(query[[1, 0]])[0], after[[1, 0]])

    data = cache.snapshot(1)
    assert kvcc.snapshot_tokens(data) == 400
    other = kvcc.LayerCache(small)
    other.restore(0, data)
    assert np.array_equal(other.attend(query[:1])[0], after[:1])

    used = cache.nbytes
    again = copy.deepcopy(cache)
    again.append(keys[:, :, :50], values[:, :, :50])
    assert np.array_equal(cache.attend(query[[1, 0]])[0], after[[1, 0]]) and again.lengths == [450, 450]

    cache.reset(batch=2)
    assert cache.lengths == [0, 0] and cache.nbytes == used
    cache.append(keys[:, :, :380], values[:, :, :380])
    assert np.array_equal(cache.attend(query)[0], before)


def test_validation_knows_copies(model_path, tmp_path):
    program = kvcc.compile(model_path, "innerq-small", dtype="f16", context=kvcc.Context(cache_dir=tmp_path, validate=True))
    keys, values, query = tensors(1, 310, np.float16)

    class Recycling(HostMemory):
        used = None

        def empty(self, count, size):
            array = super().empty(count, size)
            return self.used if self.used is not None and self.used.shape == array.shape else array

    first = kvcc.LayerCache(program)
    first.append(keys[:, :, :5], values[:, :, :5])
    memory = Recycling()
    long = kvcc.LayerCache(program, memory=memory)
    long.append(keys[:, :, :300], values[:, :, :300])
    memory.used = first._slot_pool  # the copy's slot comes to where a shorter sequence was
    copied = copy.deepcopy(long)
    assert copied._slot_pool is first._slot_pool
    for cache in (long, copied):
        cache.append(keys[:, :, 300:], values[:, :, 300:])
    assert np.array_equal(copied.attend(query)[0], long.attend(query)[0])


def test_a_snapshot_in_another_scheme(model_path, small):
    keys, values, query = tensors(1, 300, np.float16)
    wide = kvcc.LayerCache(kvcc.compile(model_path, "fp16", dtype="f16"))
    wide.append(keys, values)
    narrow = kvcc.LayerCache(small)
    with pytest.raises(kvcc.InvalidArgument, match="requantize"):
        narrow.restore(0, wide.snapshot(0))
    narrow.restore(0, wide.snapshot(0), requantize=True)
    assert narrow.lengths == [300]
    out, _ = narrow.attend(query)
    wanted, _ = wide.attend(query)
    assert 0.05 < np.linalg.norm(out - wanted) / np.linalg.norm(wanted) < 0.7  # random numbers quantize badly


@pytest.mark.parametrize("scheme", ["innerq-small", "kivi-2", "q4_0", "kvcc-3.5", "nvfp4"])
def test_kernels_attend_to_the_numbers_that_the_codes_stand_for(model_path, exact, scheme):
    """What evaluations call fake quantization: the numbers, read from a snapshot, in an exact cache."""
    program = kvcc.compile(model_path, scheme, dtype="f32")
    keys, values, query = tensors(1, 500)
    quantized, numbers = kvcc.LayerCache(program), kvcc.LayerCache(exact)
    quantized.append(keys, values)
    numbers.restore(0, quantized.snapshot(0), requantize=True)
    out, wanted = quantized.attend(query)[0], numbers.attend(query)[0]
    assert np.linalg.norm(out - wanted) < program.layers[0].kernel_error_bound * np.linalg.norm(wanted)


def test_results_that_do_not_depend_on_the_batch(small):
    keys, values, query = tensors(3, 700, np.float16)
    batch, alone = kvcc.LayerCache(small, batch=3, split_tokens=256), kvcc.LayerCache(small, split_tokens=256)
    batch.append(keys, values)
    alone.append(keys[1:2], values[1:2])
    for got, wanted in zip(alone.attend(query[1:2]), batch.attend(query)):
        assert np.array_equal(got[0], wanted[1])
    with pytest.raises(kvcc.InvalidArgument, match="split_tokens of 0 or a multiple of 256, but got 100"):
        small.workspace_bytes(0, 1, 700, split_tokens=100)


def test_parts_of_a_sequence_merge(exact):
    keys, values, query = tensors(1, 300)
    outs, lses = np.zeros((3, HEADS, DIM), np.float32), np.full((3, HEADS), -np.inf, np.float32)
    for i, part in enumerate((slice(0, 100), slice(100, 300))):  # the third has no tokens
        cache = kvcc.LayerCache(exact)
        cache.append(keys[:, :, part], values[:, :, part])
        out, lse = cache.attend(query)
        outs[i], lses[i] = out[0, 0], lse[0, 0]
    out, lse = np.empty((HEADS, DIM), np.float32), np.empty(HEADS, np.float32)
    exact.merge(0, outs, lses, out=out, lse=lse)
    wanted, wanted_lse = reference(query, keys, values)
    assert np.abs(out - wanted[0, 0]).max() < 2e-6 and np.abs(lse - wanted_lse[0, 0]).max() < 2e-6
    with pytest.raises(kvcc.InvalidArgument, match="lses of shape"):
        exact.merge(0, outs, lses[:2], out=out, lse=lse)


@pytest.mark.parametrize("scheme", ["fp16", "kvcc-3"])
def test_pages_out_of_reach_are_free(scheme):
    model = with_window(70)
    program = kvcc.compile(model, scheme, page_tokens=32)
    keys, values, query = tensors(2, 900, np.float16)
    cache, kept = kvcc.LayerCache(program, batch=2), kvcc.LayerCache(program, batch=2)
    kept._expire = lambda row: None

    def both(change):
        change(cache)
        change(kept)
        for got, wanted in zip(cache.attend(query), kept.attend(query)):
            assert np.array_equal(got, wanted)

    both(lambda c: c.append(keys[:, :, :300], values[:, :, :300]))
    pages = cache.used_nbytes - 2 * cache.info.slot_bytes
    for start in range(300, 900, 60):
        both(lambda c: c.append(keys[:, :, start:start + 60], values[:, :, start:start + 60]))
        assert cache.used_nbytes - 2 * cache.info.slot_bytes <= pages
    assert cache.used_nbytes < kept.used_nbytes / 2 and cache.nbytes < kept.nbytes

    both(lambda c: c.rollback(cache.info.max_rollback))
    many = np.repeat(query, 16, 1)
    assert np.array_equal(cache.attend(many)[0], kept.attend(many)[0])
    both(lambda c: c.append(keys[:, :, :70], values[:, :, :70]))

    both(lambda c: c.select([1, 1]))
    both(lambda c: c.append(keys[:1, :, :200], values[:1, :, :200], sequences=[0]))
    both(lambda c: setattr(c, "copy", copy.deepcopy(c)))
    both(lambda c: c.append(keys[1:, :, 100:300], values[1:, :, 100:300], sequences=[1]))  # no longer those of the fork
    both(lambda c: c.restore(0, c.snapshot(1)))
    assert bytes(cache.info.page_bytes) in cache.snapshot(1) and bytes(cache.info.page_bytes) not in kept.snapshot(1)
    both(lambda c: c.append(keys[:, :, :300], values[:, :, :300]))
    assert np.array_equal(cache.copy.attend(query)[0], kept.copy.attend(query)[0])
    cache.reset()
    assert not any(cache._page_entries.references)

    fixed = kvcc.LayerCache(program, batch=2, max_tokens=900)
    pool = fixed._page_pool
    fixed.append(keys, values)
    fixed.reset()
    fixed.append(keys, values)
    assert fixed._page_pool is pool


@pytest.mark.parametrize("window", [None, 100])
def test_a_restored_sequence_shares_no_pages(window):
    model = with_window(window)
    cache = kvcc.LayerCache(kvcc.compile(model, "kvcc-3", page_tokens=32), batch=2)
    keys, values, query = tensors(2, 500, np.float16)
    cache.append(keys, values)
    wanted = cache.attend(query)[0]
    cache.select([1, 1, 0])
    cache.restore(0, cache.snapshot(2))
    assert np.array_equal(cache.attend(query[[0, 1, 0]])[0], wanted[[0, 1, 0]])


def test_transforms_are_not_measured_on_what_is_out_of_reach():
    model = with_window(200)
    keys, values, query = tensors(1, 1500, np.float16)
    keys += np.float16(3)  # centring measures this
    source = kvcc.LayerCache(kvcc.compile(model, "fp16", page_tokens=32))
    source.append(keys, values)
    exact = source.attend(query)[0]
    narrow = kvcc.LayerCache(kvcc.compile(model, "kvcc-3", page_tokens=32))
    narrow.restore(0, source.snapshot(0), requantize=True)
    direct = kvcc.LayerCache(kvcc.compile(model, "kvcc-3", page_tokens=32))
    direct.append(keys, values)
    errors = [np.linalg.norm(cache.attend(query)[0] - exact) for cache in (narrow, direct)]
    assert errors[0] < 1.3 * errors[1], errors


def test_memory(small):
    keys, values, _ = tensors(2, 2000, np.float16)
    growing = kvcc.LayerCache(small, batch=2)
    for start in range(0, 2000, 500):
        growing.append(keys[:, :, start:start + 500], values[:, :, start:start + 500])
    pages = small.pages_for(0, 2000)
    needed = 2 * (pages * growing.info.page_bytes + growing.info.slot_bytes)
    assert growing.used_nbytes == needed <= growing.nbytes <= needed * 9 // 8 + growing.info.page_bytes
    fixed = kvcc.LayerCache(small, batch=2, max_tokens=2000)
    assert fixed.nbytes == needed
    fixed.append(keys, values)
    assert fixed.nbytes == needed
    with pytest.raises(kvcc.InvalidArgument, match="at most max_tokens = 2000 tokens, but got 2001; give a larger"):
        fixed.append(keys[:, :, :1], values[:, :, :1])
    assert fixed.lengths == [2000, 2000]


def test_emitted_cuda_on_the_host(model_path):
    try:
        program = kvcc.compile(model_path, "innerq-small", "cuda-host", dtype="f16")
    except kvcc.Unavailable as error:
        pytest.skip(str(error))
    keys, values, query = tensors(1, 200, np.float16)
    outs = []
    for compiled in (program, kvcc.compile(model_path, "innerq-small", dtype="f16")):
        cache = kvcc.LayerCache(compiled)
        cache.append(keys, values)
        outs.append(cache.attend(query)[0])
    assert np.linalg.norm(outs[0] - outs[1]) < 1e-2 * np.linalg.norm(outs[1])


def test_the_gil_is_released(model_path):
    import tempfile
    with tempfile.TemporaryDirectory() as empty:
        context = kvcc.Context(cache_dir=empty)
        worker = threading.Thread(target=lambda: kvcc.compile(model_path, "kivi-2", context=context))
        worker.start()
        turns = 0
        while worker.is_alive():
            turns += 1
        assert turns > 1000  # of the interpreter, while the kernel was compiled


def test_a_forked_child_gets_an_error_and_may_compile(model_path):
    done = run("import os, sys, kvcc\n"
               "program = kvcc.compile(sys.argv[1], 'fp16')\n"
               "child = os.fork()\n"
               "if not child:\n"
               "    try: program.pages_for(0, 1)\n"
               "    except kvcc.Failed as error: assert 'compile it again' in str(error)\n"
               "    else: os._exit(1)\n"
               "    kvcc.compile(sys.argv[1], 'fp16').pages_for(0, 1)\n"
               "    os._exit(0)\n"
               "assert os.waitpid(child, 0)[1] == 0\n", model_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing, module, words", [
    ("torch", "kvcc.torch", "expected PyTorch 2.6 or newer, .*pip install 'kvcc.torch.'"),
    ("torch", "kvcc.transformers", "expected PyTorch 2.6 or newer"),
    ("transformers", "kvcc.transformers", "expected Transformers 5.20 or newer, .*pip install 'kvcc.transformers.'"),
])
def test_missing_libraries(missing, module, words):
    if missing == "transformers":
        pytest.importorskip("torch")
    done = run("import importlib, sys, kvcc\n"
               "sys.modules[sys.argv[1]] = None\n"
               "try: importlib.import_module(sys.argv[2])\n"
               "except kvcc.Unavailable as error: print(error)\n", missing, module)
    assert done.returncode == 0 and re.search(words, done.stdout), done


def test_the_tool():
    done = subprocess.run([sys.executable, "-m", "kvcc", "schemes"], capture_output=True, text=True)
    assert done.returncode == 0 and "innerq-small" in done.stdout
    done = subprocess.run([sys.executable, "-m", "kvcc", "explain", "no-such.json", "--scheme", "fp16"], capture_output=True, text=True)
    assert done.returncode != 0 and "no-such.json" in done.stderr
    script = os.path.join(os.path.dirname(sys.executable), "kvcc")
    assert subprocess.run([script, "--version"], capture_output=True, text=True).stdout.startswith("kvcc ")


# -- What is refused: the class and words of one exception.

def test_errors_are_one_family():
    assert issubclass(kvcc.Unsupported, kvcc.Error) and issubclass(kvcc.Unavailable, kvcc.Error)
    assert issubclass(kvcc.InvalidArgument, (kvcc.Error, ValueError)) and issubclass(kvcc.Failed, kvcc.Error)


@pytest.mark.parametrize("arguments, error, words", [
    (("{model}", "innerq-smal"), kvcc.InvalidArgument, "the nearest is innerq-small"),
    (("{model}", 3), kvcc.InvalidArgument, "expected scheme to be a str, but got a int"),
    (("{model}", "fp16", "gpu"), kvcc.InvalidArgument, "expected target cpu, .*, but got 'gpu'"),
    (("no-such.json",), kvcc.InvalidArgument, "'no-such.json', which does not exist"),
    (({"model_type": "llama"},), kvcc.InvalidArgument, "^llama: expected num_hidden_layers"),
    ((7,), kvcc.InvalidArgument, "expected model to be a path, a mapping or .*, but got a int"),
    (("{models}/deepseek-v3.json", "fp16"), kvcc.Unsupported, "MLA caches one latent per token"),
    (("{models}/mimo-v2-flash.json", "fp16"), kvcc.Unsupported, "v_head_dim 128"),
])
def test_compile_refuses(model_path, models, arguments, error, words):
    filled = [a.format(model=model_path, models=models) if isinstance(a, str) else a for a in arguments]
    with pytest.raises(error, match=words):
        kvcc.compile(*filled)


def test_a_missing_driver(model_path):
    try:
        kvcc.compile(model_path, "fp16", "cuda")
    except kvcc.Unavailable as error:
        assert "install the NVIDIA driver" in str(error) or "NVRTC" in str(error)


@pytest.mark.parametrize("change, words", [
    (lambda k, v: (k.astype(np.int32), v), "expected keys of float32, but got int32"),
    (lambda k, v: (k, v.astype(np.float16)), "expected values of float32, but got float16"),
    (lambda k, v: (k[:1], v[:1]), r"expected keys of shape \[batch, .*\] = \[2, 3, any, 64\], but got \[1, 3, 8, 64\]"),
    (lambda k, v: (k[:, :2], v[:, :2]), "expected keys of shape"),
    (lambda k, v: (k, v[:, :, :5]), "expected values of shape"),
    (lambda k, v: (k[0], v[0]), "expected keys of shape"),
    (lambda k, v: (k.tolist(), v), "but got a list"),
    (lambda k, v: (k[..., ::-1], v), "expected keys whose head_dim axis is contiguous"),
    (lambda k, v: (k[:, :, ::-1], v[:, :, ::-1]), "expected token_stride of at least head_dim"),
    (lambda k, v: (k, v.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3)), "make contiguous copies of both"),
])
def test_append_refuses(exact, change, words):
    cache = kvcc.LayerCache(exact, batch=2)
    keys, values, query = tensors(2, 8)
    with pytest.raises(kvcc.InvalidArgument, match=words):
        cache.append(*change(keys, values))
    assert cache.lengths == [0, 0]
    cache.append(keys, values)
    assert np.isfinite(cache.attend(query)[0]).all()


@pytest.mark.parametrize("call, words", [
    (lambda c, q: c.attend(q.astype(np.float16)), "expected query of float32"),
    (lambda c, q: c.attend(q[:, :, :8]), "expected query of shape"),
    (lambda c, q: c.attend(q.repeat(17, 1)), "expected 1 to 16 queries per sequence, but got 17"),
    (lambda c, q: c.attend(q[:, :0]), "expected 1 to 16 queries per sequence, but got 0"),
    (lambda c, q: c.attend(q[..., ::-1]), "query that is contiguous"),
    (lambda c, q: c.attend(None), "expected query of shape"),
    (lambda c, q: c.rollback(-1), "expected a count from 0"),
    (lambda c, q: c.rollback(33), "expected a count from 0 to 32"),
    (lambda c, q: (c.rollback(20), c.rollback(20)), "at most max_rollback = 32"),
    (lambda c, q: c.rollback([1]), r"expected count to be a number or 2 of them, but got \[1\]"),
    (lambda c, q: c.attend(q, lengths=[67, 100]), r"no fewer than max_rollback = 32 below the greatest, or 0, but got \[67"),
    (lambda c, q: c.attend(q, lengths=[100, 101]), "at most those of the cache"),
    (lambda c, q: c.attend(q, sequences=[0, 2]), "expected sequences to be numbers from 0 to 1"),
    (lambda c, q: c.select([0, 2]), "expected sequences to be numbers from 0 to 1"),
    (lambda c, q: c.select([]), "at least one"),
    (lambda c, q: c.restore(0, b"nonsense"), "KVCCSNAP"),
    (lambda c, q: c.restore(0, "text"), "expected data to be bytes"),
    (lambda c, q: c.snapshot(9), "expected sequences"),
    (lambda c, q: c.reset(batch=0), "expected batch"),
])
def test_life_refuses(exact, call, words):
    cache = kvcc.LayerCache(exact, batch=2)
    keys, values, query = tensors(2, 100)
    cache.append(keys, values)
    with pytest.raises(kvcc.InvalidArgument, match=words):
        call(cache, query)


def test_tables_lengths_and_slots_are_checked(exact):
    """Numbers that the C interface trusts."""
    info = exact.layer(0)
    pages, slots = (np.zeros(n + 64, np.uint8) for n in (4 * info.page_bytes, 2 * info.slot_bytes))
    pages, slots = (x[-x.ctypes.data % 64:][:len(x) - 64] for x in (pages, slots))
    memory = exact.memory(0, pages.reshape(4, -1), slots.reshape(2, -1))
    assert (memory.num_pages, memory.num_slots, memory.layer) == (4, 2, 0)
    keys, values, query = tensors(1, 40)
    out, lse = np.empty(query.shape, np.float32), np.empty(query.shape[:3], np.float32)

    def call(method, table=((0,),), slot=0, length=40, added=40, **more):
        integers = {"table": np.array(table, np.int32), "slots": np.array([slot], np.int32),
                    "seq_lens": np.array([length], np.int32)}
        if method == "append":
            exact.append(memory, **integers, new_lens=np.array([added], np.int32), keys=keys, values=values)
        else:
            exact.attend(memory, **integers, **{"query": query, "out": out, "lse": lse, "max_tokens": 40, **more})

    call("append")
    call("attend")
    for wrong, words in [({"table": ((4,),)}, "expected pages from 0 to 3"), ({"table": ((-1,),)}, "but got -1"),
                         ({"table": ((),)}, "a table of at least 1 pages"), ({"slot": 2}, "expected slots from 0 to 1"),
                         ({"slot": -1}, "but got -1"), ({"length": -5}, "expected seq_lens of at least 0")]:
        for method in ("append", "attend"):
            with pytest.raises(kvcc.InvalidArgument, match=words):
                call(method, **wrong)
    for wrong, words in [({"added": 41}, "expected new_lens from 0 to 40"), ({"added": -1}, "but got -1")]:
        with pytest.raises(kvcc.InvalidArgument, match=words):
            call("append", **wrong)
    read_only = np.empty(query.shape, np.float32)
    read_only.flags.writeable = False
    for wrong, words in [({"max_tokens": 39}, "at most max_tokens = 39"), ({"out": read_only}, "out to be a writable"),
                         ({"out": out[0]}, "expected out of shape"), ({"lse": lse.astype(np.float64)}, "lse of float32"),
                         ({"workspace": np.zeros(8, np.int8)}, "workspace of uint8")]:
        with pytest.raises(kvcc.InvalidArgument, match=words):
            call("attend", **wrong)
    with pytest.raises(kvcc.InvalidArgument, match="expected pages of shape"):
        exact.memory(0, pages.reshape(2, -1), slots.reshape(2, -1))
    with pytest.raises(kvcc.InvalidArgument, match="at a multiple of 64 bytes"):
        moved = np.zeros(info.slot_bytes + 128, np.uint8)
        moved = moved[-moved.ctypes.data % 64 + 4:][:info.slot_bytes].reshape(1, -1)
        exact.append(exact.memory(0, pages.reshape(4, -1), moved), table=np.zeros((1, 1), np.int32),
                     slots=np.zeros(1, np.int32), seq_lens=np.array([40], np.int32), new_lens=np.array([40], np.int32),
                     keys=keys, values=values)
