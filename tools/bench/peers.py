# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What cpu.py measures kvcc against, each optional: a class says how to install it and which kinds of cache it has.

A decode step of onnxruntime and OpenVINO also appends the new token to the cache, which is how their operators work:
their caches begin with one token less. The other peers attend over a cache that is complete.
"""
import ctypes
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import numpy as np

ANCHOR = Path(__file__).resolve().parents[3] / "shared/anchors/cpu_handtuned.cpp"


class Unavailable(Exception):
    """Why a subject cannot be measured here."""


def cold_bytes():
    """What pushes all else out of the caches when it is read, as getColdBytes of runtime/Bandwidth.h has it."""
    cache = max((os.sysconf(n) for n in ("SC_LEVEL3_CACHE_SIZE", "SC_LEVEL4_CACHE_SIZE") if n in os.sysconf_names),
                default=0)
    return min(max(256 << 20, 2 * cache), 1 << 30)


class Subject:
    """Something that is timed. `layer` has q_heads, kv_heads, head_dim and scale."""
    key = module = pip = None  # the name of a peer, its Python module and the packages that have it
    kinds = ("",)
    interval = 1  # rounds from one step to the next
    resident = 1  # bytes in memory for each byte of cache

    @classmethod
    def missing(cls):
        """Why this machine has none of these subjects, or None."""
        if cls.module and not importlib.util.find_spec(cls.module):
            return f"{sys.executable} -m pip install {cls.pip}, or tools/dev bench cpu --install"
        return None

    def __init__(self, layer, batch, ctx):
        self.layer, self.batch, self.ctx = layer, batch, ctx
        self.bytes = batch * self.sequence_bytes()

    def sequence_bytes(self):
        """The size of one sequence's cache."""
        raise NotImplementedError

    def elements(self):
        """Numbers in the keys and values of one sequence."""
        return 2 * self.layer.kv_heads * self.ctx * self.layer.head_dim

    def copies(self):
        """One for the step that wakes threads and one for the step that is timed. Memory that is read in between, where
        the bandwidth is measured, evicts both. More copies would be visited too seldom: on a virtual machine, a step
        over memory that has not been read for some seconds takes twice as long.
        """
        return 2

    def memory(self):
        """What load will allocate."""
        return self.copies() * self.bytes * self.resident

    def load(self, tensors):
        self.turns = itertools.cycle(self.make_copies(tensors))

    def make_copies(self, tensors):
        """A list of what `run` takes, one for each copy of the cache."""
        raise NotImplementedError

    def run(self, copy):
        raise NotImplementedError

    def step(self):
        """The second of two steps, as in the midst of a decode: threads are awake."""
        self.run(next(self.turns))
        self.empty_caches()
        copy = next(self.turns)
        start = time.perf_counter()
        self.run(copy)
        return time.perf_counter() - start

    def empty_caches(self):
        """For a subject of one copy, whose threads may sleep again meanwhile."""

    def result(self):
        """The output of the latest step, in the order of [batch, q_heads, head_dim]."""
        raise NotImplementedError

    def error(self, exact):
        out = np.asarray(self.result(), np.float64).reshape(self.batch, *exact.shape)
        return np.linalg.norm(out - exact) / np.linalg.norm(exact) / self.batch ** 0.5

    def repeated(self, x):
        """The same tensor for each sequence of the batch."""
        return np.repeat(x[None], self.batch, 0)


class Torch(Subject):
    """scaled_dot_product_attention in its fair form: the query heads of a KV head are rows of one query."""
    key, kinds, module, pip = "torch", ("bf16", "fp32"), "torch", "torch"
    types = {"bf16": "bfloat16", "fp32": "float32"}

    def __init__(self, kind, layer, batch, ctx, threads):
        import torch
        self.torch, self.type = torch, getattr(torch, self.types[kind])
        torch.set_num_threads(threads)
        super().__init__(layer, batch, ctx)
        self.name = f"PyTorch SDPA {kind}"

    def sequence_bytes(self):
        return self.elements() * self.type.itemsize

    def make_copies(self, tensors):
        tensor = lambda x: self.torch.from_numpy(self.repeated(x)).to(self.type)
        self.q = tensor(tensors.q).view(self.batch, self.layer.kv_heads, -1, self.layer.head_dim)
        k, v = tensor(tensors.k), tensor(tensors.v)
        return [(k.clone(), v.clone()) for _ in range(self.copies())]

    def run(self, copy):
        self.out = self.torch.nn.functional.scaled_dot_product_attention(self.q, *copy, scale=self.layer.scale)

    def result(self):
        return self.out.float().numpy()


