# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""kvcc through its C interface (runtime/kvcc.h), as something that cpu.py times."""
import ctypes
import os
from pathlib import Path

import numpy as np

from peers import Subject, Unavailable

BUILD = Path(os.environ.get("KVCC_BUILD_DIR", Path(__file__).resolve().parents[2] / "build"))


class Memory(ctypes.Structure):
    _fields_ = [("pages", ctypes.c_void_p), ("num_pages", ctypes.c_int64), ("slots", ctypes.c_void_p),
                ("num_slots", ctypes.c_int64)]


class ContextOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("cache_dir", ctypes.c_char_p), ("threads", ctypes.c_uint32),
                ("parallel_for", ctypes.c_void_p), ("parallel_for_user", ctypes.c_void_p)]


class CompileOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("model", ctypes.c_char_p), ("scheme", ctypes.c_char_p),
                ("target", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("compute", ctypes.c_char_p),
                ("page_tokens", ctypes.c_int64)]


class LayerInfo(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("served", ctypes.c_int32), ("unserved_reason", ctypes.c_char_p),
                ("q_heads", ctypes.c_int64), ("kv_heads", ctypes.c_int64), ("head_dim", ctypes.c_int64),
                ("scale", ctypes.c_double), ("dtype", ctypes.c_char_p), ("sink", ctypes.c_int64),
                ("recent", ctypes.c_int64), ("flush", ctypes.c_int64), ("page_tokens", ctypes.c_int64),
                ("page_bytes", ctypes.c_int64), ("slot_bytes", ctypes.c_int64),
                ("kernel_error_bound", ctypes.c_double)]


class AppendArgs(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("memory", Memory), ("table", ctypes.c_void_p),
                ("table_stride", ctypes.c_int64), ("slots", ctypes.c_void_p), ("seq_lens", ctypes.c_void_p),
                ("new_lens", ctypes.c_void_p), ("batch", ctypes.c_int64), ("max_new", ctypes.c_int64),
                ("keys", ctypes.c_void_p), ("values", ctypes.c_void_p), ("sequence_stride", ctypes.c_int64),
                ("token_stride", ctypes.c_int64), ("head_stride", ctypes.c_int64)]


class AttendArgs(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("memory", Memory), ("table", ctypes.c_void_p),
                ("table_stride", ctypes.c_int64), ("slots", ctypes.c_void_p), ("seq_lens", ctypes.c_void_p),
                ("batch", ctypes.c_int64), ("max_tokens", ctypes.c_int64), ("query", ctypes.c_void_p),
                ("out", ctypes.c_void_p), ("lse", ctypes.c_void_p), ("workspace", ctypes.c_void_p),
                ("workspace_bytes", ctypes.c_size_t), ("queries", ctypes.c_int64), ("sinks", ctypes.c_void_p),
                ("split_tokens", ctypes.c_int64)]


class Library:
    def __init__(self):
        self.lib = ctypes.CDLL(str(BUILD / "lib/libkvcc.so"))
        self.lib.kvcc_last_message.restype = ctypes.c_char_p

    def call(self, name, *args):
        if getattr(self.lib, name)(*args) != 0:
            raise Unavailable(f"{name}: {self.lib.kvcc_last_message().decode()}")

    def context(self, threads):
        context = ctypes.c_void_p()
        self.call("kvcc_context_create", ctypes.byref(ContextOptions(ctypes.sizeof(ContextOptions), None, threads)),
                  ctypes.byref(context))
        return context


def aligned(nbytes):
    raw = np.zeros(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + nbytes]


