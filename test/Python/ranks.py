# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""ranks.py FOLDER: what a rank does that test_distributed.py starts with torchrun. Every check runs on all ranks, in groups
of all of them and of two; FOLDER/RANK.json gets what became of each: null or the traceback."""
import contextlib
import datetime
import io
import json
import os
import re
import sys
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

import kvcc
import kvcc.torch
from kvcc import distributed

TESTS = Path(__file__).resolve().parent.parent
MODEL = str(TESTS / "models/smollm2-135m-instruct.json")
HEADS, KV_HEADS, DIM = 9, 3, 64
SCHEMES = ["innerq-small", "kvcc-3.5", "q4_0", "kivi-2"]
CENTRED = "k = <i8, map = asym, group = 1x64, scale = f16, transforms = [#kv.center]>; " \
          "v = <i8, map = asym, group = 1x64, scale = f16>; window = <sink = 32, recent = 32, flush = 32>"
F32 = "k = <f32>; v = <f32>; window = <sink = 0, recent = 0, flush = 32>"


class Ranks:
    """A group, and the programs that its ranks share, each in a kernel cache of its own."""

    def __init__(self, group, folder):
        self.group, self.rank, self.world = group, dist.get_rank(group), dist.get_world_size(group)
        self.is_first_pair = self.world == 2 and dist.get_rank() < 2
        self.folder = folder / f"kernels-{dist.get_rank()}"
        self.context = kvcc.Context(threads=1, cache_dir=self.folder)
        self.programs = {}

    def program(self, scheme):
        if scheme not in self.programs:
            self.programs[scheme] = distributed.compile(MODEL, scheme, dtype="f16", context=self.context, group=self.group)
        return self.programs[scheme]

    def cache(self, program, batch, **options):
        return distributed.ContextParallelCache(program, 0, batch, group=self.group, **options)


def draw(batch, tokens, queries=64, dtype=torch.float16):
    """The same on all ranks."""
    torch.manual_seed(7)
    keys, values = torch.randn(2, batch, KV_HEADS, tokens, DIM)
    # Channels with means of their own, which differ from slice to slice.
    keys += 2 * torch.randn(KV_HEADS, 1, DIM) + torch.linspace(-1, 1, tokens)[:, None] * torch.randn(DIM)
    return keys.to(dtype), values.to(dtype), torch.randn(batch, queries, HEADS, DIM).to(dtype)


def close(got, wanted, bound=1e-5):
    for a, b in zip(got, wanted):
        assert a.shape == b.shape, (a.shape, b.shape)
        assert torch.equal(a == -torch.inf, b == -torch.inf)
        difference = (a - b).masked_fill(b == -torch.inf, 0).abs().max()
        assert difference <= bound * max(1, float(b[b > -torch.inf].abs().max())), float(difference)


def steps(caches, tensors, lengths, counts):
    """Appends to caches of sequences of `lengths` tokens what comes next, counts[i] tokens in step i; after each, what
    attention says of them to each cache."""
    keys, values, queries = tensors
    for count in counts:
        at = torch.tensor(lengths)[:, None] + torch.arange(count)
        pick = at[:, None, :, None].expand(-1, KV_HEADS, -1, DIM)
        new = keys.gather(2, pick), values.gather(2, pick)
        for cache in caches:
            cache.append(*new)
        lengths[:] = [n + count for n in lengths]
        yield [cache.attend(queries[:, :count].contiguous()) for cache in caches]


def whole(program, batch):
    return kvcc.LayerCache(program, 0, batch, memory=kvcc.torch.TensorMemory())


def check_placement_changes_nothing(ranks):
    """Ragged sequences, of which some end on every rank and one is empty on most; new tokens on both sides of a border."""
    program = ranks.program("fp16")
    keys, values, queries = tensors = draw(4, 420)
    for share in (None, 64):
        lengths = [190, 1, 90, 62]
        caches = ranks.cache(program, 4, tokens_per_rank=share), whole(program, 4)
        for cache in caches:
            cache.append(keys[:, :, :190], values[:, :, :190], new_lens=lengths)
        for got, wanted in steps(caches, tensors, lengths, [1, 3, 1, 3, 16, 1]):
            close(got, wanted)
        for count, more in ((1, 2), (5, 3), (16, 4)):
            for cache in caches:
                cache.rollback(count)
            lengths = [n - count for n in lengths]
            for got, wanted in steps(caches, tensors, lengths, [more]):
                close(got, wanted)
        assert caches[0].lengths == caches[1].lengths
        wanted = [1, 1, 0, 3, 2]
        for cache in caches:
            cache.select(wanted)
        lengths = [lengths[i] for i in wanted]
        for got, wanted in steps(caches, [t[wanted] for t in tensors], lengths, [1, 3]):
            close(got, wanted)
        assert sum(gather(ranks, torch.tensor(caches[0].local.lengths))).tolist() == caches[0].lengths
        for cache in caches:
            cache.reset(2)
            cache.append(keys[:2, :, :70], values[:2, :, :70])
        for got, wanted in steps(caches, [t[:2] for t in tensors], [70, 70], [3]):
            close(got, wanted)


def gather(ranks, tensor):
    parts = [torch.empty_like(tensor) for _ in range(ranks.world)]
    dist.all_gather(parts, tensor, group=ranks.group)
    return parts


def check_all_ranks_have_the_same_bits(ranks):
    cache = ranks.cache(ranks.program("innerq-small"), 2)
    keys, values, queries = draw(2, 300)
    cache.append(keys, values)
    for queries in (queries[:, :1], queries[:, :3]):
        for result in cache.attend(queries.contiguous()):
            parts = gather(ranks, result)
            assert all(torch.equal(part, parts[0]) for part in parts)


def check_slices_are_caches_of_their_own(ranks):
    """Each scheme as the merge, in double precision, of caches of the slices alone, that are read query by query."""
    lengths, counts = [400, 70, 33, 700], [1, 3, 1, 1, 3]
    keys, values, queries = draw(4, 710)
    for scheme in SCHEMES:
        program = ranks.program(scheme)
        cache = ranks.cache(program, 4)
        cache.append(keys[:, :, :700], values[:, :, :700], new_lens=lengths)
        slices = {}
        for row, length in enumerate(lengths):
            share = -(-length // (32 * ranks.world)) * 32
            for rank in range(ranks.world):
                end = 10 ** 9 if rank == ranks.world - 1 else (rank + 1) * share
                slices[row, rank] = alone = whole(program, 1), rank * share, end
                part = slice(rank * share, min(end, length))
                if part.start < part.stop:
                    alone[0].append(keys[row:row + 1, :, part], values[row:row + 1, :, part])
        now = list(lengths)
        for step, count in enumerate(counts):
            before = list(now)
            got = next(steps([cache], (keys, values, queries), now, [count]))[0]
            for row in range(4):
                parts = []
                for rank in range(ranks.world):
                    alone, start, end = slices[row, rank]
                    new = slice(max(start, before[row]), min(end, now[row]))
                    if new.start < new.stop:
                        alone.append(keys[row:row + 1, :, new], values[row:row + 1, :, new])
                    query = queries[row:row + 1, :count]
                    if not alone.lengths[0]:
                        continue
                    if now[row] < end and now[row] - count >= start:
                        parts.append(alone.attend(query.contiguous()))
                    else:
                        each = [alone.attend(query[:, i:i + 1].contiguous(), lengths=[min(end, before[row] + i + 1) - start])
                                for i in range(count)]
                        parts.append([torch.cat(results, 1) for results in zip(*each)])
                outs, lses = (torch.stack(x).double() for x in zip(*parts))
                weights = lses.exp()
                wanted = (weights[..., None] * outs).sum(0) / weights.sum(0)[..., None], weights.sum(0).log()
                close([x[row:row + 1].double() for x in got], wanted)


def check_partial_results_are_absolute(ranks):
    """Slices with other means, which centring takes away, belong to one softmax."""
    program = ranks.program(CENTRED)
    keys, values, queries = draw(1, 800)
    cache = ranks.cache(program, 1)
    cache.append(keys, values)
    out, lse = cache.attend(queries[:, :1].contiguous())
    logits = torch.einsum("hd,htd->ht", queries[0, 0].double(), keys[0].double().repeat_interleave(3, 0)) / DIM ** 0.5
    wanted = torch.einsum("ht,htd->hd", logits.softmax(-1), values[0].double().repeat_interleave(3, 0))
    assert (lse[0, 0] - logits.logsumexp(-1)).abs().max() < 0.02
    assert (out[0, 0] - wanted).norm() / wanted.norm() < 0.02


def check_operators_of_an_engine(ranks):
    """Plain tensors: pages, tables and lengths of one's own, and 3 queries that earlier ranks see as sequences."""
    if not ranks.is_first_pair:  # the first use of an operator costs seconds of imports
        return
    program = ranks.program("fp16")
    info, handle = program.layer(0), kvcc.torch.register(program)
    keys, values, queries = draw(2, 40 * ranks.world)
    queries = queries[:, :3].contiguous()
    # The first sequence has 40 tokens on each rank, the second none on rank 0.
    counts = [40, 40 if ranks.rank else 0]
    part = slice(40 * ranks.rank, 40 * ranks.rank + 40)
    pages = torch.zeros(2 * program.pages_for(0, 40), info.page_bytes, dtype=torch.uint8)
    slot_pool = torch.zeros(2, info.slot_bytes, dtype=torch.uint8)
    table = torch.arange(len(pages), dtype=torch.int32).view(2, -1)
    slots, lengths = torch.arange(2, dtype=torch.int32), torch.tensor(counts, dtype=torch.int32)
    torch.ops.kvcc.append(keys[:, :, part], values[:, :, part], pages, slot_pool, table, slots, lengths, lengths, handle, 0)
    seen = lengths if ranks.rank == ranks.world - 1 else lengths[:, None].repeat(1, 3)
    got = distributed.attend(queries, pages, slot_pool, table, slots, seen, 40, handle, 0, group=ranks.group)
    alone = whole(program, 2)
    rows = torch.arange(40 * ranks.world) + torch.tensor([[0], [40]])
    rows = rows.clamp(max=40 * ranks.world - 1)[:, None, :, None].expand(-1, KV_HEADS, -1, DIM)
    alone.append(keys.gather(2, rows), values.gather(2, rows), new_lens=[40 * ranks.world, 40 * (ranks.world - 1)])
    close(got, alone.attend(queries))