class OnnxRuntime(Subject):
    """com.microsoft.GroupQueryAttention with one buffer for past and present, so that nothing is copied.

    Quantized caches have a scale for each channel: the operator's finest form.
    """
    key, kinds, module, pip = "onnxruntime", ("fp32", "fp16", "int8", "int4"), "onnxruntime", "onnx onnxruntime"
    bits = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}

    def __init__(self, kind, layer, batch, ctx, threads):
        import onnxruntime
        self.ort, self.kind, self.quantized = onnxruntime, kind, kind.startswith("int")
        super().__init__(layer, batch, ctx)
        self.name = f"onnxruntime GQA {kind}"
        self.type = np.float16 if kind == "fp16" else np.float32
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(self.model(), options, ["CPUExecutionProvider"])

    def sequence_bytes(self):
        return self.elements() * self.bits[self.kind] // 8

    def model(self):
        from onnx import TensorProto, helper
        layer = self.layer
        value = TensorProto.FLOAT16 if self.kind == "fp16" else TensorProto.FLOAT
        stored = {"int8": TensorProto.INT8, "int4": TensorProto.UINT8}.get(self.kind, value)
        cache = ["batch", layer.kv_heads, "tokens", layer.head_dim // (2 if self.kind == "int4" else 1)]
        query, new = (["batch", 1, heads * layer.head_dim] for heads in (layer.q_heads, layer.kv_heads))
        inputs = [("query", value, query), ("key", value, new), ("value", value, new), ("past_key", stored, cache),
                  ("past_value", stored, cache), ("seqlens_k", TensorProto.INT32, ["batch"]),
                  ("total_sequence_length", TensorProto.INT32, [])]
        names = [name for name, _, _ in inputs]
        attributes = {"num_heads": layer.q_heads, "kv_num_heads": layer.kv_heads, "scale": layer.scale}
        if self.quantized:
            scales = [("k_scale", TensorProto.FLOAT, [1, layer.kv_heads, 1, layer.head_dim]),
                      ("v_scale", TensorProto.FLOAT, [1, layer.kv_heads, 1, layer.head_dim])]
            names += [""] * 5 + [name for name, _, _ in scales]
            inputs += scales
            attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL",
                           "kv_cache_bit_width": self.bits[self.kind]}
        outputs = [("output", value, query), ("present_key", stored, cache), ("present_value", stored, cache)]
        node = helper.make_node("GroupQueryAttention", names, [name for name, _, _ in outputs],
                                domain="com.microsoft", **attributes)
        infos = lambda values: [helper.make_tensor_value_info(*v) for v in values]
        graph = helper.make_graph([node], "step", infos(inputs), infos(outputs))
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()

    def store(self, x):
        """The cache of one tensor and its scales. Two 4-bit codes share a byte, the first in the low half, plus 8."""
        if not self.quantized:
            return x.astype(self.type), None
        limit = 127 if self.kind == "int8" else 7
        scale = np.abs(x).max(1, keepdims=True).astype(np.float32) / limit
        codes = np.rint(x / scale).astype(np.int8)
        if self.kind == "int4":
            codes = (codes + 8).astype(np.uint8)
            codes = codes[..., 0::2] | codes[..., 1::2] << 4
        return codes, scale[None]

    def make_copies(self, tensors):
        value = self.ort.OrtValue.ortvalue_from_numpy
        row = lambda x: value(self.repeated(x.reshape(1, -1)).astype(self.type))
        self.out = value(np.zeros((self.batch, 1, tensors.q.size), self.type))
        k, k_scale = self.store(tensors.k)
        v, v_scale = self.store(tensors.v)
        inputs = {"query": row(tensors.q), "key": row(tensors.k[:, -1]), "value": row(tensors.v[:, -1]),
                  "seqlens_k": value(np.full(self.batch, self.ctx - 1, np.int32)),
                  "total_sequence_length": value(np.array(self.ctx, np.int32))}
        if self.quantized:
            inputs |= {"k_scale": value(k_scale), "v_scale": value(v_scale)}
        return [self.bind(inputs, value(self.repeated(k)), value(self.repeated(v))) for _ in range(self.copies())]

    def bind(self, inputs, key, value):
        binding = self.session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_ortvalue_input(name, tensor)
        for name, tensor in (("key", key), ("value", value)):
            binding.bind_ortvalue_input(f"past_{name}", tensor)
            binding.bind_ortvalue_output(f"present_{name}", tensor)
        binding.bind_ortvalue_output("output", self.out)
        return binding, key, value, inputs

    def run(self, copy):
        self.session.run_with_iobinding(copy[0])

    def result(self):
        return self.out.numpy()


