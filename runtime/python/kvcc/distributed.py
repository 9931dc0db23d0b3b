# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""kvcc over the ranks of a process group of torch.distributed: context parallelism, and one compilation for all ranks.

    program = kvcc.distributed.compile("config.json", "kvcc-3.5", group=group)
    cache = kvcc.distributed.ContextParallelCache(program, batch=4, group=group)
    cache.append(keys, values)              # on every rank the same tokens, of which it keeps its slice
    out, lse = cache.attend(query)          # on every rank the same result

Each rank attends to its slice of a sequence with the kernels as they are; what travels is one partial result and its LSE
per query, in one all-gather, and `merge` makes of them what one rank would have computed over all slices. Positions are
applied to keys before they are appended, so a slice knows none. All ranks of the group make the same calls.
"""
from __future__ import annotations

import copy
import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from . import errors
from .cache import LayerCache
from .errors import Error, Failed, Unavailable, Unsupported, expected
from .program import Context, LayerInfo, Model, Program, model_file
from .program import compile as compile_here
from .tool import TOOL
from .torch import TensorMemory, _find, dtype_name, torch

try:
    import torch.distributed as dist
    from torch.distributed import ProcessGroup
except ImportError as error:
    raise Unavailable(f"expected PyTorch with torch.distributed, but got '{error}'") from None
if not dist.is_available():
    raise Unavailable(f"expected PyTorch with torch.distributed, but got {torch.__version__}, which was built without it")

# By its name since PyTorch 2.13, or before.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_MOST_QUERIES = 16  # of a step of the kernels
_GRANULE = 32  # a rank's share is a multiple of this: blocks of quantized tokens


# -- Partial results.

def merge(outs: torch.Tensor, lses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """kv.merge: partial results over disjoint sets of tokens, merged over the leading dimension.

    out = sum_i exp(lse_i) out_i / sum_i exp(lse_i), lse = log sum_i exp(lse_i). Parts without tokens have lse = -inf, any
    finite out, and do not count. outs: [parts, ..., head_dim], lses: [parts, ...], float32."""
    # Where all parts are empty, weights are to be numbers, too.
    weights = lses.clamp(min=torch.finfo(lses.dtype).min).softmax(0)
    return (weights.unsqueeze(-1) * outs).sum(0), lses.logsumexp(0)


def all_gather_merge(out: torch.Tensor, lse: torch.Tensor,
                     group: Optional[ProcessGroup] = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The partial results of all ranks, merged: on every rank the same bits.

    out: [..., head_dim] and lse: [...], float32, of this rank's tokens. One all-gather of (head_dim + 1) * 4 bytes per
    query and head from every rank."""
    size = _world_size(group)
    if out.dtype != torch.float32 or lse.dtype != torch.float32 or out.shape[:-1] != lse.shape:
        raise expected("float32 out [..., head_dim] and lse [...]",
                       f"{out.dtype} {list(out.shape)} and {lse.dtype} {list(lse.shape)}")
    part = torch.cat([out, lse.unsqueeze(-1)], -1)
    parts = part.new_empty(size, *part.shape)
    _collective("the all-gather of partial results", group,
                lambda: _all_gather(parts.view(-1), part.view(-1), group=group))
    return merge(parts[..., :-1], parts[..., -1])