def check_sink_logits_count_once(ranks):
    """gpt-oss: every second layer has a window, all have sinks. One sequence is empty."""
    model = str(TESTS / "models/gpt-oss-20b.json")
    program = distributed.compile(model, "fp16", dtype="f16", context=ranks.context, group=ranks.group)
    refuses(kvcc.Unsupported, "layer 0: a window of 128 tokens is not split over ranks", lambda: ranks.cache(program, 1))
    lens = torch.zeros(1, dtype=torch.int32)
    refuses(kvcc.Unsupported, "layer 0: a window of 128 tokens", lambda: distributed.attend(
        torch.zeros(1, 1, 64, 64), *[None] * 4, lens, 1, kvcc.torch.register(program), 0, group=ranks.group))
    info = program.layer(1)
    torch.manual_seed(3)
    keys, values = torch.randn(2, 3, info.kv_heads, 90, info.head_dim).half()
    query, sinks = torch.randn(3, 3, info.q_heads, info.head_dim).half(), 3 + torch.randn(info.q_heads)
    cache = distributed.ContextParallelCache(program, 1, 3, group=ranks.group)
    alone = kvcc.LayerCache(program, 1, 3, memory=kvcc.torch.TensorMemory())
    results = []
    for each in (cache, alone):
        each.append(keys, values, new_lens=[90, 0, 40])
        results.append(each.attend(query[:, :1].contiguous(), sinks))
        each.append(keys[:, :, :3], values[:, :, :3])
        results.append(each.attend(query, sinks))
    close(results[0], results[2])
    close(results[1], results[3])