class Program:
    """One scheme compiled for one layer of a model."""

    def __init__(self, library, context, model, layer, scheme, compute="auto", target="cpu", dtype="f16"):
        self.library, self.index = library, ctypes.c_int32(layer)
        self.name = f"kvcc {scheme}" + (f" {compute}" if compute != "auto" else "")
        self.handle = ctypes.c_void_p()
        options = CompileOptions(ctypes.sizeof(CompileOptions), str(model).encode(), scheme.encode(), target.encode(),
                                 dtype.encode(), compute.encode(), 0)
        library.call("kvcc_compile", context, ctypes.byref(options), ctypes.byref(self.handle))
        self.layer = LayerInfo(ctypes.sizeof(LayerInfo))
        library.call("kvcc_program_get_layer", self.handle, self.index, ctypes.byref(self.layer))
        if not self.layer.served:
            raise Unavailable(self.layer.unserved_reason.decode())

    def call(self, name, *args):
        self.library.call(name, self.handle, self.index, *args)


def read_bytes(layer, ctx):
    """What a step reads of a sequence: blocks of quantized tokens, and windows in the model's type."""
    quantized = max(ctx - layer.sink - layer.recent, 0) // layer.flush * layer.flush
    return (quantized * layer.page_bytes // layer.page_tokens,
            (ctx - quantized) * 2 * layer.kv_heads * layer.head_dim * 2)


class Kvcc(Subject):
    def __init__(self, program, batch, ctx):
        self.program, self.name = program, program.name
        count = ctypes.c_int64()
        program.call("kvcc_pages_for", ctypes.c_int64(ctx), ctypes.byref(count))
        self.pages = count.value
        super().__init__(program.layer, batch, ctx)

    def sequence_bytes(self):
        return sum(read_bytes(self.layer, self.ctx))

    def memory(self):
        return self.copies() * self.batch * (self.pages * self.layer.page_bytes + self.layer.slot_bytes)

    def make_copies(self, tensors):
        batch = self.batch
        self.table = np.arange(max(batch * self.pages, 1), dtype=np.int32)
        self.slots, self.lengths = np.arange(batch, dtype=np.int32), np.full(batch, self.ctx, np.int32)
        self.query = self.repeated(tensors.q)
        self.out = np.zeros(self.query.shape, np.float32)
        self.lse = np.zeros(self.query.shape[:2], np.float32)
        size = ctypes.c_size_t()
        self.program.call("kvcc_workspace_bytes", ctypes.c_int64(batch), ctypes.c_int64(self.ctx), ctypes.byref(size))
        self.workspace = aligned(max(size.value, 1))
        first = self.allocate()
        self.prefill(first, tensors)
        copies = [first] + [self.duplicate(first) for _ in range(self.copies() - 1)]
        return [(arrays, self.arguments(arrays)) for arrays in copies]

    def allocate(self):
        return tuple(aligned(self.batch * n) for n in (self.pages * self.layer.page_bytes, self.layer.slot_bytes))

    def duplicate(self, arrays):
        copy = self.allocate()
        for to, source in zip(copy, arrays):
            to[:] = source
        return copy

    def memory_of(self, arrays):
        return Memory(arrays[0].ctypes.data, self.batch * self.pages, arrays[1].ctypes.data, self.batch)

    def prefill(self, arrays, tensors):
        # The same tokens in every sequence.
        args = AppendArgs(ctypes.sizeof(AppendArgs), self.memory_of(arrays), self.table.ctypes.data, self.pages,
                          self.slots.ctypes.data, self.lengths.ctypes.data, self.lengths.ctypes.data, self.batch,
                          self.ctx, tensors.k.ctypes.data, tensors.v.ctypes.data, 0, self.layer.head_dim,
                          self.ctx * self.layer.head_dim)
        self.program.call("kvcc_append", ctypes.byref(args), None)

    def arguments(self, arrays):
        return AttendArgs(ctypes.sizeof(AttendArgs), self.memory_of(arrays), self.table.ctypes.data, self.pages,
                          self.slots.ctypes.data, self.lengths.ctypes.data, self.batch, self.ctx,
                          self.query.ctypes.data, self.out.ctypes.data, self.lse.ctypes.data,
                          self.workspace.ctypes.data, self.workspace.size)

    def run(self, copy):
        self.program.call("kvcc_attend", ctypes.byref(copy[1]), None)

    def result(self):
        return self.out
