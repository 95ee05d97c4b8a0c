"""Other values for the keys of a config, to see what follows them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from trtllm_port.codegen.configs.size_tables import SIZES
from trtllm_port.codegen.configs.sizes import config_values
from trtllm_port.huggingface.options import is_activation, known_entries, known_names
from trtllm_port.layers.config.built_in import parameter_sets

TYPE = "rope_type"
CONTEXT = "max_position_embeddings"
_BASES = ("theta", "base")  # of rotary frequencies: tables of neighbouring ones cannot be told apart
_FEW, _MANY = 5, 24  # tokens: fewer and more than a traced text has
_SHORT = 48  # of the context that a rotary scaling is from
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": _SHORT},
    "llama3": {
        **{"factor": 8.0, "original_max_position_embeddings": _SHORT},
        **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    },
}
_OF_ALL_ROPES = ("rope_theta", "partial_rotary_factor")


def alternatives(key: str, value: Any, config: Any) -> list[Any]:
    """Other values for a key, to be tried in turn until the config class accepts one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        half = [value // 2] if value > 2 and value % 2 == 0 else []
        double = [value * 2] if value else []
        if any(word in key for word in _BASES):
            return [*double, value + 1]
        return [value + 1, *double, value - 1, *half]
    if isinstance(value, float):
        return [value * 1.5 if value else 0.1]
    if isinstance(value, str):
        return _other_names(key, value, config)
    if isinstance(value, list) and value:
        return [[other, *value[1:]] for item in value[:1] for other in alternatives(key, item, config)]
    if value is None:
        return _for_none(key, config)
    return []


def threshold(value: Any) -> list[int]:
    """Another value for a number that may be one of tokens, which the traced texts are longer than."""
    return [_FEW] if type(value) is int and value > _MANY else []


def optional(key: str, config: Any) -> bool:
    """Whether the config class allows None for a key."""
    return type(None) in get_args(_hints(config).get(key))


def _hints(config: Any) -> dict[str, Any]:
    """The annotations of a config class; those that are strings, of its base class, do not matter."""
    hints: dict[str, Any] = {}
    for base in reversed(type(config).__mro__):
        hints.update(vars(base).get("__annotations__", {}))
    return hints


def _other_names(key: str, value: str, config: Any) -> list[Any]:
    if is_activation(value):
        return [name for name in ("relu", "gelu") if name != value]
    kinds = ("full_attention", "sliding_attention", "chunked_attention") if value.endswith("attention") else ()
    return [name for name in dict.fromkeys([*known_names(config, key), *kinds]) if name != value]


def _for_none(key: str, config: Any) -> list[Any]:
    if key in SIZES:
        return [SIZES[key][1]]
    allowed = get_args(_hints(config).get(key))
    values = config_values(config)
    found: list[Any] = []
    if int in allowed:
        found += [3, values.get("hidden_size", 64)]
    if float in allowed:
        found.append(0.5)
    if bool in allowed:
        found.append(True)
    if str in allowed:
        found += known_names(config, key) or ["something"]
    return found or [3, 0.5]


def is_name(value: Any) -> bool:
    """Whether a key holds one of some names: each has to be tried, as what one of them does says nothing of others."""
    return isinstance(value, str) and not is_activation(value)


def ropes(value: Any) -> dict[str, dict[str, Any]]:
    """The types of rotary parameters, each as a key's other value; none for what holds no rotary parameters.

    Entries that are of no type (`mrope_section`) stay.
    """
    sets = parameter_sets(value)
    if not sets or not all(TYPE in one for one in sets):
        return {}
    own = {entry for parameters in ROPES.values() for entry in parameters}

    def of_type(parameters: dict[str, Any], kind: str) -> dict[str, Any]:
        kept = {name: item for name, item in parameters.items() if name in _OF_ALL_ROPES or name not in own}
        return {**kept, TYPE: kind, **ROPES[kind]}

    types = {one[TYPE] for one in sets}
    return {kind: _each(value, partial(of_type, kind=kind)) for kind in ROPES if {kind} != types}


def entries(key: str, value: Any, config: Any) -> list[str]:
    """The entries of a dict that may be changed alone: those that the code asks for, there or not, among them."""
    sets = parameter_sets(value)
    names = dict.fromkeys([*(name for one in sets for name in one), *known_entries(config, key)])
    nested = {name for one in sets for name, item in one.items() if isinstance(item, dict | list)}
    return [name for name in names if name not in (TYPE, *_OF_ALL_ROPES, *nested)]


def asked_for(key: str, config: Any) -> list[str]:
    """The entries of a dict that the modelling file itself asks for, whether they are there or not."""
    return [name for name in known_entries(config, key) if name not in (TYPE, *_OF_ALL_ROPES)]


def with_entry(value: dict[str, Any], name: str, config: Any) -> list[dict[str, Any]]:
    """Dicts that differ from one in an entry."""
    own = next((one[name] for one in parameter_sets(value) if name in one), None)
    others = [0.7, 3] if own is None else alternatives(name, own, config)
    return [_each(value, partial(_with, name=name, other=other)) for other in others]


def _each(value: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """A dict with its parameters changed, in every set of them."""
    sets = parameter_sets(value)
    if sets == [value]:
        return dict(change(value))
    return {name: change(item) for name, item in value.items()}


def _with(value: dict[str, Any], name: str, other: Any) -> dict[str, Any]:
    return {**value, name: other}
