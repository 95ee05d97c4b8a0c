"""Replaces chains of steps by one torch call where that gives the same bits.

A port writes SiLU in low precision as Hugging Face computes it: cast to float32, `x * sigmoid(x)`, cast back. Four
steps, where torch has one that moves an eighth of the bytes. A function of one 16-bit number has 65536 values, so
whether the two agree is not argued but tried, on this machine, for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from trtllm_port.runtime.network import TensorRecord
from trtllm_port.runtime.reference.program import Draft

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def fused(
    drafts: Sequence[Draft], keep: Collection[int], tensors: Mapping[str, TensorRecord], device: torch.device
) -> list[Draft]:
    """The steps with every SiLU chain as one, where nothing in `keep` and no other step reads what is inside it."""
    makers = {draft.output: draft for draft in drafts}
    readers = Counter(slot for draft in drafts for slot in draft.reads)
    gone: set[int] = set()
    replaced: dict[int, Draft] = {}
    for last in drafts:
        chain = _silu_chain(last, makers)
        if chain is None:
            continue
        first, sigmoid, product = chain
        inside = {first.output: 2, sigmoid.output: 1, product.output: 1}
        private = all(readers[slot] == count and slot not in keep for slot, count in inside.items())
        name = tensors[first.layer.inputs[0] or ""].dtype
        narrow = name in HALVES and last.layer.attributes["to_type"] == name
        if private and narrow and silu_agrees(HALVES[name], device):
            gone |= inside.keys()
            replaced[last.output] = Draft(F.silu, first.inputs, last.output, last.layer)
    return [replaced.get(draft.output, draft) for draft in drafts if draft.output not in gone]


def _silu_chain(last: Draft, makers: Mapping[int, Draft]) -> tuple[Draft, Draft, Draft] | None:
    """The cast, the sigmoid and the product before a cast, if that is what is there."""
    product = makers.get(last.inputs[0]) if last.layer.type == "CAST" else None
    if product is None or product.layer.type != "ELEMENTWISE" or product.layer.attributes["op"] != "PROD":
        return None
    for wide, gate in (product.inputs, product.inputs[::-1]):
        first, sigmoid = makers.get(wide), makers.get(gate)
        if first is None or sigmoid is None or first.layer.type != "CAST" or sigmoid.layer.type != "ACTIVATION":
            continue
        activates = sigmoid.layer.attributes["type"] == "SIGMOID" and sigmoid.inputs == (wide,)
        if activates and first.layer.attributes["to_type"] == "float32":
            return first, sigmoid, product
    return None


@cache
def silu_agrees(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether torch's SiLU equals the chain for every number of the dtype, in its vector and its scalar code."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32, device=device).to(torch.int16).view(dtype)
    strided = numbers.repeat_interleave(2)[::2]
    return all(_bits(F.silu(x)).equal(_bits(_chain(x))) for x in (numbers, strided))


def _chain(x: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.sigmoid(wide)).to(x.dtype)


def _bits(x: Tensor) -> Tensor:
    return torch.nan_to_num(x, nan=12345.0).contiguous().view(torch.int16)
