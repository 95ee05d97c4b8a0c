"""Short convolutions over the tokens that a module computes: padded before and behind, and cut."""

from __future__ import annotations

from typing import Any

from torch import nn

from trtllm_port.codegen.ir.nodes import Leaf
from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.record import probing

Uses = dict[Value, list[Operation]]


def causal_convolution(call: Call, uses: Uses) -> tuple[Leaf, Value, tuple[Value, ...]] | None:
    """The `CausalConv1d` that a call is, what it is given, and its results that hold as many tokens; or None.

    Every channel has a filter of its own of K tokens, and K - 1 zeros stand before the text. The K - 1 results behind
    the last token, which torch gives for padding on both sides, must be cut off everywhere.
    """
    module: Any = call.module
    given = [leaf for leaf in leaves(call.args) if isinstance(leaf, Value)]
    if not isinstance(module, nn.Conv1d) or len(given) != 1 or len(call.outputs) != 1:
        return None
    plain = (module.stride, module.dilation, module.padding_mode) == ((1,), (1,), "zeros")
    leaf = probing.convolution(module)
    if leaf is None or not plain or module.groups != module.in_channels:
        return None
    if module.padding != (module.kernel_size[0] - 1,):
        return None
    length = given[0].tensor.shape[-1]
    following = uses.get(call.outputs[0], [])
    if not following or not all(_cuts(use, length) for use in following):
        return None
    return leaf, given[0], tuple(use.outputs[0] for use in following)


def _cuts(use: Operation, length: int) -> bool:
    index = use.args[1] if use.name in ("__getitem__", "getitem") else None
    if not isinstance(index, tuple) or not index:
        return False
    *others, last = index
    whole = all(item is Ellipsis or item == slice(None) for item in others)
    return whole and isinstance(last, slice) and last in (slice(None, length), slice(None, length, None))
