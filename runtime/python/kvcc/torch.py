# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""kvcc for PyTorch: operators that torch.compile understands, and memory of tensors for `kvcc.LayerCache`.

    handle = kvcc.torch.register(program)
    torch.ops.kvcc.append(keys, values, pages, slot_pool, table, slots, seq_lens, new_lens, handle, layer)
    out, lse = torch.ops.kvcc.attend(query, pages, slot_pool, table, slots, seq_lens, max_tokens, handle, layer)

Tensors are those of `kvcc.Program.append` and `attend`. The operators allocate results and workspace with PyTorch, work
on the current stream of CUDA tensors, and may be captured in a CUDA graph. They have no gradients.
"""
from __future__ import annotations

import itertools
import weakref
from typing import Any, Optional

import numpy as np

from .cache import HostMemory
from .errors import Unavailable, expected
from .program import Program

try:
    import torch
    from torch.library import custom_op
except ImportError as error:
    raise Unavailable(f"expected PyTorch 2.6 or newer, but got '{error}'; pip install 'kvcc[torch]'") from None

DTYPES = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}


_BY_NAME = {name: dtype for dtype, name in DTYPES.items()}


def dtype_name(dtype: torch.dtype) -> str:
    """ "f16" for torch.float16, and so on."""
    if dtype not in DTYPES:
        raise expected(f"a dtype of {', '.join(map(str, DTYPES))}", dtype)
    return DTYPES[dtype]


def current_stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


class TensorMemory(HostMemory):
    """For `kvcc.LayerCache(..., memory=TensorMemory(device))`: its memory and results are tensors of a device."""

    def __init__(self, device: Any = "cpu"):
        self.device = torch.device(device)

    @property
    def stream(self) -> int:  # type: ignore[override]
        return current_stream(self.device)

    def empty(self, count: int, size: int) -> torch.Tensor:
        if self.device.type == "cpu":  # in huge pages of the processor, which NumPy asks for and PyTorch does not
            return torch.from_numpy(super().empty(count, size))
        return torch.empty((count, size), dtype=torch.uint8, device=self.device)

    def results(self, dtype: str, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=_BY_NAME[dtype], device=self.device)

    def integers(self, values: np.ndarray) -> Any:
        return values if self.device.type == "cpu" else torch.from_numpy(values).to(self.device)


# -- Operators. A schema has no room for objects, so programs go by numbers.

_programs: "weakref.WeakValueDictionary[int, Program]" = weakref.WeakValueDictionary()
_handles = itertools.count(1)


def register(program: Program) -> int:
    """The number by which the operators know a program; the caller keeps the program."""
    if not isinstance(program, Program):
        raise expected("program to be a kvcc.Program", f"a {type(program).__name__}")
    for handle, known in _programs.items():
        if known is program:
            return handle
    handle = next(_handles)
    _programs[handle] = program
    return handle


def _find(handle: int) -> Program:
    program = _programs.get(handle)
    if program is None:
        raise expected("the number of a program that kvcc.torch.register gave and that still lives", handle)
    return program


@custom_op("kvcc::append", mutates_args=("pages", "slot_pool"))
def append(keys: torch.Tensor, values: torch.Tensor, pages: torch.Tensor, slot_pool: torch.Tensor,
           table: torch.Tensor, slots: torch.Tensor, seq_lens: torch.Tensor, new_lens: torch.Tensor,
           program: int, layer: int) -> None:
    """Adds tokens at the ends of sequences, see `kvcc.Program.append`."""
    found = _find(program)
    found.append(found.memory(layer, pages, slot_pool), table=table, slots=slots, seq_lens=seq_lens, new_lens=new_lens,
                 keys=keys.detach(), values=values.detach(), stream=current_stream(keys.device))


@append.register_fake
def _(keys, values, pages, slot_pool, table, slots, seq_lens, new_lens, program, layer):
    return None


@custom_op("kvcc::attend", mutates_args=())
def attend(query: torch.Tensor, pages: torch.Tensor, slot_pool: torch.Tensor, table: torch.Tensor, slots: torch.Tensor,
           seq_lens: torch.Tensor, max_tokens: int, program: int, layer: int,
           sinks: Optional[torch.Tensor] = None) -> tuple[torch.Tensor, torch.Tensor]:
    """One decode step, see `kvcc.Program.attend`: out [batch, queries, q_heads, head_dim] and lse [batch, queries,
    q_heads]."""
    found = _find(program)
    if query.dim() != 4:
        raise expected("query of shape [batch, queries, q_heads, head_dim]", list(query.shape))
    out, lse = _results(query, found.layer(layer).out_dtype)
    size = found.workspace_bytes(layer, query.shape[0] * query.shape[1], max_tokens)
    workspace: Optional[torch.Tensor] = None
    if size:
        workspace = torch.zeros(size, dtype=torch.uint8, device=query.device)
    found.attend(found.memory(layer, pages, slot_pool), table=table, slots=slots, seq_lens=seq_lens,
                 query=query.detach(), out=out, lse=lse, max_tokens=max_tokens, workspace=workspace,
                 sinks=None if sinks is None else sinks.detach(), stream=current_stream(query.device))
    return out, lse


@attend.register_fake
def _(query, pages, slot_pool, table, slots, seq_lens, max_tokens, program, layer, sinks=None):
    return _results(query, _find(program).layer(layer).out_dtype)


def _results(query: torch.Tensor, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    shape = query.shape
    return (torch.empty(shape, dtype=_BY_NAME[dtype], device=query.device),
            torch.empty(shape[:3], dtype=torch.float32, device=query.device))
