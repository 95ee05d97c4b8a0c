"""Change the sizes of a config, as a plan says.

Most models take sizes that are all different. Some need relations between them (`hidden_size` = heads · `head_dim`), so
a plan may keep products, leave single keys as they are, let the config class fill them in, or keep two equal.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from trtllm_port.codegen.configs.size_tables import LAYER_COUNTS, PROJECTED, SIZES, SPECIAL_TOKENS

_HEADS = re.compile(r"(?<!d_)(?<!dim_)heads?$|^n_heads?_kv$|n_?groups$")
_HEAD_DIM = re.compile(r"head_?dim$|^d_head$|_d_head$|dim_head$|head_size$|^rotary_dim$|^kv_channels$|^d_kv$")
_HIDDEN = re.compile(r"^(hidden_size|d_model|n_embd|dim)$")
_WIDTH = re.compile(
    r"(?<!state)(?<!vocab)(?<!kernel)(?<!chunk)(?<!window)(?<!block)(_size|_dim|_width|_inner|_ssm|_dims)$"
)
_FACTORS = re.compile(r"(multiplier|scale|factor)s$")
_TOKEN = re.compile(r"token_(id|index)$")
_MULTIPLIERS = (1, 2, 3, 2, 4)  # of the heads, by column
_HEAD_SIZES = (8, 12, 16, 10, 16)  # of the smallest head, by column
_OTHER_TOKEN = 4
PLUS = " + "
MOST_LEFT = 512  # larger sizes are never left as they are: the models would not be small


@dataclass(frozen=True)
class Plan:
    """How sizes are changed; keys of nested configs are named with their path, `text_config.head_dim`.

    Attributes:
        keep: which relations hold on: "" none, "heads" products of head counts and head sizes, "widths" those of all
            widths.
        untouched: keys that stay as they are.
        omitted: keys that the config class fills in.
        equal: key → the key whose value it has, or two with "+" between them: their sum, wherever it was so.
    """

    keep: str = ""
    untouched: frozenset[str] = frozenset()
    omitted: frozenset[str] = frozenset()
    equal: tuple[tuple[str, str], ...] = field(default=())

    def variants(self, keys: Mapping[str, Any]) -> Iterator[Plan]:
        """This plan with one more exception each, for the resized keys of a config and their original values."""
        for key, value in keys.items():
            if not isinstance(value, int) or value <= MOST_LEFT:
                yield replace(self, untouched=self.untouched | {key})
            for other in keys:
                if other != key and type(value) is int and keys[other] == value:
                    yield replace(self, equal=(*self.equal, (key, other)))

    def coupled(self, values: dict[str, Any]) -> set[str]:
        """The keys of a config that do not vary on their own."""
        relation = _relation(values, 0, self)
        related = [key for key, value in values.items() if relation is not None and relation.of(key, value) is not None]
        return {*related, *self.describe()}

    def describe(self) -> dict[str, str]:
        """Key → how it was kept from varying freely."""
        told = dict.fromkeys(self.untouched, "left as it is: the model takes no other value at tiny sizes")
        told |= dict.fromkeys(self.omitted, "follows from other keys")
        return told | {key: f"kept equal to `{other}`" for key, other in self.equal}


@dataclass(frozen=True)
class Relation:
    """Factors of sizes that keep the products between them.

    Attributes:
        count: of head counts.
        size: of head sizes.
        widths: whether other widths than the hidden size are related, too.
    """

    count: Fraction
    size: Fraction
    widths: bool

    def of(self, key: str, value: Any) -> int | None:
        """The related size, or None for a key that is not related."""
        if type(value) is not int or value <= 1:
            return None
        if _HEADS.search(key):
            return math.ceil(value * self.count)
        if _HEAD_DIM.search(key):
            return math.ceil(value * self.size)
        related = _HIDDEN.search(key) or (self.widths and _WIDTH.search(key))
        return math.ceil(value * self.count * self.size) if related else None


def resize(config: Any, values: dict[str, Any], plan: Plan, index: int, path: str = "") -> dict[str, Any]:
    """The values of one column of the size tables.

    Args:
        config: the Hugging Face config that the values are of.
        values: as `config_values` gives them.
        plan: exceptions.
        index: the column.
        path: of a nested config, ending with a point.
    """
    relation = _relation(values, index, plan)
    resized: dict[str, Any] = {}
    for key, value in values.items():
        name = path + key
        nested = getattr(config, key, None) if key in (getattr(config, "sub_configs", None) or {}) else None
        if nested is not None and isinstance(value, dict):
            resized[key] = resize(nested, value, plan, index, f"{name}.")
        elif name in plan.untouched:
            resized[key] = value
        elif name not in plan.omitted:
            resized[key] = _value(key, value, index, relation)
    for key, other in plan.equal:
        if key.startswith(path) and (leaf := key.removeprefix(path)) in resized:
            terms = [term.removeprefix(path) for term in other.split(PLUS)]
            resized[leaf] = resized[leaf] if not resized.keys() >= {*terms} else _sum(values, resized, leaf, terms)
    for key, value in values.items():
        if isinstance(value, dict) and "rope" in key and isinstance(resized.get(key), dict):
            resized[key] = _per_frequency(value, resized[key], values, resized)
    for key in PROJECTED:
        if values.get(key) is not None and values[key] == values.get("hidden_size"):
            resized[key] = resized["hidden_size"]
    return resized


def resized_keys(config: Any, values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The keys, with their paths and values, that `resize` gives other values."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        nested = getattr(config, key, None) if key in (getattr(config, "sub_configs", None) or {}) else None
        if nested is not None and isinstance(value, dict):
            found |= resized_keys(nested, value, f"{path}{key}.")
        elif _value(key, value, 1) != value or (type(value) is int and value > 1 and _size_class(key)):
            found[path + key] = value
    return found


def equal_keys(values: dict[str, Any]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Head counts that are all equal, or in each layer, each with the first; every two head sizes that are equal."""
    sizes = {key: value for key, value in values.items() if type(value) is int and value > 1}
    heads = [key for key in sizes if _HEADS.search(key)]
    dims = [key for key in sizes if _HEAD_DIM.search(key)]
    is_one = len({sizes[key] for key in heads}) == 1
    pairs = tuple((a, b) for i, a in enumerate(dims) for b in dims[i + 1 :] if sizes[a] == sizes[b])
    equal = [(key, heads[0]) for key in heads[1:]] if is_one else []
    lists = [key for key, value in values.items() if isinstance(value, list) and value and _HEADS.search(key)]
    for place, key in enumerate(lists):
        equal += [(key, other) for other in lists[:place] if values[other] == values[key]][:1]
    return tuple(equal), pairs


