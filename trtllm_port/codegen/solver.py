"""Numbers as expressions of the config.

A number of the traced computation was seen once per instance: per traced configuration, and per layer for what is in a
layer. The shortest expression over config keys that gives the number in every instance is what gets printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from trtllm_port.codegen.conditions import find_condition, switches
from trtllm_port.codegen.expressions import (
    ATOM,
    CONDITION,
    MISSING,
    POWER,
    PRODUCT,
    SUM,
    UNARY,
    Expression,
    Rounded,
    Values,
    all_close,
    close,
    is_numeric,
    power_text,
)
from trtllm_port.codegen.memory import recall, remember
from trtllm_port.codegen.size_tables import LAYER_COUNTS
from trtllm_port.layers import normal_quantile

Array = np.ndarray[Any, np.dtype[np.float64]]
_PRECEDENCE = {"*": PRODUCT, "//": PRODUCT, "/": PRODUCT, "int": ATOM, "+": SUM, "-": SUM}
_FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "int": lambda a, b: int(a * b),
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "/": lambda a, b: a / b,
}
_ARRAY_FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "*": np.multiply,
    "//": np.floor_divide,
    "int": lambda a, b: np.trunc(a * b),
    "+": np.add,
    "-": np.subtract,
    "/": np.divide,
}
_COLUMNS = 6  # instances that the search looks at before it checks all


class Solver:
    """Finds expressions over a set of atoms.

    Args:
        atoms: text → value in each instance; earlier ones are preferred.
        options: how many options may choose between expressions, one inside the other.
    """

    def __init__(self, atoms: Mapping[str, Values], options: int = 1) -> None:
        self.options = options
        self.atoms = [Expression(text, values, ATOM, 1) for text, values in atoms.items()]
        self._found: dict[Any, Expression | None] = {}
        self._parts: dict[tuple[tuple[int, ...], int], Solver] = {}

    def solve(self, values: Values) -> Expression | None:
        """The simplest expression with these values, or None. Where a value is `MISSING`, any would do."""
        there = tuple(i for i, value in enumerate(values) if value is not MISSING)
        if len(there) < len(values):
            found = self._part(there, self.options).solve(tuple(values[i] for i in there))
            return found and replace(found, values=values)
        key = tuple((type(value).__name__, repr(value)) for value in values)
        if key not in self._found:
            found = recall(self.atoms, values) or self._solve(values)
            self._found[key] = found
            if found is not None:
                remember(self.atoms, values, found)
        return self._found[key]

    def _part(self, instances: tuple[int, ...], options: int) -> Solver:
        """A solver for some of the instances."""
        if (instances, options) not in self._parts:
            atoms = {atom.text: tuple(atom.values[i] for i in instances) for atom in self.atoms}
            known = {text: values for text, values in atoms.items() if MISSING not in values}
            self._parts[instances, options] = Solver(known, options)
        return self._parts[instances, options]

    def _solve(self, values: Values) -> Expression | None:
        for atom in self.atoms:
            if all_close(atom.values, values):
                return atom
        if all(isinstance(value, bool) for value in values):
            return find_condition(self._known, values)
        if is_numeric(values):
            if all(value < 0 for value in values):
                return self._minus(tuple(-value for value in values))
            found = self._simple(values)
            longer = (search(values) for search in (self._defaulted, self._deeper, self._chosen, self._root))
            return found or min(filter(None, longer), key=lambda expression: expression.cost, default=None)
        return self._chosen(values) if None in values else None  # a number that not every layer has

    def _minus(self, values: Values) -> Expression | None:
        found = self.solve(values)
        wanted = tuple(-value for value in values)
        return found and Expression(f"-{found.inside(UNARY)}", wanted, UNARY, found.cost + 1)

    @cached_property
    def _known(self) -> list[Expression]:
        """Atoms that all instances have."""
        return [atom for atom in self.atoms if MISSING not in atom.values]

    # arithmetic

    @cached_property
    def _numeric(self) -> list[Expression]:
        """Numeric atoms that differ between instances, without those that are always equal to an earlier one."""
        unique: dict[Values, Expression] = {}
        for atom in self.atoms:
            if is_numeric(atom.values) and len(set(atom.values)) > 1:
                unique.setdefault(atom.values, atom)
        return list(unique.values())

    @cached_property
    def _numbers(self) -> list[Expression]:
        count = len(self.atoms[0].values) if self.atoms else 0
        return [Expression(str(n), (n,) * count, ATOM, 0) for n in (1, 2, 3, 4, 8, 1.0)]

    @cached_property
    def _pairs(self) -> list[Expression]:
        """All expressions of one operator over two atoms, or an atom and a small number."""
        operands = [*self._numeric, *self._numbers]
        found = [made for a in operands for b in operands for made in _combine(a, b)]
        return sorted(found, key=lambda expression: expression.cost)

    def _simple(self, values: Values) -> Expression | None:
        """One operator, and perhaps a root."""
        for family in (self._numeric, self._pairs):
            direct = next((e for e in family if all_close(e.values, values)), None)
            found = direct or next((p for e in family for p in _powers(e, values) if all_close(p.values, values)), None)
            if found is not None:
                return found
        quantiles = (made for atom in self._numeric for made in _quantile(atom))
        return next((made for made in quantiles if all_close(made.values, values)), None)

    def _deeper(self, values: Values) -> Expression | None:
        """One operator more: an expression of one operator with an atom (or its neighbour) or a small number."""
        if not self._numeric:
            return None
        columns = _telling_columns(self._numeric, values)
        wanted = np.array([values[i] for i in columns], dtype=np.float64)
        doubled = [e for b in self._numeric for e in _combine(self._numbers[1], b, symbols=("*",))]
        sums = [e for a in self._numeric for b in doubled for e in _combine(a, b, symbols=("+",))]  # queries + 2 keys
        depths = [
            atom for atom in self.atoms if atom.text.removeprefix("config.") in LAYER_COUNTS
        ]  # few, if they differ
        simple = [*self._pairs, *(p for e in (*self._numeric, *depths) for p in _powers(e)), *sums]
        next_to = [e for a in self._numeric for e in _combine(a, self._numbers[0], symbols=("+", "-"))]
        others = [*self._numeric, *self._numbers, *next_to]
        left, right = _matrix(simple, columns), _matrix(others, columns)
        best: Expression | None = None
        for symbol, function in _ARRAY_FUNCTIONS.items():
            for swapped in (False, True):
                for i, j in _hits(function, left, right, wanted, swapped=swapped):
                    pair = (others[j], simple[i]) if swapped else (simple[i], others[j])
                    for made in _combine(*pair, symbols=(symbol,)):
                        if all_close(made.values, values) and (best is None or _rank(made) < _rank(best)):
                            best = made
        return best

    def _root(self, values: Values) -> Expression | None:
        """The root of a longer expression."""
        if any(not isinstance(value, float) or isinstance(value, Rounded) or value < 0 for value in values):
            return None
        squared = self._deeper(tuple(value * value for value in values))
        return squared and Expression(power_text(squared, "0.5"), values, POWER, squared.cost + 1)

    # options

    def _defaulted(self, values: Values) -> Expression | None:
        """`key or expression`: a key that may be None, and what the model then takes."""
        for atom in self.atoms if self.options else ():
            missing = [value is None for value in atom.values]
            if not any(missing) or all(missing):
                continue
            if any(not absent and not close(v, w) for absent, v, w in zip(missing, atom.values, values, strict=True)):
                continue
            inner = self._among([i for i, absent in enumerate(missing) if absent], values)
            if inner is not None:
                text = f"{atom.text} or {inner.inside(CONDITION + 1)}"
                return Expression(text, values, CONDITION, inner.cost + 2)
        return None

    def _chosen(self, values: Values) -> Expression | None:
        """`one if key else other`: an option that chooses between two expressions."""
        for switch in switches(self._known) if self.options else ():
            first = self._among([i for i, value in enumerate(switch.values) if value], values)
            second = first and self._among([i for i, value in enumerate(switch.values) if not value], values)
            if first and second:
                text = " ".join((first.inside(CONDITION + 1), "if", switch.text, "else", second.inside(CONDITION)))
                return Expression(text, values, CONDITION, first.cost + second.cost + 2)
        return None

    def _among(self, instances: list[int], values: Values) -> Expression | None:
        """The expression of `values` in some of the instances."""
        wanted = tuple(values[i] for i in instances)
        if len(set(map(repr, wanted))) == 1:
            return Expression(repr(wanted[0]), wanted, ATOM, 3)  # a number that no key gives says little
        return self._part(tuple(instances), self.options - 1).solve(wanted)


def _rank(expression: Expression) -> tuple[int, bool]:
    """The simpler the better; of two that are as simple, one over widths: few sizes follow the number of layers."""
    keys = re.findall(r"\bconfig\.(\w+)", expression.text)
    return expression.cost, any(key in LAYER_COUNTS for key in keys)


def _telling_columns(atoms: list[Expression], values: Values) -> list[int]:
    """A few instances that differ from each other."""
    seen: dict[Any, int] = {}
    for i, value in enumerate(values):
        seen.setdefault((value, *(atom.values[i] for atom in atoms[:3])), i)
    return list(seen.values())[:_COLUMNS]


def _matrix(expressions: list[Expression], columns: list[int]) -> Array:
    return np.array([[e.values[i] for i in columns] for e in expressions], dtype=np.float64)


def _hits(function: Callable[[Any, Any], Any], left: Array, right: Array, wanted: Array, *, swapped: bool) -> Any:
    """Which rows of `left` and `right` the function makes into about what is wanted: the few that fit in one column."""

    def fits(a: Array, b: Array, column: int) -> Any:
        found = function(b, a) if swapped else function(a, b)
        return np.abs(found - wanted[column]) <= 2**-8 * abs(wanted[column])

    with np.errstate(all="ignore"):
        hits: Any = np.argwhere(fits(left[:, None, 0], right[None, :, 0], 0))
        for column in range(1, len(wanted)):
            hits = hits[fits(left[hits[:, 0], column], right[hits[:, 1], column], column)]
    return hits


def _powers(base: Expression, wanted: Values | None = None) -> list[Expression]:
    """The root and its inverse; with `wanted` only what gives the first of these values."""
    if not all(value > 0 for value in base.values):
        return []
    return [
        Expression(power_text(base, str(exponent)), tuple(v**exponent for v in base.values), POWER, base.cost + 1)
        for exponent in (-0.5, 0.5)
        if wanted is None or close(base.values[0] ** exponent, wanted[0])
    ]


def _quantile(base: Expression) -> list[Expression]:
    """Of the normal distribution, for a share."""
    if not all(isinstance(value, float) and 0 < value < 1 for value in base.values):
        return []
    return [Expression(f"normal_quantile({base.text})", tuple(map(normal_quantile, base.values)), ATOM, base.cost + 2)]


def _combine(a: Expression, b: Expression, symbols: tuple[str, ...] = tuple(_FUNCTIONS)) -> list[Expression]:
    """`a operator b` for those operators that make sense of the operands."""
    found = []
    has_floats = a.has_floats or b.has_floats
    for symbol in symbols:
        if (symbol == "int") != (symbol in ("int", "//") and has_floats) or not _is_sensible(a, b, symbol):
            continue
        pairs = list(zip(a.values, b.values, strict=True))
        try:
            if symbol == "//" and any(x % y for x, y in pairs):
                continue  # sizes divide evenly
            if symbol == "int" and any(abs(x * y - round(x * y)) > 1e-6 for x, y in pairs):
                continue  # and parts of sizes are whole: what is cut off otherwise would fit by chance
            values = tuple(_FUNCTIONS[symbol](x, y) for x, y in pairs)
        except (ZeroDivisionError, OverflowError):
            continue
        found.append(_written(a, b, symbol, values))
    return found


def _is_sensible(a: Expression, b: Expression, symbol: str) -> bool:
    """Leave out what nobody would write: two numbers, `x * 2` for `2 * x`, `x * x`, `x + x`, `1 * x`, `x / 1`."""
    numbers = a.cost == 0, b.cost == 0
    if all(numbers) or a is b:
        return False
    if symbol in ("*", "int"):
        return not numbers[1] and not a.text.startswith("1")
    if symbol == "+":
        return not numbers[0]
    if symbol == "/":
        return not numbers[1] and (not numbers[0] or a.text == "1.0")
    complement = symbol == "-" and a.text == "1" and b.has_floats
    return (complement or not numbers[0]) and not (symbol == "//" and b.text == "1") and b.text != "1.0"


def _written(a: Expression, b: Expression, symbol: str, values: Values) -> Expression:
    cost = a.cost + b.cost + 1 + (a.cost == 0) + (b.cost == 0)
    if symbol == "int":
        return Expression(f"int({a.inside(PRODUCT)} * {b.inside(PRODUCT + 1)})", values, ATOM, cost + 1)
    precedence = _PRECEDENCE[symbol]
    return Expression(f"{a.inside(precedence)} {symbol} {b.inside(precedence + 1)}", values, precedence, cost)
