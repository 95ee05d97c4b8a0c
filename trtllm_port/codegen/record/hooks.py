"""What the record holds as one operation instead of many: attention, masks, the KV cache, rotations.

attention(query, key, value, mask=…, scale=…, …)      transformers' `AttentionInterface`, see `attentions.py`
causal_mask(position_ids, cache, kind=…, window=…)    transformers' `AttentionMaskInterface`
combine_experts(output, experts, weights)             the end of transformers' `ExpertsInterface`, see `experts.py`
cache_update(cache, layer_idx, key, value)            a `DynamicCache` that reports its updates
indexer_update(cache, layer_idx, key)                 the same of the keys by which a layer chooses slots
only_chosen(mask, indices)                            the slots that a layer chose, see `attentions.py`
linear_attention(…, state), selective_scan(…, state)  functions that `recurrences.py` proves equal to them
rotary_embedding(x, cos, sin, interleaved=…)          `apply_rotary_…` functions that probing proves equal to it
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel, masking_utils
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)

from trtllm_port.codegen.record import attentions, experts, recurrences
from trtllm_port.codegen.record.attentions import to_additive
from trtllm_port.codegen.record.recorder import Recorder, active_recorder
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.caches import cache_argument
from trtllm_port.huggingface.models import BLANK

IMPLEMENTATION = "trtllm_port"
WARNING = "warn_if_padding_and_no_attention_mask"  # looks for padding among the tokens; computes nothing


def _mask(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any],
    attention_mask: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """The mask that `mask_function` describes, recorded by kind when the recorder runs."""
    recorder = active_recorder()
    with torch._C.DisableTorchFunction():
        allowed = evaluate_mask(mask_function, q_length, kv_length, q_offset, kv_offset)
        mask = allowed.expand(batch_size, 1, q_length, kv_length).clone()
        kind = classify_mask(mask_function, q_offset + q_length)
    if recorder is None:
        return mask
    recorder.asked_for.add("mask")
    recorder.learn_names()
    position_ids, cache = recorder.model_inputs["position_ids"], recorder.model_inputs["cache"]
    recorder.record(
        "mask", (position_ids, cache), dict(zip(("kind", "size"), kind, strict=True)), mask, recorder.location()
    )
    return mask


def _additive_mask(*, dtype: torch.dtype = torch.float32, **arguments: Any) -> Tensor:
    """As `_mask`, to be added to scores: what models with an attention of their own expect."""
    return to_additive(_mask(**arguments), dtype)


def evaluate_mask(function: Callable[..., Any], rows: int, columns: int, row_offset: int, column_offset: int) -> Tensor:
    """[rows, columns] bool: what a mask function of (batch, head, query, key) allows."""
    query = torch.arange(rows)[:, None] + row_offset
    key = torch.arange(columns)[None, :] + column_offset
    zero = torch.zeros((), dtype=torch.long)
    allowed = function(zero, zero, query, key)
    if not isinstance(allowed, Tensor):
        allowed = torch.tensor(bool(allowed))
    return allowed.reshape(allowed.shape[-2:] if allowed.ndim >= 2 else (1, 1)).expand(rows, columns)


def classify_mask(function: Callable[..., Any], known: int, grid: int = 96) -> tuple[str, int | None]:
    """("causal", None), ("window", size), ("chunk", size) or ("full", None), found by evaluating the function.

    ("unknown", None) for any other function.

    Args:
        function: of (batch, head, query, key).
        known: tokens so far: no more are asked for where the function looks up which block of the text a token is in.
        grid: tokens to ask for otherwise.
    """
    try:
        allowed = evaluate_mask(function, grid, grid, 0, 0)
    except IndexError:
        grid = known
        allowed = evaluate_mask(function, grid, grid, 0, 0)
    query, key = torch.arange(grid)[:, None], torch.arange(grid)[None, :]
    causal = key <= query
    if torch.equal(allowed, causal):
        return "causal", None
    if bool(allowed.all()):
        return "full", None
    size = int(allowed[-1].sum())
    if torch.equal(allowed, causal & (key > query - size)):
        return "window", size
    for size in range(1, grid):
        if torch.equal(allowed, causal & (key // size == query // size)):
            return "chunk", size
    return "unknown", None


class RecordedCache(DynamicCache):  # type: ignore[misc]  # transformers is untyped
    """A growing KV cache, with the states of a config's layers; while a recorder runs, updates are its operations.

    Layers of a sliding window keep all keys and values here: slots are positions in a port.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.layers: list[Any] = [_unlimited(layer) for layer in self.layers]

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        recorder = active_recorder()
        if recorder is None:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        recorder.learn_names()
        reference = (recorder.model_inputs["cache"], layer_idx, *recorder.reference((key_states, value_states)))
        with torch._C.DisableTorchFunction():
            out = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        recorder.record("cache_update", reference, {}, out, recorder.location())
        return out

    def update_indexer(self, indexer_key_states: Tensor, layer_idx: int) -> Any:
        recorder = active_recorder()
        if recorder is None:
            return super().update_indexer(indexer_key_states, layer_idx)
        recorder.learn_names()
        reference = (recorder.model_inputs["cache"], layer_idx, *recorder.reference((indexer_key_states,)))
        with torch._C.DisableTorchFunction():
            out = super().update_indexer(indexer_key_states, layer_idx)
        recorder.record("indexer_update", reference, {}, out, recorder.location())
        return out

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Any:
        recorder = active_recorder()
        if recorder is not None:
            recorder.states.read = layer_idx, state_idx
        return super().get_recurrent_state(layer_idx, state_idx)

    def update_conv_state(self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any) -> Any:
        """The new tokens alone: that a convolution takes those before from the state is part of its operation."""
        recorder = active_recorder()
        with torch._C.DisableTorchFunction():
            out = super().update_conv_state(conv_states, layer_idx, state_idx, **kwargs)
        if recorder is None:
            return out
        recorder.states.counts[layer_idx] = self.layers[layer_idx].number_of_states
        recorder.states.convolved[id(conv_states)] = conv_states, layer_idx, state_idx
        return conv_states

    def update_recurrent_state(self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any) -> Any:
        recorder = active_recorder()
        if recorder is not None:
            recorder.states.store(layer_idx, state_idx)
        with torch._C.DisableTorchFunction():
            return super().update_recurrent_state(recurrent_states, layer_idx, state_idx)