def check_one_compilation(ranks):
    folder = ranks.folder / f"of-{ranks.world}"  # empty as yet
    options = {"dtype": "bf16", "context": kvcc.Context(threads=1, cache_dir=folder), "group": ranks.group}
    for scheme in ("int4-token", "auto; budget = 3.5; context = 4096", "fp8; k = <i5, map = asym, group = 1x64, scale = f16>"):
        info = distributed.compile(MODEL, scheme, **options).info
        assert info.from_cache == (info.variants if ranks.rank else 0), (scheme, info)
    assert len(list(folder.iterdir())) >= 3
    for scheme, error in (("fp15", kvcc.InvalidArgument), ("k = <i1>; v = <f16>", kvcc.InvalidArgument)):
        refuses(error, "expected", lambda: distributed.compile(MODEL, scheme, **options))
    # Where nothing can be written, kernels are compiled.
    file = ranks.folder / "file"
    file.touch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        there = kvcc.Context(threads=1, cache_dir=file if ranks.rank else ranks.folder)
        distributed.compile(MODEL, "fp16", dtype="bf16", context=there, group=ranks.group)
    assert [f"rank {ranks.rank} compiles for itself" in str(w.message) for w in caught] == [True] * bool(ranks.rank)
    facts = json.loads(Path(MODEL).read_text())
    assert distributed.compile(facts, "int4-token", **options).info.from_cache == 1


