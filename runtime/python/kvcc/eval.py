# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""`kvcc eval`: what schemes do to a model's next tokens, through prefill and decode with the real kernels.

Of a text, passages of --prefill tokens are read at once (exactly, then quantized), and --tokens tokens after them in steps
of --chunk, each attending to the cache as it is then; errors propagate from step to step. The logits of these tokens are
compared with those of exact attention: KL divergence in nats (mean, its standard error over tokens, 99th percentile and
largest), how often the most likely token is the same, and the ratio of perplexities. Bits are those of the quantized part
of the cache, scales included; `total` has all its memory at the end of a passage, windows and unused parts of pages too,
per number of K and V.

A scheme is what `kvcc.compile` takes, or a cache of Transformers': quanto:BITS or hqq:BITS (groups of 64, the latest 128
tokens in full precision), if the package for it is installed.
"""
from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Optional

from .errors import Error, Unavailable, expected


@dataclass(frozen=True)
class Result:
    """A row of the table."""
    scheme: str
    bits: float
    """Per number of the quantized part, scales included."""
    total_bits: float
    """Per number, with windows and unused parts of pages."""
    total_bytes: int
    """The same at the end of a passage, all layers."""
    kl: float
    kl_error: float
    """Standard error of the mean over tokens."""
    kl_p99: float
    kl_max: float
    top1: float
    """Share of tokens whose most likely successor is exact attention's."""
    perplexity_ratio: float
    tokens: int
    """That were compared."""


def evaluate(model: Any, ids: Any, schemes: Sequence[str], *, passages: int = 4, prefill: int = 256, tokens: int = 512,
             chunk: int = 16, profile: Optional[str] = None, compute: str = "auto",
             progress: Callable[[str], None] = lambda text: None,
             save: Callable[[int, list[Result]], None] = lambda passages, results: None) -> list[Result]:
    """What `kvcc eval` does, for a model of Transformers and the tokens of a text [count]. `save` gets the results of the
    passages so far after each of them, so that a run that is cut off was not in vain."""
    from .transformers import torch
    for name, value in (("passages", passages), ("prefill", prefill), ("tokens", tokens), ("chunk", chunk)):
        if value < 1:
            raise expected(f"{name} of at least 1", value)
    length = prefill + tokens
    if ids.shape[0] < length * passages:
        raise expected(f"a text of at least passages * (prefill + tokens) = {length * passages} tokens",
                       f"{ids.shape[0]}; give a longer text, or fewer passages")
    model.eval()
    # One cache per scheme, for all passages: what does not compile is told before anything is computed.
    subjects = [_Subject(model, scheme, profile, compute) for scheme in schemes]
    step = (ids.shape[0] - length) // max(passages - 1, 1)
    with torch.no_grad():
        for passage in range(passages):
            part = ids[None, passage * step:passage * step + length].to(model.device)
            model.set_attn_implementation("sdpa")
            exact = model(part, use_cache=False).logits[0, prefill:].float().log_softmax(-1)
            for subject in subjects:
                progress(f"passage {passage + 1} of {passages}: {subject.scheme}")
                subject.read(model, part, exact, prefill, chunk)
            results = [subject.result() for subject in subjects]
            save(passage + 1, results)
    return results


