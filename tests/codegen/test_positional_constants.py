"""Numbers that follow from the tokens' positions are computed for every row; the port's nodes, run with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trtllm_port.codegen.ir.nodes import Block
from trtllm_port.codegen.ir.record import Literal, Location, Operation, Value
from trtllm_port.codegen.recognise.positional_constants import PositionalConstants

ROWS, LENGTH = 3, 5
POSITIONS = torch.arange(2, 2 + LENGTH)


def _own(block: Block, tensor: Tensor, location: Location | None) -> Value | None:
    known = tensor.dtype == torch.int64 and torch.equal(tensor, POSITIONS)
    return Value(POSITIONS.expand(ROWS, LENGTH)) if known else None


class _Chain:
    """Constants that one operation after the other makes of the positions."""

    def __init__(self) -> None:
        self.positional = PositionalConstants(ROWS, _own)
        self.last = Literal(POSITIONS)

    def then(self, name: str, function: Callable[[Tensor], Tensor], *args: object) -> _Chain:
        made = Literal(function(self.last.tensor))
        self.positional.note(Operation(name, (self.last, *args), {}, (Value(made.tensor),), None), made)
        self.last = made
        return self


def test_a_scale_that_grows_with_the_position() -> None:
    chain = (
        _Chain()
        .then("float", lambda x: x.float())
        .then("__add__", lambda x: x + 1.0, 1.0)
        .then("__truediv__", lambda x: x / 2, 2)
        .then("floor", torch.floor)
        .then("log1p", torch.log1p)
        .then("view", lambda x: x.view(1, LENGTH, 1, 1), (1, LENGTH, 1, 1))
        .then("expand", lambda x: x.expand(ROWS, LENGTH, 1, 1), (ROWS, LENGTH, 1, 1))
    )
    block = Block("", nn.Module())
    found = chain.positional.computed(block, chain.last)
    assert found is not None
    assert [node.name for node in block.nodes] == ["float32", "+", "/", "floor", "log1p", "view"]
    torch.testing.assert_close(found.tensor, chain.last.tensor)
    assert block.nodes[-2].outputs[0].tensor.shape == (ROWS, LENGTH)
    assert block.nodes[-1].args[1] == (ROWS, LENGTH, 1, 1)


def test_what_follows_from_how_far_slots_are_before_tokens() -> None:
    """As relative attention computes it: an index into a table, and where the table ends."""
    slots, heads = 2 + LENGTH, 4
    batch = torch.stack([POSITIONS + row for row in range(ROWS)])
    apart = batch[:, :, None] - torch.arange(slots)

    def distances(block: Block, tensor: Tensor, location: Location | None) -> Value | None:
        return Value(apart) if torch.equal(tensor, apart[0]) else None

    positional = PositionalConstants(ROWS, _own, distances)
    column, row = Literal(POSITIONS[:, None]), Literal(torch.arange(slots)[None])

    def made(name: str, tensor: Tensor, *args: Any) -> Literal:
        literal = Literal(tensor)
        positional.note(Operation(name, args, {}, (Value(tensor),), None), literal)
        return literal

    distance = made("__sub__", apart[0], column, row)
    wide = made("__getitem__", distance.tensor[None, None], distance, (None, None))
    clamped = made("clamp", wide.tensor.clamp(0, 3), wide, 0, 3)
    index = made("expand", clamped.tensor.expand(ROWS, heads, -1, -1), clamped, ROWS, heads, -1, -1)
    before, behind = made("__lt__", wide.tensor < 0, wide, 0), made("__ge__", wide.tensor >= 4, wide, 4)
    outside = made("__or__", before.tensor | behind.tensor, before, behind)
    block = Block("", nn.Module())
    found = [positional.computed(block, constant) for constant in (index, outside)]
    assert [value.tensor.shape for value in found if value is not None] == [
        (ROWS, heads, LENGTH, slots),
        (ROWS, 1, LENGTH, slots),
    ]
    names = [node.name for node in block.nodes]
    assert names == ["unsqueeze", "clip", "expand", "<", ">=", "|"]
    assert positional.of_distances(outside)
    assert not positional.of_distances(made("__add__", torch.rand(3), Literal(torch.rand(3)), 1))


@pytest.mark.parametrize("constant", [torch.rand(LENGTH), POSITIONS])
def test_other_constants_and_whole_numbers_stay_what_they_are(constant: Tensor) -> None:
    assert _Chain().positional.computed(Block("", nn.Module()), Literal(constant)) is None


def test_what_also_follows_from_something_else_stays_what_it_is() -> None:
    slopes = Literal(torch.rand(LENGTH))
    chain = _Chain().then("float", lambda x: x.float()).then("__mul__", lambda x: x * slopes.tensor, slopes)
    block = Block("", nn.Module())
    assert chain.positional.computed(block, chain.last) is None
    assert block.nodes == []
