"""Expressions that were found for fewer instances hold for more, or are sought again."""

from __future__ import annotations

from trtllm_port.codegen.ir.expressions import ATOM, Expression
from trtllm_port.codegen.solve.expression_cache import recall, remember


def symbols(*columns: tuple[int, ...]) -> list[Expression]:
    return [Expression(f"config.key{i}", column, ATOM, 1) for i, column in enumerate(columns)]


def test_what_still_holds_is_recalled() -> None:
    few, more = symbols((2, 3), (5, 7)), symbols((2, 3, 4), (5, 7, 6))
    remember(few, (12, 17), Expression("config.key0 + 2 * config.key1", (12, 17), 70, 5))

    found = recall(more, (12, 17, 16))

    assert found is not None
    assert found.text == "config.key0 + 2 * config.key1"
    assert found.values == (12, 17, 16)


def test_what_does_not_hold_any_more_is_not() -> None:
    few, more = symbols((2, 3), (8, 9)), symbols((2, 3, 4), (8, 9, 9))
    remember(few, (10, 12), Expression("config.key0 + config.key1", (10, 12), 70, 3))

    assert recall(more, (10, 12, 12)) is None
    assert recall(symbols((2, 3, 4)), (10, 12, 13)) is None
