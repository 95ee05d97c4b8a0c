"""What expressions are made of: the keys of the config, the layer's number, the layer's element of a list.

Each has one value per instance.
"""

from __future__ import annotations

from collections.abc import Iterable

from trtllm_port.codegen.expressions import Values
from trtllm_port.codegen.instances import Instance


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


def _ordered(keys: Iterable[str], instances: list[Instance]) -> list[str]:
    """The keys of a config, those of other models' configs within it last: their sizes may be equal to the model's."""
    within = getattr(instances[0].trace.sample.config, "sub_configs", None) or {}
    return sorted(keys, key=lambda key: key in within)


def atoms_of(instances: list[Instance]) -> dict[str, Values]:
    """Text → value in each instance; earlier ones are preferred."""
    configs = [instance.trace.sample.values for instance in instances]
    found: dict[str, Values] = {}
    for key in _ordered(dict.fromkeys(key for config in configs for key in config), instances):
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
