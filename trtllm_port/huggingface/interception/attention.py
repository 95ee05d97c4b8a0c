"""Attention as models look it up among transformers' attention functions, by a name.

B batch, N heads, L tokens, S slots, H size of a head, C chosen slots
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

SILENT_ARGUMENTS = (
    *("dropout", "is_causal", "sliding_window", "local_window_size", "layer_idx", "position_ids", "cache_position"),
    *("use_cache", "output_attentions", "output_hidden_states", "return_dict", "position_embeddings"),
    *("past_key_values", "past_key_value", "cache"),
)
"""Arguments of attention functions that say nothing a port has to know: masks are explicit, nothing is trained."""
OPTIONS = {"softcap": "softcap", "s_aux": "sinks"}
"""transformers' name → that of `layers.attention`."""
EagerAttention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Any]


@dataclass(frozen=True)
class AttentionCall:
    """What a module asks of an attention function.

    Attributes:
        query, key, value: [B, N, L, H], the latter two [B, …, S, H] with as many heads or fewer.
        mask: [B, 1, L, S], bool or to be added to scores; None: every token attends to all slots.
        scale: of the scores.
        options: what else `layers.attention` takes, by its names.
        chosen: [B, L, C] slots that the tokens chose, for kernels that read only these; None: all.
        own: the eager attention of the file that defines the module, for a mask that is to be added; None: it has none.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float
    options: dict[str, Any]
    chosen: Tensor | None = None
    own: EagerAttention | None = None


def register_attention(name: str, attend: Callable[[AttentionCall], Any]) -> None:
    """Have models that are made with the attention implementation `name` call a function.

    It gives [B, L, N, H] and the weights, or None for these.
    """

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        scaling: float | None = None,
        **given: Any,
    ) -> Any:
        chosen = given.pop("indices", None)
        scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
        options = {OPTIONS[option]: value for option, value in given.items() if option in OPTIONS and value is not None}
        own = _own_attention(module, given, scale)
        return attend(AttentionCall(query, key, value, attention_mask, scale, options, chosen, own))

    AttentionInterface.register(name, attention)


def _own_attention(module: nn.Module, given: dict[str, Any], scale: float) -> EagerAttention | None:
    """The eager attention of the file that defines a module, as a function of query, key, value and added mask."""
    function = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if function is None:
        return None
    rest = {name: value for name, value in given.items() if value is not None and name not in SILENT_ARGUMENTS}
    return lambda query, key, value, mask: function(module, query, key, value, mask, scaling=scale, **rest)


def to_additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a bool mask allows, else -inf: every token may attend to itself, so no row is all -inf."""
    allowed, masked = (torch.tensor(number, dtype=dtype) for number in (0.0, float("-inf")))
    return torch.where(mask, allowed, masked)
