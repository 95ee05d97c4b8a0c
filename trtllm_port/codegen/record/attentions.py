"""Attention functions: recorded as one operation where probing proves that it is `layers.attention`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.codegen.record.recorder import active_recorder
from trtllm_port.foundation.words import words

# Arguments of attention functions that say nothing a port has to know: masks are explicit, nothing is trained.
SILENT_ARGUMENTS = words(
    "dropout is_causal sliding_window position_ids cache_position use_cache output_attentions output_hidden_states "
    "return_dict position_embeddings past_key_values past_key_value layer_idx local_window_size"
)
OPTIONS = {"softcap": "softcap", "s_aux": "sinks"}  # transformers' name → that of `layers.attention`
TOLERANCE = 1e-5  # relative, in float32


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    **options: Any,
) -> Any:
    """The registered attention function: for [B, N, L, H], gives [B, L, N, H].

    Where the model's own eager attention computes something else, that is recorded, operation by operation.
    """
    recorder = active_recorder()
    if recorder is not None:
        recorder.asked_for.add("attention")
    indices = options.pop("indices", None)  # slots that the tokens chose, for kernels that read only these
    if indices is not None and attention_mask is not None:
        attention_mask = _only_chosen(attention_mask, indices)
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    named = {OPTIONS[name]: option for name, option in options.items() if name in OPTIONS and option is not None}
    own = _own_attention(module, options, scale)
    with torch._C.DisableTorchFunction():
        out = compute_attention(query, key, value, attention_mask, scale, **named)
        is_known = own is None or _agrees(own, (query, key, value, attention_mask), scale, named)
    if own is not None and not is_known:
        mask = attention_mask
        return own(query, key, value, to_additive(mask, query.dtype) if _is_bool(mask) else mask)
    if recorder is not None:
        recorder.learn_names()
        tensors, kwargs = recorder.reference(((query, key, value), {"mask": attention_mask, "scale": scale, **named}))
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


def _own_attention(module: nn.Module, options: dict[str, Any], scale: float) -> Callable[..., Any] | None:
    """The eager attention of the file that defines a module, as a function of query, key, value and added mask."""
    function = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if function is None:
        return None
    rest = {name: option for name, option in options.items() if option is not None and name not in SILENT_ARGUMENTS}
    return lambda query, key, value, mask: function(module, query, key, value, mask, scaling=scale, **rest)


def _agrees(own: Callable[..., Any], inputs: tuple[Any, ...], scale: float, options: dict[str, Any]) -> bool:
    """Whether a model's own attention is, in float32, `compute_attention`."""
    query, key, value, mask = (_wide(x) for x in inputs)
    expected = compute_attention(query, key, value, mask, scale, **{name: _wide(x) for name, x in options.items()})
    try:
        found = own(query, key, value, to_additive(mask, torch.float32) if _is_bool(mask) else mask)[0]
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


def to_additive(mask: Any, dtype: torch.dtype) -> Tensor:
    """0 where a bool mask allows, else -inf: every token may attend to itself, so no row is all -inf."""
    allowed, masked = (torch.tensor(number, dtype=dtype) for number in (0.0, float("-inf")))
    return torch.where(mask, allowed, masked)


def _is_bool(mask: Tensor | None) -> bool:
    return mask is not None and mask.dtype == torch.bool
