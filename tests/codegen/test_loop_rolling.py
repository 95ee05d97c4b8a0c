"""Layers that hand a tensor on: from one that makes it, over those that use it, to the next that makes one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.codegen.conftest import hf_config
from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.lower.liveness import Interfaces
from trtllm_port.codegen.lower.loop_rolling import roll_loops
from trtllm_port.errors import UnsupportedModelError

MAKING = (True, False, False, True)


def _value() -> Value:
    return Value(torch.zeros(()))


def _model(*, handed_on: bool) -> Block:
    """Layers the first and last of which make a choice, which those between take, and perhaps give back."""
    root = nn.Module()
    root.layers = nn.ModuleList(nn.Identity() for _ in MAKING)
    states, choice = _value(), _value()
    block = Block("", root, (states,), ("x",))
    for number, makes in enumerate(MAKING):
        layer = Block(f"layers.{number}", root.layers[number], (states,), ("x",))
        if makes:
            choice = _value()
        else:
            layer.inputs, layer.keys = (states, choice), ("x", "choice")
        states = _value()
        layer.returned = layer.outputs = (states, choice) if makes or handed_on else (states,)
        block.nodes.append(Node("call", f"layers.{number}", layer.inputs, {}, layer.outputs, block=layer))
    block.outputs = (states,)
    return block


def test_a_choice_is_handed_from_layer_to_layer_and_is_none_before_the_first() -> None:
    block = _model(handed_on=True)
    layers = [node.block for node in block.nodes]
    roll_loops(block, len(MAKING))
    nothing, loop = block.nodes
    assert (nothing.form, nothing.name) == ("nothing", "None")
    assert loop.roles == ("carried", "carried")
    assert loop.args[1] is nothing.outputs[0]
    for before, after in zip(loop.rounds, loop.rounds[1:], strict=False):
        assert after.inputs == before.outputs
    assert [set(layer.optional) for layer in layers if layer] == [set(), {"choice"}, {"choice"}, set()]


def test_what_is_not_handed_on_cannot_be_taken_from_layers_further_up() -> None:
    with pytest.raises(UnsupportedModelError, match="not treat all of `layers` alike"):
        roll_loops(_model(handed_on=False), len(MAKING))


def test_all_layers_return_what_some_of_them_must() -> None:
    layers = [node.block for node in _model(handed_on=True).nodes if node.block]
    for layer in layers[1:]:
        layer.outputs = layer.outputs[:1]
    alike = Interfaces()
    assert alike.learn(layers)
    assert set(alike.returned.values()) == {frozenset({0, 1})}
    assert not alike.learn(layers)


@pytest.mark.slow
def test_layers_that_share_a_choice_of_slots() -> None:
    config = hf_config("hy_v4")
    port = generate_port(config)
    text = port.files["model.py"]
    assert "topk_indices = None\n" in text
    assert "hidden_states, topk_indices = layer(" in text
    assert "topk_indices: Tensor | None" in text
    check = check_port(config, source=port)
    assert check.passed, check
