# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Compiled programs: the C interface with Python's types.

Arrays are of any library that speaks DLPack or the buffer protocol, in the memory of the program's target; results are
written into arrays of the caller's. For bf16, which NumPy lacks, use PyTorch's.
"""
from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from . import _native
from ._native import Memory
from .errors import Error, expected

Array = Any
"""An array that speaks DLPack or the buffer protocol: of NumPy, PyTorch, JAX, CuPy, ..."""
Model = Union[str, os.PathLike, Mapping, Any]
"""A config.json, a folder with one, what stands in one, or a configuration of Transformers."""


def snapshot_tokens(data: bytes) -> int:
    """The tokens of a snapshot, whatever its scheme."""
    return _native.snapshot_tokens(_bytes("data", data))


def _bytes(name: str, data: object) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise expected(f"{name} to be bytes", f"a {type(data).__name__}")
    return bytes(data)


class Context:
    """A kernel cache, a compiler and a pool of threads. One per process is enough; `compile` has one of its own."""

    def __init__(self, *, threads: int = 0, cache_dir: Union[str, os.PathLike, None] = None, validate: bool = False):
        """threads: for CPU targets, the caller included; 0: one per processor.
        cache_dir: of compiled kernels; None: $KVCC_CACHE_DIR, else ~/.cache/kvcc.
        validate: check numbers, and lengths from call to call, too; also on by KVCC_VALIDATE=1."""
        if not 0 <= threads <= 1024:
            raise expected("threads from 0 to 1024", threads)
        self.threads, self.cache_dir = threads, cache_dir
        self._handle = _native.Context(None if cache_dir is None else os.fspath(cache_dir), threads, validate)


@dataclass(frozen=True)
class ProgramInfo:
    """What was compiled."""
    layers: int
    variants: int
    """Distinct kernels behind the layers."""
    from_cache: int
    """Variants that were found in the kernel cache."""
    milliseconds: float
    """For compiling and loading."""


@dataclass(frozen=True)
class LayerInfo:
    """A layer of a program."""
    served: bool
    """False: it is left to the framework, and only `unserved_reason` means something."""
    unserved_reason: Optional[str]
    q_heads: int
    kv_heads: int
    head_dim: int
    scale: float
    """Of q.k, from the model."""
    dtype: str
    """Of queries, keys and values: "f16", "bf16" or "f32"."""
    sink: int
    """The first tokens, which stay in full precision."""
    recent: int
    """So do at least the last tokens."""
    flush: int
    """Tokens that are quantized at a time."""
    page_tokens: int
    page_bytes: int
    slot_bytes: int
    kernel_error_bound: float
    """Relative L2, against exact attention over the cache as stored."""
    max_rollback: int
    """Tokens that may be taken back."""
    softcap: float
    """Logits are softcap * tanh(scale * q.k / softcap); 0: scale * q.k."""
    window_tokens: int
    """0: a query reaches all tokens before it; else the last window_tokens, itself included, or those of its chunk."""
    chunked: bool
    sink_logits: bool
    """Whether `attend` takes a learned logit for each query head."""
    out_dtype: str
    """Of results: "f32" or the dtype."""


class Program:
    """The kernels of a model for one scheme and target, loaded and ready; made by `compile`.

    May be used by several threads at once. The caller owns all memory: `LayerCache` is the convenient way to have it,
    these methods are the whole interface, as runtime/kvcc.h documents it. Table, slots, seq_lens and new_lens are int32
    and, with `memory` and the tensors, lie where the target computes.
    """

    def __init__(self, handle: _native.Program, target: str):
        self._handle = handle
        self.target = target
        self.info = ProgramInfo(**handle.info())
        self.layers: tuple[LayerInfo, ...] = tuple(LayerInfo(**handle.layer(i)) for i in range(self.info.layers))

    def __deepcopy__(self, memo: dict) -> Program:
        return self  # never changes

    def __repr__(self) -> str:
        served = sum(layer.served for layer in self.layers)
        return f"<kvcc.Program for {self.target}: {served} of {len(self.layers)} layers, {self.info.variants} kernels>"

    def layer(self, index: int) -> LayerInfo:
        """Layer `index`, which is served; `layers` has all of them."""
        if not 0 <= index < len(self.layers):
            raise expected(f"layer from 0 to {len(self.layers) - 1}", index)
        self._handle.pages_for(index, 0)  # raises the reason why it is not served
        return self.layers[index]

    def pages_for(self, layer: int, tokens: int) -> int:
        """Pages that a sequence of `tokens` tokens occupies."""
        return self._handle.pages_for(layer, tokens)

    def quantized_tokens(self, layer: int, tokens: int) -> int:
        """How many of `tokens` tokens are quantized: those from token `sink` on."""
        return self._handle.quantized_tokens(layer, tokens)

    def expired_pages(self, layer: int, tokens: int) -> int:
        """How many of its first pages no query at a length of `tokens` or more reads: what is out of a window's reach."""
        return self._handle.expired_pages(layer, tokens)

    def workspace_bytes(self, layer: int, batch: int, max_tokens: int, split_tokens: int = 0) -> int:
        """Of `attend`; `batch` is sequences times queries."""
        return self._handle.workspace_bytes(layer, batch, max_tokens, split_tokens)

    def rollback(self, layer: int, tokens: int, count: int) -> int:
        """The length of a sequence without its last `count` tokens, of which at most max_rollback can be taken back."""
        return self._handle.rollback(layer, tokens, count)

    def shared_pages(self, layer: int, tokens: int) -> int:
        """How many of its first pages a fork of a sequence shares."""
        return self._handle.shared_pages(layer, tokens)

    def memory(self, layer: int, pages: Array, slots: Array) -> Memory:
        """The pools of a layer: uint8 [num_pages, page_bytes] and [num_slots, slot_bytes], at multiples of 64 bytes."""
        return self._handle.memory(layer, pages, slots)

    def append(self, memory: Memory, *, table: Array, slots: Array, seq_lens: Array, new_lens: Array, keys: Array,
               values: Array, max_new: Optional[int] = None, stream: int = 0) -> None:
        """Adds tokens at the ends of sequences. The first call of a sequence is its prefill.

        table [batch, pages], slots [batch], seq_lens [batch]: after the call; new_lens [batch]: the tokens that are new.
        keys, values: [batch, kv_heads, tokens, head_dim] after RoPE, in any order of axes but the last."""
        self._handle.append(memory, table, slots, seq_lens, new_lens, keys, values, max_new, stream)

    def attend(self, memory: Memory, *, table: Array, slots: Array, seq_lens: Array, query: Array, out: Array,
               lse: Array, max_tokens: int, workspace: Optional[Array] = None, sinks: Optional[Array] = None,
               split_tokens: int = 0, stream: int = 0) -> None:
        """One decode step, for the last token or the last few.

        query: [batch, queries, q_heads, head_dim], 1 to 16 queries, after RoPE, not scaled; out: the same, of out_dtype;
        lse: [batch, queries, q_heads], float32; max_tokens: at least every length; workspace: uint8, see
        `workspace_bytes`, zero when it is first used; sinks: [q_heads], float32, of a layer with sink_logits;
        split_tokens: 0, or how many tokens at a time a sequence is split into, a multiple of 256: results of a sequence
        have the same bits then, whatever else is in the batch."""
        self._handle.attend(memory, table, slots, seq_lens, query, out, lse, workspace, max_tokens, sinks, split_tokens,
                            stream)

    def merge(self, layer: int, outs: Array, lses: Array, *, out: Array, lse: Array, stream: int = 0) -> None:
        """Merges results over disjoint sets of tokens into that over all of them, all float32.

        outs: [parts, rows, head_dim], finite even of empty parts, whose lses, [parts, rows], are -inf; out: [rows,
        head_dim], lse: [rows]."""
        self._handle.merge(layer, outs, lses, out, lse, stream)

    def fork(self, memory: Memory, *, table: Array, slot: int, fork_table: Array, fork_slot: int, tokens: int,
             stream: int = 0) -> None:
        """Makes a sequence with the same tokens. Both tables are int32 [pages] of the host; the first `shared_pages` of
        them are the same."""
        self._handle.fork(memory, table, slot, fork_table, fork_slot, tokens, stream)

    def adopt(self, memory: Memory, *, slot: int) -> None:
        """The caller has filled a slot, and the pages of its sequence, itself: moved them here, or back from elsewhere.
        Validation then believes the next length that it sees."""
        self._handle.adopt(memory, slot)

    def snapshot(self, memory: Memory, *, table: Array, slot: int, tokens: int, stream: int = 0) -> bytes:
        """A sequence as bytes that name its format and end in a checksum. The table is one of the host."""
        return self._handle.snapshot(memory, table, slot, tokens, stream)

    def restore(self, memory: Memory, data: bytes, *, table: Array, slot: int, requantize: bool = False,
                stream: int = 0) -> int:
        """Fills a sequence from a snapshot of the same format, or of any with `requantize`; returns its tokens."""
        return self._handle.restore(memory, table, slot, _bytes("data", data), requantize, stream)