def _unlimited(layer: Any) -> Any:
    if isinstance(layer, LinearAttentionAndSlidingWindowAttentionLayer):
        return LinearAttentionAndFullAttentionLayer(number_of_states=layer.number_of_states)
    if not isinstance(layer, DynamicSlidingWindowLayer):
        return layer
    own = [
        name for name in dir(type(layer)) if not name.startswith("_") and not hasattr(DynamicSlidingWindowLayer, name)
    ]
    if own:
        raise UnsupportedModelError(
            f"`{type(layer).__name__}` keeps more in the cache than the keys and values of a window: "
            f"{', '.join(f'`{name}`' for name in own)}",
            hint=BLANK,
        )
    return DynamicLayer()


def whole_cache(model: nn.Module) -> RecordedCache | None:
    """A cache that forgets nothing, for a model whose own one forgets what is behind a window; else None.

    What a window hides the masks say. Where they hide nothing (a window that the cache alone has), what such a model
    computes would depend on how a text is cut into calls.
    """
    config: Any = model.config
    layers = DynamicCache(config=config.get_text_config(decoder=True)).layers
    forgets = cache_argument(model) == "past_key_values" and any(_unlimited(layer) is not layer for layer in layers)
    return RecordedCache(config.get_text_config(decoder=True)) if forgets else None


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool) -> Tensor:
    """TensorRT's rotation of [B, N, L, H] by [B, L, R/2] tables: the first R of H, the rest as it is."""
    size = 2 * cos.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    cos, sin = cos[:, None], sin[:, None]
    first, second = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    pair = (first * cos - second * sin, second * cos + first * sin)
    out = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([out, rest], -1)


