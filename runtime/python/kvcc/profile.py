# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""`kvcc profile MODEL --text FILE -o P.json`: captures queries, keys and values of a model of Transformers while it reads a
text, and has the tool measure on them what formats do to each layer. The result is for scheme "auto", and for the
writers of formats with centring and error feedback; a few hundred KB of JSON that a team can commit.

`kvcc profile MODEL.json --input CAPTURED.safetensors` measures tensors that were captured otherwise.
"""
from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import Error, Failed, expected
from .tool import TOOL


_FIRST = 32  # tokens before it are in every scheme's sink, and unlike all others


def capture(model: Any, ids: Any, *, queries: int = 0, sensitivity: bool = True) -> dict[str, Any]:
    """Queries, keys and values of all layers after RoPE, as float16: layer.N.q [heads, queries, head_dim], of the last
    `queries` tokens (0: of all), layer.N.k and layer.N.v [kv_heads, tokens, head_dim]. `sensitivity`: also layer.N.g [heads,
    head_dim, head_dim] as float32, how a change of a head's output reaches the logits; takes a backward pass, and the
    memory for it."""
    from .transformers import exact_attention, torch
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    if queries and not 2 <= queries <= ids.shape[0]:
        raise expected(f"queries from 2 to the {ids.shape[0]} tokens of the text, or 0", queries)
    tensors: dict[str, Any] = {}
    probes: dict[int, Any] = {}

    def attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        index = module.layer_idx
        # Beyond float16's range nothing could be cached in it, either.
        for name, tensor in (("q", query[0, :, -queries:]), ("k", key[0]), ("v", value[0])):
            tensors[f"layer.{index}.{name}"] = tensor.detach().to("cpu", torch.float16).contiguous()
        output = exact_attention(module, query, key, value, attention_mask, **kwargs)
        if sensitivity:
            probes[index] = torch.zeros_like(output, requires_grad=True)  # [1, tokens, heads, head_dim]
            output = output + probes[index]
        return output, None

    AttentionInterface.register("kvcc_capture", attention)
    AttentionMaskInterface.register("kvcc_capture", sdpa_mask)
    before = model.config._attn_implementation
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]  # else all inputs are kept for them
    for parameter in frozen:
        parameter.requires_grad_(False)
    model.set_attn_implementation("kvcc_capture")
    try:
        with torch.set_grad_enabled(sensitivity):
            logits = model(ids[None].to(model.device), use_cache=False, logits_to_keep=0 if sensitivity else 1).logits
            if sensitivity:
                # The Fisher matrix: g g^T, for tokens drawn from the predictions, has the Hessian of the KL as its mean.
                likelihoods = logits[0].float().log_softmax(-1)
                generator = torch.Generator(likelihoods.device).manual_seed(0)
                drawn = torch.multinomial(likelihoods.detach().exp(), 1, generator=generator)
                gradients = torch.autograd.grad(likelihoods.gather(1, drawn).sum(), list(probes.values()))
                for index, gradient in zip(probes, gradients):
                    rows = gradient[0, min(_FIRST, len(ids) // 2):].float()
                    moment = torch.einsum("thi,thj->hij", rows, rows) / rows.shape[0]
                    if not moment.isfinite().all():
                        raise Failed(f"layer {index}: gradients overflow in {gradient.dtype}; load the model as float32 or "
                                     "bfloat16, or go without sensitivity")
                    tensors[f"layer.{index}.g"] = moment.to("cpu").contiguous()
    finally:
        model.set_attn_implementation(before)
        for parameter in frozen:
            parameter.requires_grad_(True)
    return tensors


def measure(model: Any, ids: Any, output: Path, *, queries: int = 0, sensitivity: bool = True, threads: int = 0) -> None:
    """Writes the profile of a model of Transformers on the tokens of a text [count]."""
    from safetensors.torch import save_file  # which Transformers comes with
    with tempfile.TemporaryDirectory() as folder:
        captured = Path(folder) / "captured.safetensors"
        save_file(capture(model, ids, queries=queries, sensitivity=sensitivity), captured)
        model.config.to_json_file(Path(folder) / "config.json", use_diff=False)
        done = subprocess.run([TOOL, "profile", folder, "--input", captured, "-o", output, "--threads", str(threads)],
                              stdout=subprocess.DEVNULL, stderr=None if sys.stderr.isatty() else subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed(f"kvcc profile: {(done.stderr or '').strip() or 'see above'}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="kvcc profile", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder with a model of Transformers")
    parser.add_argument("--text", type=Path, required=True, help="a file of text, other than one to evaluate on")
    parser.add_argument("--tokens", type=int, default=1024, help="of the text's beginning, to read")
    parser.add_argument("--queries", type=int, default=0, help="of the last tokens, to measure with; 0: all")
    parser.add_argument("--no-sensitivity", dest="sensitivity", action="store_false",
                        help="without the backward pass: layers are weighed by their own outputs")
    parser.add_argument("--threads", type=int, default=0, help="0: one per processor")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="P.json")
    options = parser.parse_args(arguments)
    from .eval import load
    try:
        model, ids = load(options.model, options.text)
        if ids.shape[0] < options.tokens:
            raise expected(f"a text of at least {options.tokens} tokens", f"{ids.shape[0]}; give fewer --tokens")
        measure(model, ids[:options.tokens], options.output, queries=options.queries, sensitivity=options.sensitivity,
                threads=options.threads)
    except Error as error:
        print(f"kvcc: error: {error}", file=sys.stderr)
        return 1
    return 0