_default_context: Optional[Context] = None


def _forget_default_context() -> None:
    # The threads of its pool are not in a forked child. What it holds must not be freed there.
    global _default_context
    if _default_context is not None:
        _abandoned.append(_default_context)
        _default_context = None


_abandoned: list[Context] = []
os.register_at_fork(after_in_child=_forget_default_context)


def default_context() -> Context:
    """The context of programs that are compiled without one."""
    global _default_context
    if _default_context is None:
        _default_context = Context()
    return _default_context


def compile(model: Model, scheme: str = "auto", target: str = "cpu", *, dtype: Optional[str] = None,
            compute: str = "auto", profile: Union[str, os.PathLike, None] = None, page_tokens: int = 0,
            page_bytes: int = 0, out_dtype: Optional[str] = None, queries: int = 0,
            context: Optional[Context] = None) -> Program:
    """Compiles, or finds in the kernel cache, the kernels of all layers of a model that can be served.

    model: a config.json, a folder with one, what stands in one as a mapping, or a configuration of Transformers.
    scheme: a preset ("innerq-small"; `python -m kvcc schemes` lists them), a preset with parts changed or parts alone
        ("innerq-small; v = <i4, map = asym, group = 1x32, scale = f16>"), "auto" with options ("auto; budget = 3.5;
        context = 32768"), or a table of layers ("FILE.mlir").
    target: "cpu", "cuda", "cuda:sm_90", ...
    dtype: of queries, keys and values: "f16", "bf16", "f32"; None: the model's.
    compute: arithmetic of products with codes: "auto", "f32", "f16" (CUDA), "bf16", "int16", "int8" (CPU).
    profile: what `kvcc profile` measured.
    page_tokens: a multiple of 32; 0: chosen. page_bytes: of every layer, for one pool of pages; 0: what each needs.
    out_dtype: of results: that of the queries, or "f32"; None: "f32".
    queries: of a sequence in most steps, 1 to 16: on tensor cores they share passes over the codes as far as they fit. Any
        number is right in any step; 0: as many as make no pass longer.
    """
    for name, value in (("scheme", scheme), ("target", target), ("compute", compute)):
        if not isinstance(value, str):
            raise expected(f"{name} to be a str", f"a {type(value).__name__}")
    if profile is not None:
        scheme += f"; profile = {os.fspath(profile)}"
    context = context or default_context()

    def native(path: str) -> Program:
        return Program(_native.Program(context._handle, path, scheme, target, dtype, compute, page_tokens, page_bytes,
                                       out_dtype, queries), target)

    with model_file(model) as path:
        return native(path)


@contextlib.contextmanager
def model_file(model: Model) -> Iterator[str]:
    """The path of a model's configuration, which is a temporary file if the model is none."""
    if isinstance(model, (str, os.PathLike)):
        yield os.fspath(model)
        return
    facts = model if isinstance(model, Mapping) else getattr(model, "to_dict", lambda: None)()
    if not isinstance(facts, Mapping):
        raise expected("model to be a path, a mapping or a configuration of Transformers", f"a {type(model).__name__}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{facts.get('model_type') or 'config'}.json"
        path.write_text(json.dumps(dict(facts), default=str))
        try:
            yield str(path)
        except Error as error:
            # Messages name the file, and there is none that the caller knows.
            raise type(error)(str(error).replace(f"{path}", path.stem)) from None