class OpenVino(Subject):
    """A stateful model of one attention, in the form that the CPU plugin fuses with its cache.

    Each copy is a request. The state grows by a token each step. A state of u8 and f16 is set; setting one of u4
    crashes the plugin, so it is filled by inference, which takes time quadratic in the context: there is one copy of
    it, and a large buffer is read before each step, outside of the timing, so that the cache is cold.
    """
    key, kinds, module, pip = "openvino", ("f16", "u8", "u4"), "openvino", "openvino"
    resident = 2  # the plugin reserves as many tokens as it has
    longest_prompt = 8192  # of u4, for one sequence
    chunk = 512

    def __init__(self, kind, layer, batch, ctx, threads):
        import openvino
        self.ov, self.kind = openvino, kind
        if kind == "u4" and batch * ctx ** 2 > self.longest_prompt ** 2:
            raise Unavailable("filling its state takes too long")
        super().__init__(layer, batch, ctx)
        self.name = f"OpenVINO SDPA {kind}"
        self.compiled = openvino.Core().compile_model(
            self.model(), "CPU", {"INFERENCE_NUM_THREADS": threads, "KV_CACHE_PRECISION": kind,
                                  "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False,
                                  "ENABLE_HYPER_THREADING": True})
        if not any(op.get_rt_info()["layerType"].astype(str) == "ScaledDotProductAttention"
                   for op in self.compiled.get_runtime_model().get_ops()):
            raise Unavailable("this version does not fuse the attention with its cache")

    def sequence_bytes(self):
        """Quantized rows of a head have a scale and a zero point of 4 bytes each, in arrays of their own."""
        rows = self.elements() // self.layer.head_dim
        return {"f16": self.elements() * 2, "u8": self.elements() + rows * 8,
                "u4": self.elements() // 2 + rows * 8}[self.kind]

    def copies(self):
        return 1 if self.kind == "u4" else super().copies()

    def model(self):
        ov, layer = self.ov, self.layer
        op = ov.opset13
        shape = lambda heads: ov.PartialShape([-1, heads, -1, layer.head_dim])
        query, key, value = (op.parameter(shape(heads), ov.Type.f32)
                             for heads in (layer.q_heads, layer.kv_heads, layer.kv_heads))
        beam = op.parameter(ov.PartialShape([-1]), ov.Type.i32)
        sinks, present = [], []
        for name, new in (("key", key), ("value", value)):
            info = ov.op.util.VariableInfo()
            info.variable_id, info.data_shape, info.data_type = name, shape(layer.kv_heads), ov.Type.f32
            variable = ov.op.util.Variable(info)
            batch = op.gather(op.shape_of(new), op.constant([0]), op.constant(0))
            empty = op.concat([batch, op.constant([layer.kv_heads, 0, layer.head_dim])], 0)
            past = op.read_value(op.broadcast(op.constant(np.float32(0)), empty), variable)
            whole = op.concat([op.gather(past, beam, op.constant(0)), new], 2)
            sinks.append(op.assign(whole, variable))
            present.append(self.for_all_queries(whole))
        attention = op.scaled_dot_product_attention(query, *present, causal=False)
        return ov.Model([op.result(attention)], sinks, [query, key, value, beam], "step")

    def for_all_queries(self, x):
        """The heads repeated for their group of queries; fused, no repetition happens."""
        op, layer = self.ov.opset13, self.layer
        group = layer.q_heads // layer.kv_heads
        if group == 1:
            return x
        ones = op.constant(np.ones((1, 1, group, 1, 1), np.float32))
        return op.reshape(op.multiply(op.unsqueeze(x, op.constant(2)), ones),
                          op.constant([0, layer.q_heads, -1, layer.head_dim]), True)

    def make_copies(self, tensors):
        # The model divides by the root of head_dim.
        q = tensors.q[:, None].astype(np.float32) * np.float32(self.layer.scale * self.layer.head_dim ** 0.5)
        k, v = (self.repeated(x).astype(np.float32) for x in (tensors.k, tensors.v))
        self.q, self.beam = self.repeated(q), np.arange(self.batch, dtype=np.int32)
        self.last = self.inputs(k, v, self.ctx - 1, self.ctx)
        self.evict = np.ones(cold_bytes() // 8) if self.kind == "u4" else None
        fill = self.infer_state if self.kind == "u4" else self.set_state
        requests = []
        for _ in range(self.copies()):
            requests.append(self.compiled.create_infer_request())
            fill(requests[-1], k, v)
        return requests

    def inputs(self, k, v, first, end):
        tokens = lambda x: np.ascontiguousarray(x[:, :, first:end])
        return [np.repeat(self.q, end - first, 2), tokens(k), tokens(v), self.beam]

    def infer_state(self, request, k, v):
        for first in range(0, self.ctx - 1, self.chunk):
            request.infer(self.inputs(k, v, first, min(first + self.chunk, self.ctx - 1)))

    def set_state(self, request, k, v):
        """Leaves one token to inference, which makes room for the next ones."""
        for state in request.query_state():
            x = k if state.name == "key" else v
            state.state = self.ov.Tensor(np.ascontiguousarray(x[:, :, :self.ctx - 2]))
        request.infer(self.inputs(k, v, self.ctx - 2, self.ctx - 1))

    def empty_caches(self):
        if self.evict is not None:
            self.evict.sum()

    def run(self, copy):
        self.latest = copy
        copy.infer(self.last, share_inputs=True)

    def result(self):
        return self.latest.get_output_tensor(0).data


class LlamaCpp(Subject):
    """ggml_flash_attn_ext on the CPU backend of the libraries inside llama-cpp-python.

    The rows of a head are contiguous; the order of llama.cpp's own cache, where those of a token are, is slower.
    """
    key, kinds, module, pip = "llama.cpp", ("f16", "q8_0", "q4_0"), "llama_cpp", "llama-cpp-python"
    types = {"f16": 1, "q4_0": 2, "q8_0": 8}  # enum ggml_type
    F32 = 0
    libraries = None

    class InitParams(ctypes.Structure):
        _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]

    def __init__(self, kind, layer, batch, ctx, threads):
        self.open()
        self.type = self.types[kind]
        super().__init__(layer, batch, ctx)
        self.name = f"llama.cpp flash attention {kind}"
        self.backend = self.pointer("ggml_backend_cpu_init")
        weakref.finalize(self, self.call, "ggml_backend_free", self.backend)
        self.call("ggml_backend_cpu_set_n_threads", self.backend, ctypes.c_int(threads))

    @classmethod
    def open(cls):
        if cls.libraries is None:
            folder = Path(importlib.util.find_spec(cls.module).origin).parent / "lib"
            cls.libraries = [ctypes.CDLL(str(folder / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)
                             for name in ("ggml-base", "ggml-cpu")]

    @classmethod
    def call(cls, name, *args, result=ctypes.c_size_t):
        function = next(getattr(library, name) for library in cls.libraries if hasattr(library, name))
        function.restype = result
        return function(*args)

    @classmethod
    def pointer(cls, name, *args):
        return ctypes.c_void_p(cls.call(name, *args, result=ctypes.c_void_p))

    def sequence_bytes(self):
        rows = self.elements() // self.layer.head_dim
        return rows * self.call("ggml_row_size", ctypes.c_int(self.type), ctypes.c_int64(self.layer.head_dim))

    def tensor(self, kind, *shape):
        return self.pointer("ggml_new_tensor_4d", self.context, ctypes.c_int(kind), *map(ctypes.c_int64, shape))

    def fill(self, tensor, x):
        data = self.pointer("ggml_get_data", tensor)
        ctypes.memmove(data, x.ctypes.data, x.nbytes)

    def store(self, x):
        """One cache in ggml's format, as bytes."""
        x = np.ascontiguousarray(self.repeated(x))
        if self.type == self.types["f16"]:
            return x.astype(np.float16)
        x = x.astype(np.float32)
        out = np.empty(self.bytes // 2, np.uint8)
        self.call("ggml_quantize_chunk", ctypes.c_int(self.type), ctypes.c_void_p(x.ctypes.data),
                  ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(0), ctypes.c_int64(x.size // x.shape[-1]),
                  ctypes.c_int64(x.shape[-1]), None)
        return out

    def make_copies(self, tensors):
        layer, nodes = self.layer, 8
        overhead = 8 * self.call("ggml_tensor_overhead") + self.call(
            "ggml_graph_overhead_custom", ctypes.c_size_t(nodes), ctypes.c_bool(False))
        size = self.copies() * (self.bytes + 2 * self.batch * tensors.q.size * 4 + overhead + 4096)
        self.context = self.pointer("ggml_init", self.InitParams(size, None, False))
        weakref.finalize(self, self.call, "ggml_free", self.context)
        q, k, v = self.repeated(tensors.q).astype(np.float32), self.store(tensors.k), self.store(tensors.v)
        copies = []
        for _ in range(self.copies()):
            query = self.tensor(self.F32, layer.head_dim, 1, layer.q_heads, self.batch)
            key, value = (self.tensor(self.type, layer.head_dim, self.ctx, layer.kv_heads, self.batch) for _ in "kv")
            for to, data in ((query, q), (key, k), (value, v)):
                self.fill(to, data)
            out = self.pointer("ggml_flash_attn_ext", self.context, query, key, value, None,
                               ctypes.c_float(layer.scale), ctypes.c_float(0), ctypes.c_float(0))
            graph = self.pointer("ggml_new_graph_custom", self.context, ctypes.c_size_t(nodes), ctypes.c_bool(False))
            self.call("ggml_build_forward_expand", graph, out)
            copies.append((graph, out))
        return copies

    def run(self, copy):
        self.latest = copy[1]
        if self.call("ggml_backend_graph_compute", self.backend, copy[0], result=ctypes.c_int) != 0:
            raise Unavailable("ggml_backend_graph_compute failed")

    def result(self):
        layer = self.layer
        data = self.call("ggml_get_data", self.latest, result=ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(data, (self.batch, layer.q_heads, layer.head_dim))


class Anchor(Subject):
    """A hand-written kernel for one format (3-bit keys, 2-bit values), a program of its own with its own tensors.

    It is run once every few rounds and gives the median of its own steps.
    """
    key = "anchor"
    interval = 3
    flags = {"avx512_vbmi", "avx512vbmi"}, {"avx512_vnni"}
    output = re.compile(r"median ([\d.]+) us .* end-to-end ([\d.]+)\s+bytes ([\d.]+) MB")

    @classmethod
    def missing(cls):
        if not ANCHOR.exists():
            return "its source is not here"
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
        if not flags or not all(set(flags[1].split()) & names for names in cls.flags):
            return "the processor lacks AVX-512 VBMI or VNNI"
        return None

    def __init__(self, kind, layer, batch, ctx, threads):
        if layer.head_dim != 128 or layer.q_heads // layer.kv_heads not in (1, 4, 8) or batch != 1 or ctx % 32:
            raise Unavailable("it has no code for this shape")
        super().__init__(layer, batch, ctx)
        self.name = "hand-written k3v2"
        self.folder = tempfile.TemporaryDirectory()
        self.command = [f"{self.folder.name}/anchor", *map(str, (ctx, layer.q_heads, layer.kv_heads, threads))]
        # Its copies of the cache, by turns, are of 256 MiB: what other subjects have lost by then, a large cache keeps.
        source, few = ANCHOR.read_text(), "(256u << 20)"
        if source.count(few) != 1:
            raise Unavailable(f"expected {few} in its source once, but got it {source.count(few)} times")
        source = source.replace(few, f"{cold_bytes()}u")
        subprocess.run(["g++", "-O3", "-march=native", "-fopenmp", "-x", "c++", "-", "-o", self.command[0]],
                       input=source, text=True, check=True)

    def sequence_bytes(self):
        """3.5 bits a key and 2.5 a value, with their scales."""
        return self.elements() * 3 // 8

    def load(self, tensors):
        pass

    def step(self):
        text = subprocess.run(self.command, check=True, capture_output=True, text=True).stdout
        median, self.relative_error, _ = map(float, self.output.search(text).groups())
        return median * 1e-6

    def error(self, exact):
        return self.relative_error


PEERS = {cls.key + (f"-{kind}" if kind else ""): (cls, kind)
         for cls in (Torch, OnnxRuntime, OpenVino, LlamaCpp, Anchor) for kind in cls.kinds}


def select(words):
    """Names of peers from all, none, names, or the part before the dash that stands for all kinds."""
    names = []
    for word in words:
        chosen = [name for name, (cls, _) in PEERS.items() if word in ("all", name, cls.key)]
        if not chosen and word != "none":
            raise ValueError(f"expected all, none or peers ({', '.join(PEERS)}), but got {word}")
        names += [name for name in chosen if name not in names]
    return names
