"""Numbers that follow from the tokens' positions are computed for every row; the port's nodes, run with torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trtllm_port.codegen.ir import Block
from trtllm_port.codegen.positional import Positional
from trtllm_port.codegen.recorder import Literal, Location, Operation, Value

ROWS, LENGTH = 3, 5
POSITIONS = torch.arange(2, 2 + LENGTH)


def _own(block: Block, tensor: Tensor, location: Location | None) -> Value | None:
    known = tensor.dtype == torch.int64 and torch.equal(tensor, POSITIONS)
    return Value(POSITIONS.expand(ROWS, LENGTH)) if known else None


class _Chain:
    """Constants that one operation after the other makes of the positions."""

    def __init__(self) -> None:
        self.positional = Positional(ROWS, _own)
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


@pytest.mark.parametrize("constant", [torch.rand(LENGTH), POSITIONS])
def test_other_constants_and_whole_numbers_stay_what_they_are(constant: Tensor) -> None:
    assert _Chain().positional.computed(Block("", nn.Module()), Literal(constant)) is None


def test_what_also_follows_from_something_else_stays_what_it_is() -> None:
    slopes = Literal(torch.rand(LENGTH))
    chain = _Chain().then("float", lambda x: x.float()).then("__mul__", lambda x: x * slopes.tensor, slopes)
    block = Block("", nn.Module())
    assert chain.positional.computed(block, chain.last) is None
    assert block.nodes == []
