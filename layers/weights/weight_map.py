"""The exceptions between HF's names and a port's: data, not code.

    weight_map = {
        "*.rotary_emb.inv_freq": Drop("computed from the config"),
        "transformer.h.*.attn.bias": None,                                       # known and dropped
        "gpt.layers.*.weight": "model.layers.*.weight",                          # renamed
        ("*.q_proj.weight", "*.k_proj.weight"): Transform("*.qk.weight", [Concat(0)]),
        "*.experts.*.down.weight": Transform("*.experts.down_proj", [Stack(0), Transpose(1, 2)]),
        "*.qkv.weight": Transform("*.qkv.weight", regroup),                      # a named function
        Search(r"^mtp\\."): Drop("transformers ignores it, too"),                # a regular expression
    }

A pattern drops what the port has no parameter for: of layers that only some of are used, the others stay.

A `*` stands for one or more characters; in a target, the first `*` is what the first `*` of the source matched, and so
on. All sources of a transform that give the same targets go into one call: a target with fewer `*` collects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from trtllm_port.layers.weights.steps import Step

Pattern = str | tuple[str, ...]
LISTED = "listed in the weight map"


@dataclass(frozen=True)
class Search:
    """Names in which a regular expression is found, anywhere: what `_keys_to_ignore_on_load_unexpected` lists.

    It drops what nothing else has a use for, under its own name or under the one that the map gives it.

    Attributes:
        expression: as Python's `re` has it.
    """

    expression: str


@dataclass(frozen=True)
class Drop:
    """A tensor of HF's files that is no parameter.

    Attributes:
        reason: why, for the report.
    """

    reason: str


@dataclass(frozen=True)
class Transform:
    """A parameter, or several, computed from one tensor of HF's files, or several.

    Attributes:
        target: the parameter's name, or a tuple of names, with `*` as in the sources.
        function: steps, one after the other; or a function called with the port's config and the tensors, in the order
            of the source patterns and, within one pattern, of the numbers in their names, that returns a tensor for
            each target. It must work on meta tensors, because shapes are checked before anything is read.
    """

    target: Pattern
    function: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]] | Sequence[Step]

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,) if isinstance(self.target, str) else self.target


WeightMap = Mapping[Pattern | Search, str | Drop | Transform | None]


@dataclass(frozen=True)
class Rule:
    """One source pattern of a weight map, and what becomes of the tensors that it matches."""

    pattern: str
    position: int  # of the pattern among those of its entry
    action: str | Drop | Transform | None

    @property
    def drops_rest(self) -> bool:
        """Whether it drops those of the tensors that it matches that are no parameters."""
        return "*" in self.pattern and (self.action is None or isinstance(self.action, Drop))

    def match(self, name: str) -> tuple[str, ...] | None:
        """What the pattern's `*` stand for in `name`, or None."""
        found = _compiled(self.pattern).fullmatch(name)
        return None if found is None else found.groups()


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("(.+?)".join(re.escape(part) for part in pattern.split("*")))


def rules(weight_map: WeightMap) -> list[Rule]:
    """The map's rules, exact names before patterns."""
    found = [
        Rule(pattern, position, action)
        for patterns, action in weight_map.items()
        if not isinstance(patterns, Search)
        for position, pattern in enumerate((patterns,) if isinstance(patterns, str) else patterns)
    ]
    return sorted(found, key=lambda rule: "*" in rule.pattern)


def searches(weight_map: WeightMap) -> dict[str, str]:
    """The map's regular expressions → why it drops the names in which they are found."""
    return {
        key.expression: action.reason if isinstance(action, Drop) else LISTED
        for key, action in weight_map.items()
        if isinstance(key, Search)
    }


def making(weight_map: WeightMap, parameter: str) -> Pattern | None:
    """The key of the entry that makes a parameter; None where it is taken as it is."""
    for patterns, action in weight_map.items():
        if isinstance(patterns, Search):
            continue
        targets = action.targets if isinstance(action, Transform) else (action,) if isinstance(action, str) else ()
        if any(_compiled(target).fullmatch(parameter) for target in targets):
            return patterns
    return None


def fill(pattern: str, parts: tuple[str, ...]) -> str:
    """`pattern` with its `*` replaced by the first of `parts`."""
    pieces = pattern.split("*")
    filled = pieces[0]
    for part, piece in zip(parts, pieces[1:], strict=False):
        filled += part + piece
    return filled


def natural_key(name: str) -> tuple[Any, ...]:
    """A key that sorts `layers.10` behind `layers.9`."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))
