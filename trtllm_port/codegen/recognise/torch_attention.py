"""Attention that a model asks torch for, by its own function, as one operation of the record.

B batch, N query heads, K heads of keys, L tokens, S slots, H size of a head
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trtllm_port.codegen.ir.record import Attribute, Call, Literal, Location, Operation, Value
from trtllm_port.codegen.ir.trace import Trace
from trtllm_port.codegen.recognise.constants import ConstantRecognizer
from trtllm_port.codegen.rules.base import argument
from trtllm_port.codegen.rules.translation import canonical_name
from trtllm_port.foundation.words import words

NAME = "scaled_dot_product_attention"
LOWEST = -9e3  # what hides a score is below
REPEATING = words(
    "__getitem__ getitem unsqueeze expand repeat repeat_interleave reshape view flatten transpose permute contiguous to"
)
Makers = Mapping[Value, Operation | Call]


def torch_attention(operation: Operation, trace: Trace, layer: int | None, makers: Makers) -> list[Operation]:
    """The operations that a call of torch's attention is in the port's words; itself where it is none of them.

    Args:
        operation: of a record.
        trace: that the record is of.
        layer: whose keys and values the port's cache takes, where the model keeps none.
        makers: value → what made it in the same module.
    """
    query, key, value = (argument(operation, name, place) for place, name in enumerate(("query", "key", "value")))
    mask, dropout = argument(operation, "attn_mask", 3), argument(operation, "dropout_p", 4, 0.0)
    tensors = [arg.tensor for arg in (query, key, value) if isinstance(arg, Value)]
    if len(tensors) != 3 or any(tensor.ndim != 4 for tensor in tensors) or dropout or isinstance(mask, Attribute):
        return [operation]
    scale = operation.kwargs.get("scale")
    scale = tensors[0].shape[-1] ** -0.5 if scale is None else scale
    made: list[Operation] = []

    def add(name: str, args: tuple[Any, ...], tensor: Tensor, **options: Any) -> Value:
        made.append(Operation(name, args, options, (Value(tensor),), operation.location))
        return made[-1].outputs[0]

    if argument(operation, "is_causal", 5, False):
        hidden = torch.ones(tensors[0].shape[-2], tensors[1].shape[-2], dtype=torch.bool).triu(1)
        mask = add("logical_not", (Literal(hidden),), ~hidden)
    elif mask is not None:
        mask = _known(mask, trace, add)
    before = [before_repeating(one, makers) for one in (key, value)]
    if all(before):
        key, value = (first_heads(one, operation.location, made) for one in before if one is not None)
    if not trace.keeps_cache and layer is not None:
        kept = tuple(Value(one.tensor.clone(), dict(one.names)) for one in (key, value))
        made.append(Operation("cache_update", (trace.inputs["cache"], layer, key, value), {}, kept, operation.location))
        key, value = kept
    result = operation.outputs[0]
    tokens_first = add("attention", (query, key, value), result.tensor.transpose(1, 2), mask=mask, scale=scale)
    made.append(Operation("transpose", (tokens_first, 1, 2), {}, (result,), operation.location))
    return made


@dataclass(frozen=True)
class Repeated:
    """Keys or values [B, K, L, H], or [B, L, K, H], each head of which was repeated for several of queries."""

    source: Value
    tokens_first: bool


def before_repeating(value: Value, makers: Makers) -> Repeated | None:
    """What [B, N, L, H] was before every head was repeated, which attention needs not; None if none was."""
    wide, seen = value.tensor, value
    while isinstance(item := makers.get(seen), Operation) and item.args and isinstance(item.args[0], Value):
        if canonical_name(item.name)[0] not in REPEATING:
            return None
        seen = item.args[0]
        for tokens_first in (False, True):
            narrow = seen.tensor.transpose(1, 2) if tokens_first and seen.tensor.ndim == 4 else seen.tensor
            if narrow.ndim != 4 or narrow.shape[1] >= wide.shape[1] or wide.shape[1] % narrow.shape[1]:
                continue
            again = narrow.repeat_interleave(wide.shape[1] // narrow.shape[1], 1)
            if again.dtype == wide.dtype and torch.equal(again, wide):
                return Repeated(seen, tokens_first)
    return None


def first_heads(repeated: Repeated, location: Location | None, made: list[Operation]) -> Value:
    """Those keys or values as [B, K, L, H]; an operation that is needed for it is appended."""
    if not repeated.tokens_first:
        return repeated.source
    turned = Value(repeated.source.tensor.transpose(1, 2), dict(repeated.source.names))
    made.append(Operation("transpose", (repeated.source, 1, 2), {}, (turned,), location))
    return turned


def _known(mask: Any, trace: Trace, add: Any) -> Any:
    """A mask that was made by hand, as the causal mask that it is, whatever made it; any other one as it is."""
    allowed = causal_content(mask, trace)
    return mask if allowed is None else add("logical_not", (Literal(~allowed),), allowed)


def hidden_and_sloping(bias: Any, trace: Trace) -> tuple[Tensor, Tensor] | None:
    """What one tensor adds that is both, a decoder's mask and a bias that grows with the slot (ALiBi); else None.

    Args:
        bias: [*, N, L, S], with one row of numbers for a head up to a shift of each row.

    Returns:
        Which slots it shows, [L, S], and the bias of the last token, [1, N, 1, S]: a softmax does not see the shift.
    """
    tensor = bias.tensor if isinstance(bias, Value | Literal) else None
    if tensor is None or not tensor.is_floating_point() or tensor.ndim < 3 or trace.asked_for_masks:
        return None
    shown = ~(tensor < LOWEST)
    mask = ConstantRecognizer(trace.sample).mask(shown)
    if mask != (None, False):
        return None
    heads = tensor.float().reshape(-1, *tensor.shape[-3:])[0]
    last = heads[:, -1:] - heads[:, -1:, :1]
    apart = (heads - heads[..., :1] - last).abs()[shown.reshape(-1, *heads.shape)[0]]
    if not bool(last.any()) or bool((apart > 0.02 * last.abs().max()).any()):  # the trace's bfloat16
        return None
    return shown.reshape(-1, *tensor.shape[-2:])[0], last[None].to(tensor.dtype)


def causal_content(mask: Any, trace: Trace) -> Tensor | None:
    """Which slots a mask shows, if it is that of a decoder, with a window perhaps: by its content; else None.

    Masks that transformers made are recorded as such, and stay what they are.
    """
    tensor = mask.tensor if isinstance(mask, Value | Literal) else None
    if tensor is None or trace.asked_for_masks:
        return None
    if tensor.is_floating_point():
        hidden = tensor < LOWEST
        if not bool(((tensor == 0) | hidden).all()):
            return None
        tensor = ~hidden
    found = ConstantRecognizer(trace.sample).mask(tensor)
    if found is None:
        return None
    rows = tensor.reshape(-1, *tensor.shape[-2:])[0]
    return ~rows if found[1] else rows
