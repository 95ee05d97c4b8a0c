"""What transformers' code adds to a config: its class, in properties, and its model, where a key is null.

Properties are what `config.json` does not hold and a port may read.

They say best what layers are (Jamba: `layers_block_type` follows from `attn_layer_period` and `attn_layer_offset`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from trtllm_port.codegen.configs.size_tables import LAYER_COUNTS
from trtllm_port.huggingface.configs import own_properties
from trtllm_port.huggingface.loading import make_on_paper


def computed_values(config: Any, values: dict[str, Any]) -> dict[str, Any]:
    """How many layers there are, where no key says so, and lists with an element for each layer.

    Args:
        config: a Hugging Face config.
        values: its keys, as `config_values` gives them.
    """
    found: dict[str, Any] = {}
    for name in own_properties(type(config)):
        if name not in values and not name.startswith("_"):
            with suppress(Exception):  # any: the class may compute it for some configs only
                found[name] = getattr(config, name)
    counts = {name: found[name] for name in LAYER_COUNTS if type(found.get(name)) is int}
    count = next((values[name] for name in LAYER_COUNTS if type(values.get(name)) is int), None)
    if count is None:
        count = next(iter(counts.values()), None)
    else:
        counts = {}
    return counts | {name: value for name, value in found.items() if _is_by_layer(value, count)}


def written_values(config: Any, keys: Iterable[str], trust_remote_code: bool = False) -> dict[str, Any]:
    """What a model writes into its config, where a key is null, as it is made (Falcon: `num_ln_in_parallel_attn`).

    Args:
        config: a Hugging Face config, which is left as it is.
        keys: those that are null.
        trust_remote_code: run modelling code that comes with the model.
    """
    copied = copy.deepcopy(config)
    make_on_paper(copied, trust_remote_code=trust_remote_code)
    found = {key: getattr(copied, key, None) for key in keys}
    return {key: value for key, value in found.items() if isinstance(value, bool | int | float | str)}


def feeds(key: str, others: list[Any], made_with: Callable[[str, Any], dict[str, Any]]) -> list[str]:
    """The names among what is computed that follow from a key.

    Args:
        others: values that the key does not have.
        made_with: key and value → what a config computes whose key has that value.
    """
    plain = made_with("", None)
    for other in others:
        with suppress(Exception):  # any: the class may refuse the value
            changed = made_with(key, other)
            if names := [name for name, value in plain.items() if changed.get(name) != value]:
                return names
    return []


def _is_by_layer(value: Any, count: int | None) -> bool:
    is_list = isinstance(value, list) and bool(value) and len(value) == count
    return is_list and all(isinstance(item, str | int | float) for item in value)
