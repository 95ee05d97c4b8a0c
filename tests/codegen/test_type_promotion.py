"""Data types and shapes of operands: casts where torch promotes, no expansion where an operator broadcasts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Operation, Value
from trtllm_port.codegen.lower.type_promotion import cast_first, promote_rotation, without_expansions

HALF = torch.bfloat16


def block() -> Block:
    return Block("", nn.Module())


def rotation(x: Tensor, table: Tensor, out: torch.dtype) -> tuple[Block, Operation]:
    made = block()
    operation = Operation("rotary_embedding", (Value(x), Value(table), Value(table)), {}, (Value(x.to(out)),), None)
    return made, promote_rotation(made, operation)


def test_a_rotation_by_wider_tables_is_computed_as_wide() -> None:
    made, operation = rotation(torch.ones(1, 2, 3, 4, dtype=HALF), torch.ones(1, 3, 2), torch.float32)
    (cast,) = made.nodes
    assert (cast.form, cast.name) == ("cast", "float32")
    assert operation.args[0] is cast.outputs[0]
    assert cast.outputs[0].tensor.dtype == torch.float32


def test_a_rotation_of_one_data_type_is_left_alone() -> None:
    made, operation = rotation(torch.ones(1, 2, 3, 4), torch.ones(1, 3, 2), torch.float32)
    assert not made.nodes
    assert [arg.tensor.ndim for arg in operation.args] == [4, 3, 3]


def test_a_reduction_casts_first() -> None:
    made, x = block(), Value(torch.ones(2, 3, dtype=HALF))
    operation = Operation("sum", (x,), {"dim": -1, "dtype": torch.float32}, (Value(torch.ones(2)),), None)
    reduced = cast_first(made, operation)
    assert [node.name for node in made.nodes] == ["float32"]
    assert reduced.args == made.nodes[0].outputs
    assert reduced.kwargs == {"dim": -1}


def expanded(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[Any, Node]:
    """A tensor [3], and a sum of it, expanded, with another."""
    made, source, x = block(), Value(torch.ones(3)), Value(torch.ones(other))
    wide = Value(torch.ones(shape))
    made.nodes.append(Node("method", "expand", (source, shape), {}, (wide,)))
    return source, without_expansions(made, Node("operator", "+", (x, wide), {}, (Value(x.tensor + wide.tensor),)))


def test_an_operator_broadcasts_by_itself() -> None:
    source, node = expanded((2, 5, 3), (2, 5, 3))
    assert node.args[1] is source


def test_an_expansion_that_the_result_needs_stays() -> None:
    source, node = expanded((2, 5, 3), (5, 3))
    assert node.args[1] is not source


def test_what_is_repeated_and_was_more_than_one_stays() -> None:
    made, source, x = block(), Value(torch.ones(2, 3)), Value(torch.ones(8, 1))
    wide = Value(torch.ones(8, 3))
    made.nodes.append(Node("method", "repeat", (source, (8, 3), (4, 1)), {}, (wide,)))
    node = without_expansions(made, Node("operator", "*", (wide, x), {}, (Value(wide.tensor * x.tensor),)))
    assert node.args == (wide, x)
