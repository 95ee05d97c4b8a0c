"""Candidates of the solver: none that fits may be left out, however it is looked up."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from trtllm_port.codegen.ir.expressions import ATOM, Expression, Rounded, Values
from trtllm_port.codegen.solve.candidates import Goal, MeetInTheMiddle, Operands, fitting, operand_interval
from trtllm_port.codegen.solve.operators import FUNCTIONS

SIZES = Expression("size", (12, 30, 56), ATOM, 1)
HEADS = Expression("heads", (4, 6, 8), ATOM, 1)
SHARE = Expression("share", (0.25, 0.5, 0.125), ATOM, 1)
TWO = Expression("2", (2, 2, 2), ATOM, 0)
OPERANDS = Operands([SIZES, HEADS, SHARE, TWO])
ALL = np.arange(4)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("operator", FUNCTIONS)
def test_what_gives_a_value_lies_within_what_is_needed_for_it(operator: str, swapped: bool) -> None:
    numbers = np.array([-12.0, -0.75, 0.0, 0.25, 1.0, 3.0, 4.0, 12.0, 1e-5, 7.3e6])
    for operand, known in product(numbers, numbers):
        pair = (known, operand) if swapped else (operand, known)
        if (operator in ("/", "//") and pair[1] == 0) or (operator == "//" and pair[0] % pair[1]):
            continue
        value = float(FUNCTIONS[operator](*pair))
        low, high = operand_interval(operator, swapped, (value, 1e-9 * abs(value)), np.array([known]))
        assert low <= operand <= high, f"{operand} {operator} {known}: {value} not between {low} and {high}"


def _texts(values: Values) -> set[str]:
    rows = OPERANDS.pairs(ALL, ALL)
    places = fitting(OPERANDS, rows, Goal.of(values), range(3))
    made = [OPERANDS.written(rows, int(place)) for place in places]
    return {one.text for one in made if one is not None}


def test_pairs_that_fit_are_found() -> None:
    assert _texts((3, 5, 7)) == {"size // heads", "size / heads"}
    assert _texts((8, 24, 48)) == {"size - heads"}
    assert _texts((24, 60, 112)) == {"2 * size"}
    assert _texts((3, 15, 7)) >= {"int(size * share)", "int(share * size)"}


def test_half_precision_is_near_enough() -> None:
    assert _texts(tuple(Rounded(x * 1.003) for x in (3.0, 15.0, 7.0))) >= {"size * share"}
    assert _texts(tuple(x * 1.003 for x in (3.0, 15.0, 7.0))) == set()


def test_one_operator_more_comes_cheapest_first() -> None:
    longer = MeetInTheMiddle(OPERANDS, OPERANDS.pairs(ALL, ALL), OPERANDS.alone(ALL))
    found = list(longer.fitting(Goal.of((50, 182, 450)), range(3)))
    texts = {f"{one.text} {operator} {other.text}" for one, other, operator in found}
    assert {"size * heads + 2", "heads * size + 2"} <= texts
    costs = [one.cost + other.cost for one, other, operator in found]
    assert costs == sorted(costs)