class _Subject:
    """A scheme, its cache, and what it has done to tokens so far."""

    def __init__(self, model: Any, scheme: str, profile: Optional[str], compute: str):
        from .transformers import KvccCache
        self.scheme, self.model = scheme, model
        backend, _, bits = scheme.partition(":")
        self.peer = (backend, bits) if backend in ("quanto", "hqq") else None
        if self.peer:
            self.cache = self._make_peer()
        else:
            self.cache = KvccCache(model, scheme, profile=profile, compute=compute)
        self.divergences: list[float] = []
        self.agreements = self.bytes = 0
        self.losses = [0.0, 0.0]  # exact, and this one's

    def _make_peer(self) -> Any:
        from transformers import QuantizedCache
        backend, bits = self.peer
        if not bits.isdigit():
            raise expected("a number of bits after quanto: or hqq:", repr(self.scheme))
        # HQQ's axes are what its authors and Transformers recommend.
        axis = 1 if backend == "hqq" else 0
        try:
            return QuantizedCache(backend, self.model.config, nbits=int(bits), axis_key=axis, axis_value=axis,
                                  q_group_size=64, residual_length=128)
        except (ImportError, ValueError) as error:
            raise Unavailable(f"{self.scheme}: {error}") from None

    def read(self, model: Any, part: Any, exact: Any, prefill: int, chunk: int) -> None:
        model.set_attn_implementation("sdpa" if self.peer else "kvcc")
        if self.peer:
            self.cache = self._make_peer()
        else:
            self.cache.reset()
        model(part[:, :prefill], past_key_values=self.cache, logits_to_keep=1)
        for start in range(prefill, part.shape[1], chunk):
            logits = model(part[:, start:start + chunk], past_key_values=self.cache).logits[0].float().log_softmax(-1)
            wanted = exact[start - prefill:start - prefill + chunk]
            self.divergences += ((wanted.exp() * (wanted - logits)).sum(-1)).clamp(min=0).tolist()
            self.agreements += int((wanted.argmax(-1) == logits.argmax(-1)).sum())
            following = part[0, start + 1:start + chunk + 1]
            for i, values in enumerate((wanted, logits)):
                self.losses[i] -= float(values[:len(following)].gather(1, following[:, None]).sum())
        self.bytes = peer_bytes(self.cache) if self.peer else _used_bytes(self.cache)
        self.cells = _cells(model, part.shape[1])

    def result(self) -> Result:
        count = len(self.divergences)
        mean = sum(self.divergences) / count
        spread = math.sqrt(sum((d - mean) ** 2 for d in self.divergences) / max(count - 1, 1))
        ordered = sorted(self.divergences)
        total = 8 * self.bytes / self.cells
        # 64 numbers share a scale and a zero point of the model's dtype.
        bits = int(self.peer[1]) + 2 * 8 * self.model.dtype.itemsize / 64 if self.peer else _bits(self.cache)
        return Result(self.scheme, bits, total, self.bytes, mean, spread / math.sqrt(count),
                      ordered[min(count - 1, math.ceil(0.99 * count) - 1)], ordered[-1], self.agreements / count,
                      math.exp((self.losses[1] - self.losses[0]) / count), count)


def _bits(cache: Any) -> float:
    layers = [layer for layer in cache.program.layers if layer.served]
    return sum(8 * layer.page_bytes / (2 * layer.page_tokens * layer.kv_heads * layer.head_dim)
               for layer in layers) / len(layers)


def _used_bytes(cache: Any) -> int:
    return sum(layer.cache.used_nbytes for layer in cache.layers if hasattr(layer, "cache"))


def _cells(model: Any, tokens: int) -> int:
    config = model.config.get_text_config(decoder=True)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * tokens * config.num_hidden_layers * config.num_key_value_heads * head_dim


def peer_bytes(cache: Any) -> int:
    """Of all tensors that a cache of Transformers' holds."""
    import torch
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    def count(value: Any) -> int:
        if isinstance(value, torch.Tensor):
            if is_traceable_wrapper_subclass(value):
                return sum(count(getattr(value, name)) for name in value.__tensor_flatten__()[0])
            return value.nbytes
        if isinstance(value, dict):
            return sum(map(count, value.values()))
        return sum(map(count, value)) if isinstance(value, (list, tuple)) else 0

    return sum(count(layer.__dict__[name]) for layer in cache.layers
               for name in ("keys", "values", "_quantized_keys", "_quantized_values") if name in layer.__dict__)


# -- What is written.

def table(results: Sequence[Result]) -> str:
    """As Markdown, by bits."""
    lines = ["| scheme | bits | total bits | total KiB | mean KL | ± | p99 KL | max KL | top-1 % | ppl ratio |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    lines += [f"| {r.scheme} | {r.bits:.2f} | {r.total_bits:.2f} | {r.total_bytes / 1024:.0f} | {r.kl:.4f} | "
              f"{r.kl_error:.4f} | {r.kl_p99:.3f} | {r.kl_max:.2f} | {100 * r.top1:.1f} | {r.perplexity_ratio:.4f} |"
              for r in sorted(results, key=lambda r: (r.bits, r.kl))]
    return "\n".join(lines) + "\n"


def pareto(results: Sequence[Result]) -> list[Result]:
    """Those that no other beats in both bits and KL, by bits."""
    front: list[Result] = []
    for result in sorted(results, key=lambda r: (r.bits, r.kl)):
        if not front or result.kl < front[-1].kl:
            front.append(result)
    return front


