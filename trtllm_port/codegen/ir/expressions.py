"""Python values that differ between traced configurations, and pieces of Python that stand for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Values = tuple[Any, ...]
ATOM, POWER, UNARY, PRODUCT, SUM, CONDITION = 100, 90, 80, 70, 60, 10  # how tightly operators bind


@dataclass(frozen=True)
class SymbolicValue:
    """A Python value that differs between instances: its value in each."""

    values: Values


class _Missing:
    """What an instance has in a place that it does not have."""

    def __repr__(self) -> str:
        return "(nothing)"


MISSING = _Missing()


def merge_values(values: Values) -> Any:
    """The value that all are equal to, as far as they are there, else a symbolic value."""
    there = [value for value in values if value is not MISSING]
    first = there[0]
    if all(type(value) is type(first) and value == first for value in there):
        return first
    return SymbolicValue(values)


class Rounded(float):
    """A number that went through half precision: equal to what it stands for within a relative 2⁻⁸."""


class Bfloat16(Rounded):
    """A number that Hugging Face holds in bfloat16, whatever the precision of the model."""


class Float32(float):
    """A number that went through float32: the shortest one that gives it, equal to others within 2⁻²⁰."""

    def __new__(cls, number: float) -> Float32:
        return super().__new__(cls, str(np.float32(number)))


@dataclass(frozen=True)
class Expression:
    """A piece of Python: its text, its value in every instance, how tightly it binds, and how simple it is."""

    text: str
    values: Values
    precedence: int
    cost: int

    @cached_property
    def has_floats(self) -> bool:
        """Whether any of the values is no whole number."""
        return any(isinstance(value, float) for value in self.values)

    def inside(self, precedence: int) -> str:
        """The text as an operand of an operator that binds with `precedence`."""
        return self.text if self.precedence >= precedence else f"({self.text})"


def close(a: Any, b: Any) -> bool:
    """Whether two values are the same number (or string, bool, None, list)."""
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, int | float) or not isinstance(b, int | float):
        return type(a) is type(b) and bool(a == b)
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    kinds = ((Rounded, 2**-8), (Float32, 2**-20), (float | int, 1e-9))
    tolerance = next(one for kind, one in kinds if isinstance(a, kind) or isinstance(b, kind))
    return a == b or math.isclose(a, b, rel_tol=tolerance)


def all_close(a: Values, b: Values) -> bool:
    """Whether two columns of values are the same, and integers where integers are wanted in `b`."""
    return all(close(x, y) and (not isinstance(y, int) or isinstance(x, int)) for x, y in zip(a, b, strict=True))


def is_numeric(values: Values) -> bool:
    """Whether all values are numbers, bools aside."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def power_text(base: Expression, exponent: str) -> str:
    """`base**exponent`, spaced as the formatter wants it: tight where the base is a plain name."""
    operand = base.inside(POWER + 1)
    plain = operand.replace(".", "").replace("_", "").isalnum()
    return f"{operand}**{exponent}" if plain else f"{operand} ** {exponent}"
