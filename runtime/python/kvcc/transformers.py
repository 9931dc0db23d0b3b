# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""kvcc for Transformers: a cache of quantized keys and values, and the attention that reads it.

    from kvcc.transformers import KvccCache        # registers the attention "kvcc"
    model.set_attn_implementation("kvcc")
    model.generate(**inputs, past_key_values=KvccCache(model, scheme="auto"))

A prompt goes through the model's exact attention and is then quantized; everything after it is attended by kvcc's kernels,
which read the codes: keys and values are never materialized. What cannot be served is refused by name, by the constructor
where the configuration tells, else before the first token.
"""
from __future__ import annotations

import copy
import functools
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Optional, Union

from .cache import LayerCache
from .errors import Unavailable, Unsupported, expected
from .program import Context, LayerInfo, Program, compile
from .torch import TensorMemory, dtype_name, torch

try:
    from transformers import AttentionInterface, PreTrainedConfig
    from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, CacheLayerMixin
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
except ImportError as error:
    raise Unavailable(
        f"expected Transformers 5.20 or newer, but got '{error}'; pip install 'kvcc[transformers]'") from None

NAME = "kvcc"
_MOST_QUERIES = 16  # of a step of the kernels


class KvccLayer(CacheLayerMixin):
    """The cache of one layer. `update` only takes the new keys and values; the attention knows which of them are padding,
    and has them appended."""
    is_sliding = False
    is_compileable = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, program: Program, index: int, max_tokens: Optional[int], config: Any = None,
                 make: Optional[Callable[..., Any]] = None):
        """make: of a ContextParallelCache, instead of a LayerCache."""
        super().__init__()
        self.program, self.index, self.max_tokens, self.config = program, index, max_tokens, config
        self.info = program.layer(index)
        self.cache: Any = None
        self._make = make or _make_cache
        self._owner: Optional[weakref.ref] = None
        self._forget()

    def _forget(self) -> None:
        self.length = 0  # with padding, and with what is pending
        self.padding: list[int] = []  # tokens at the left of each sequence that are not in the cache
        self._pending: Optional[tuple[torch.Tensor, torch.Tensor]] = None

    def __deepcopy__(self, memo: dict) -> KvccLayer:
        """As the way to go on with a prompt more than once; of the same model, so its configuration is not copied."""
        result = copy.copy(self)
        memo[id(self)] = result
        result.cache, result.padding = copy.deepcopy(self.cache, memo), list(self.padding)
        return result

    # -- What Transformers asks of a layer.

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        batch, device = key_states.shape[0], key_states.device
        if self.cache is None:
            self.device = device
            self.cache = self._make(self.program, self.index, batch, max_tokens=self.max_tokens, device=device)
        else:
            self.cache.reset(batch)
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any,
               **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        # None: of a configuration that no model was made of. The second update of its cache would be noticed, below.
        implementation = getattr(self.config, "_attn_implementation", None)
        if implementation not in (None, NAME):
            raise expected(f"the attention '{NAME}' to read this cache",
                           f"'{implementation}'; call model.set_attn_implementation('{NAME}')")
        if self._pending is not None:
            raise expected(f"the attention '{NAME}' to read this cache after each update",
                           f"a second update; call model.set_attn_implementation('{NAME}'), or cache.reset() after a step "
                           "that failed")
        self._check(key_states, value_states)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        elif key_states.shape[0] != self.cache.batch:
            raise expected(f"a batch of {self.cache.batch} sequences, as before",
                           f"{key_states.shape[0]}; use a new KvccCache, or reset() this one")
        self.length += key_states.shape[2]
        self._pending = key_states, value_states
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1 if self.max_tokens is None else self.max_tokens

    @property
    def batch_size(self) -> int:
        return self.cache.batch if self.cache is not None and self.is_initialized else -1

    def reset(self) -> None:
        """Forgets the tokens; keeps the memory. Another model or batch may follow."""
        self._forget()
        self._owner = None
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Takes back -tokens_to_remove tokens: all of them, or at most info.max_rollback."""
        if tokens_to_remove > 0:
            raise expected("tokens_to_remove of at most 0: minus the number of tokens to take back", tokens_to_remove)
        if tokens_to_remove == 0 or not self.is_initialized:
            return
        if -tokens_to_remove >= self.length:
            owner = self._owner
            self.reset()
            self._owner = owner
            return
        self.cache.rollback(-tokens_to_remove)
        self.length += tokens_to_remove

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self._select([i for i in range(self.cache.batch) for _ in range(repeats)])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self.is_initialized:
            if indices.dtype == torch.bool:
                indices = indices.nonzero().flatten()
            self._select(indices.tolist())

    def offload(self) -> None:
        raise Unsupported("layer offloading is not supported by KvccCache; its memory is what offloading would save")

    prefetch = offload

    # -- What the attention asks.

    def attend(self, module: torch.nn.Module, query: torch.Tensor, mask: Optional[torch.Tensor], exact: Any,
               sinks: Optional[torch.Tensor]) -> torch.Tensor:
        """Appends what is pending, and attends: [batch, queries, q_heads, head_dim] of the query's dtype. `exact` is the
        attention for a prompt."""
        if self._pending is None:
            raise expected(f"layer {self.index} of the cache to have been updated before it is read", "no update")
        owner = self._owner() if self._owner else None
        if owner is not None and owner is not module:
            raise expected("one model to use this KvccCache", "a second one; give each model its own")
        self._owner = weakref.ref(module)
        keys, values = self._pending
        queries, before = keys.shape[2], self.length - keys.shape[2]
        padding = find_padding(mask, keys.shape[0], queries, self.length, self.info, self.padding if before else None)
        if before == 0:
            self.padding = padding
            out = exact()
            self._append_prompt(keys, values)
        else:
            if padding != self.padding:
                raise expected(f"an attention_mask that hides {self.padding} tokens at the left of each sequence, as before",
                               padding if any(padding) else "none")
            parts = [self._step(query[:, :, i:i + _MOST_QUERIES], keys[:, :, i:i + _MOST_QUERIES],
                                values[:, :, i:i + _MOST_QUERIES], sinks) for i in range(0, queries, _MOST_QUERIES)]
            out = (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).to(query.dtype)
        self._pending = None
        return out

    def _step(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor,
              sinks: Optional[torch.Tensor]) -> torch.Tensor:
        self._append(keys, values)
        return self.cache.attend(query.transpose(1, 2).contiguous(), sinks)[0]

    def _append_prompt(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        if not any(self.padding):
            self._append(keys, values)
            return
        for row, padding in enumerate(self.padding):
            self._append(keys[row:row + 1, :, padding:], values[row:row + 1, :, padding:], sequences=[row])

    def _append(self, keys: torch.Tensor, values: torch.Tensor, **options: Any) -> None:
        if keys.stride() != values.stride() or keys.stride(3) != 1:
            keys, values = keys.contiguous(), values.contiguous()
        self.cache.append(keys.detach(), values.detach(), **options)

    def _select(self, rows: list[int]) -> None:
        self.cache.select(rows)
        self.padding = [self.padding[row] for row in rows]

    def _check(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        info = self.info
        for name, tensor in (("keys", keys), ("values", values)):
            shape = list(tensor.shape)
            if len(shape) != 4 or shape[1] != info.kv_heads or shape[3] != info.head_dim:
                raise expected(f"{name} of shape [batch, {info.kv_heads}, tokens, {info.head_dim}] in layer {self.index}",
                               f"{shape}; the cache was made for another model")
            if dtype_name(tensor.dtype) != info.dtype:
                raise expected(f"{name} of {info.dtype} in layer {self.index}",
                               f"{tensor.dtype}; give KvccCache dtype={tensor.dtype}, or the model")
            if (tensor.device.type == "cuda") != self.program.target.startswith("cuda") and \
                    self.program.target != "cuda-host":
                raise expected(f"{name} on the device of target '{self.program.target}'",
                               f"{tensor.device}; give KvccCache target='{tensor.device.type}', or the model")


def _make_cache(*arguments: Any, device: torch.device, **options: Any) -> LayerCache:
    return LayerCache(*arguments, memory=TensorMemory(device), **options)


def find_padding(mask: Optional[torch.Tensor], batch: int, queries: int, length: int, info: LayerInfo,
                 known: Optional[list[int]] = None) -> list[int]:
    """How many tokens at its left a mask hides from each sequence. What it hides besides must be what the layer does not
    reach; any other mask is refused.

    mask: [batch or 1, heads, queries, length], bool or with 0 where a query sees a token; None: causal, no padding.
    known: the padding so far, which a mask of a few queries alone does not tell where a layer does not reach it."""
    if mask is None:
        return [0] * batch
    if mask.dim() != 4 or mask.shape[0] not in (1, batch) or tuple(mask.shape[2:]) != (queries, length):
        raise Unsupported(f"expected attention_mask of shape [{batch}, 1, {queries}, {length}], but got "
                          f"{list(mask.shape)}")
    reach = info.window_tokens, info.chunked
    cached = _known_masks.get(id(mask))
    if cached and cached[0]() is mask and cached[1] == reach:
        return cached[2]
    seen = mask if mask.dtype == torch.bool else mask == 0
    at = torch.arange(length, device=mask.device)
    query = torch.arange(length - queries, length, device=mask.device)
    if known is None or not info.window_tokens:
        # Of what all queries reach, that is what the last one sees; else what a token sees of itself.
        padding = length - seen[:, 0, -1].sum(-1) if not info.window_tokens else \
            length - seen[:, 0].diagonal(dim1=-2, dim2=-1).sum(-1)
    else:
        padding = torch.tensor(known, device=mask.device)
    hidden = padding[:, None, None, None]
    for first in range(0, queries, 256):  # not much memory beside the mask's
        part = slice(first, first + 256)
        wanted = (at >= hidden) & (at <= query[part, None])
        if info.chunked:
            wanted &= (at - hidden) // info.window_tokens == (query[part, None] - hidden) // info.window_tokens
        elif info.window_tokens:
            wanted &= at > query[part, None] - info.window_tokens
        # What padding itself sees is of no consequence.
        ignored = query[part, None] < hidden
        if not ((wanted == seen[:, :, part]) | ignored).all():
            raise Unsupported("expected an attention_mask that is causal with padding at the left, but got another; kvcc "
                              "serves no other masks (pad at the left, or decode sequences one by one)")
    result = padding.expand(batch).tolist()
    if length in result:
        raise expected("at least one token in every sequence", f"only padding in sequence {result.index(length)}")
    # Layers of equal reach have the same mask in a step.
    for other in [key for key, entry in _known_masks.items() if entry[0]() is None]:
        del _known_masks[other]
    _known_masks[id(mask)] = weakref.ref(mask), reach, result
    return result


_known_masks: dict[int, tuple[weakref.ref, tuple[int, bool], list[int]]] = {}


def attention(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
              attention_mask: Optional[torch.Tensor], dropout: float = 0.0, scaling: Optional[float] = None,
              **kwargs: Any) -> tuple[torch.Tensor, None]:
    """The attention "kvcc" of Transformers' AttentionInterface."""
    found = getattr(key, "_kvcc_layer", None)
    layer = found() if found is not None else None
    if layer is None:
        raise expected("keys of a KvccCache", "others; pass past_key_values=kvcc.transformers.KvccCache(model, ...), or "
                       "call model.set_attn_implementation('sdpa') to go without kvcc")

    exact = functools.partial(exact_attention, module, query, key, value, attention_mask, dropout, scaling, **kwargs)

    if not isinstance(layer, KvccLayer):  # by choice, see KvccCache
        return exact(), None
    _refuse_extras(layer, query, dropout, scaling, kwargs)
    sinks = kwargs.get("s_aux")
    return layer.attend(module, query, attention_mask, exact, None if sinks is None else sinks.float()), None


def exact_attention(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                    attention_mask: Optional[torch.Tensor], dropout: float = 0.0, scaling: Optional[float] = None,
                    **kwargs: Any) -> torch.Tensor:
    """Of any model's attention module: [batch, queries, q_heads, head_dim]."""
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        return _exact(query, key, value, attention_mask, scaling, kwargs.get("softcap"), kwargs.get("s_aux"))
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, dropout=dropout, scaling=scaling,
                                           **kwargs)[0]


def _exact(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Optional[torch.Tensor],
           scaling: Optional[float], softcap: Optional[float], sinks: Optional[torch.Tensor]) -> torch.Tensor:
    """What PyTorch's attention lacks: bounded logits, and logits that join the softmax. A prompt's, some queries at a
    time."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scaling = query.shape[3] ** -0.5 if scaling is None else scaling
    at = torch.arange(key.shape[2], device=key.device)
    parts = []
    for first in range(0, query.shape[2], 256):
        rows = slice(first, first + 256)
        logits = (query[:, :, rows] @ key.transpose(2, 3)).float() * scaling
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        seen = at <= at[key.shape[2] - query.shape[2]:][rows, None] if mask is None else mask[:, :, rows]
        logits = logits.masked_fill(~seen, float("-inf")) if seen.dtype == torch.bool else logits + seen
        lse = logits.logsumexp(-1, keepdim=True)
        if sinks is not None:
            lse = torch.logaddexp(lse, sinks.float()[None, :, None, None])
        weights = torch.exp(logits - lse).nan_to_num(0)  # padding sees nothing
        parts.append(weights.to(value.dtype) @ value)
    return torch.cat(parts, 2).transpose(1, 2).contiguous()


def _refuse_extras(layer: KvccLayer, query: torch.Tensor, dropout: float, scaling: Optional[float],
                   kwargs: Mapping[str, Any]) -> None:
    """What a model may add to softmax attention must be what its configuration says."""
    info = layer.info
    if kwargs.get("position_bias") is not None:
        raise Unsupported(f"layer {layer.index}: a position bias is not served")
    softcap = kwargs.get("softcap") or 0
    if abs(softcap - info.softcap) > 1e-4 * info.softcap:
        raise Unsupported(f"layer {layer.index}: expected a softcap of {info.softcap:g}, as the configuration says, but got "
                          f"{softcap:g}")
    if (kwargs.get("s_aux") is not None) != info.sink_logits:
        raise Unsupported(f"layer {layer.index}: expected {'' if info.sink_logits else 'no '}learned sink logits, as the "
                          f"configuration says, but got {'none' if info.sink_logits else 'some'}")
    window = kwargs.get("sliding_window")
    if window is not None and window != info.window_tokens and layer.length > window:
        raise Unsupported(f"layer {layer.index}: expected a sliding window of {info.window_tokens} tokens, as the "
                          f"configuration says, but got {window}")
    if dropout:
        raise Unsupported(f"layer {layer.index}: expected no dropout, but got {dropout}; call model.eval()")
    if kwargs.get("is_causal") is False:
        raise Unsupported(f"layer {layer.index}: attention that is not causal is not served")
    if kwargs.get("output_attentions"):
        raise Unsupported(f"layer {layer.index}: attention weights (output_attentions=True) are not served")
    heads, dim = query.shape[1], query.shape[3]
    if (heads, dim) != (layer.info.q_heads, layer.info.head_dim):
        raise expected(f"queries of {layer.info.q_heads} heads of {layer.info.head_dim} in layer {layer.index}",
                       f"{heads} heads of {dim}; the cache was made for another model")
    if scaling is None:
        scaling = dim ** -0.5
    if abs(scaling - layer.info.scale) > 1e-4 * layer.info.scale:
        raise Unsupported(f"layer {layer.index}: expected logits scaled by {layer.info.scale:g}, as the configuration "
                          f"says, but got {scaling:g}")


class KvccCache(Cache):
    """A cache of quantized keys and values for the attention "kvcc". See `kvcc.compile` for schemes.

    model: the model, or its configuration (and `dtype` and `target`, where they are not those of the configuration and
        the host).
    max_tokens: of a sequence, with padding. All memory is taken at the first step, and more tokens are an error. None:
        memory grows.
    unserved: what becomes of layers that kvcc does not serve, such as those of head_dim 512: "refuse", or "exact", which
        leaves them to Transformers' own cache and attention.
    profile: what `kvcc profile` measured.
    group: a process group of torch.distributed, whose ranks hold slices of the sequences and run replicas of the model on
        the same tokens, see `kvcc.distributed.ContextParallelCache`; tokens_per_rank: as there.
    """

    def __init__(self, model: Union[PreTrainedConfig, torch.nn.Module], scheme: str = "auto", *,
                 max_tokens: Optional[int] = None, dtype: Optional[torch.dtype] = None, target: Optional[str] = None,
                 unserved: str = "refuse", profile: Union[str, os.PathLike, None] = None, compute: str = "auto",
                 page_tokens: int = 0, context: Optional[Context] = None, group: Any = None,
                 tokens_per_rank: Optional[int] = None):
        if tokens_per_rank is not None and group is None:
            raise expected("tokens_per_rank with a group", f"{tokens_per_rank}; give group=torch.distributed.group.WORLD")
        if unserved not in ("refuse", "exact"):
            raise expected("unserved to be 'refuse' or 'exact'", repr(unserved))
        if max_tokens is not None and max_tokens < 1:
            raise expected("max_tokens of at least 1, or None", max_tokens)
        config = model
        if isinstance(model, torch.nn.Module):
            config = getattr(model, "config", None)
            dtype = dtype or getattr(model, "dtype", None)
            device = getattr(model, "device", None)
            target = target or (device.type if device is not None and device.type == "cuda" else None)
        if not isinstance(config, PreTrainedConfig):
            raise expected("model to be a model or a configuration of Transformers", f"a {type(model).__name__}")
        text = config.get_text_config(decoder=True)
        dtype = dtype or getattr(text, "dtype", None) or torch.get_default_dtype()
        build, make = functools.partial(compile, out_dtype=dtype_name(dtype)), None
        if group is not None:  # partial results are float32
            from . import distributed
            build = functools.partial(distributed.compile, group=group)
            make = functools.partial(distributed.ContextParallelCache, group=group, tokens_per_rank=tokens_per_rank)
        self.program = build(config, scheme, target or "cpu", dtype=dtype_name(dtype), compute=compute, profile=profile,
                             page_tokens=page_tokens, context=context or _shared_context())
        missing = [i for i, layer in enumerate(self.program.layers) if not layer.served]
        others: list[Any] = []
        if missing:
            others = DynamicCache(config=config).layers if unserved == "exact" else []
            refused = [i for i in missing if not (others and isinstance(others[i], DynamicLayer))]
            if refused:
                raise Unsupported(_describe_refused(config, self.program, refused, unserved))
        super().__init__(layers=[
            # What a window reaches is little: all ranks have it.
            KvccLayer(self.program, i, max_tokens, text, None if layer.window_tokens else make) if layer.served else others[i]
            for i, layer in enumerate(self.program.layers)])

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any,
               **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if layer_idx >= len(self.layers):
            raise expected(f"layer_idx from 0 to {len(self.layers) - 1}", f"{layer_idx}; the cache was made for another "
                           "model")
        keys, values = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        # The attention gets no cache from the model; it finds the layer by the keys.
        keys._kvcc_layer = weakref.ref(self.layers[layer_idx])
        return keys, values

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken: pages and windows of all layers, and what layers that are not served keep."""
        return sum(_layer_bytes(layer) for layer in self.layers)

    @property
    def exact_nbytes(self) -> int:
        """What an exact cache takes for the same tokens, without padding."""
        total = 0
        for layer in self.layers:
            if isinstance(layer, KvccLayer) and layer.is_initialized:
                size = 4 if layer.info.dtype == "f32" else 2
                total += 2 * sum(layer.cache.lengths) * layer.info.kv_heads * layer.info.head_dim * size
            elif not isinstance(layer, KvccLayer):
                total += _layer_bytes(layer)
        return total


def _layer_bytes(layer: Any) -> int:
    if isinstance(layer, KvccLayer):
        return layer.cache.nbytes if layer.cache is not None else 0
    return sum(tensor.nbytes for tensor in (layer.keys, layer.values) if tensor is not None)


def _describe_refused(config: PreTrainedConfig, program: Program, refused: list[int], unserved: str) -> str:
    reasons: dict[str, list[int]] = {}
    for i in refused:
        reasons.setdefault(program.layers[i].unserved_reason or "not served", []).append(i)
    text = "; ".join(f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}: {reason}"
                     for reason, layers in reasons.items())
    remedy = "unserved='exact' leaves such layers to Transformers" if unserved == "refuse" else \
        "Transformers has no exact cache of keys and values for them"
    return f"{config.model_type}: {text} ({remedy})"


_contexts: list[Context] = []


def _shared_context() -> Context:
    """As many threads as PyTorch works with."""
    if not _contexts or _contexts[0].threads != torch.get_num_threads():
        _contexts[:] = [Context(threads=torch.get_num_threads())]
    return _contexts[0]


AttentionInterface.register(NAME, attention)
# Masks as SDPA's: none where causality is all, else bool with the padding in it.
AttentionMaskInterface.register(NAME, sdpa_mask)
