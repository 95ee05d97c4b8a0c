"""Candidates for the solver: very many expressions over few operands, of which only those that fit are written down.

What a candidate is worth is computed in float64, for all of them at once and for one instance after the other. It may
be a candidate that exact arithmetic then rules out; none that fits is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from trtllm_port.codegen.ir.expressions import Expression, Float32, Rounded, Values
from trtllm_port.codegen.solve.operators import (
    FUNCTIONS,
    ROOTS,
    WHOLE,
    OperandTraits,
    combine,
    cost,
    makes_sense,
    power,
    traits,
)

Array = np.ndarray[Any, np.dtype[np.float64]]
Numbers = np.ndarray[Any, np.dtype[np.intp]]
OPERATORS = (*FUNCTIONS, "power", "itself")
_WAYS = tuple(product(FUNCTIONS, (False, True)))  # operator, and whether operands are swapped
_POWER, _ITSELF = OPERATORS.index("power"), OPERATORS.index("itself")


@dataclass(frozen=True)
class Candidates:
    """Expressions of one operator over operands, one in each place of four arrays.

    Attributes:
        operator: place of the operator in `OPERATORS`; "itself" is the first operand alone.
        first, second: numbers of the operands; of the exponent in `ROOTS` for a power.
        cost: see `Expression`.
    """

    operator: Numbers
    first: Numbers
    second: Numbers
    cost: Numbers

    def __len__(self) -> int:
        return len(self.operator)

    def __getitem__(self, rows: Any) -> Candidates:
        return Candidates(self.operator[rows], self.first[rows], self.second[rows], self.cost[rows])

    def sorted(self) -> Candidates:
        """The cheap ones first."""
        return self[np.argsort(self.cost, kind="stable")]


def concatenated(parts: Iterable[Candidates]) -> Candidates:
    """The rows of all parts, one after the other."""
    found = list(parts)
    columns = ([getattr(part, name) for part in found] for name in ("operator", "first", "second", "cost"))
    return Candidates(*(np.concatenate(column) for column in columns))


class Operands:
    """Expressions that others are made of, with their values as a matrix [operand, instance]."""

    def __init__(self, expressions: Sequence[Expression]) -> None:
        self.expressions = list(expressions)
        self.values: Array = np.array([one.values for one in expressions], dtype=np.float64)
        self.traits = OperandTraits(*(np.array(column) for column in zip(*map(traits, expressions), strict=True)))
        self.costs: Numbers = np.array([one.cost for one in expressions], dtype=np.intp)

    def pairs(self, first: Numbers, second: Numbers, operators: Sequence[str] = tuple(FUNCTIONS)) -> Candidates:
        """All that makes sense of an operator over two operands."""
        a, b = np.repeat(first, len(second)), np.tile(second, len(first))
        one, other = (OperandTraits(*(column[numbers] for column in self.traits)) for numbers in (a, b))
        sensible = np.stack([makes_sense(one, other, operator) & (a != b) for operator in operators], -1)
        place, which = np.nonzero(sensible)
        operator: Numbers = np.array([OPERATORS.index(operator) for operator in operators])[which]
        a, b = a[place], b[place]
        costs = cost(self.costs[a], self.costs[b], "") + (operator == OPERATORS.index("int"))
        return Candidates(operator, a, b, costs)

    def powers(self, bases: Numbers) -> Candidates:
        """The roots of operands."""
        first = np.repeat(bases, len(ROOTS))
        second: Numbers = np.tile(np.arange(len(ROOTS)), len(bases))
        return Candidates(np.full(len(first), _POWER), first, second, self.costs[first] + 1)

    def alone(self, bases: Numbers) -> Candidates:
        """The operands as they are."""
        return Candidates(np.full(len(bases), _ITSELF), bases, bases, self.costs[bases])

    def written(self, rows: Candidates, place: int) -> Expression | None:
        """The expression in one place, if it makes sense in all instances."""
        operator, first = OPERATORS[int(rows.operator[place])], self.expressions[int(rows.first[place])]
        if operator == "itself":
            return first
        if operator == "power":
            return power(first, ROOTS[rows.second[place]])
        return combine(first, self.expressions[int(rows.second[place])], operator)

    def at(self, rows: Candidates, instance: int) -> Array:
        """What the rows are worth in one instance; not a number where they make no sense."""
        values = self.values[:, instance]
        found: Array = np.full(len(rows), np.nan)
        for number in range(len(OPERATORS)):
            there = rows.operator == number
            if not there.any():
                continue
            a, second = values[rows.first[there]], rows.second[there]
            if number == _POWER:
                found[there] = np.where(a > 0, np.where(a > 0, a, 1.0) ** np.array(ROOTS)[second], np.nan)
            else:
                found[there] = a if number == _ITSELF else computed(OPERATORS[number], a, values[second])
        return found


def computed(operator: str, a: Any, b: Any) -> Array:
    """`a operator b` for numbers in float64; not a number where sizes do not divide, and parts are not whole."""
    with np.errstate(all="ignore"):
        if operator == "//":
            return np.where(np.fmod(a, b) == 0, np.floor_divide(a, b), np.nan)
        if operator == "int":
            whole = np.abs(a * b - np.round(a * b)) <= 2 * WHOLE  # twice: what is near the limit is decided exactly
            return np.where(whole, np.trunc(a * b), np.nan)
        found: Array = FUNCTIONS[operator](a, b)
        return found


@dataclass(frozen=True)
class Goal:
    """What comes out in every instance, and how far from it something may be that `close` takes for it."""

    values: Array
    slack: Array

    @classmethod
    def of(cls, values: Values) -> Goal:
        """For some numbers; the slack is a little more, for what float64 rounds off."""
        relative = [2**-8 if isinstance(v, Rounded) else 2**-20 if isinstance(v, Float32) else 1e-9 for v in values]
        numbers: Array = np.array(values, dtype=np.float64)
        return cls(numbers, 1.01 * np.array(relative) * np.abs(numbers))

    def under_root(self, exponent: float) -> Goal:
        """What has these values as its root."""
        with np.errstate(all="ignore"):
            squares = self.values ** (1 / exponent)
            return Goal(squares, 2.1 * self.slack / self.values * squares)

    def fits(self, found: Array, instance: int) -> Any:
        """Whether something is near enough."""
        return np.abs(found - self.values[instance]) <= self.slack[instance]


def fitting(operands: Operands, rows: Candidates, goal: Goal, instances: Sequence[int]) -> Numbers:
    """The places of those rows that reach a goal in some instances."""
    places: Numbers = np.arange(len(rows))
    for instance in instances:
        if not len(places):
            break
        places = places[goal.fits(operands.at(rows[places], instance), instance)]
    return places


class MeetInTheMiddle:
    """Candidates of one operator more: one over a row of `left` and a row of `right`, in this order or the other.

    Args:
        operands: of the rows.
    """

    def __init__(self, operands: Operands, left: Candidates, right: Candidates) -> None:
        self.operands = operands
        self.left = left
        self.right = right
        self._sorted: dict[int, tuple[Array, Numbers]] = {}

    def fitting(self, goal: Goal, instances: Sequence[int]) -> Iterator[tuple[Expression, Expression, str]]:
        """Both operands and the operator of what reaches a goal in some instances, cheap ones first.

        In the instance with the largest value, the left operand that an operator needs to give it with a right one is
        computed, and looked up among the sorted ones; the other instances then rule out most of what is found.
        """
        ordered = sorted(instances, key=lambda instance: -abs(goal.values[instance]))
        found = []
        for number, (operator, swapped) in enumerate(_WAYS):
            i, j = self._near(operator, swapped, goal, ordered[0])
            for instance in ordered:
                if not len(i):
                    break
                a, b = self.operands.at(self.left[i], instance), self.operands.at(self.right[j], instance)
                fits = goal.fits(computed(operator, *((b, a) if swapped else (a, b))), instance)
                i, j = i[fits], j[fits]
            costs = cost(self.left.cost[i], self.right.cost[j], operator)
            found.append((j, i, np.full(len(i), number), costs))
        right, left, ways, costs = (np.concatenate([one[part] for one in found]) for part in range(4))
        for n in np.lexsort((right, left, ways, costs)):
            operator, swapped = _WAYS[ways[n]]
            one, other = self.operands.written(self.left, left[n]), self.operands.written(self.right, right[n])
            if one is not None and other is not None:
                yield (other, one, operator) if swapped else (one, other, operator)

    def _near(self, operator: str, swapped: bool, goal: Goal, instance: int) -> tuple[Numbers, Numbers]:
        """Places of pairs that may reach a goal in one instance: all that do are among them."""
        known, places = self._lefts(instance)
        value, slack = float(goal.values[instance]), float(goal.slack[instance])
        low, high = operand_interval(operator, swapped, (value, slack), self.operands.at(self.right, instance))
        starts, stops = np.searchsorted(known, low, "left"), np.searchsorted(known, high, "right")
        counts = np.maximum(stops - starts, 0)
        right: Numbers = np.repeat(np.arange(len(counts)), counts)
        behind = np.arange(len(right)) - np.repeat(np.cumsum(counts) - counts, counts)
        return places[np.repeat(starts, counts) + behind], right

    def _lefts(self, instance: int) -> tuple[Array, Numbers]:
        """What the left rows are worth in an instance, in order, and where they are."""
        if instance not in self._sorted:
            found = self.operands.at(self.left, instance)
            order = np.argsort(found, kind="stable")
            order = order[np.isfinite(found[order])]
            self._sorted[instance] = found[order], order
        return self._sorted[instance]


def operand_interval(operator: str, swapped: bool, goal: tuple[float, float], known: Array) -> tuple[Array, Array]:
    """Between which numbers an operand is that gives about a value with another, known one.

    Args:
        operator: the operator.
        swapped: whether the known operand is the first.
        goal: what comes out, and how far from it that may be.
        known: the other operands.
    """
    number, near = goal
    around = near + 1e-14 * (abs(number) + np.abs(known))  # and what float64 rounds off
    ends: Sequence[Any] = (number - near, number + near)
    with np.errstate(all="ignore"):
        if operator in ("+", "-"):
            middle = number - known if operator == "+" else known - number if swapped else number + known
            return middle - around, middle + around
        if operator == "int":  # what is cut off is less than one
            ends = (number - near - 1 - WHOLE, number + near + 1 + WHOLE)
        if operator in ("*", "int"):
            found = [end / known for end in ends]
        elif swapped:
            found = [known / end for end in ends]
        else:
            found = [end * known for end in ends]
        low, high = np.minimum(*found), np.maximum(*found)
        anything = np.isnan(low) | np.isnan(high)  # nothing times whatever
        margin = 1e-12 * np.maximum(np.abs(low), np.abs(high))
        margin = np.where(np.isfinite(margin), margin, 0)
    return np.where(anything, -np.inf, low - margin), np.where(anything, np.inf, high + margin)
