"""Expressions found for fewer instances: with more of them most still hold, and need not be sought again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from trtllm_port.codegen.ir.expressions import Expression, Values, all_close

_found: dict[tuple[str, ...], dict[int, dict[str, Expression]]] = {}  # symbols → number of instances → values → found


def recall(symbols: Sequence[Expression], values: Values) -> Expression | None:
    """What was found over the same symbols for the first of these values, if it gives the others, too.

    It was the simplest expression then, so it is now: further instances only rule out others.
    """
    known = _found.get(tuple(symbol.text for symbol in symbols), {})
    for count in sorted((count for count in known if count <= len(values)), reverse=True):
        earlier = known[count].get(repr(values[:count]))
        if earlier is not None:
            return _evaluated(earlier, symbols, values)
    return None


def remember(symbols: Sequence[Expression], values: Values, found: Expression) -> None:
    """Keep what was found."""
    by_count = _found.setdefault(tuple(symbol.text for symbol in symbols), {})
    by_count.setdefault(len(values), {})[repr(values)] = found


def _evaluated(earlier: Expression, symbols: Sequence[Expression], values: Values) -> Expression | None:
    numbers = {symbol.text: number for number, symbol in enumerate(symbols)}
    names = "|".join(re.escape(text) for text in sorted(numbers, key=len, reverse=True))
    text = re.sub(rf"(?<![\w.])(?:{names})(?![\w\[])", lambda match: f"a[{numbers[match[0]]}]", earlier.text)
    try:
        code = compile(text, "expression", "eval")
        results = tuple(
            eval(code, {"__builtins__": {"int": int}}, {"a": [symbol.values[i] for symbol in symbols]})
            for i in range(len(values))
        )
    except (ArithmeticError, KeyError, IndexError, NameError, SyntaxError, TypeError):
        return None
    if not _equal(results, values):
        return None
    return Expression(earlier.text, values, earlier.precedence, earlier.cost)


def _equal(results: tuple[Any, ...], values: Values) -> bool:
    return all(type(a) is type(b) or isinstance(b, float) for a, b in zip(results, values, strict=True)) and all_close(
        results, values
    )
