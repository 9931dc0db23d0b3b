#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Tokens per second of decoding with a model of Transformers: exact caches, its quantized caches, and kvcc's schemes.

Usage: generate.py [--model smollm2 llama-3.1-8b] [--ctx ...] [--batch ...] [--scheme ...] [--record]

`smollm2` is SmolLM2-135M as `tools/dev setup --python` unpacks it; `llama-3.1-8b` the attention of that model: its heads and
projections, with random weights, few layers, and hardly any feed-forward part. Caches are filled with random keys and
values of the context's length (of a prompt only its exact attention is left out), and steps of single tokens are timed
with all subjects interleaved, on the same threads. What does not fit in memory is left out. The subjects:

  dynamic   Transformers' DynamicCache, the default: copies itself every step
  static    StaticCache: room for all tokens, never moved, read through SDPA
  quanto:4, hqq:4, ...   QuantizedCache, if the package is installed: read whole to full precision every step
  others    schemes of kvcc

Needs the Python package: `tools/dev wheel`, and `tools/dev setup --python`.
"""
import argparse
import datetime
import gc
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("KVCC_BUILD_DIR", ROOT / "build"))
SCHEMES = ["fp16", "q8_0", "q4_0", "kvcc-3.5", "innerq-small"]
PEERS = ["dynamic", "static", "quanto:4", "hqq:4"]


def enter_environment():
    """Goes on in the environment that has the package."""
    python = Path(os.environ.get("KVCC_BENCH_PYTHON", BUILD / "python/env/bin/python"))
    if not python.exists():
        sys.exit(f"generate.py: expected the Python package in {python.parent.parent}, but got none; run tools/dev wheel")
    if Path(sys.executable).absolute() != python.absolute():
        os.execv(python, [str(python), *sys.argv])
    sys.path.pop(0)  # this folder has a kvcc.py of its own


def make_model(name):
    if name == "smollm2":
        folder = ROOT / ".venv-python/smollm2"
        if not folder.exists():
            sys.exit(f"generate.py: expected {folder}, but got none; run tools/dev setup --python")
        return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    config = transformers.LlamaConfig(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
                                      num_hidden_layers=2, intermediate_size=64, vocab_size=1024,
                                      max_position_embeddings=131072)
    return transformers.LlamaForCausalLM(config).eval()


class Subject:
    def __init__(self, name, model, batch, context, steps):
        self.name, self.model, self.times = name, model, []
        text = model.config
        backend, _, bits = name.partition(":")
        if name == "dynamic":
            self.cache = transformers.DynamicCache(config=text)
        elif name == "static":
            self.cache = transformers.StaticCache(config=text, max_cache_len=context + steps)
        elif backend in ("quanto", "hqq"):
            axis = 1 if backend == "hqq" else 0
            self.cache = transformers.QuantizedCache(backend, text, nbits=int(bits), axis_key=axis, axis_value=axis)
        else:
            self.cache = KvccCache(model, name, max_tokens=context + steps)
        self.attention = "kvcc" if isinstance(self.cache, KvccCache) else "sdpa"
        self.fill(batch, context)
        self.token = torch.zeros(batch, 1, dtype=torch.long)
        self.position = context

    def fill(self, batch, context):
        config = self.model.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.model.set_attn_implementation(self.attention)
        torch.manual_seed(0)
        for index, layer in enumerate(self.model.model.layers):
            keys, values = torch.randn(2, batch, config.num_key_value_heads, context, head_dim)
            self.cache.update(keys, values, index)
            if self.attention == "kvcc":
                self.cache.layers[index].attend(layer.self_attn, keys, None, lambda: None, None)

    def step(self):
        self.model.set_attn_implementation(self.attention)
        start = time.perf_counter()
        self.model(self.token, past_key_values=self.cache, position_ids=torch.full_like(self.token, self.position))
        self.times.append(time.perf_counter() - start)
        self.position += 1

    def bytes(self):
        return self.cache.nbytes if self.attention == "kvcc" else peer_bytes(self.cache)


def room(model, options, batch, context):
    """Whether the caches of all subjects fit: three exact ones, one of which is moved at a time, and what others take."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    exact = 2 * config.num_hidden_layers * batch * context * config.num_key_value_heads * head_dim * 4
    available = next(1024 * int(text.split()[1]) for text in Path("/proc/meminfo").read_text().splitlines()
                     if text.startswith("MemAvailable"))
    return exact * (3 + len(options.scheme) / 3 + len(options.peers) / 4) < 0.8 * available


def measure(model, options, batch, context):
    """Rows of one batch and context."""
    if not room(model, options, batch, context):
        print(f"generate.py: {options.current} with batch {batch} and context {context} is left out: not enough memory",
              file=sys.stderr)
        return
    subjects = []
    for name in [*options.peers, *options.scheme]:
        try:
            subjects.append(Subject(name, model, batch, context, options.steps + 1))
        except (ImportError, ValueError, MemoryError, RuntimeError) as error:
            print(f"generate.py: {name} is left out: {error}", file=sys.stderr)
    for _ in range(options.steps + 1):
        for subject in subjects:
            subject.step()
    exact = min((s for s in subjects if s.name in ("dynamic", "static")), key=lambda s: min(s.times[1:]), default=None)
    for subject in subjects:
        times = subject.times[1:]  # the first step is a warm-up
        row = {"model": options.current, "batch": batch, "ctx": context, "subject": subject.name,
               "median_ms": 1e3 * statistics.median(times), "min_ms": 1e3 * min(times),
               "tokens_per_s": batch / statistics.median(times), "cache_MB": subject.bytes() / 1e6}
        if exact:
            row["speedup"] = min(exact.times[1:]) / min(times)
            row["bytes_of_exact"] = subject.bytes() / exact.bytes()
        yield row
    del subjects
    gc.collect()


def line(row):
    cells = [f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["smollm2", "llama-3.1-8b"], choices=["smollm2", "llama-3.1-8b"])
    parser.add_argument("--ctx", nargs="+", type=int, default=[1024, 4096, 16384])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--scheme", nargs="*", default=SCHEMES)
    parser.add_argument("--peers", nargs="*", default=PEERS)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--record", action="store_true", help="write tools/bench/results/generate-DATE.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    with torch.no_grad():
        for options.current in options.model:
            model = make_model(options.current)
            for batch in options.batch:
                for context in options.ctx:
                    for row in measure(model, options, batch, context):
                        if not rows:
                            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
                        rows.append(row)
                        print(line(row), flush=True)
    if options.record and rows:
        name = next((text.split(":")[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines()
                     if text.startswith("model name")), "an unknown processor")
        today = datetime.date.today()
        head = (f"Steps of generate(): {name}, {options.threads} threads, float32, PyTorch {torch.__version__}, Transformers "
                f"{transformers.__version__}, {today}; load average {os.getloadavg()[2]:.1f} of {os.cpu_count()} processors; "
                f"`tools/dev bench generate {' '.join(sys.argv[1:])}`. Medians and minima of {options.steps} steps, subjects "
                "interleaved; `speedup` is by minima, over the faster exact cache; `bytes_of_exact` of its cache.\n\n")
        text = "\n".join(["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0]), *map(line, rows)])
        (ROOT / f"tools/bench/results/generate-{today}.md").write_text(head + text + "\n")


if __name__ == "__main__":
    enter_environment()
    import torch
    import transformers
    from kvcc.eval import peer_bytes
    from kvcc.transformers import KvccCache
    transformers.logging.disable_progress_bar()
    main()
