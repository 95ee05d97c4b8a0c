"""A parameter that an inner module uses and an outer one holds becomes an argument."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trtllm_port.codegen.ir.nodes import Block
from trtllm_port.codegen.ir.record import Attribute, Call, Value
from trtllm_port.codegen.lower.parameter_lifting import LiftedParameters


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(2, 2)
        self.register_buffer("bias", torch.arange(2.0))


def test_the_holder_hands_over() -> None:
    model = nn.ModuleList([Outer()])
    lifted = LiftedParameters(model)
    outer, inner = (Block(path, model.get_submodule(path)) for path in ("0", "0.gate"))
    lifted.blocks += [Block("", model), outer, inner]
    bias, own = Attribute("0.bias", True), Attribute("0.gate.weight", True)
    first: Any = lifted.tree((bias, own, 3))
    again: Any = lifted.tree({"x": bias})
    assert isinstance(first[0], Value)
    assert torch.equal(first[0].tensor, torch.arange(2.0))
    assert first[1:] == (own, 3)
    assert again["x"] is first[0]
    (node,) = outer.nodes
    assert node.args == (bias,)
    assert node.outputs == (first[0],)
    assert lifted.arguments(Call("0.gate", model.get_submodule("0.gate"), {"b": bias}, None))["b"] is first[0]


def test_nothing_is_handed_to_the_holder() -> None:
    model = Outer()
    lifted = LiftedParameters(model)
    lifted.blocks.append(Block("", model))
    assert lifted.tree(Attribute("bias", True)) == Attribute("bias", True)
    assert lifted.tree(Attribute("elsewhere", False)) == Attribute("elsewhere", False)
