"""The config ledger: what becomes of every key of a model's config, with the evidence.

A key is changed on a tiny model, alone. Either nothing of the traced computation changes, bit by bit (ignored); or the
port's expressions follow the change (used); or they do not, and then the port has the model's value built in (fixed):
converting a model with another value is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from trtllm_port.codegen.configs.size_tables import META_KEYS
from trtllm_port.codegen.ir.record import Attribute
from trtllm_port.codegen.ir.structure import structure
from trtllm_port.codegen.lower.lowering import Lowered
from trtllm_port.codegen.merge.classes import flat_values
from trtllm_port.codegen.recognise.constants import stored_tensor


@dataclass
class Ledger:
    """Every key of the config, once.

    Attributes:
        used: keys that the port reads → how.
        fixed: keys whose value is built in → that value.
        ignored: keys that change nothing → why we know.
        accepted: keys, or entries of a dict (`rope_parameters.rope_type`) → the values that are taken; others are
            refused.
        notes: for fixed keys, what happened when they were changed.
    """

    used: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    accepted: dict[str, list[Any]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def same_computation(a: Lowered, b: Lowered) -> bool:
    """Whether two models compute the same: equal operations, values, constants and logits."""
    if not torch.equal(a.trace.logits.tensor, b.trace.logits.tensor) or len(a.blocks) != len(b.blocks):
        return False
    pairs = zip(a.blocks, b.blocks, strict=True)
    if any(x.path != y.path or structure(x) != structure(y) for x, y in pairs):
        return False
    return all(list(_content(a, i)) == list(_content(b, i)) for i in range(len(a.blocks)))


def _content(lowered: Lowered, index: int) -> Iterator[Any]:
    for value in flat_values(lowered.blocks[index], lowered.trace):
        if isinstance(value, torch.Tensor):
            yield value.dtype, tuple(value.shape), value.flatten().tolist()
        elif isinstance(value, Attribute):
            yield tuple(stored_tensor(lowered.trace.model, value.path).shape)
        else:
            yield value


def unread_entries(key: str, values: Sequence[Mapping[str, Any]], text: str) -> dict[str, Any]:
    """What a config within the config holds, equal in all traced configurations, that the port does not read.

    The port reads single entries of it, so it was never changed as a whole, and what else it holds is built in.

    Args:
        key: its name.
        values: those of the traced configurations.
        text: of the port.
    """
    first = values[0].get(key)
    if not isinstance(first, dict) or "model_type" not in first or re.search(rf"config\.{key}\b(?!\[)", text):
        return {}
    read = set(re.findall(rf"config\.{key}\[['\"](\w+)['\"]\]", text))
    mine = {entry for entry in first if entry not in META_KEYS and not entry.startswith("_")}
    return {
        entry: first[entry] for entry in sorted(mine - read) if all(v[key].get(entry) == first[entry] for v in values)
    }


def compared_names(values: Mapping[str, Any], traced: Iterable[Mapping[str, Any]], text: str) -> dict[str, list[Any]]:
    """What keys held in the traces that the port compares with names: any other name would be taken for the last.

    Args:
        values: of the config that is ported.
        traced: of the traced configurations.
        text: the port's classes.
    """
    compared = set(re.findall(r"\bconfig\.(\w+) (?:==|!=|in|not in) [\"'(]", text))
    names = [key for key, value in values.items() if isinstance(value, str) and key in compared]
    columns = list(traced)
    return {key: list(dict.fromkeys([values[key], *(column.get(key) for column in columns)])) for key in names}
