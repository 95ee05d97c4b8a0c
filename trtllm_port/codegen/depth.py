"""How few layers show everything that the layers of a model do, and a config with so many.

Layers may differ by lists in the config (`layer_types`), or by numbers (every fourth layer, the first three). The model
of the config's own depth, without memory for its weights, tells: two layers are of a kind if their modules, the
modules' settings and the shapes of their weights are equal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any, get_args, get_origin

import torch
from torch import nn

from trtllm_port.codegen.size_tables import LAYER_COUNTS

LAYERS = 4
MOST = 12  # layers in a trace, unless the config's lists need more
_NAMES_LAYERS = re.compile(r"layer|_idx|indices")
_OPTIONS = (bool, int, str, type(None))


def layer_count_key(values: dict[str, Any]) -> str | None:
    """The key that counts the decoder layers, or None."""
    return next((key for key in LAYER_COUNTS if isinstance(values.get(key), int)), None)


def shorten(values: dict[str, Any], config: Any, needed: int | None, more: int = 0) -> dict[str, Any]:
    """Few layers, but every kind of layer.

    Args:
        values: as `config_values` gives them.
        config: what they are of.
        needed: how many of the first layers show every kind; None if that is not known.
        more: layers beyond those that suffice.
    """
    key = layer_count_key(values)
    if key is None:
        return values
    total = values[key]
    lists = {name: value for name, value in values.items() if _is_per_layer(name, value, total, config)}
    first = max(LAYERS, needed or 0, _first_combinations(lists, total)) + more
    if needed is not None and first <= MOST:
        chosen = list(range(min(first, total)))
    else:
        chosen = _combinations(lists, total, LAYERS + more)
    chosen += [chosen[-1]] * (max(LAYERS + more, len(chosen)) - len(chosen))  # a config with fewer layers
    shortened = {name: [value[index] for index in chosen] for name, value in lists.items()}
    numbers = {name: [i for i in value if i < len(chosen)] for name, value in _layer_numbers(values, total)}
    counts = {name: len(chosen) for name in LAYER_COUNTS if values.get(name) == total}
    return {**values, **shortened, **numbers, **counts}


def _is_per_layer(name: str, value: Any, total: int, config: Any) -> bool:
    """Whether a list has an element for each layer; annotations tell pairs and triples apart from it."""
    if not isinstance(value, list) or len(value) != total or total < 2:
        return False
    hints = (vars(base).get("__annotations__", {}).get(name) for base in type(config).__mro__)
    hint = next((hint for hint in hints if hint is not None), None)
    kinds = [hint, *get_args(hint)]
    return not any(get_origin(kind) is tuple and Ellipsis not in get_args(kind) for kind in kinds)


def _layer_numbers(values: dict[str, Any], total: int) -> Iterator[tuple[str, list[int]]]:
    """Lists that name layers by their numbers, as `attn_layer_indices`."""
    for name, value in values.items():
        if isinstance(value, list) and value and len(value) != total and _NAMES_LAYERS.search(name):
            ints = all(type(item) is int for item in value)
            if ints and value == sorted(set(value)) and value[0] >= 0 and value[-1] <= total:
                yield name, value


def _first_combinations(lists: dict[str, list[Any]], total: int) -> int:
    """How many of the first layers show every combination of the values of per-layer lists."""
    combinations = [json.dumps([value[index] for value in lists.values()]) for index in range(total)]
    return 1 + max(combinations.index(item) for item in set(combinations))


def _combinations(lists: dict[str, list[Any]], total: int, wanted: int) -> list[int]:
    """Layers with every combination of the values of per-layer lists, and at least `wanted`."""
    chosen: list[int] = []
    seen: set[str] = set()
    for index in range(total):
        combination = json.dumps([value[index] for value in lists.values()])
        if combination not in seen:
            seen.add(combination)
            chosen.append(index)
    chosen += [index for index in range(total) if index not in chosen][: max(0, wanted - len(chosen))]
    return sorted(chosen)


def layers_needed(model: nn.Module, total: int) -> int | None:
    """How many of the first layers show every kind of layer; None if the model has no list of so many layers."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    if not lists or total < 2:
        return None
    return max(_needed(list(layers)) for layers in lists)


def _needed(layers: list[nn.Module]) -> int:
    settings = [_settings(layer) for layer in layers]
    numbering = _numbering(settings)
    kinds = [
        json.dumps({key: value for key, value in table.items() if key not in numbering}, default=str)
        for table in settings
    ]
    return 1 + max(kinds.index(kind) for kind in set(kinds))


def _settings(layer: nn.Module) -> dict[str, Any]:
    """What tells a layer's kind: classes, shapes, and attributes that are options; any number may be a layer's own."""
    found: dict[str, Any] = {}
    for path, module in layer.named_modules():
        found[path] = type(module).__name__
        for name, value in vars(module).items():
            if isinstance(value, _OPTIONS) and not name.startswith("_") and name != "training":
                found[f"{path}:{name}"] = value
        for name, parameter in module.named_parameters(recurse=False):
            found[f"{path}.{name}"] = tuple(parameter.shape)
    return found


def _numbering(settings: list[dict[str, Any]]) -> set[str]:
    """Attributes that only number the layers: they grow by the same amount from layer to layer."""
    found = set()
    for key in set().union(*settings):
        pairs = [(index, table[key]) for index, table in enumerate(settings) if key in table]
        if len(pairs) > 1 and all(type(value) is int for _, value in pairs):
            rises = {Fraction(b - a, j - i) for (i, a), (j, b) in pairwise(pairs)}
            if len(rises) == 1 and rises != {0}:
                found.add(key)
    return found


def model_on_paper(config: Any, trust_remote_code: bool = False) -> nn.Module:
    """The model of a config without memory for its weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return model