def plot(results: Sequence[Result], path: Path, title: str) -> None:
    """Bits against KL, with the Pareto front."""
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise Unavailable(f"expected Matplotlib for {path.name}, but got '{error}'; pip install 'kvcc[plot]'") from None
    figure, axes = pyplot.subplots(figsize=(9, 6))
    front = pareto(results)
    axes.plot([r.bits for r in front], [r.kl for r in front], color="0.7", zorder=1)
    for name, kind, color in (("auto", lambda s: s.startswith("auto"), "tab:red"),
                              ("kvcc's presets", lambda s: s.startswith("kvcc-"), "tab:orange"),
                              ("caches of Transformers", lambda s: s.startswith(("quanto:", "hqq:")), "tab:green"),
                              ("other presets", lambda s: True, "tab:blue")):
        chosen = [r for r in results if kind(r.scheme)]
        results = [r for r in results if r not in chosen]
        if chosen:
            axes.errorbar([r.bits for r in chosen], [r.kl for r in chosen], [r.kl_error for r in chosen], fmt="o",
                          color=color, label=name, zorder=2)
        for r in chosen:
            axes.annotate(r.scheme.replace("auto; budget =", "auto"), (r.bits, r.kl), xytext=(5, 4),
                          textcoords="offset points", fontsize=8)
    axes.set(xlabel="bits per number of the quantized part, scales included",
             ylabel="mean KL(exact || quantized) of next-token logits, nats", yscale="log")
    axes.set_title(textwrap.fill(title, 95), fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write(results: Sequence[Result], path: Path, title: str) -> None:
    """By the extension of the path."""
    if path.suffix == ".md":
        path.write_text(f"{title}\n\n{table(results)}")
    elif path.suffix == ".json":
        path.write_text(json.dumps({"title": title, "results": [asdict(r) for r in results]}, indent=1) + "\n")
    elif path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(Result)])
            writer.writerows(asdict(r).values() for r in results)
    else:
        plot(results, path, title)


# -- The command.

_OUTPUTS = (".md", ".csv", ".json", ".png", ".svg")


def split_schemes(texts: Sequence[str]) -> Iterator[str]:
    """Lists of names at commas; a scheme in IR has commas of its own."""
    for text in texts:
        yield from [text] if "<" in text or ";" in text else text.split(",")


def load(folder: str, text: Path) -> tuple[Any, Any]:
    """A model of Transformers, and the tokens of a file."""
    from .transformers import torch  # and with it the message, if a library is missing
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar
    disable_progress_bar()
    if not text.is_file():
        raise expected("a file of text", f"'{text}', which is none")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise expected("a folder with a model of Transformers", f"'{folder}': {error}") from None
    content = text.read_text(encoding="utf-8")
    ids = tokenizer(content, return_tensors="pt", add_special_tokens=False, truncation=False, verbose=False).input_ids[0]
    return model.eval(), ids.to(torch.long)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="kvcc eval", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder with a model of Transformers")
    parser.add_argument("--text", type=Path, required=True, help="a file of text")
    parser.add_argument("--scheme", action="append", required=True, metavar="S",
                        help="a scheme, or names separated by commas; may be given several times")
    parser.add_argument("--profile", help="what kvcc profile measured, for auto and for writers")
    parser.add_argument("--passages", type=int, default=4)
    parser.add_argument("--prefill", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=16, help="tokens per step, 1 to 16 for steps as an engine makes them")
    parser.add_argument("--compute", default="auto", help="arithmetic of products with codes")
    parser.add_argument("--note", default="", help="how it was measured, for the titles")
    parser.add_argument("-o", "--output", type=Path, action="append", default=[], metavar="FILE",
                        help=f"after every passage, besides standard output; {', '.join(_OUTPUTS)}; may be given several times")
    options = parser.parse_args(arguments)
    wrong = [path for path in options.output if path.suffix not in _OUTPUTS or not path.absolute().parent.is_dir()]
    if wrong:
        parser.error(f"expected -o FILE in an existing folder, with an extension of {', '.join(_OUTPUTS)}, but got {wrong[0]}")
    terminal = sys.stderr.isatty()

    def progress(text: str) -> None:
        if terminal:
            print(f"\r\033[Kkvcc: {text}", end="", file=sys.stderr, flush=True)

    try:
        model, ids = load(options.model, options.text)
        name = Path(options.model).resolve().name

        def title(passages: int) -> str:
            return (f"{name}, {options.text.name}: {passages} passages of {options.prefill} tokens of prefill and "
                    f"{options.tokens} evaluated" + (f"; {options.note}" if options.note else ""))

        def save(passages: int, results: list[Result]) -> None:
            for path in options.output:
                write(results, path, title(passages))

        results = evaluate(model, ids, list(split_schemes(options.scheme)), passages=options.passages,
                           prefill=options.prefill, tokens=options.tokens, chunk=options.chunk, profile=options.profile,
                           compute=options.compute, progress=progress, save=save)
        progress("")
        print(f"{title(options.passages)}\n\n{table(results)}", end="")
    except Error as error:
        print(f"kvcc: error: {error}", file=sys.stderr)
        return 1
    return 0
