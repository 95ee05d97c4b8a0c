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
no = np.logical_not
_PRECEDENCE = {"*": PRODUCT, "//": PRODUCT, "/": PRODUCT, "int": ATOM, "+": SUM, "-": SUM}


def combine(a: Expression, b: Expression, symbol: str) -> Expression | None:
    """`a symbol b`, if that makes sense of the operands."""
    if a is b or not makes_sense(looks(a), looks(b), symbol):  # `x + x` is `2 * x`
        return None
    pairs = list(zip(a.values, b.values, strict=True))
    try:
        if symbol == "//" and any(x % y for x, y in pairs):
            return None  # sizes divide evenly
        if symbol == "int" and any(abs(x * y - round(x * y)) > WHOLE for x, y in pairs):
            return None  # and parts of sizes are whole: what is cut off otherwise would fit by chance
        function = FUNCTIONS[symbol]
        values = tuple(function(x, y) for x, y in pairs)
    except (ZeroDivisionError, OverflowError):
        return None
    return _written(a, b, symbol, values)


class Looks(NamedTuple):
    """What says whether an operator makes sense of an operand; or arrays of that."""

    number: Any
    begins_with_1: Any
    is_1: Any
    is_1_0: Any
    has_floats: Any


def looks(one: Expression) -> Looks:
    """See `Looks`."""
    return Looks(one.cost == 0, one.text.startswith("1"), one.text == "1", one.text == "1.0", one.has_floats)


def makes_sense(a: Looks, b: Looks, symbol: str) -> Any:
    """Whether anybody would write `a symbol b`; also for arrays. Sizes divide, and what is no size is cut off."""
    has_floats = a.has_floats | b.has_floats
    of_its_kind = has_floats if symbol == "int" else no(has_floats) if symbol == "//" else True
    return of_its_kind & _is_sensible(a, b, symbol)


def _is_sensible(a: Looks, b: Looks, symbol: str) -> Any:
    """Leave out what nobody would write: two numbers, `x * 2` for `2 * x`, `1 * x`, `x / 1`; also for arrays."""
    if symbol in ("*", "int"):
        return no(b.number) & no(a.begins_with_1)
    if symbol == "+":
        return no(a.number)
    if symbol == "/":
        return no(b.number) & (no(a.number) | a.is_1_0)
    complement = a.is_1 & b.has_floats & (symbol == "-") & no(b.number)
    return (complement | no(a.number)) & no(b.is_1 & (symbol == "//")) & no(b.is_1_0)


def cost(a: Any, b: Any, symbol: str) -> Any:
    """Of `a symbol b`, for the costs of the operands; also for arrays of them. Only numbers cost nothing."""
    return a + b + 1 + (a == 0) + (b == 0) + (symbol == "int")


def _written(a: Expression, b: Expression, symbol: str, values: Values) -> Expression:
    if symbol == "int":
        text = f"int({a.inside(PRODUCT)} * {b.inside(PRODUCT + 1)})"
        return Expression(text, values, ATOM, cost(a.cost, b.cost, symbol))
    precedence = _PRECEDENCE[symbol]
    text = f"{a.inside(precedence)} {symbol} {b.inside(precedence + 1)}"
    return Expression(text, values, precedence, cost(a.cost, b.cost, symbol))


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
