"""Computations of which every instance has at most one."""

from __future__ import annotations

import torch

from trtllm_port.codegen.ir.expressions import ATOM, Expression
from trtllm_port.codegen.ir.nodes import Node, values_in
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.merge.case_chains import Chain, Region, branch_node, chain_node, find_chain
from trtllm_port.codegen.write.branches import _lines, merge_conditions

EVERYBODY = frozenset(range(4))


def value() -> Value:
    return Value(torch.zeros(1))


def region(*guard: int, given: Value, made: Value) -> Region:
    return Region(frozenset(guard), sides=([Node("method", "exp", (given,), {}, (made,))], []))


def test_items_for_different_instances_are_a_chain() -> None:
    x, a, b, c = (value() for _ in range(4))
    regions = [region(0, given=x, made=a), region(1, 3, given=x, made=b), region(2, given=x, made=c)]
    assert find_chain(regions, 3, EVERYBODY, (a, b, c, b)) == (Chain(0, 3), (a, b, c))
    assert find_chain(regions, 2, EVERYBODY, (a, b, x, b)) == (Chain(0, 2), (a, b, x))
    assert find_chain(regions, 3, EVERYBODY, (a, b, c, c)) is None  # 1 and 3 share an region, not the value
    overlapping = [regions[0], region(0, 1, given=x, made=b)]
    assert find_chain(overlapping, 2, EVERYBODY, (a, b, x, x)) is None


def test_a_chain_is_a_choice_in_the_other_side_of_a_choice() -> None:
    x, a, b, c, result = (value() for _ in range(5))
    regions = [region(0, given=x, made=a), region(1, 3, given=x, made=b), region(2, given=x, made=c)]
    chain = Chain(0, 3, [(result, (a, b, c))])

    def branch(guard: tuple[bool | None, ...], sides: tuple[list[Node], list[Node]], results: list[tuple]) -> Node:  # type: ignore[type-arg]
        return branch_node(guard, sides, results, ("", ""), lambda node: list(values_in((node.args, node.keywords))))

    outer = chain_node(chain, regions, EVERYBODY, set(), branch)
    assert outer.outputs == (result,)
    assert outer.args == (x,)
    assert outer.branch is not None
    assert outer.branch.guard == (True, False, False, False)
    (inner,) = outer.branch.sides[1]
    assert outer.branch.results == ((a, inner.outputs[0]),)
    assert inner.branch is not None
    assert inner.branch.guard == (None, True, False, True)
    assert inner.branch.results == ((b, c),)


def test_a_choice_in_the_other_side_is_an_elif() -> None:
    inner = ["if q:", "    x = g(x)", "    y = x", "else:", "    x = h(x)"]
    condition = Expression("p", (), ATOM, 1)
    assert _lines(condition, [["x = f(x)"], inner], None) == ["if p:", "    x = f(x)", f"el{inner[0]}", *inner[1:]]
    both = [*inner, "y = x"]
    assert _lines(condition, [["x = f(x)"], both], None)[2:4] == ["else:", "    if q:"]


def test_neighbours_under_one_condition_stand_under_it_together() -> None:
    first, second = ["if config.norm:", "    self.a = A()"], ["if config.norm:", "    self.b = B()"]
    assert merge_conditions([*first, *second]) == [*first, second[1]]
    assert merge_conditions([*first, "self.c = C()", *second]) == [*first, "self.c = C()", *second]
    assert merge_conditions([*first, "if config.bias:", second[1]]) == [*first, "if config.bias:", second[1]]
