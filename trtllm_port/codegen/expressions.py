"""Numbers as expressions of the config.

A number of the traced computation was seen once per instance: per traced configuration, and per layer for what is in a
layer. The shortest expression over config keys that gives the number in every instance is what gets printed; a number
that is the same in all of them is printed as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Values = tuple[Any, ...]


@dataclass(frozen=True)
class Symbol:
    """A Python value that differs between instances: its value in each."""

    values: Values


class Rounded(float):
    """A number that went through half precision: equal to what it stands for within a relative 2⁻⁸."""


@dataclass(frozen=True)
class Expression:
    """A piece of Python: its text, how tightly it binds, and its value in every instance."""

    text: str
    values: Values
    precedence: int
    cost: int

    def inside(self, precedence: int) -> str:
        """The text as an operand of an operator that binds with `precedence`."""
        return self.text if self.precedence >= precedence else f"({self.text})"


ATOM, POWER, UNARY, PRODUCT, SUM, CONDITION = 100, 90, 80, 70, 60, 10


def close(a: Any, b: Any) -> bool:
    """Whether two values are the same number (or string, bool, None)."""
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, int | float) or not isinstance(b, int | float):
        return type(a) is type(b) and bool(a == b)
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    rounded = isinstance(a, Rounded) or isinstance(b, Rounded)
    return a == b or math.isclose(a, b, rel_tol=2**-8 if rounded else 1e-9)


def _same(a: Values, b: Values) -> bool:
    return all(close(x, y) for x, y in zip(a, b, strict=True))


class Solver:
    """Finds expressions over a set of atoms.

    Args:
        atoms: text → value in each instance; earlier ones are preferred.
    """

    def __init__(self, atoms: Mapping[str, Values]) -> None:
        self.atoms = [Expression(text, values, ATOM, 1) for text, values in atoms.items()]
        self.numeric = [atom for atom in self.atoms if _is_numeric(atom.values)]
        self._pairs: list[Expression] | None = None
        self._found: dict[Values, Expression | None] = {}

    def solve(self, values: Values) -> Expression | None:
        """The simplest expression with these values, or None."""
        key = tuple((type(value).__name__, repr(value)) for value in values)
        if key not in self._found:
            self._found[key] = self._solve(values)
        return self._found[key]

    def _solve(self, values: Values) -> Expression | None:
        for atom in self.atoms:
            if _same(atom.values, values) and _kinds_fit(atom.values, values):
                return atom
        if all(isinstance(value, bool) for value in values):
            return self._negated(values)
        if _is_numeric(values):
            return self._arithmetic(values)
        return None

    def _negated(self, values: Values) -> Expression | None:
        wanted = tuple(not value for value in values)
        found = next((atom for atom in self.atoms if _same(atom.values, wanted)), None)
        return found and Expression(f"not {found.text}", values, CONDITION, found.cost + 1)

    def _arithmetic(self, values: Values) -> Expression | None:
        for search in (_powers, _with_number):
            for candidate in search(self.numeric):
                if self._fits(candidate, values):
                    return candidate
        for candidate in self.pairs:
            if self._fits(candidate, values):
                return candidate
        return self._deeper(values) or self._defaulted(values)

    @property
    def pairs(self) -> list[Expression]:
        """All expressions of one operator over two atoms."""
        if self._pairs is None:
            self._pairs = list(_combine(self.numeric, self.numeric))
        return self._pairs

    def _fits(self, candidate: Expression, values: Values) -> bool:
        return _same(candidate.values, values) and _kinds_fit(candidate.values, values)

    def _deeper(self, values: Values) -> Expression | None:
        """One more operator: an atom or a small number with an expression of one operator."""
        simple = [*_with_number(self.numeric), *self.pairs]
        for power in _powers(simple):
            if self._fits(power, values):
                return power
        best: Expression | None = None
        for candidate in _combine(simple, self.numeric + _small_numbers(len(values)), wanted=values):
            if self._fits(candidate, values) and (best is None or candidate.cost < best.cost):
                best = candidate
        return best

    def _defaulted(self, values: Values) -> Expression | None:
        """`key or expression`: a key that may be None, and what the model then takes."""
        for atom in self.atoms:
            missing = [value is None for value in atom.values]
            if not any(missing) or all(missing):
                continue
            if not all(absent or close(value, wanted) for absent, value, wanted in zip(missing, atom.values, values, strict=True)):
                continue
            rest = [i for i, absent in enumerate(missing) if absent]
            inner = Solver({a.text: tuple(a.values[i] for i in rest) for a in self.atoms if a is not atom})
            found = inner.solve(tuple(values[i] for i in rest))
            if found is not None:
                return Expression(f"{atom.text} or {found.inside(CONDITION + 1)}", values, CONDITION, found.cost + 2)
        return None


def _is_numeric(values: Values) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _kinds_fit(candidate: Values, wanted: Values) -> bool:
    """An integer must come out as an integer: sizes are no floats."""
    return all(not isinstance(w, int) or isinstance(w, bool) or isinstance(c, int) for c, w in zip(candidate, wanted, strict=True))


def _small_numbers(count: int) -> list[Expression]:
    return [Expression(str(n), (n,) * count, ATOM, 1) for n in (2, 3, 4, 8)]


def _powers(expressions: Iterable[Expression]) -> Iterable[Expression]:
    for base in expressions:
        if all(isinstance(v, int | float) and v > 0 for v in base.values):
            for exponent in (-0.5, 0.5):
                text = power_text(base, str(exponent))
                yield Expression(text, tuple(v**exponent for v in base.values), POWER, base.cost + 1)


def power_text(base: Expression, exponent: str) -> str:
    """`base**exponent`, spaced as the formatter wants it: tight where the base is a plain name."""
    operand = base.inside(POWER + 1)
    return f"{operand}**{exponent}" if operand.replace(".", "").replace("_", "").isalnum() else f"{operand} ** {exponent}"


def _with_number(expressions: list[Expression]) -> Iterable[Expression]:
    if not expressions:
        return
    count = len(expressions[0].values)
    numbers = _small_numbers(count)
    one = Expression("1", (1,) * count, ATOM, 0)
    yield from _combine(numbers, expressions, symbols=("*",))
    yield from _combine(expressions, numbers, symbols=("//",))
    yield from _combine(expressions, [one, numbers[0]], symbols=("+", "-"))
    yield from _combine([Expression("1.0", (1.0,) * count, ATOM, 0)], expressions, symbols=("/",))


_OPERATORS: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "*": (lambda a, b: a * b, PRODUCT),
    "//": (lambda a, b: a // b, PRODUCT),
    "int*": (lambda a, b: int(a * b), ATOM),
    "+": (lambda a, b: a + b, SUM),
    "-": (lambda a, b: a - b, SUM),
    "/": (lambda a, b: a / b, PRODUCT),
}


def _combine(
    left: Iterable[Expression],
    right: list[Expression],
    *,
    symbols: tuple[str, ...] = ("*", "//", "int*", "+", "-", "/"),
    wanted: Values | None = None,
) -> Iterable[Expression]:
    """Every `a operator b`; with `wanted`, those are skipped whose first instance already differs."""
    for a in left:
        for b in right:
            for symbol in symbols:
                made = _apply(a, b, symbol, wanted)
                if made is not None:
                    yield made


def _apply(a: Expression, b: Expression, symbol: str, wanted: Values | None) -> Expression | None:
    function, precedence = _OPERATORS[symbol]
    floats = any(isinstance(v, float) for v in (*a.values[:1], *b.values[:1]))
    if (symbol == "int*" and not floats) or (symbol == "//" and floats):
        return None
    if symbol == "*" and a is b:
        return None
    try:
        if wanted is not None and not close(function(a.values[0], b.values[0]), wanted[0]):
            return None
        values = tuple(function(x, y) for x, y in zip(a.values, b.values, strict=True))
    except (ZeroDivisionError, OverflowError):
        return None
    if symbol == "//" and any(x % y for x, y in zip(a.values, b.values, strict=True)):
        return None  # sizes divide evenly
    cost = a.cost + b.cost + 1
    if symbol == "int*":
        return Expression(f"int({a.inside(PRODUCT)} * {b.inside(PRODUCT + 1)})", values, ATOM, cost + 1)
    return Expression(f"{a.inside(precedence)} {symbol} {b.inside(precedence + 1)}", values, precedence, cost)
