"""Numbers as expressions of the config.

A number of the traced computation was seen once per instance: per traced configuration, and per layer for what is in a
layer. The shortest expression over config keys that gives the number in every instance is what gets printed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from trtllm_port.codegen.configs.size_tables import LAYER_COUNTS
from trtllm_port.codegen.ir.expressions import (
    ATOM,
    CONDITION,
    MISSING,
    POWER,
    UNARY,
    Expression,
    Rounded,
    Values,
    all_close,
    close,
    is_numeric,
    power_text,
)
from trtllm_port.codegen.solve.candidates import (
    Candidates,
    Goal,
    MeetInTheMiddle,
    Numbers,
    Operands,
    concatenated,
    fitting,
)
from trtllm_port.codegen.solve.conditions import find_condition, switches
from trtllm_port.codegen.solve.expression_cache import recall, remember
from trtllm_port.codegen.solve.operators import ROOTS, combine, power, quantile

_COLUMNS = 6  # instances that the search looks at before it checks all


class Solver:
    """Finds expressions over a set of symbols.

    Args:
        symbols: text → value in each instance; earlier ones are preferred.
        options: how many options may choose between expressions, one inside the other.
    """

    def __init__(self, symbols: Mapping[str, Values], options: int = 1) -> None:
        self.options = options
        self.symbols = [Expression(text, values, ATOM, 1) for text, values in symbols.items()]
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
            found = recall(self.symbols, values) or self._solve(values)
            self._found[key] = found
            if found is not None:
                remember(self.symbols, values, found)
        return self._found[key]

    def _part(self, instances: tuple[int, ...], options: int) -> Solver:
        """A solver for some of the instances."""
        if (instances, options) not in self._parts:
            symbols = {symbol.text: tuple(symbol.values[i] for i in instances) for symbol in self.symbols}
            known = {text: values for text, values in symbols.items() if MISSING not in values}
            self._parts[instances, options] = Solver(known, options)
        return self._parts[instances, options]

    def _solve(self, values: Values) -> Expression | None:
        for symbol in self.symbols:
            if all_close(symbol.values, values):
                return symbol
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
        """Symbols that all instances have."""
        return [symbol for symbol in self.symbols if MISSING not in symbol.values]

    # arithmetic

    @cached_property
    def _numeric(self) -> list[Expression]:
        """Numeric symbols that differ between instances, without those that are always equal to an earlier one."""
        unique: dict[Values, Expression] = {}
        for symbol in self.symbols:
            if is_numeric(symbol.values) and len(set(symbol.values)) > 1:
                unique.setdefault(symbol.values, symbol)
        return list(unique.values())

    @cached_property
    def _numbers(self) -> list[Expression]:
        count = len(self.symbols[0].values) if self.symbols else 0
        return [Expression(str(n), (n,) * count, ATOM, 0) for n in (1, 2, 3, 4, 8, 1.0)]

    @cached_property
    def _depths(self) -> list[Expression]:
        """Numbers of layers, which count even if they do not differ."""
        depths = (symbol for symbol in self.symbols if symbol.text.removeprefix("config.") in LAYER_COUNTS)
        return [symbol for symbol in depths if is_numeric(symbol.values)]

    @cached_property
    def _operands(self) -> Operands:
        return Operands([*self._numeric, *self._numbers, *self._depths, *self._doubled])

    @cached_property
    def _doubled(self) -> list[Expression]:
        made = (combine(self._numbers[1], symbol, "*") for symbol in self._numeric)
        return [expression for expression in made if expression is not None]

    @cached_property
    def _places(self) -> dict[str, Numbers]:
        """Where the operands of each kind are."""
        kinds = {"symbol": self._numeric, "number": self._numbers, "depth": self._depths, "doubled": self._doubled}
        ends = list(accumulate(map(len, kinds.values()), initial=0))
        return {kind: np.arange(start, stop) for kind, (start, stop) in zip(kinds, pairwise(ends), strict=True)}

    @cached_property
    def _pairs(self) -> Candidates:
        """All expressions of one operator over two symbols, or a symbol and a small number, cheap ones first."""
        both = np.concatenate([self._places["symbol"], self._places["number"]])
        return self._operands.pairs(both, both).sorted()

    @cached_property
    def _longer(self) -> MeetInTheMiddle:
        """Those, roots, and queries + 2 keys; with a symbol (or its neighbour) or a small number."""
        made, place = self._operands, self._places
        bases = np.concatenate([place["symbol"], place["depth"]])
        left = concatenated([self._pairs, made.powers(bases), made.pairs(place["symbol"], place["doubled"], ("+",))])
        both = np.concatenate([place["symbol"], place["number"]])
        return MeetInTheMiddle(
            made, left, concatenated([made.alone(both), made.pairs(place["symbol"], place["number"][:1], ("+", "-"))])
        )

    def _simple(self, values: Values) -> Expression | None:
        """One operator, and perhaps a root."""
        direct = next((symbol for symbol in self._numeric if all_close(symbol.values, values)), None)
        found = direct or self._first_root(self._numeric, values)
        if found is None and self._numeric:
            found = self._pair(values) or self._root_of_pair(values)
        if found is not None:
            return found
        quantiles = (made for made in map(quantile, self._numeric) if made is not None)
        return next((made for made in quantiles if all_close(made.values, values)), None)

    def _pair(self, values: Values) -> Expression | None:
        places = fitting(self._operands, self._pairs, Goal.of(values), self._telling(values))
        made = (self._operands.written(self._pairs, place) for place in places)
        return next((one for one in made if one is not None and all_close(one.values, values)), None)

    def _root_of_pair(self, values: Values) -> Expression | None:
        if any(not isinstance(value, float) or value <= 0 for value in values):
            return None
        goals = [Goal.of(values).under_root(exponent) for exponent in ROOTS]
        places = [fitting(self._operands, self._pairs, goal, self._telling(values)) for goal in goals]
        made = (self._operands.written(self._pairs, place) for place in sorted({*places[0], *places[1]}))
        return self._first_root((one for one in made if one is not None), values)

    def _first_root(self, bases: Iterable[Expression], values: Values) -> Expression | None:
        made = (power(base, exponent) for base in bases for exponent in ROOTS)
        return next((one for one in made if one is not None and all_close(one.values, values)), None)

    def _telling(self, values: Values) -> list[int]:
        """A few instances that differ from each other."""
        seen: dict[Any, int] = {}
        for i, value in enumerate(values):
            seen.setdefault((value, *(symbol.values[i] for symbol in self._numeric[:3])), i)
        return list(seen.values())[:_COLUMNS]

    def _deeper(self, values: Values) -> Expression | None:
        """One operator more than in a pair."""
        if not self._numeric or not all(map(math.isfinite, values)):
            return None
        best: Expression | None = None
        for left, right, operator in self._longer.fitting(Goal.of(values), self._telling(values)):
            made = combine(left, right, operator)
            if made is not None and best is not None and made.cost > best.cost:
                break
            if made is not None and all_close(made.values, values):
                if not _follows_depth(made) and not _adds_twice(made):
                    return made
                best = best or made
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
        for symbol in self.symbols if self.options else ():
            missing = [value is None for value in symbol.values]
            if not any(missing) or all(missing):
                continue
            if any(not absent and not close(v, w) for absent, v, w in zip(missing, symbol.values, values, strict=True)):
                continue
            inner = self._among([i for i, absent in enumerate(missing) if absent], values)
            if inner is not None:
                text = f"{symbol.text} or {inner.inside(CONDITION + 1)}"
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


def _follows_depth(expression: Expression) -> bool:
    """Whether the number of layers counts: of two that are as simple, one over widths is likelier."""
    return any(key in LAYER_COUNTS for key in re.findall(r"\bconfig\.(\w+)", expression.text))


def _adds_twice(expression: Expression) -> bool:
    """Whether something is added to itself: `2 * n + 1` says it better than `n + 1 + n`."""
    terms = expression.text.split(" + ")
    return len(set(terms)) < len(terms)