def refuses(error, words, call):
    try:
        call()
    except error as refusal:
        assert re.search(words, str(refusal)), str(refusal)
    else:
        raise AssertionError(f"expected {error.__name__} with '{words}', but got nothing")


def check_wrong_use(ranks):
    program = ranks.program("fp16")
    keys, values, queries = draw(2, 70)
    invalid = kvcc.InvalidArgument
    refuses(invalid, "tokens_per_rank to be a multiple of 32, or None, but got 33",
            lambda: ranks.cache(program, 1, tokens_per_rank=33))
    refuses(invalid, "max_tokens of at least 1", lambda: ranks.cache(program, 1, max_tokens=0))
    refuses(invalid, rf"the same batch on all ranks, but got \[1, 2.*\]; make the same calls",
            lambda: ranks.cache(program, ranks.rank + 1))
    cache = ranks.cache(program, 2, max_tokens=64)
    refuses(invalid, "at most max_tokens = 64 tokens, but got 70; give a larger", lambda: cache.append(keys, values))
    refuses(invalid, r"keys of shape \[2, 3, tokens, 64\], but got \[1", lambda: cache.append(keys[:1], values[:1]))
    refuses(invalid, "values of shape .*, but got a ndarray", lambda: cache.append(keys, values.numpy()))
    refuses(invalid, "dtype f16 on cpu, but got torch.float32 on cpu", lambda: cache.append(keys.float(), values.float()))
    refuses(invalid, "as many keys as values, but got 70 and 69", lambda: cache.append(keys, values[:, :, 1:]))
    refuses(invalid, "new_lens to be 2 numbers from 0 to tokens = 70", lambda: cache.append(keys, values, new_lens=[1]))
    refuses(invalid, "sequences to be different numbers from 0 to 1",
            lambda: cache.append(keys, values, sequences=[0, 0]))
    cache.append(keys[:, :, :64], values[:, :, :64])
    assert cache.local.lengths == [64 // ranks.world] * 2 or ranks.world == 4
    refuses(invalid, r"query of shape \[2, queries, 9, 64\]", lambda: cache.attend(queries[0]))
    refuses(invalid, "1 to 16 queries per sequence, but got 17", lambda: cache.attend(queries[:, :17]))
    refuses(invalid, "a count from 0 to 32 to take back", lambda: cache.rollback(60))
    cache.rollback(31)
    refuses(invalid, "at most 2 queries of a sequence of which tokens have just been taken back, but got 3",
            lambda: cache.attend(queries[:, :3]))
    cache.attend(queries[:, :2].contiguous())
    refuses(invalid, "float32 out", lambda: distributed.all_gather_merge(queries, queries[..., 0], ranks.group))
    refuses(invalid, r"seq_lens of shape \[2\] or \[2, 64\], but got \[3\]",
            lambda: distributed.attend(queries, *[None] * 4, torch.zeros(3), 1, 0, 0))


def check_generate(ranks):
    if not ranks.is_first_pair:  # nor does every rank need to import Transformers
        return
    import transformers
    from kvcc.transformers import KvccCache
    sizes = {"vocab_size": 300, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2,
             "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    windows = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64,
               "layer_types": ["full_attention", "sliding_attention"]}
    torch.manual_seed(0)
    ids = torch.randint(1, 300, (2, 70))
    mask = torch.ones_like(ids)
    mask[0, :37] = 0
    options = {"input_ids": ids * mask, "attention_mask": mask, "max_new_tokens": 12, "do_sample": False}
    for name, more, beams in (("llama", {}, 1), ("llama", {}, 2), ("gemma3_text", windows, 1)):
        config = transformers.AutoConfig.for_model(name, **sizes, **more)
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        model.set_attn_implementation("kvcc")
        cache = KvccCache(model, F32, group=ranks.group, context=ranks.context)
        alone = KvccCache(model, F32, context=ranks.context)
        wanted = model.generate(**options, num_beams=beams, past_key_values=alone)
        assert torch.equal(model.generate(**options, num_beams=beams, past_key_values=cache), wanted)
        first, second = (layer.cache for layer in cache.layers)
        assert sum(gather(ranks, torch.tensor(first.local.lengths))).tolist() == first.lengths
        # A layer with a window is whole on every rank.
        assert isinstance(second, kvcc.LayerCache) == bool(more) and second.lengths == first.lengths
    refuses(kvcc.InvalidArgument, "tokens_per_rank with a group", lambda: KvccCache(model, F32, tokens_per_rank=32))


def check_readme(ranks):
    """The snippet of the package's README."""
    if ranks.world != dist.get_world_size():
        return
    text = (TESTS.parent / "runtime/python/README.md").read_text()
    snippets = [code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "kvcc.distributed" in code]
    assert snippets
    names = {"MODEL": MODEL}
    for code in snippets:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, "README.md", "exec"), names)
    assert names["out"].shape == (1, 1, 9, 64)


def main():
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    rank, world = dist.get_rank(), dist.get_world_size()
    os.environ["KVCC_CACHE_DIR"] = str(folder / f"kernels-{rank}")
    pairs = [dist.new_group([first, first + 1]) for first in range(0, world, 2)]
    groups = {world: Ranks(dist.group.WORLD, folder), 2: Ranks(pairs[rank // 2], folder)}
    results = {}
    for name, check in [(n, f) for n, f in globals().items() if n.startswith("check_")]:
        for size, ranks in groups.items():
            if len(sys.argv) > 2 and sys.argv[2] not in name:
                continue
            try:
                check(ranks)
                results[f"{name}-{size}"] = None
            except Exception:
                results[f"{name}-{size}"] = traceback.format_exc()
            # A check that has failed on one rank leaves the others behind.
            failed = torch.tensor([results[f"{name}-{size}"] is not None], dtype=torch.int32)
            dist.all_reduce(failed)
            if failed.item():
                break
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
