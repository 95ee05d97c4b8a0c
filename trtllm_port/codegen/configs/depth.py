"""How few layers show everything that the layers of a model do, and a config with so many.

Layers may differ by lists in the config (`layer_types`), or by numbers (every fourth layer, the first three). The model
of the config's own depth, without memory for its weights, tells: two layers are of a kind if their modules, the
modules' settings and the shapes of their weights are equal.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, get_args, get_origin

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from trtllm_port.codegen.configs.computed_keys import computed_values
from trtllm_port.codegen.configs.size_tables import DECODER_COUNTS, ENCODER_COUNTS, LAYER_COUNTS
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.loading import make_on_paper

LAYERS = 4
MOST_PARAMETERS = 200_000_000  # of a model that is made to be traced
MOST = 12  # layers in a trace, unless the config's lists need more
_NAMES_LAYERS = re.compile(r"layer|_idx|indices")
_STACK = re.compile(r"layers_per_|_layers$")
_OPTIONS = (bool, int, str, type(None))


def layer_count_key(values: dict[str, Any]) -> str | None:
    """The key that counts the decoder layers, or None."""
    return next((key for key in LAYER_COUNTS if isinstance(values.get(key), int)), None)


def _layers(config: Any, values: dict[str, Any]) -> int | None:
    """How many layers a config has: a key says so, or its class counts them; else None."""
    computed = computed_values(config, values)
    key = _stack_key(config, values) or layer_count_key({**values, **computed})
    return None if key is None else int({**values, **computed}[key])


def _stack_key(config: Any, values: dict[str, Any]) -> str | None:
    """The key that counts the layers of one stack, where the usual one counts how often layers run; else None.

    The config's class tells: without this key it takes the usual one for it, and multiplies that.
    """
    key = layer_count_key(values)
    if key is None:
        return None
    others = {name: value for name, value in values.items() if _STACK.search(name) and type(value) is int and value}
    for name, value in others.items():
        rest = {other: own for other, own in values.items() if other not in (name, key)}
        with suppress(Exception):  # any: the class may need the key
            made = type(config)(**rest, **{key: value})
            if getattr(made, name) == value and getattr(made, key) == values[key] != value:
                return name
    return None


@dataclass(frozen=True)
class Depth:
    """How to shorten a config.

    Attributes:
        first: how many of the first layers show every kind; None: choose layers by the config's lists.
        scaled: numbers of layers among the keys (`num_kv_shared_layers`) shrink in proportion.
        each: how many layers of each combination of the lists' values to choose: two show that one has the other's
            weights.
    """

    first: int | None
    scaled: bool = False
    each: int = 1


def find_depth(config: Any, values: dict[str, Any], make_config: Callable[[dict[str, Any]], Any]) -> Depth:
    """The least depth that shows every kind of layer, or as many as a few layers can show.

    Args:
        config: of the user's depth.
        values: its values, as `config_values` gives them.
        make_config: makes a config of other values.
    """
    total = _layers(config, values)
    model = _on_paper(config)
    kinds = None if total is None or model is None else _kinds(model, total, _OPTIONS)
    if total is None or model is None or kinds is None:
        return Depth(None)
    if _shares_weights(model, total):
        return Depth(None, each=2)
    first = 1 + max(kinds.index(kind) for kind in kinds)
    if first <= MOST:
        return Depth(first)
    options = tuple(kind for kind in _OPTIONS if kind is not int)  # numbers of layers are others at another depth
    wanted = set(_kinds(model, total, options) or ())
    missing: dict[int, int] = {}
    for count in range(LAYERS, MOST + 1):
        with suppress(Exception):  # any: the config class may refuse the depth
            short = shorten(values, config, Depth(count, scaled=True))
            if (small := _on_paper(make_config(short))) and (found := _kinds(small, count, options)):
                missing[count] = len(wanted - set(found))
    best = min(missing, key=lambda count: missing[count], default=None)
    return Depth(best, scaled=best is not None)


def _on_paper(config: Any) -> nn.Module | None:
    """As `make_on_paper`; None for a model that computes with its weights when it is made, which takes memory."""
    try:
        return make_on_paper(config)
    except Exception:  # any: it is Hugging Face's code that runs here
        return None


def _shares_weights(model: nn.Module, total: int) -> bool:
    """Whether layers have weights of other layers."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    own = [[id(p) for layer in layers for p in layer.parameters()] for layers in lists]
    return any(len(set(ids)) < len(ids) for ids in own)


