"""What expressions of a class are made of: config keys, the layer's number, arguments, attributes, as columns.

A column has the value in each instance.
"""

from __future__ import annotations

from typing import Any

from trtllm_port.codegen.expressions import MISSING, Values
from trtllm_port.codegen.instances import Instance

NO_SIZES = frozenset(("training", "layer_idx"))  # attributes and arguments of HF's modules that are no sizes


def same(values: Values, column: Values) -> bool:
    """Whether values are those of a column, where they are there at all."""
    return all(a is MISSING or a == b for a, b in zip(values, column, strict=True))


def columns(tables: list[dict[str, Any]]) -> dict[str, Values]:
    """Name → its value in each instance, for the numbers and options among what modules were made with, or hold."""
    names = {name for table in tables for name, value in table.items() if isinstance(value, int | float)}
    return {
        name: tuple(table.get(name, MISSING) for table in tables)
        for name in dict.fromkeys(name for table in tables for name in table)
        if name in names and name[0] != "_" and name not in NO_SIZES
    }


def _entries(text: str, column: Values) -> dict[str, Values]:
    """The entries that all values of a column of dicts have, inner dicts' included."""
    if not all(isinstance(value, dict) for value in column):
        return {}
    found: dict[str, Values] = {}
    for inner in column[0]:
        if all(inner in value for value in column):
            entry = tuple(value[inner] for value in column)
            found |= {f'{text}["{inner}"]': entry, **_entries(f'{text}["{inner}"]', entry)}
    return found


def atoms(instances: list[Instance]) -> dict[str, Values]:
    """The config's keys in each instance, entries of dicts included, and the layer's number."""
    configs = [instance.trace.sample.values for instance in instances]
    found: dict[str, Values] = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        column = tuple(config.get(key) for config in configs)
        found[f"config.{key}"] = column
        found |= _entries(f"config.{key}", column)
    numbers = [instance.layer_idx for instance in instances]
    layers = tuple(number for number in numbers if number is not None)
    if len(layers) == len(numbers):
        found["layer_idx"] = layers
        for key in configs[0]:
            lists = [config[key] for config in configs if isinstance(config.get(key), list)]
            if len(lists) == len(configs) and all(n < len(v) for v, n in zip(lists, layers, strict=True)):
                column = tuple(v[n] for v, n in zip(lists, layers, strict=True))
                found[f"config.{key}[layer_idx]"] = column
    return found
