# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The caches of a batch of sequences in one layer: memory, block tables and lengths, so that a caller has only to append
and to attend."""
from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Optional, Union

import numpy as np

from .errors import expected
from .program import Array, Program

_ALIGNMENT = 64
_MOST_QUERIES = 16


class HostMemory:
    """Where a LayerCache has its arrays: NumPy's. kvcc.torch.TensorMemory is the same with tensors."""
    stream = 0

    def empty(self, count: int, size: int) -> Any:
        """Bytes [count, size] at a multiple of 64."""
        raw = np.empty(count * size + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        return raw[start:start + count * size].reshape(count, size)

    def results(self, dtype: str, *shape: int) -> Any:
        if dtype == "bf16":
            raise expected("out_dtype f32 or f16 for results of NumPy, which has no bf16", "bf16")
        return np.empty(shape, np.float16 if dtype == "f16" else np.float32)

    def integers(self, values: np.ndarray) -> Any:
        """What kernels read of an array of int32 of the host."""
        return values


def _check_batch(batch: int) -> int:
    if batch < 1:
        raise expected("batch of at least 1", batch)
    return batch


class _Entries:
    """Pages or slots: which are free, and how many sequences share each of the others."""

    def __init__(self) -> None:
        self.references: list[int] = []
        self.free: list[int] = []

    def extend(self, count: int) -> None:
        self.free.extend(range(len(self.references) + count - 1, len(self.references) - 1, -1))
        self.references.extend([0] * count)

    def take(self) -> int:
        entry = self.free.pop()
        self.references[entry] = 1
        return entry

    def share(self, entry: int) -> int:
        self.references[entry] += 1
        return entry

    def release(self, entry: int) -> None:
        self.references[entry] -= 1
        if not self.references[entry]:
            self.free.append(entry)


class LayerCache:
    """The caches of `batch` sequences in layer `layer` of a program.

    Sequences have lengths of their own. With `max_tokens` all memory is allocated now and more tokens are refused;
    without it, it grows as it has to. Where queries reach back a window of tokens, pages that none can reach any more are
    free for other tokens. With `split_tokens`, a multiple of 256, results of a sequence have the same bits in any batch. Not
    for use by two threads at once.
    """

    def __init__(self, program: Program, layer: int = 0, batch: int = 1, *, max_tokens: Optional[int] = None,
                 split_tokens: int = 0, memory: Optional[HostMemory] = None):
        _check_batch(batch)
        if max_tokens is not None and max_tokens < 1:
            raise expected("max_tokens of at least 1, or None", max_tokens)
        if program.target.startswith("cuda") and program.target != "cuda-host" and memory is None:
            raise expected("memory of the device for target " + program.target,
                           "none; give memory = kvcc.torch.TensorMemory(device)")
        self.program, self.layer, self.max_tokens, self.split_tokens = program, layer, max_tokens, split_tokens
        self.info = program.layer(layer)
        self._memory = memory or HostMemory()
        self._page_entries, self._slot_entries = _Entries(), _Entries()
        self._page_pool = self._memory.empty(0, self.info.page_bytes)
        self._slot_pool = self._memory.empty(0, self.info.slot_bytes)
        # Of each sequence: its pages, of which the first that are out of reach are the blank one; its slot, its length.
        self._tables: list[list[int]] = []
        self._blank: Optional[int] = None
        self._slots: list[int] = []
        self._lengths: list[int] = []
        self._workspace: Any = None
        self._begin(batch)

    def __deepcopy__(self, memo: dict) -> LayerCache:
        """All sequences, in memory of their own."""
        result = copy.copy(self)
        for name in ("_page_entries", "_slot_entries", "_tables", "_slots", "_lengths", "_greatest", "_expired"):
            setattr(result, name, copy.deepcopy(getattr(self, name)))
        result._page_pool, result._slot_pool = self._moved(self._page_pool, 0), self._moved(self._slot_pool, 0)
        result._handle = self.program.memory(self.layer, result._page_pool, result._slot_pool)
        result._adopt()
        result._workspace = None
        return result

    # -- What there is.

    @property
    def batch(self) -> int:
        return len(self._lengths)

    @property
    def lengths(self) -> list[int]:
        """The tokens of each sequence."""
        return list(self._lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of the pools: all the memory that grows with tokens or sequences."""
        return int(self._page_pool.nbytes) + int(self._slot_pool.nbytes)

    @property
    def used_nbytes(self) -> int:
        """Bytes of the pages and slots that sequences occupy."""
        pages = sum(n > 0 for n in self._page_entries.references)
        return pages * self.info.page_bytes + self.batch * self.info.slot_bytes

    # -- The life of sequences.

    def append(self, keys: Array, values: Array, *, new_lens: Optional[Sequence[int]] = None,
               sequences: Optional[Sequence[int]] = None) -> None:
        """Adds tokens to the ends of all sequences, or of `sequences`, each once.

        keys, values: [sequences, kv_heads, tokens, head_dim] of the layer's dtype, after RoPE.
        new_lens: how many of the tokens, the first ones, are new for each; None: all. The first append of a sequence is
        its prefill: what transforms measure is measured on its tokens, so bring the prompt whole.
        """
        rows = self._rows(sequences)
        shape = getattr(keys, "shape", None)
        if shape is None or len(shape) != 4:
            raise expected("keys of shape [sequences, kv_heads, tokens, head_dim]",
                           list(shape) if shape is not None else f"a {type(keys).__name__}")
        tokens = int(shape[2])
        added = [tokens] * len(rows) if new_lens is None else [int(n) for n in new_lens]
        if len(added) != len(rows) or any(not 0 <= n <= tokens for n in added):
            raise expected(f"new_lens to be {len(rows)} numbers from 0 to tokens = {tokens}", list(new_lens or []))
        after = [self._lengths[row] + n for row, n in zip(rows, added)]
        self._reserve(rows, after)
        self.program.append(self._handle, **self._describe(rows, after),
                            new_lens=self._integers(added), keys=keys, values=values, max_new=max(added, default=0),
                            stream=self._memory.stream)
        for row, length in zip(rows, after):
            self._lengths[row] = length
            self._greatest[row] = max(self._greatest[row], length)
            self._expire(row)

    def attend(self, query: Array, sinks: Optional[Array] = None, *, sequences: Optional[Sequence[int]] = None,
               lengths: Optional[Sequence[int]] = None) -> tuple[Any, Any]:
        """One decode step of all sequences, or of `sequences`, which may stand there more than once, for the last token or
        the last few.

        query: [sequences, queries, q_heads, head_dim] of the layer's dtype, 1 to 16 queries, after RoPE, not scaled; query
        i sees all but the last queries - 1 - i tokens. lengths: so many tokens are seen instead of all, no fewer than
        could be rolled back to, or 0. Returns out [sequences, queries, q_heads, head_dim] and lse [sequences, queries,
        q_heads], of the layer's out_dtype and float32; lse is the natural logarithm of the sum of exp of the logits. sinks:
        [q_heads], float32, of a layer with sink_logits."""
        shape = getattr(query, "shape", None)
        if shape is None or len(shape) != 4:
            raise expected("query of shape [batch, queries, q_heads, head_dim]",
                           list(shape) if shape is not None else f"a {type(query).__name__}")
        rows = self._rows(sequences, repeated=True)
        seen = [self._lengths[row] for row in rows] if lengths is None else [int(n) for n in lengths]
        if len(seen) != len(rows) or any(n and not self._least(row) <= n <= self._lengths[row]
                                         for row, n in zip(rows, seen)):
            raise expected(f"lengths of {len(rows)} sequences, at most those of the cache and no fewer than max_rollback = "
                           f"{self.info.max_rollback} below the greatest, or 0", seen)
        queries, longest = int(shape[1]), max(seen, default=0)
        out = self._memory.results(self.info.out_dtype, len(rows), queries, self.info.q_heads, self.info.head_dim)
        lse = self._memory.results("f32", len(rows), queries, self.info.q_heads)
        self.program.attend(self._handle, **self._describe(rows, seen), query=query, out=out, lse=lse,
                            workspace=self._workspace_for(len(rows) * max(queries, 1), longest),
                            max_tokens=longest, sinks=sinks, split_tokens=self.split_tokens,
                            stream=self._memory.stream)
        return out, lse

    def rollback(self, count: Union[int, Sequence[int]]) -> None:
        """Takes the last `count` tokens of every sequence back, or count[i] of sequence i, but no more than
        info.max_rollback below the greatest length that it has had."""
        counts = [count] * self.batch if isinstance(count, int) else list(count)
        if len(counts) != self.batch:
            raise expected(f"count to be a number or {self.batch} of them", counts)
        after = [self.program.rollback(self.layer, length, n) for length, n in zip(self._lengths, counts)]
        if any(length < self._least(row) for row, length in enumerate(after)):
            raise expected(f"to take back at most max_rollback = {self.info.max_rollback} tokens of the greatest length",
                           f"{max(g - n for g, n in zip(self._greatest, after))}")
        for row, length in enumerate(after):
            self._lengths[row] = length
            self._shrink(row)

    def select(self, sequences: Iterable[int]) -> None:
        """Makes the batch sequences[0], sequences[1], ... of what it was: reorders, drops and copies. Copies share the
        pages that no sequence changes any more."""
        wanted = [int(i) for i in sequences]
        if not wanted or any(not 0 <= i < self.batch for i in wanted):
            raise expected(f"sequences to be numbers from 0 to {self.batch - 1}, at least one", wanted)
        old_tables, old_slots, old_lengths = self._tables, self._slots, self._lengths
        old_greatest, old_expired = self._greatest, self._expired
        for row in set(range(len(old_slots))) - set(wanted):
            self._release(old_tables[row], old_slots[row])
        # The last user of a sequence takes it over; the others before it are forks.
        last = {row: i for i, row in enumerate(wanted)}
        forks = [(i, row) for i, row in enumerate(wanted) if last[row] != i]
        shared = {row: self.program.shared_pages(self.layer, old_lengths[row]) for _, row in forks}
        self._grow(sum(len(old_tables[row]) - min(shared[row], len(old_tables[row])) for _, row in forks), len(forks))
        self._tables = [old_tables[row] for row in wanted]
        self._slots = [old_slots[row] for row in wanted]
        self._lengths = [old_lengths[row] for row in wanted]
        self._greatest = [old_greatest[row] for row in wanted]
        self._expired = [old_expired[row] for row in wanted]
        for i, row in forks:
            table = [self._page_entries.share(page) if p < shared[row] else self._page_entries.take()
                     for p, page in enumerate(old_tables[row])]
            self._tables[i], self._slots[i] = table, self._slot_entries.take()
            self.program.fork(self._handle, table=np.array(old_tables[row], np.int32), slot=old_slots[row],
                              fork_table=np.array(table, np.int32), fork_slot=self._slots[i],
                              tokens=old_lengths[row], stream=self._memory.stream)
        self._changed()

    def reset(self, batch: Optional[int] = None) -> None:
        """Empties all sequences; `batch` of them, if given, begin. Keeps the memory."""
        batch = _check_batch(self.batch if batch is None else batch)
        for table, slot in zip(self._tables, self._slots):
            self._release(table, slot)
        if self._blank is not None:
            self._page_entries.release(self._blank)
            self._blank = None
        self._begin(batch)

    def snapshot(self, sequence: int) -> bytes:
        """A sequence as bytes that name its format and end in a checksum."""
        self._rows([sequence])
        return self.program.snapshot(self._handle, table=np.array(self._tables[sequence], np.int32),
                                     slot=self._slots[sequence], tokens=self._lengths[sequence],
                                     stream=self._memory.stream)

    def restore(self, sequence: int, data: bytes, *, requantize: bool = False) -> None:
        """Replaces a sequence by a snapshot of the same format, or of any with `requantize`; where queries reach back a
        window of tokens, the latter cannot be taken back to fewer tokens."""
        from .program import snapshot_tokens
        self._rows([sequence])
        tokens = snapshot_tokens(data)
        self._own(sequence)
        self._reserve([sequence], [tokens])
        self._lengths[sequence] = self.program.restore(self._handle, data, slot=self._slots[sequence],
                                                       table=np.array(self._tables[sequence], np.int32),
                                                       requantize=requantize, stream=self._memory.stream)
        self._greatest[sequence] = self._lengths[sequence]
        if requantize and self.info.window_tokens:  # the other format may have kept fewer tokens out of reach
            self._greatest[sequence] += self.info.max_rollback
        self._shrink(sequence)
        self._expire(sequence)

    # -- Memory.

    def _begin(self, batch: int) -> None:
        pages = 0 if self.max_tokens is None else self.program.pages_for(self.layer, self.max_tokens)
        self._grow(batch * pages + bool(pages and self.info.window_tokens), batch)  # and the blank page
        self._tables = [[] for _ in range(batch)]
        self._slots = [self._slot_entries.take() for _ in range(batch)]
        self._lengths = [0] * batch
        self._greatest = [0] * batch
        self._expired = [0] * batch
        self._changed()

    def _changed(self) -> None:
        """Pages or slots of sequences are others: what describes them to kernels is made anew."""
        self._described: Optional[tuple[Any, Any]] = None

    def _rows(self, sequences: Optional[Sequence[int]], repeated: bool = False) -> Sequence[int]:
        if sequences is None:
            return range(self.batch)
        rows = [int(i) for i in sequences]
        if any(not 0 <= row < self.batch for row in rows) or (len(set(rows)) != len(rows) and not repeated):
            raise expected(f"sequences to be {'' if repeated else 'different '}numbers from 0 to {self.batch - 1}", rows)
        return rows

    def _least(self, row: int) -> int:
        """The fewest tokens that the sequence can be taken back to."""
        return max(0, self._greatest[row] - self.info.max_rollback)

    def _integers(self, values: Sequence[int]) -> Any:
        return self._memory.integers(np.array(values, np.int32))

    def _describe(self, rows: Sequence[int], lengths: Sequence[int]) -> dict[str, Any]:
        whole = isinstance(rows, range)  # all, in order
        if whole and self._described:
            table, slots = self._described
        else:
            stride = max((len(self._tables[row]) for row in rows), default=0)
            host = np.zeros((len(rows), stride), np.int32)
            for i, row in enumerate(rows):
                host[i, :len(self._tables[row])] = self._tables[row]
            table, slots = self._memory.integers(host), self._integers([self._slots[row] for row in rows])
            if whole:
                self._described = table, slots
        return {"table": table, "slots": slots, "seq_lens": self._integers(lengths)}

    def _reserve(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Pages for `lengths` tokens."""
        if self.max_tokens is not None and max(lengths, default=0) > self.max_tokens:
            raise expected(f"at most max_tokens = {self.max_tokens} tokens",
                           f"{max(lengths)}; give a larger max_tokens, or None to let the cache grow")
        wanted = [self.program.pages_for(self.layer, length) for length in lengths]
        missing = [max(0, n - len(self._tables[row])) for row, n in zip(rows, wanted)]
        if not any(missing):
            return
        self._grow(sum(missing), 0)
        for row, count in zip(rows, missing):
            self._tables[row].extend(self._page_entries.take() for _ in range(count))
        self._changed()

    def _grow(self, pages: int, slots: int) -> None:
        """Makes at least so many free."""
        pages -= len(self._page_entries.free)
        slots -= len(self._slot_entries.free)
        if pages > 0:
            if self.max_tokens is None:  # an eighth of what there is, so that moving old pages costs little per token
                pages = max(pages, len(self._page_entries.references) // 8)
            self._page_pool = self._moved(self._page_pool, pages)
            self._page_entries.extend(pages)
        if slots > 0:
            self._slot_pool = self._moved(self._slot_pool, slots)
            self._slot_entries.extend(slots)
        if pages > 0 or slots > 0:
            self._handle = self.program.memory(self.layer, self._page_pool, self._slot_pool)
        if slots > 0:
            self._adopt()

    def _adopt(self) -> None:
        """Sequences have been moved with the pool of slots."""
        for slot in self._slots:
            self.program.adopt(self._handle, slot=slot)

    def _moved(self, pool: Any, more: int) -> Any:
        larger = self._memory.empty(pool.shape[0] + more, pool.shape[1])
        larger[:pool.shape[0]] = pool
        return larger

    def _shrink(self, row: int) -> None:
        wanted = self.program.pages_for(self.layer, self._lengths[row])
        while len(self._tables[row]) > wanted:
            self._page_entries.release(self._tables[row].pop())
            self._changed()

    def _expire(self, row: int) -> None:
        """Frees pages that no query reaches, from the fewest tokens on that the sequence can be taken back to. Entries of
        a table have to name some page, and a snapshot holds what they name: an empty one."""
        if not self.info.window_tokens:
            return
        table = self._tables[row]
        least = max(0, self._least(row) - (_MOST_QUERIES - 1))
        expired = self.program.expired_pages(self.layer, least)
        if expired <= self._expired[row]:
            return
        if self._blank is None:
            self._grow(1, 0)
            self._blank = self._page_entries.take()
            self._page_pool[self._blank] = 0
        for i in range(self._expired[row], expired):
            self._page_entries.release(table[i])
            table[i] = self._page_entries.share(self._blank)
        self._expired[row] = expired
        self._changed()

    def _own(self, row: int) -> None:
        """Pages that are the sequence's alone, since all of them will be written: not the blank one, nor those of forks."""
        table = self._tables[row]
        shared = [i for i, page in enumerate(table) if self._page_entries.references[page] > 1]
        self._grow(len(shared), 0)
        for i in shared:
            self._page_entries.release(table[i])
            table[i] = self._page_entries.take()
        self._expired[row] = 0
        if shared:
            self._changed()

    def _release(self, table: list[int], slot: int) -> None:
        for page in table:
            self._page_entries.release(page)
        self._slot_entries.release(slot)

    def _workspace_for(self, rows: int, longest: int) -> Any:
        needed = self.program.workspace_bytes(self.layer, rows, longest, self.split_tokens)
        if needed and (self._workspace is None or self._workspace.shape[0] < needed):
            self._workspace = self._memory.empty(1, needed)[0]
            self._workspace[:] = 0
        return self._workspace