def _kinds(model: nn.Module, total: int, options: tuple[type, ...]) -> list[str] | None:
    """The kind of each layer; None if the model does not tell."""
    lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    return (
        [" ".join(kinds) for kinds in zip(*(kinds_of(layers, options) for layers in lists), strict=True)]
        if lists
        else None
    )


def lengthen(
    values: dict[str, Any],
    config: Any,
    depth: Depth,
    more: int,
    read_back: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """As `shorten`, with more layers than suffice: the next ones, or like the last, if that is what the class takes.

    Args:
        values, config, depth: as of `shorten`.
        more: how many layers.
        read_back: what a config made with some values has as its values.
    """
    following, ending = (shorten(values, config, depth, more, from_end=end) for end in (False, True))
    with suppress(Exception):  # any: the config class may refuse the depth
        lists = [name for name, value in following.items() if isinstance(value, list)]
        changed = read_back(following)
        if any(changed.get(name) != following[name] for name in lists):
            return ending
    return following


def shorten(
    values: dict[str, Any], config: Any, depth: Depth, more: int = 0, *, from_end: bool = False
) -> dict[str, Any]:
    """Few layers, but every kind of layer.

    Args:
        values: as `config_values` gives them.
        config: what they are of.
        depth: see `find_depth`.
        more: layers beyond those that suffice.
        from_end: these are like the model's last one, not like the next ones.
    """
    total = _layers(config, values)
    if total is None:
        return values
    lists = {name: value for name, value in values.items() if _is_per_layer(name, value, total, config)}
    first = max(LAYERS, depth.first or 0, 0 if depth.scaled else _first_combinations(lists, total)) + more
    if depth.first is not None and first <= MOST + more:
        chosen = list(range(min(first, total)))
    else:
        chosen = _combinations(lists, total, LAYERS + more, depth.each)
    chosen += [chosen[-1]] * (max(LAYERS + more, len(chosen)) - len(chosen))  # a config with fewer layers
    if more and from_end:
        chosen[-more:] = [total - 1] * more
    shortened = {name: [value[index] for index in chosen] for name, value in lists.items()}
    numbers = {
        name: [place for place, index in enumerate(chosen) if index in value]
        for name, value in _layer_numbers(values, total)
    }
    tables = {name: _of_layers(value, len(chosen)) for name, value in values.items() if _is_by_number(value)}
    counts = {name: len(chosen) for name in LAYER_COUNTS if values.get(name) == total}
    stack, key = _stack_key(config, values), layer_count_key(values)
    if stack and key:
        counts |= {stack: len(chosen), key: values[key] // total * len(chosen)}
    if layer_count_key(values) in DECODER_COUNTS:  # a cache has as many layers as the first count says: the encoder's
        counts |= {name: len(chosen) for name in ENCODER_COUNTS if name in values}
    parts = {name: max(1, round(value * len(chosen) / total)) for name, value in _parts(values, total)}
    return {**values, **shortened, **numbers, **tables, **(parts if depth.scaled else {}), **counts}


def _is_by_number(value: Any) -> bool:
    """Whether a value is a table with the numbers of layers as keys."""
    return isinstance(value, dict) and bool(value) and all(str(key).isdigit() for key in value)


def _of_layers(table: dict[str, Any], count: int) -> dict[str, Any]:
    return {key: value for key, value in table.items() if int(key) < count}


def _parts(values: dict[str, Any], total: int) -> Iterator[tuple[str, int]]:
    """Keys that count some of the layers."""
    for name, value in values.items():
        if name.endswith("_layers") and name not in LAYER_COUNTS and type(value) is int and 0 < value < total:
            yield name, value


def _is_per_layer(name: str, value: Any, total: int, config: Any) -> bool:
    """Whether a list has an element for each layer; annotations tell pairs and triples apart from it."""
    if not isinstance(value, list) or len(value) != total or total < 2 or _numbers_all(name, value):
        return False
    hints = (vars(base).get("__annotations__", {}).get(name) for base in type(config).__mro__)
    hint = next((hint for hint in hints if hint is not None), None)
    kinds = [hint, *get_args(hint)]
    return not any(get_origin(kind) is tuple and Ellipsis not in get_args(kind) for kind in kinds)


def _numbers_all(name: str, value: list[Any]) -> bool:
    """Whether a list with an element for each layer names them all by their numbers, as `moe_layers` may."""
    return _NAMES_LAYERS.search(name) is not None and value == list(range(len(value)))


def _layer_numbers(values: dict[str, Any], total: int) -> Iterator[tuple[str, list[int]]]:
    """Lists that name layers by their numbers, as `attn_layer_indices`."""
    for name, value in values.items():
        if not isinstance(value, list) or not value or not _NAMES_LAYERS.search(name):
            continue
        if len(value) != total or _numbers_all(name, value):
            ints = all(type(item) is int for item in value)
            if ints and value == sorted(set(value)) and value[0] >= 0 and value[-1] <= total:
                yield name, value


def _first_combinations(lists: dict[str, list[Any]], total: int) -> int:
    """How many of the first layers show every combination of the values of per-layer lists."""
    combinations = [json.dumps([value[index] for value in lists.values()]) for index in range(total)]
    return 1 + max(combinations.index(item) for item in set(combinations))


def _combinations(lists: dict[str, list[Any]], total: int, wanted: int, each: int) -> list[int]:
    """`each` layers with every combination of the values of per-layer lists, and at least `wanted`."""
    chosen: list[int] = []
    seen: Counter[str] = Counter()
    for index in range(total):
        combination = json.dumps([value[index] for value in lists.values()])
        seen[combination] += 1
        if seen[combination] <= each:
            chosen.append(index)
    chosen += [index for index in range(total) if index not in chosen][: max(0, wanted - len(chosen))]
    return sorted(chosen)


def kinds_of(layers: list[nn.Module], options: tuple[type, ...] = _OPTIONS) -> list[str]:
    """The kind of each of the layers: equal for layers that compute the same with weights of equal shapes.

    Args:
        layers: in their order.
        options: types of the attributes that tell kinds apart.
    """
    settings = [_settings(layer, options) for layer in layers]
    numbering = _numbering(settings)
    return [
        json.dumps({key: value for key, value in table.items() if key not in numbering}, default=str)
        for table in settings
    ]


def _settings(layer: nn.Module, options: tuple[type, ...]) -> dict[str, Any]:
    """What tells a layer's kind: classes, shapes, and attributes that are options; any number may be a layer's own."""
    found: dict[str, Any] = {}
    for path, module in layer.named_modules():
        found[path] = type(module).__name__
        for name, value in vars(module).items():
            if type(value) in options and not name.startswith("_") and name != "training":
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


def require_small_on_paper(config: Any) -> None:
    """As `require_small`, without memory for the weights."""
    try:
        with require_small():
            make_on_paper(config)
    except UnsupportedModelError:
        raise
    except Exception:  # any: a model may compute with its weights when it is made; it is refused when it is made
        return


@contextmanager
def require_small() -> Iterator[None]:
    """UnsupportedModelError when a large model is made: a small config's class has filled in sizes of its own."""
    count = 0

    def add(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += parameter.numel()
        if count > MOST_PARAMETERS:
            raise UnsupportedModelError(
                f"a small config makes a model of more than {MOST_PARAMETERS:,} parameters: some size has no key"
            )

    handle = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        handle.remove()
