"""Configs whose layers differ: what transformers' `per_layer_config` says, as one list of values for each key.

On such a config `head_dim`, say, has no value of its own: transformers refuses to give one. Here it is a list with an
element for each layer, as `layer_types` is; a port's field is that list, too.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

KEY = "per_layer_config"


def per_layer_keys(config: Any) -> tuple[str, ...]:
    """The keys that a `transformers` config gives layer by layer; none for most."""
    if not getattr(config, "is_heterogeneous", False):
        return ()
    spec = config._heterogeneity_spec  # the public properties leave out keys of which all layers have one value
    skips = ("skip",) if any("skip" in layer for layer in spec.per_layer_overrides.values()) else ()
    return (*sorted(spec.explicit_per_layer_attributes), *skips)


def of_layers(config: Any, key: str) -> list[Any]:
    """The value of a key in every layer, of any config that counts its layers."""
    return [getattr(layer, key) for layer in config.per_layer_config]


def config_value(config: Any, key: str, default: Any = None) -> Any:
    """The value of a key, or the list of the layers' values."""
    return of_layers(config, key) if key in per_layer_keys(config) else getattr(config, key, default)


def plain_values(config: Any) -> dict[str, Any]:
    """`config.to_dict()` with a list for every key that differs from layer to layer, and without `per_layer_config`."""
    values = {name: value for name, value in config.to_dict().items() if name != KEY}
    return {**values, **{key: of_layers(config, key) for key in per_layer_keys(config)}}


def as_arguments(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """What to make a config with so that `plain_values` gives `values` again, `keys` having a list each."""
    lists = {key: values[key] for key in keys if isinstance(values.get(key), list)}
    if not keys:
        return values
    layers = range(max(map(len, lists.values()), default=0))
    common = {key: Counter(map(repr, column)).most_common(1)[0][0] for key, column in lists.items()}
    whole = {key: next(v for v in column if repr(v) == common[key]) for key, column in lists.items() if key != "skip"}
    rest = {name: value for name, value in values.items() if name not in lists}
    return {**rest, **whole, KEY: {i: {key: column[i] for key, column in lists.items()} for i in layers}}
