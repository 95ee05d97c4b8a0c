"""What the operators of an expression make of its operands, and which of it anybody would write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from trtllm_port.codegen.ir.expressions import (
    ATOM,
    POWER,
    PRODUCT,
    SUM,
    Expression,
    Values,
    power_text,
)
from trtllm_port.layers import normal_quantile

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "int": lambda a, b: int(a * b),
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "/": lambda a, b: a / b,
}
WHOLE = 1e-6  # how far from a whole number a part of a size may be
ROOTS = (-0.5, 0.5)
_not = np.logical_not
_PRECEDENCE = {"*": PRODUCT, "//": PRODUCT, "/": PRODUCT, "int": ATOM, "+": SUM, "-": SUM}


def combine(a: Expression, b: Expression, operator: str) -> Expression | None:
    """`a operator b`, if that makes sense of the operands."""
    if a is b or not makes_sense(traits(a), traits(b), operator):  # `x + x` is `2 * x`
        return None
    pairs = list(zip(a.values, b.values, strict=True))
    try:
        if operator == "//" and any(x % y for x, y in pairs):
            return None  # sizes divide evenly
        if operator == "int" and any(abs(x * y - round(x * y)) > WHOLE for x, y in pairs):
            return None  # and parts of sizes are whole: what is cut off otherwise would fit by chance
        function = FUNCTIONS[operator]
        values = tuple(function(x, y) for x, y in pairs)
    except (ZeroDivisionError, OverflowError):
        return None
    return _written(a, b, operator, values)


class OperandTraits(NamedTuple):
    """What says whether an operator makes sense of an operand; or arrays of that."""

    number: Any
    begins_with_1: Any
    is_1: Any
    is_1_0: Any
    has_floats: Any


def traits(one: Expression) -> OperandTraits:
    """See `OperandTraits`."""
    return OperandTraits(one.cost == 0, one.text.startswith("1"), one.text == "1", one.text == "1.0", one.has_floats)


def makes_sense(a: OperandTraits, b: OperandTraits, operator: str) -> Any:
    """Whether anybody would write `a operator b`; also for arrays. Sizes divide, and what is no size is cut off."""
    has_floats = a.has_floats | b.has_floats
    of_its_kind = has_floats if operator == "int" else _not(has_floats) if operator == "//" else True
    return of_its_kind & _is_sensible(a, b, operator)


def _is_sensible(a: OperandTraits, b: OperandTraits, operator: str) -> Any:
    """Leave out what nobody would write: two numbers, `x * 2` for `2 * x`, `1 * x`, `x / 1`; also for arrays."""
    if operator in ("*", "int"):
        return _not(b.number) & _not(a.begins_with_1)
    if operator == "+":
        return _not(a.number)
    if operator == "/":
        return _not(b.number) & (_not(a.number) | a.is_1_0)
    complement = a.is_1 & b.has_floats & (operator == "-") & _not(b.number)
    return (complement | _not(a.number)) & _not(b.is_1 & (operator == "//")) & _not(b.is_1_0)


def cost(a: Any, b: Any, operator: str) -> Any:
    """Of `a operator b`, for the costs of the operands; also for arrays of them. Only numbers cost nothing."""
    return a + b + 1 + (a == 0) + (b == 0) + (operator == "int")


def _written(a: Expression, b: Expression, operator: str, values: Values) -> Expression:
    if operator == "int":
        text = f"int({a.inside(PRODUCT)} * {b.inside(PRODUCT + 1)})"
        return Expression(text, values, ATOM, cost(a.cost, b.cost, operator))
    precedence = _PRECEDENCE[operator]
    text = f"{a.inside(precedence)} {operator} {b.inside(precedence + 1)}"
    return Expression(text, values, precedence, cost(a.cost, b.cost, operator))


def power(base: Expression, exponent: float) -> Expression | None:
    """One of the `ROOTS` of an expression that is positive."""
    if not all(value > 0 for value in base.values):
        return None
    values = tuple(value**exponent for value in base.values)
    return Expression(power_text(base, str(exponent)), values, POWER, base.cost + 1)


def quantile(base: Expression) -> Expression | None:
    """Of the normal distribution, for a share."""
    if not all(isinstance(value, float) and 0 < value < 1 for value in base.values):
        return None
    return Expression(f"normal_quantile({base.text})", tuple(map(normal_quantile, base.values)), ATOM, base.cost + 2)
