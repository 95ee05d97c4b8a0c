"""What expressions are made of: the keys of the config, the layer's number, the layer's element of a list.

Each has one value per instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trtllm_port.codegen.ir.expressions import MISSING, Values
from trtllm_port.codegen.ir.nodes import Instance
from trtllm_port.foundation.quoting import is_name, is_word, literal
from trtllm_port.layers import PretrainedConfig

LONGEST = 8  # list whose elements have a meaning of their own each
#: Names that every port's config has for something else than the key of that name in `config.json`.
_TAKEN = frozenset(("architecture", "dtype", "mapping", *dir(PretrainedConfig))) - {"tie_word_embeddings"}


def field_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a config's values that a port's config can have as fields; others it can have built in."""
    return {key: value for key, value in values.items() if is_name(key) and key not in _TAKEN}


def _entries(text: str, column: Values) -> dict[str, Values]:
    """The entries that all values of a column of dicts have, inner dicts' included."""
    if not all(isinstance(value, dict) for value in column):
        return {}
    found: dict[str, Values] = {}
    for inner in filter(is_word, column[0]):
        if all(inner in value for value in column):
            entry, name = tuple(value[inner] for value in column), f"{text}[{literal(inner)}]"
            found |= {name: entry, **_entries(name, entry)}
    return found


def is_printable(value: Any) -> bool:
    """Whether a value may stand in the text of a port, to tell others from."""
    return isinstance(value, int) or (isinstance(value, str) and is_word(value))


def _elements(text: str, column: Values) -> dict[str, Values]:
    """The elements of short lists of numbers, equally many everywhere: lists of layers are longer or shorter."""
    if not all(isinstance(value, list) and 1 < len(value) <= LONGEST and _all_are(value, float) for value in column):
        return {}
    if len({len(value) for value in column}) > 1:
        return {}
    return {f"{text}[{place}]": tuple(value[place] for value in column) for place in range(len(column[0]))}


def numbers_of_kinds(configs: list[dict[str, Any]]) -> dict[str, Values]:
    """What lists with a number for each layer have for layers of one kind, where another list says the kinds."""
    found: dict[str, Values] = {}
    first = configs[0]
    kinds = [key for key, value in first.items() if isinstance(value, list) and value and _all_are(value, str)]
    lists = [key for key, value in first.items() if isinstance(value, list) and value and _all_are(value, int | float)]
    for key, by in ((key, by) for by in kinds for key in lists):
        for kind in filter(is_word, dict.fromkeys(first[by])):
            column = tuple(_of_kind(config.get(key), config.get(by), kind) for config in configs)
            if MISSING not in column:
                found[f"config.{key}[config.{by}.index({literal(kind)})]"] = column
    return found


def _all_are(values: list[Any], kinds: Any) -> bool:
    return all(isinstance(value, kinds) and not isinstance(value, bool) for value in values)


def _of_kind(numbers: Any, kinds: Any, kind: str) -> Any:
    """The number that all layers of a kind have."""
    if not isinstance(numbers, list) or not isinstance(kinds, list) or len(numbers) != len(kinds):
        return MISSING
    found = {number for number, own in zip(numbers, kinds, strict=True) if own == kind}
    return found.pop() if len(found) == 1 else MISSING


def _ordered(keys: Iterable[str], instances: list[Instance]) -> list[str]:
    """The keys of a config, those of other models' configs within it last: their sizes may be equal to the model's."""
    within = getattr(instances[0].trace.sample.config, "sub_configs", None) or {}
    return sorted(keys, key=lambda key: key in within)


def symbols_of(instances: list[Instance]) -> dict[str, Values]:
    """Text → value in each instance; earlier ones are preferred."""
    configs = [field_values(instance.trace.sample.values) for instance in instances]
    found: dict[str, Values] = {}
    for key in _ordered(dict.fromkeys(key for config in configs for key in config), instances):
        column = tuple(config.get(key) for config in configs)
        found[f"config.{key}"] = column
        found |= {**_entries(f"config.{key}", column), **_elements(f"config.{key}", column)}
    numbers = [instance.layer_idx for instance in instances]
    layers = tuple(number for number in numbers if number is not None)
    if len(layers) == len(numbers):
        found["layer_idx"] = layers
        for key in configs[0]:
            lists = [config[key] for config in configs if isinstance(config.get(key), list)]
            if len(lists) == len(configs) and all(n < len(v) for v, n in zip(lists, layers, strict=True)):
                column = tuple(v[n] for v, n in zip(lists, layers, strict=True))
                found[f"config.{key}[layer_idx]"] = column
    else:
        found |= numbers_of_kinds(configs)
    return found
