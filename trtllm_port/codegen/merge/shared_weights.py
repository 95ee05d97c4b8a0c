"""Blocks of layers that have the weights of earlier ones: the first few blocks, again and again in turn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from trtllm_port.codegen.ir.expressions import MISSING, Values

Pair = tuple[str, str]  # names of one parameter
_OF_LAYER = re.compile(r"^(?P<layers>.+)\.(?P<index>\d+)\.(?P<block>\w+)\.")


@dataclass(frozen=True)
class SharedBlocks:
    """Blocks with the same weights.

    Attributes:
        layers: the path of the list of layers.
        block: the name of the block in a layer; some layers may have none.
        counts: how many different ones there are, in each of the models; MISSING where each has its own weights.
        pairs: the names of parameters that this ties, in each of the models.
    """

    layers: str
    block: str
    counts: Values
    pairs: tuple[frozenset[Pair], ...]


def shared_blocks(models: list[nn.Module], tied: list[set[Pair]]) -> Iterator[SharedBlocks]:
    """The blocks that are repeated in turn in all models.

    Args:
        models: of different sizes.
        tied: for each of them the two names of every parameter that has two.
    """
    places = {(found["layers"], found["block"]) for pairs in tied for found in _same_place(pairs)}
    for layers, block in sorted(places):
        of_place = [frozenset(pair for pair in pairs if _is_at(pair, layers, block)) for pairs in tied]
        counts = [_in_turn(model, layers, block, own) for model, own in zip(models, of_place, strict=True)]
        if None not in counts and any(of_place):
            yield SharedBlocks(layers, block, tuple(counts), tuple(of_place))


def _same_place(pairs: Iterable[Pair]) -> Iterator[re.Match[str]]:
    for first, second in pairs:
        a, b = _OF_LAYER.match(first), _OF_LAYER.match(second)
        if a and b and (a["layers"], a["block"]) == (b["layers"], b["block"]):
            yield a


def _is_at(pair: Pair, layers: str, block: str) -> bool:
    return all((found := _OF_LAYER.match(name)) and found.group("layers", "block") == (layers, block) for name in pair)


def _in_turn(model: nn.Module, layers: str, block: str, pairs: frozenset[Pair]) -> Any:
    """How many blocks there are before they repeat, or MISSING; None if they do so otherwise, or only in part."""
    if not pairs:
        return MISSING
    blocks = {
        f"{layers}.{index}.{block}": dict(getattr(layer, block).named_parameters())
        for index, layer in enumerate(model.get_submodule(layers).children())
        if hasattr(layer, block)
    }
    paths = list(blocks)
    for count in range(1, len(paths) + 1):
        firsts = {path: paths[place % count] for place, path in enumerate(paths) if place >= count}
        wanted = {(f"{first}.{name}", f"{path}.{name}") for path, first in firsts.items() for name in blocks[path]}
        if wanted == pairs:
            return count
    return None
