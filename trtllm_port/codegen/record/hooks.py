"""What the record holds as one operation instead of many: attention, masks, the KV cache, rotations.

attention(query, key, value, mask=…, scale=…, …)      transformers' `AttentionInterface`, see `attentions.py`
causal_mask(position_ids, cache, kind=…, window=…)    transformers' `AttentionMaskInterface`
combine_experts(output, experts, weights)             the end of transformers' `ExpertsInterface`, see `experts.py`
cache_update(cache, layer_idx, key, value)            a cache that reports its updates, see `cache_operations.py`
indexer_update(cache, layer_idx, key)                 the same of the keys by which a layer chooses slots
only_chosen(mask, indices)                            the slots that a layer chose, see `attentions.py`
linear_attention(…, state), selective_scan(…, state)  functions that `recurrences.py` proves equal to them
rotary_embedding(x, cos, sin, interleaved=…)          `apply_rotary_…` functions that probing proves equal to it
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.codegen.record import attentions, experts, recurrences
from trtllm_port.codegen.record.recorder import Recorder, active_recorder
from trtllm_port.huggingface.interception.attention import register_attention
from trtllm_port.huggingface.interception.experts import register_experts
from trtllm_port.huggingface.interception.masks import Allows, MaskCall, eager_masks, evaluate_mask, register_masks
from trtllm_port.huggingface.interception.modelling_code import replaced_functions

IMPLEMENTATION = "trtllm_port"


def _mask(call: MaskCall) -> Tensor:
    """The mask that a model asks for, recorded by kind when the recorder runs."""
    recorder = active_recorder()
    with torch._C.DisableTorchFunction():
        mask = call.compute()
        kind = classify_mask(call.allows, call.first_token + call.tokens)
    if recorder is None:
        return mask
    recorder.asked_for.add("mask")
    recorder.learn_names()
    position_ids, cache = recorder.model_inputs["position_ids"], recorder.model_inputs["cache"]
    recorder.record(
        "mask", (position_ids, cache), dict(zip(("kind", "size"), kind, strict=True)), mask, recorder.location()
    )
    return mask


def classify_mask(function: Allows, known: int, grid: int = 96) -> tuple[str, int | None]:
    """("causal", None), ("window", size), ("chunk", size) or ("full", None), found by evaluating the function.

    ("unknown", None) for any other function.

    Args:
        function: of (batch, head, query, key).
        known: tokens so far: no more are asked for where the function looks up which block of the text a token is in.
        grid: tokens to ask for otherwise.
    """
    try:
        allowed = evaluate_mask(function, grid, grid)
    except IndexError:
        grid = known
        allowed = evaluate_mask(function, grid, grid)
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
            inputs = inputs[: len(results)]  # behind them may be position ids, which older files hand on
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
    register_attention(IMPLEMENTATION, attentions.attention)
    register_masks(IMPLEMENTATION, _mask)
    register_experts(IMPLEMENTATION, experts.dense_experts)


@contextmanager
def hooks(model: nn.Module) -> Iterator[None]:
    """Everything above in force for `model`, which uses the attention implementation `IMPLEMENTATION`, or "eager"."""
    with eager_masks(_mask), replaced_functions(model, _hook, _recurrence_hook):
        yield


def _hook(name: str, function: Callable[..., Any]) -> Callable[..., Any] | None:
    """What stands for a function of a modelling file while `hooks` are in force, or None: it stays."""
    return _rotation_hook(function) if "rotary" in name and "apply" in name else _recurrence_hook(function)


def _recurrence_hook(function: Callable[..., Any]) -> Callable[..., Any] | None:
    hooked: Callable[..., Any] | None = recurrences.hook(function, active_recorder)
    return hooked
