"""Arguments and results as trees of tuples, lists, dicts and slices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_TREES = (tuple, list, dict, slice)


def map_structure(function: Callable[[Any], Any], tree: Any) -> Any:
    """`tree` with `function` applied to every leaf of its tuples, lists, dicts and slices."""
    if isinstance(tree, slice):
        return slice(*(map_structure(function, part) for part in (tree.start, tree.stop, tree.step)))
    if isinstance(tree, torch.Size):
        return tuple(map_structure(function, item) for item in tree)
    if isinstance(tree, tuple | list):
        return type(tree)([map_structure(function, item) for item in tree]) if type(tree) in (tuple, list) else tree
    if isinstance(tree, dict):
        return {key: map_structure(function, item) for key, item in tree.items()}
    return function(tree)


def leaves(tree: Any) -> list[Any]:
    """The leaves of tuples, lists, dicts (and `ModelOutput`, which is one) and slices, in order."""
    if isinstance(tree, slice):
        return [tree.start, tree.stop, tree.step]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        return [tree]
    found: list[Any] = []
    for item in tree:
        if isinstance(item, _TREES):
            found += leaves(item)
        else:  # without a call: a model has hundreds of thousands of leaves
            found.append(item)
    return found