def attend(query: torch.Tensor, pages: torch.Tensor, slot_pool: torch.Tensor, table: torch.Tensor, slots: torch.Tensor,
           seq_lens: torch.Tensor, max_tokens: int, program: int, layer: int, sinks: Optional[torch.Tensor] = None, *,
           group: Optional[ProcessGroup] = None) -> tuple[torch.Tensor, torch.Tensor]:
    """torch.ops.kvcc.attend over the ranks of a group, each of which gives the memory, tables and lengths of its slices;
    queries are the same on all ranks.

    seq_lens: [batch], the tokens of a slice, of which query i sees all but the last queries - 1 - i: for one query, and on
    the rank that has the last tokens of all sequences. Or [batch, queries], the tokens of a slice that each query sees:
    on the ranks before it, whose tokens are seen by all queries. 0 where a rank has none. sinks are the same on all ranks,
    too, and count once."""
    _world_size(group)
    if query.dim() != 4:
        raise expected("query of shape [batch, queries, q_heads, head_dim]", list(query.shape))
    batch, queries = query.shape[:2]
    if tuple(seq_lens.shape) not in ((batch,), (batch, queries)):
        raise expected(f"seq_lens of shape [{batch}] or [{batch}, {queries}]", list(seq_lens.shape))
    _refuse_window(_find(program).layer(layer), layer)
    local = query
    if seq_lens.dim() == 2:  # each query is a sequence of its own
        local = query.reshape(batch * queries, 1, *query.shape[2:])
        table, slots = table.repeat_interleave(queries, 0), slots.repeat_interleave(queries)
    out, lse = torch.ops.kvcc.attend(local, pages, slot_pool, table, slots, seq_lens.reshape(-1), max_tokens, program, layer,
                                     _sinks_here(sinks, dist.get_rank(group)))
    return all_gather_merge(out.view(query.shape), lse.view(query.shape[:3]), group)


def _refuse_window(info: LayerInfo, layer: int) -> None:
    if info.window_tokens:  # would be counted from the end of each slice
        raise Unsupported(f"layer {layer}: a window of {info.window_tokens} tokens is not split over ranks; give every rank a "
                          "kvcc.LayerCache with all tokens")


def _sinks_here(sinks: Optional[torch.Tensor], rank: int) -> Optional[torch.Tensor]:
    """The sink logits are one rank's; the others' weigh nothing."""
    return sinks if sinks is None or rank == 0 else torch.full_like(sinks, -1e30)


# -- Caches.

