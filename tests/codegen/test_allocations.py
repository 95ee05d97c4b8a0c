"""Tensors filled part by part are joins of their parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Operation
from trtllm_port.codegen.recognise.allocations import Allocations
from trtllm_port.codegen.record.recorder import Recorder


def by_copies(x: Tensor) -> Tensor:
    out = x.new_empty(2, 5)
    out[..., :3].copy_(x * 2)
    out[..., 3:].copy_(x[:, :2])
    return out


def by_items(x: Tensor) -> Tensor:
    out = x.new_empty(4, 3)
    out[2:] = x
    out[:2] = x + 1
    return out


def repeated(x: Tensor) -> Tensor:
    """One row beside each of several."""
    out = x.new_empty(2, 5)
    out[:, :3] = x[:1] * 2
    out[:, 3:] = x[:, :2]
    return out


def with_a_gap(x: Tensor) -> Tensor:
    out = x.new_empty(2, 6)
    out[..., :3] = x
    out[..., 4:] = x[:, :2]
    return out


def across(x: Tensor) -> Tensor:
    out = x.new_empty(2, 3)
    out[:1] = x[:1]
    out[1:, 1:] = x[1:, 1:]
    return out


class Module(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _joins(function: Callable[[Tensor], Tensor]) -> tuple[list[Node], Tensor]:
    model = Module(function)
    with Recorder(model) as recorder:
        out = model(torch.arange(6.0).view(2, 3))
    assert recorder.root is not None
    allocations, block = Allocations(), Block("", model)
    operations = [item for item in recorder.root.body if isinstance(item, Operation)]
    return [node for operation in operations if (node := allocations.joined(block, operation)) is not None], out


@pytest.mark.parametrize("function", [by_copies, by_items, repeated])
def test_parts_are_joined(function: Callable[[Tensor], Tensor]) -> None:
    (node,), out = _joins(function)
    (parts,) = node.args
    assert node.name == "concat"
    assert torch.equal(torch.cat([part.tensor for part in parts], node.keywords["dim"]), out)
    assert node.outputs[0].tensor is out


@pytest.mark.parametrize("function", [with_a_gap, across])
def test_what_is_not_filled_is_not_joined(function: Callable[[Tensor], Tensor]) -> None:
    assert _joins(function)[0] == []
