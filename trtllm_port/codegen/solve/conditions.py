"""Truth values as conditions over the config and the layer's number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from trtllm_port.codegen.configs.size_tables import LAYER_COUNTS
from trtllm_port.codegen.ir.expressions import ATOM, Expression, Values
from trtllm_port.foundation.quoting import is_word, literal

COMPARISON, NOT, AND, OR = 30, 25, 20, 15
LAYER = "layer_idx"


def find_condition(symbols: Sequence[Expression], wanted: Values) -> Expression | None:
    """The simplest condition that is true where `wanted` is, or None."""
    found: dict[tuple[bool, ...], Expression] = {}
    simple = list(_simple(symbols))  # in pairs: a condition, and that it is not so
    for made in sorted(simple, key=lambda expression: expression.cost):
        found.setdefault(made.values, made)
    if wanted in found:
        opposite = found.get(tuple(not value for value in wanted))
        if opposite is None or opposite.cost >= found[wanted].cost:
            return found[wanted]
        place = simple.index(opposite)  # what is told by one key is told by it wherever it matters
        return simple[place + 1 if place % 2 == 0 else place - 1]
    return _joined(list(found.values()), wanted, "and") or _joined(list(found.values()), wanted, "or")


def switches(symbols: Sequence[Expression]) -> list[Expression]:
    """Conditions that choose between two numbers: options, and kinds of layers."""
    return [made for symbol in symbols for made in _of_one(symbol) if made.cost <= 2 and len(set(made.values)) == 2]


def _simple(symbols: Sequence[Expression]) -> Iterator[Expression]:
    layer = next((symbol for symbol in symbols if symbol.text == LAYER), None)
    depths = [symbol for symbol in symbols if symbol.text.removeprefix("config.") in LAYER_COUNTS]
    for symbol in symbols:
        if len(set(map(repr, symbol.values))) > 1:
            yield from _of_one(symbol)
        if layer is not None and symbol is not layer and not symbol.text.endswith(f"[{LAYER}]"):
            yield from _of_layer(symbol, layer.values)
            for depth in depths:
                yield from _of_the_last(symbol, depth, layer.values)


def _of_one(symbol: Expression) -> Iterator[Expression]:
    """An option itself; which of some names it is; whether it is there; whether it is more than nothing."""
    text, values = symbol.text, symbol.values
    kinds = {type(value) for value in values}
    if kinds <= {bool, type(None)} or (kinds <= {int, bool} and {*values} <= {0, 1} and text.endswith(f"[{LAYER}]")):
        yield from _both(text, f"not {text}", [bool(value) for value in values], 1 if kinds == {bool} else 2, ATOM, NOT)
    if type(None) in kinds and len(kinds) > 1:
        yield from _both(f"{text} is None", f"{text} is not None", [value is None for value in values], 2)
    if str in kinds:
        for name in dict.fromkeys(value for value in values if isinstance(value, str) and is_word(value)):
            told = literal(name)
            yield from _both(f"{text} == {told}", f"{text} != {told}", [value == name for value in values], 2)
    if kinds == {float}:
        yield from _both(f"{text} > 0.0", f"{text} <= 0.0", [value > 0 for value in values], 3)
    if kinds == {int}:
        for number in (0, 1):
            yield from _both(f"{text} > {number}", f"{text} <= {number}", [value > number for value in values], 3)


def _of_layer(symbol: Expression, layers: Sequence[int]) -> Iterator[Expression]:
    """Where a layer is: before or behind a number, in a list, every so many."""
    text, pairs = symbol.text, list(zip(layers, symbol.values, strict=True))
    kinds = {type(value) for value in symbol.values}
    if kinds == {int}:
        yield from _both(f"{LAYER} >= {text}", f"{LAYER} < {text}", [n >= value for n, value in pairs], 3)
        yield from _both(f"{LAYER} == {text} - 1", f"{LAYER} != {text} - 1", [n == value - 1 for n, value in pairs], 4)
        if all(value > 0 for value in symbol.values):
            for offset in (1, 0):
                place = f"({LAYER} + 1)" if offset else LAYER
                divides = [(n + offset) % value == 0 for n, value in pairs]
                yield from _both(f"{place} % {text} == 0", f"{place} % {text} != 0", divides, 4)
    if kinds == {list} and all(isinstance(item, int) for value in symbol.values for item in value):
        yield from _both(f"{LAYER} in {text}", f"{LAYER} not in {text}", [n in value for n, value in pairs], 3)


def _of_the_last(symbol: Expression, depth: Expression, layers: Sequence[int]) -> Iterator[Expression]:
    """Whether a layer is one of the last so many."""
    if symbol is not depth and {type(value) for value in symbol.values} == {int}:
        text = f"{depth.text} - {symbol.text}"
        last = [n >= count - few for n, count, few in zip(layers, depth.values, symbol.values, strict=True)]
        yield from _both(f"{LAYER} >= {text}", f"{LAYER} < {text}", last, 5)


def _both(
    text: str, negated: str, values: list[bool], cost: int, binds: int = COMPARISON, negated_binds: int = COMPARISON
) -> Iterator[Expression]:
    """A condition, and that it is not so."""
    if len(set(values)) == 2:
        yield Expression(text, tuple(values), binds, cost)
        yield Expression(negated, tuple(not value for value in values), negated_binds, cost + 1)


def _joined(conditions: list[Expression], wanted: Values, word: str) -> Expression | None:
    """Two conditions of which both hold where `wanted` does, or one of the two."""
    mask = sum(1 << i for i, value in enumerate(wanted) if value)
    everything = (1 << len(wanted)) - 1
    bits = [sum(1 << i for i, value in enumerate(one.values) if value) for one in conditions]
    if word == "or":  # not (not a and not b)
        mask, bits = everything & ~mask, [everything & ~own for own in bits]
    fit = [(own, condition) for own, condition in zip(bits, conditions, strict=True) if own & mask == mask]
    best: tuple[Any, Any] | None = None
    for i, (own, a) in enumerate(fit):
        for other, b in fit[i + 1 :]:
            if own & other == mask and (best is None or a.cost + b.cost < best[0].cost + best[1].cost):
                best = (a, b)
    if best is None:
        return None
    binds = AND if word == "and" else OR
    text = f" {word} ".join(one.inside(binds + 1) for one in best)
    return Expression(text, wanted, binds, best[0].cost + best[1].cost + 1)