def sums(values: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Head sizes that are the sum of two others, in some layer at least, each with those two."""
    sizes = {key: value for key, value in values.items() if _HEAD_DIM.search(key) and _numbers(value)}
    found = []
    for one, other in itertools.combinations(sizes, 2):
        found += [(key, one + PLUS + other) for key in sizes if any(_holds(sizes, key, [one, other]))]
    return tuple(found)


def _numbers(value: Any) -> list[int]:
    """The numbers of a size, of which layers may have one each; none where it is no such size."""
    numbers = value if isinstance(value, list) else [value]
    return numbers if all(type(number) is int and number > 1 for number in numbers) else []


def _columns(values: dict[str, Any], keys: Iterable[str]) -> list[list[int]]:
    """The sizes of some keys, in each layer if one of them differs from layer to layer."""
    columns = [_numbers(values[key]) for key in keys]
    layers = max(map(len, columns))
    return [column * layers if len(column) == 1 else column for column in columns]


def _holds(values: dict[str, Any], key: str, terms: list[str]) -> list[bool]:
    """In which layers a size is the sum of others."""
    return [total == sum(parts) for total, *parts in zip(*_columns(values, (key, *terms)), strict=True)]


def _sum(values: dict[str, Any], resized: dict[str, Any], key: str, terms: list[str]) -> Any:
    """What `key` is to be so that it is the sum of `terms` in those layers where it was so at first."""
    if len(terms) == 1:
        return resized[terms[0]]
    layers = zip(_holds(values, key, terms), *_columns(resized, (key, *terms)), strict=True)
    found = [(holds, sum(parts) if holds else size) for holds, size, *parts in layers]
    return [size for _, size in found] if isinstance(resized[key], list) else max(found)[1]


def _size_class(key: str) -> bool:
    return any(expression.search(key) for expression in (_HEADS, _HEAD_DIM, _WIDTH))


def _value(key: str, value: Any, index: int, relation: Relation | None = None, *, rope: bool = False) -> Any:
    """One value of one column; whole numbers that no table knows stay, except in rope parameters (`10000`)."""
    if isinstance(value, dict):
        inside = rope or "rope" in key
        return {name: _value(name, item, index, relation, rope=inside) for name, item in value.items()}
    related = None if relation is None else relation.of(key, value)
    if related is not None:
        return related
    if key in LAYER_COUNTS or isinstance(value, bool) or value is None:
        return value
    if key in SPECIAL_TOKENS and isinstance(value, int | list):
        return SPECIAL_TOKENS[key]
    if _TOKEN.search(key) and isinstance(value, int):
        return _OTHER_TOKEN
    if key in SIZES and _positive(value):
        return SIZES[key][index]
    if key in SIZES and isinstance(value, list) and value and all(type(item) is int for item in value):
        return _scaled(value, int(SIZES[key][index]))
    if isinstance(value, list) and _FACTORS.search(key) and all(type(item) is float for item in value) and not rope:
        return [item * _factor(f"{key}[{place}]", index + 1) for place, item in enumerate(value)]
    if isinstance(value, list) and value and not rope and "rope" not in key and all(type(i) is float for i in value):
        return [item ** _factor(key, index) if 0 < item < 1 else item * _factor(key, index) for item in value]
    if isinstance(value, float) and value:
        return value * _factor(key, index)
    if rope and type(value) is int and value:
        return round(value * _factor(key, index)) if "position" in key else value * _factor(key, index)
    return value


def _per_frequency(rope: dict[str, Any], small: dict[str, Any], *configs: dict[str, Any]) -> dict[str, Any]:
    """Rope parameters with as many numbers in a list of one for each frequency as the resized heads have frequencies.

    Args:
        rope, small: the parameters before and after, of all layers or by the type of a layer.
        configs: the config that they are of, before and after.
    """
    fitted = dict(small)
    for name, value in rope.items():
        if isinstance(value, dict):
            fitted[name] = _per_frequency(value, small[name], *configs)
        elif isinstance(value, list) and value and all(isinstance(item, int | float) for item in value):
            before, after = (_frequencies(config, part) for config, part in zip(configs, (rope, small), strict=True))
            place = next((place for place, count in before.items() if count == len(value) and after.get(place)), None)
            if place is not None:
                fitted[name] = [value[item * len(value) // after[place]] for item in range(after[place])]
    return fitted


def _frequencies(values: dict[str, Any], rope: dict[str, Any]) -> dict[str, int]:
    """How many frequencies a rotary embedding has, by what may be the size of the heads that it turns."""
    sizes = {key: value for key, value in values.items() if type(value) is int and value > 1}
    dims = sorted((key for key in sizes if _HEAD_DIM.search(key)), key=lambda key: "rope" not in key)
    found = {key: sizes[key] for key in dims}
    hidden, heads = ([sizes[key] for key in sizes if kind.search(key)] for kind in (_HIDDEN, _HEADS))
    if hidden and heads:
        found["hidden / heads"] = hidden[0] // heads[0]
    part = next((of[key] for of in (rope, values) for key in of if key == "partial_rotary_factor" and of[key]), 1.0)
    return {key: int(size * part) // 2 for key, size in found.items()}


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def _scaled(values: list[int], size: int) -> list[int]:
    """A list of sizes, one for each layer, say: the commonest becomes `size`, the others keep their ratio to it."""
    common = max(set(values), key=values.count)
    return [max(1, round(value * size / common)) for value in values]


def _factor(key: str, index: int) -> float:
    """A factor between 1 and 1.5 of its own for every key, so that equal numbers of a config can be told apart."""
    number = int.from_bytes(hashlib.sha256(f"{key}:{index}".encode(errors="surrogatepass")).digest()[:2], "little")
    return 1.0 + 0.5 * number / 2**16 if index else 1.0


def _relation(values: dict[str, Any], index: int, plan: Plan) -> Relation | None:
    """Head counts times one number, head sizes times another, widths times both: products between them still hold."""
    sizes = {key: value for key, value in values.items() if type(value) is int and value > 1}
    heads = [value for key, value in sizes.items() if _HEADS.search(key)]
    dims = [value for key, value in sizes.items() if _HEAD_DIM.search(key)]
    hidden = [value for key, value in sizes.items() if _HIDDEN.search(key)]
    if not plan.keep or not heads or not hidden:
        return None
    unit = math.gcd(*heads)
    smallest = min(heads) // unit
    count = _MULTIPLIERS[index] * max(2 if smallest == 1 else 1, -(-4 * unit // max(heads)))
    dim_unit = math.gcd(*dims) if dims else max(1, max(hidden) // max(heads))
    return Relation(Fraction(count, unit), Fraction(_HEAD_SIZES[index], dim_unit), plan.keep == "widths")
