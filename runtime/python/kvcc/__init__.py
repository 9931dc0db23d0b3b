# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""kvcc: decode attention over quantized KV caches.

    program = kvcc.compile("config.json", scheme="auto", target="cpu")
    cache = kvcc.LayerCache(program, layer=0, batch=1)
    cache.append(keys, values)           # [batch, kv_heads, tokens, head_dim]
    out, lse = cache.attend(query)       # [batch, queries, q_heads, head_dim]

`kvcc.torch` has operators for PyTorch, `kvcc.transformers` a cache for the models of Transformers; both import their
library only when they are imported. `python -m kvcc` is the command line tool.
"""
from .cache import LayerCache
from .errors import Error, Failed, InvalidArgument, Unavailable, Unsupported
from .program import Context, LayerInfo, Memory, Program, ProgramInfo, compile, snapshot_tokens
from ._native import version as _version

__version__ = _version()
__all__ = ["Context", "Error", "Failed", "InvalidArgument", "LayerCache", "LayerInfo", "Memory", "Program",
           "ProgramInfo", "Unavailable", "Unsupported", "compile", "snapshot_tokens"]