def probe_rotation(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> dict[str, Any] | None:
    """The arguments that make `rotate` give `out`, or None. Tables may hold every angle once, or twice as HF does."""
    if out.shape != x.shape or x.ndim != 4 or cos.ndim != 3 or cos.shape[1] != x.shape[2] or cos.shape != sin.shape:
        return None
    half = cos.shape[-1] // 2
    tables = {"once": (cos, sin)}
    if cos.shape[-1] % 2 == 0 and torch.equal(cos[..., :half], cos[..., half:]):
        tables["halves"] = (cos[..., :half], sin[..., :half])
    if cos.shape[-1] % 2 == 0 and torch.equal(cos[..., ::2], cos[..., 1::2]):
        tables["pairs"] = (cos[..., ::2], sin[..., ::2])
    tolerance = 4 * torch.finfo(x.dtype).eps * float(x.abs().max())
    for layout, (c, s) in tables.items():
        if 2 * c.shape[-1] > x.shape[-1]:
            continue
        for backwards, (interleaved, apart) in product((False, True), ((False, False), (True, False), (False, True))):
            turn = -s.float() if backwards else s.float()
            start = torch.cat(neighbours_apart(x), -1) if apart else x
            got = rotate(start.float(), c.float(), turn, interleaved=interleaved)
            if torch.allclose(got, out.float(), rtol=0, atol=tolerance):
                options = {"backwards": backwards, "apart": apart}
                return {"interleaved": interleaved, "tables": layout, **{k: True for k, v in options.items() if v}}
    return None


def neighbours_apart(x: Tensor) -> list[Tensor]:
    """The elements with even and those with odd numbers of the last dimension."""
    return [x[..., start::2] for start in (0, 1)]


def _rotation_hook(original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, recorded as rotations when what it returns is its first tensors, rotated."""

    @functools.wraps(original)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        recorder = active_recorder()
        if recorder is None:
            return original(*args, **kwargs)
        bound = inspect.signature(original).bind(*args, **kwargs).arguments
        tables, inputs = _tables_and_inputs(bound)
        if not tables or not inputs:
            return original(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            out = original(*args, **kwargs)
            results = [out] if isinstance(out, Tensor) else list(out)
            cos, sin = tables if len(tables) == 2 else (tables[0].real, tables[0].imag)
            found = [_probe_either_way(x, cos, sin, y) for x, y in zip(inputs, results, strict=False)]
        if len(found) != len(results) or None in found:
            return original(*args, **kwargs)
        recorder.learn_names()
        for x, y, options in zip(inputs, results, found, strict=True):
            _record_rotation(recorder, x, tables, y, options or {})
        return out

    return hooked


def _tables_and_inputs(given: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The tables among a rotation's arguments, cos and sin or one complex tensor of both; and its other tensors."""
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    named: list[str] = [name for name in ("cos", "sin") if name in tensors]
    if len(named) != 2:
        named = [name for name, value in tensors.items() if value.is_complex()][:1]
    return [tensors[name] for name in named], [value for name, value in tensors.items() if name not in named]


def _probe_either_way(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> dict[str, Any] | None:
    """As `probe_rotation`, for [B, L, N, H], too: with `tokens_first`."""
    found = probe_rotation(x, cos, sin, out)
    if found is None and x.ndim == 4:
        found = probe_rotation(x.transpose(1, 2), cos, sin, out.transpose(1, 2))
        return found and {**found, "tokens_first": True}
    return found


def _record_rotation(recorder: Recorder, x: Tensor, tables: list[Tensor], out: Tensor, options: dict[str, Any]) -> None:
    """A rotation as an operation in the widest data type, with those around it: an order of elements, a cast."""
    place = recorder.location()
    start = _record_apart(recorder, x) if options.pop("apart", False) else x
    with torch._C.DisableTorchFunction():
        dtype = torch.promote_types(x.dtype, tables[0].dtype.to_real())
        turned = out if out.dtype == dtype else out.to(dtype)
    recorder.record("rotary_embedding", recorder.reference((start, *tables)), options, turned, place)
    if turned is not out:
        recorder.record("to", recorder.reference((turned, out.dtype)), {}, out, place)


def _record_apart(recorder: Recorder, x: Tensor) -> Tensor:
    """Neighbours brought apart, as recorded operations: some models leave them there after an interleaved rotation."""
    place = recorder.location()
    with torch._C.DisableTorchFunction():
        parts = neighbours_apart(x)
        joined = torch.cat(parts, -1)
    for start, part in enumerate(parts):
        recorder.record("getitem", (*recorder.reference((x,)), (Ellipsis, slice(start, None, 2))), {}, part, place)
    recorder.record("cat", recorder.reference((tuple(parts), -1)), {}, joined, place)
    return joined


def register() -> None:
    """Make `IMPLEMENTATION` known to `transformers`, before a model is built with it."""
    AttentionInterface.register(IMPLEMENTATION, attentions.attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)
    experts.register(IMPLEMENTATION)


@contextmanager
def hooks(model: nn.Module) -> Iterator[None]:
    """Everything above in force for `model`, which uses the attention implementation `IMPLEMENTATION`, or "eager"."""
    with ExitStack() as stack:
        masks = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS._global_mapping
        stack.enter_context(mock.patch.dict(masks, {"eager": _additive_mask}))
        stack.enter_context(mock.patch.object(masking_utils, "find_packed_sequence_indices", return_value=None))
        stack.enter_context(mock.patch.object(PreTrainedModel, WARNING))
        for name in sorted({type(module).__module__ for module in model.modules()}):
            source = sys.modules.get(name)
            for attribute, function in list(vars(source).items()) if source else []:
                hooked = _hook(attribute, function) if inspect.isfunction(function) else None
                if hooked is not None:
                    stack.enter_context(mock.patch.object(source, attribute, hooked))
        for kind in sorted({type(module) for module in model.modules()}, key=lambda kind: kind.__qualname__):
            for attribute, function in list(vars(kind).items()):
                is_method = inspect.isfunction(function) and attribute not in ("__init__", "forward")
                hooked = recurrences.hook(function, active_recorder) if is_method else None
                if hooked is not None:
                    stack.enter_context(mock.patch.object(kind, attribute, hooked))
        yield


def _hook(name: str, function: Callable[..., Any]) -> Callable[..., Any] | None:
    """What stands for a function of a modelling file while `hooks` are in force, or None: it stays."""
    if "rotary" in name and "apply" in name:
        return _rotation_hook(function)
    hooked: Callable[..., Any] | None = recurrences.hook(function, active_recorder)
    return hooked
