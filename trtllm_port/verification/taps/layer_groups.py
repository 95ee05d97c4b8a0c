"""Modules that are one class in several layers: one mistake in the source, however often it is found."""

from __future__ import annotations

import re
from collections.abc import Sequence

LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
NAMED = 3


def group_across_layers(modules: Sequence[str]) -> list[list[int]]:
    """Return the indices of paths that differ in layer numbers only, by group, in the order of the first of each."""
    groups: dict[str, list[int]] = {}
    for index, module in enumerate(modules):
        groups.setdefault(LAYER_NUMBER.sub("*", module), []).append(index)
    return list(groups.values())


def name_a_few(modules: Sequence[str]) -> str:
    """Name a few of them and count the rest."""
    more = len(modules) - NAMED
    return ", ".join(modules[:NAMED]) + (f" and {more} more" if more > 0 else "")
