"""Attention functions: recorded as one operation where probing proves that it is `layers.attention`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trtllm_port.codegen.record.recorder import active_recorder
from trtllm_port.huggingface.interception.attention import AttentionCall, EagerAttention, to_additive

TOLERANCE = 1e-5  # relative, in float32


def attention(call: AttentionCall) -> Any:
    """The registered attention function: for [B, N, L, H], gives [B, L, N, H].

    Where the model's own eager attention computes something else, that is recorded, operation by operation.
    """
    recorder = active_recorder()
    if recorder is not None:
        recorder.asked_for.add("attention")
    query, key, value, mask = call.query, call.key, call.value, call.mask
    if call.chosen is not None and mask is not None:
        mask = _only_chosen(mask, call.chosen)
    with torch._C.DisableTorchFunction():
        out = compute_attention(query, key, value, mask, call.scale, **call.options)
        is_known = call.own is None or _agrees(call.own, (query, key, value, mask), call.scale, call.options)
    if call.own is not None and not is_known:
        return call.own(query, key, value, _added(mask, query.dtype))
    if recorder is not None:
        recorder.learn_names()
        options = {"mask": mask, "scale": call.scale, **call.options}
        tensors, kwargs = recorder.reference(((query, key, value), options))
        recorder.record("attention", tensors, kwargs, out, recorder.location())
    return out, None


def _only_chosen(mask: Tensor, indices: Tensor) -> Tensor:
    """`only_chosen`, recorded as one operation."""
    recorder = active_recorder()
    if recorder is None:
        return only_chosen(mask, indices)
    recorder.learn_names()
    reference = recorder.reference((mask, indices))
    with torch._C.DisableTorchFunction():
        chosen = only_chosen(mask, indices)
    recorder.record("only_chosen", reference, {}, chosen, recorder.location())
    return chosen


def only_chosen(mask: Tensor, indices: Tensor) -> Tensor:
    """`layers.only_chosen` in torch: a bool mask [B, 1, L, S], indices [B, L, C]."""
    return mask & torch.zeros_like(mask[:, 0]).scatter(-1, indices.long(), True).unsqueeze(1)


def _agrees(own: EagerAttention, inputs: tuple[Any, ...], scale: float, options: dict[str, Any]) -> bool:
    """Whether a model's own attention is, in float32, `compute_attention`."""
    query, key, value, mask = (_wide(x) for x in inputs)
    expected = compute_attention(query, key, value, mask, scale, **{name: _wide(x) for name, x in options.items()})
    try:
        found = own(query, key, value, _added(mask, torch.float32))[0]
    except (TypeError, RuntimeError, AttributeError, ValueError):
        return True  # it is there, but not made for this module
    tolerance = TOLERANCE * float(expected.abs().max())
    return found.shape == expected.shape and torch.allclose(found.float(), expected, rtol=0, atol=tolerance)


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.is_floating_point() else x


def compute_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """`layers.attention` in torch."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.matmul(query, key.transpose(-1, -2)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    if sinks is not None:
        column = sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1).to(scores.dtype)
        scores = torch.cat([scores, column], -1)
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)[..., : value.shape[-2]]
    return torch.matmul(weights, value).transpose(1, 2).contiguous()


def _added(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask as eager attention takes it."""
    return to_additive(mask, dtype) if mask is not None and mask.dtype == torch.bool else mask