class ContextParallelCache:
    """A `kvcc.LayerCache` whose sequences are spread over the ranks of a group: rank r has the tokens from
    r * tokens_per_rank on, the last rank all that are left. So new tokens go to the rank with the end of their sequence,
    and, when its share is full, to the next.

    tokens_per_rank: a rank's share of a sequence. None: of each sequence its first append, the prompt, is split evenly, and
        all later tokens are the last rank's; with max_tokens these are split instead. A multiple of 32.
    max_tokens: as of LayerCache, of a whole sequence.

    A slice is a cache of its own, with windows and with what transforms measure on its first append, so a share should
    not begin in the middle of decoding unless a profile gives them. Keys and values come whole and the same on every
    rank, as ranks with replicas of a model compute them. A rank that computes its own only fills a LayerCache or its own
    pages, and calls `all_gather_merge` or `attend`.
    """

    def __init__(self, program: Program, layer: int = 0, batch: int = 1, *, tokens_per_rank: Optional[int] = None,
                 max_tokens: Optional[int] = None, group: Optional[ProcessGroup] = None, device: Any = "cpu"):
        self.group, self.world_size = group, _world_size(group)
        self.rank = dist.get_rank(group)
        if tokens_per_rank is not None and (tokens_per_rank < _GRANULE or tokens_per_rank % _GRANULE):
            raise expected(f"tokens_per_rank to be a multiple of {_GRANULE}, or None", tokens_per_rank)
        if max_tokens is not None and max_tokens < 1:
            raise expected("max_tokens of at least 1, or None", max_tokens)
        if tokens_per_rank is None and max_tokens is not None:
            tokens_per_rank = _split(max_tokens, self.world_size)
        self.program, self.layer, self.info = program, layer, program.layer(layer)
        self.tokens_per_rank, self.max_tokens = tokens_per_rank, max_tokens
        _refuse_window(self.info, layer)
        if self.info.out_dtype != "f32":
            raise expected("a program with results of f32, which partial ones are", f"{self.info.out_dtype}; compile it "
                           "without out_dtype")
        memory = TensorMemory(device)
        self.device = memory.device
        self._check_agreement(memory, {
            "layer": layer, "batch": batch, "tokens_per_rank": tokens_per_rank or 0, "max_tokens": max_tokens or 0,
            "q_heads": self.info.q_heads, "kv_heads": self.info.kv_heads, "head_dim": self.info.head_dim})
        room = None
        if max_tokens is not None:
            room = max(1, self._part(tokens_per_rank, max_tokens))
        self.local = LayerCache(program, layer, batch, max_tokens=room, memory=memory)
        """This rank's slices."""
        self._begin(batch)

    def __deepcopy__(self, memo: dict) -> ContextParallelCache:
        """All sequences, in memory of their own, on the same ranks."""
        result = copy.copy(self)
        for name in ("local", "_lengths", "_greatest", "_shares"):
            setattr(result, name, copy.deepcopy(getattr(self, name), memo))
        return result

    @property
    def batch(self) -> int:
        return len(self._lengths)

    @property
    def lengths(self) -> list[int]:
        """The tokens of each sequence, on all ranks together; `local.lengths` are those of this rank."""
        return list(self._lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of the pools of this rank."""
        return self.local.nbytes

    @property
    def used_nbytes(self) -> int:
        """Bytes of the pages and slots that sequences occupy on this rank."""
        return self.local.used_nbytes

    def append(self, keys: torch.Tensor, values: torch.Tensor, *, new_lens: Optional[Sequence[int]] = None,
               sequences: Optional[Sequence[int]] = None) -> None:
        """As LayerCache.append; keeps what is this rank's."""
        rows = list(range(self.batch)) if sequences is None else [int(i) for i in sequences]
        info = self.info
        for name, tensor in (("keys", keys), ("values", values)):
            self._check(tensor, f"{name} of shape [{len(rows)}, {info.kv_heads}, tokens, {info.head_dim}]",
                        (len(rows), info.kv_heads, None, info.head_dim))
        if keys.shape != values.shape:
            raise expected("as many keys as values", f"{keys.shape[2]} and {values.shape[2]}")
        if any(not 0 <= row < self.batch for row in rows) or len(set(rows)) != len(rows):
            raise expected(f"sequences to be different numbers from 0 to {self.batch - 1}", rows)
        tokens = keys.shape[2]
        added = [tokens] * len(rows) if new_lens is None else [int(n) for n in new_lens]
        if len(added) != len(rows) or any(not 0 <= n <= tokens for n in added):
            raise expected(f"new_lens to be {len(rows)} numbers from 0 to tokens = {tokens}", added)
        longest = max((self._lengths[row] + n for row, n in zip(rows, added)), default=0)
        if self.max_tokens is not None and longest > self.max_tokens:
            raise expected(f"at most max_tokens = {self.max_tokens} tokens",
                           f"{longest}; give a larger max_tokens, or None to let the cache grow")
        for row, n in zip(rows, added):
            if not self._lengths[row] and n:
                self._shares[row] = self.tokens_per_rank or _split(n, self.world_size)
        # Where this rank's part of the new tokens begins, which is the same for all sequences unless they are ragged.
        parts: dict[int, list[tuple[int, int]]] = {}
        for i, (row, n) in enumerate(zip(rows, added)):
            share, before = self._shares[row], self._lengths[row]
            count = self._part(share, before + n) - self._part(share, before)
            if count:
                parts.setdefault(max(0, self.rank * share - before), []).append((i, count))
        for start, chosen in parts.items():
            index, counts = [i for i, _ in chosen], [count for _, count in chosen]
            part = slice(start, start + max(counts))
            k, v = keys[:, :, part], values[:, :, part]
            if index != list(range(len(rows))):
                k, v = k[index], v[index]
            self.local.append(k, v, new_lens=counts, sequences=[rows[i] for i in index])
        for row, n in zip(rows, added):
            self._lengths[row] += n
            self._greatest[row] = max(self._greatest[row], self._lengths[row])

    def attend(self, query: torch.Tensor, sinks: Optional[torch.Tensor] = None) -> tuple[torch.Tensor, torch.Tensor]:
        """As LayerCache.attend, over the tokens of all ranks."""
        info = self.info
        self._check(query, f"query of shape [{self.batch}, queries, {info.q_heads}, {info.head_dim}]",
                    (self.batch, None, info.q_heads, info.head_dim))
        # What only some ranks would refuse, is refused on all.
        queries = query.shape[1]
        if not 1 <= queries <= _MOST_QUERIES:
            raise expected(f"1 to {_MOST_QUERIES} queries per sequence", queries)
        room = min(length - max(0, most - info.max_rollback) for length, most in zip(self._lengths, self._greatest))
        if queries > 1 + room and queries > 1:
            raise expected(f"at most {1 + room} queries of a sequence of which tokens have just been taken back", queries)
        return all_gather_merge(*self._attend_here(query, _sinks_here(sinks, self.rank)), self.group)

    def rollback(self, count: int) -> None:
        """Takes the last `count` tokens of every sequence back, on whichever ranks they are."""
        after = [self.program.rollback(self.layer, length, count) for length in self._lengths]
        most = max(greatest - length for greatest, length in zip(self._greatest, after))
        if most > self.info.max_rollback:
            raise expected(f"to take back at most max_rollback = {self.info.max_rollback} tokens of the greatest length",
                           most)
        self.local.rollback([here - self._part(share, length)
                             for here, share, length in zip(self.local.lengths, self._shares, after)])
        self._lengths = after

    def select(self, sequences: Iterable[int]) -> None:
        """As LayerCache.select."""
        wanted = [int(i) for i in sequences]
        self.local.select(wanted)
        for name in ("_lengths", "_greatest", "_shares"):
            old = getattr(self, name)
            setattr(self, name, [old[i] for i in wanted])

    def reset(self, batch: Optional[int] = None) -> None:
        """As LayerCache.reset."""
        self.local.reset(batch)
        self._begin(self.local.batch)

    def _begin(self, batch: int) -> None:
        # Of each sequence: its tokens, the most that it has had, and what of it a rank holds.
        self._lengths, self._greatest, self._shares = [0] * batch, [0] * batch, [_GRANULE] * batch

    def _part(self, share: int, tokens: int) -> int:
        """How many of the first `tokens` tokens of a sequence are this rank's."""
        rest = max(0, tokens - self.rank * share)
        return rest if self.rank == self.world_size - 1 else min(rest, share)

    def _check(self, tensor: Any, what: str, shape: tuple[Optional[int], ...]) -> None:
        """Here and not by the kernels, which do not see it on a rank without tokens."""
        if not isinstance(tensor, torch.Tensor):
            raise expected(what, f"a {type(tensor).__name__}")
        if tensor.dim() != len(shape) or any(n not in (None, size) for n, size in zip(shape, tensor.shape)):
            raise expected(what, list(tensor.shape))
        if dtype_name(tensor.dtype) != self.info.dtype or tensor.device.type != self.device.type:
            raise expected(f"{what} and dtype {self.info.dtype} on {self.device}", f"{tensor.dtype} on {tensor.device}")

    def _attend_here(self, query: torch.Tensor, sinks: Optional[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The partial result of this rank."""
        queries, here = query.shape[1], self.local.lengths
        # The kernels see the last tokens of a cache causally. Where these are not the last ones of the sequence, each query
        # is a sequence of its own, with the tokens that it sees.
        last = [row for row in range(self.batch) if self._part(self._shares[row], self._lengths[row] - queries) + queries ==
                here[row]]
        if queries == 1 or len(last) == self.batch:
            return self.local.attend(query, sinks)
        others = [row for row in range(self.batch) if row not in last]
        seen = [self._part(self._shares[row], self._lengths[row] - queries + 1 + i) for row in others for i in range(queries)]
        rows = query if not last else query[others]
        out, lse = self.local.attend(rows.reshape(-1, 1, *query.shape[2:]), sinks,
                                     sequences=[row for row in others for _ in range(queries)], lengths=seen)
        out, lse = out.view(rows.shape), lse.view(rows.shape[:3])
        if not last:
            return out, lse
        both = [torch.cat(pair) for pair in zip((out, lse), self.local.attend(query[last], sinks, sequences=last))]
        order = torch.tensor(others + last, device=out.device).argsort()
        return both[0][order], both[1][order]

    def _check_agreement(self, memory: TensorMemory, facts: dict[str, int]) -> None:
        """Ranks that are set up differently would wait for each other or merge what does not belong together."""
        mine = torch.tensor(list(facts.values()), dtype=torch.int64, device=memory.device)
        all_ranks = mine.new_empty(self.world_size, len(facts))
        _collective("the comparison of options", self.group,
                    lambda: _all_gather(all_ranks.view(-1), mine, group=self.group))
        for name, values in zip(facts, all_ranks.T.tolist()):
            if len(set(values)) > 1:
                raise expected(f"the same {name} on all ranks", f"{values}; make the same calls on every rank of the group")


def _split(tokens: int, ranks: int) -> int:
    """A share of which `ranks` hold so many tokens."""
    return -(-tokens // (ranks * _GRANULE)) * _GRANULE


# -- Kernels.

def compile(model: Model, scheme: str = "auto", target: str = "cpu", *, dtype: Optional[str] = None,
            compute: str = "auto", profile: Union[str, os.PathLike, None] = None, page_tokens: int = 0,
            context: Optional[Context] = None, group: Optional[ProcessGroup] = None) -> Program:
    """`kvcc.compile` on all ranks with one compilation: rank 0 of the group compiles, and the others import its kernels into
    their kernel caches, as `kvcc cache export` and `import` do. Name the target as it is on all ranks ("cuda:sm_90"); a
    rank whose target is another compiles for itself. What rank 0 refuses is raised on all ranks."""
    _world_size(group)
    rank, options = dist.get_rank(group), {"dtype": dtype, "compute": compute, "page_tokens": page_tokens}
    environment = dict(os.environ)
    if context is not None and context.cache_dir is not None:
        environment["KVCC_CACHE_DIR"] = os.fspath(context.cache_dir)

    def tool(*arguments: Any) -> None:
        done = subprocess.run([TOOL, "cache", *map(str, arguments)], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"kvcc cache {arguments[0]}: {done.stderr.strip()}")

    def compile_one() -> Program:
        return compile_here(model, scheme, target, profile=profile, context=context, **options)

    program, sent = None, [None]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "kernels.kvcb"
        if rank == 0:
            try:
                program = compile_one()
                with model_file(model) as path:
                    tool("export", f"--model={path}", f"--scheme={scheme}", f"--targets={target}", f"--compute={compute}",
                         f"--page={page_tokens}", *([f"--dtype={dtype}"] if dtype else []),
                         *([f"--profile={os.fspath(profile)}"] if profile is not None else []), "-o", bundle)
                sent = [bundle.read_bytes()]
            except Error as error:
                sent = [(type(error).__name__, str(error))]
        _collective("the broadcast of kernels", group,
                    lambda: dist.broadcast_object_list(sent, dist.get_global_rank(group or dist.group.WORLD, 0), group))
        if isinstance(sent[0], tuple):
            raise getattr(errors, sent[0][0], Failed)(sent[0][1])
        if program is None:
            bundle.write_bytes(sent[0])
            try:
                tool("import", bundle)
            except Failed as error:  # no kernel cache that can be written, KVCC_CACHE=ro
                warnings.warn(f"rank {rank} compiles for itself: {error}", stacklevel=2)
    return program or compile_one()


# -- The group.

def _world_size(group: Optional[ProcessGroup]) -> int:
    if not dist.is_initialized():
        raise expected("a process group", "none; call torch.distributed.init_process_group, in a process that torchrun started")
    size = dist.get_world_size(group)
    if size < 1:
        raise expected("a group with this rank in it", f"one without rank {dist.get_rank()}")
    return size


def _collective(what: str, group: Optional[ProcessGroup], run: Callable[[], Any]) -> None:
    """Errors of the backend become kvcc's."""
    try:
        run()
    except RuntimeError as error:  # a lost connection, a time-out, a backend without the device
        raise Failed(f"expected all {dist.get_world_size(group)} ranks to take part in {what}, but rank "
                     f"{dist.get_rank(group)} got '{str(error).strip()}' from the backend {dist.get_backend(group)}; a rank has "
                     "ended, makes other calls, or has tensors that the backend does not send: end the others, too, and "
                     "start the group anew") from error
