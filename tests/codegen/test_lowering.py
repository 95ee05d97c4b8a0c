from __future__ import annotations

import torch
from torch import nn

from trtllm_port.codegen.configs.sizes import Sample
from trtllm_port.codegen.ir.def_use import taken
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.codegen.lower.liveness import Interfaces, find_inputs
from trtllm_port.codegen.lower.lowering import _gather_tokens

SAMPLE = Sample(None, batch=2, length=3, past=0)


def value() -> Value:
    return Value(torch.zeros(1))


def call(path: str, given: Value, result: Value, block: Block | None = None) -> Node:
    """A call of a module that computes `result`, or of one that calls `block`'s."""
    inner = Node("function", "relu", (given,), {}, (result,))
    if block is not None:
        inner = Node("call", block.path, (given,), {}, (result,), block=block)
    made = Block(path, nn.Module(), nodes=[inner], outputs=(result,), signature={"x": given}, names={given: ["x"]})
    return Node("call", path, (given,), {}, (result,), block=made)


def test_a_head_made_of_modules_is_given_the_chosen_tokens() -> None:
    ids, hidden, logits, indices, cache = value(), value(), value(), value(), value()
    predictions = call("cls.predictions", hidden, logits).block
    model, head = call("model", ids, hidden), call("cls", hidden, logits, predictions)
    assert model.block is not None
    model.block.nodes.append(Node("cache", "update", (cache, hidden), {}, (value(),)))
    root = Block("", nn.Module(), nodes=[model, head], outputs=(logits,))
    _gather_tokens(root, indices, cache, SAMPLE)
    del model.block.nodes[-1]
    find_inputs(root, {value()}, Interfaces())
    gather = root.nodes[1]
    assert (gather.name, gather.args) == ("gather_tokens", (hidden, indices))
    assert head.args == gather.outputs
    assert predictions is not None
    assert predictions.inputs == predictions.nodes[0].args == gather.outputs
    assert predictions.names == {gather.outputs[0]: ["x"]}
    assert model.args == (ids,)


def test_tokens_are_chosen_behind_the_last_that_looks_at_others() -> None:
    """What comes first is no inner model: it may be an embedding in a class of its own."""
    ids, embeds, hidden, more, logits, cache = (value() for _ in range(6))
    embedding, layers = call("embed", ids, embeds), [call("layers.0", embeds, hidden), call("layers.1", hidden, more)]
    for layer in layers:
        assert layer.block is not None
        layer.block.nodes.append(Node("cache", "update", (cache, hidden), {}, (value(),)))
    root = Block("", nn.Module(), nodes=[embedding, *layers, call("head", more, logits)], outputs=(logits,))
    _gather_tokens(root, value(), cache, SAMPLE)
    assert [node.name for node in root.nodes] == ["embed", "layers.0", "layers.1", "gather_tokens", "head"]


def test_tokens_may_be_the_first_dimension() -> None:
    ids, cache, hidden, logits = value(), value(), Value(torch.zeros(3, 2, 8)), value()
    model = call("model", ids, hidden)
    assert model.block is not None
    model.block.nodes.append(Node("cache", "update", (cache, hidden), {}, (value(),)))
    root = Block("", nn.Module(), nodes=[model, call("head", hidden, logits)], outputs=(logits,))
    _gather_tokens(root, value(), cache, SAMPLE)
    _, rows_first, gather, tokens_first, head = root.nodes
    assert (rows_first.name, gather.name, tokens_first.name) == ("transpose", "gather_tokens", "transpose")
    assert gather.args[0].tensor.shape == (2, 3, 8)
    assert head.args == tokens_first.outputs


def test_what_is_taken_is_what_operations_and_modules_take_or_return() -> None:
    values, positions, given, returned = value(), value(), value(), value()
    inner = Call("inner", nn.Module(), {"x": [given]}, None, outputs=(returned,))
    root = Call("", nn.Module(), {}, None, body=[inner, Operation("relu", (values,), {}, (value(),), None)])
    assert taken(root) == {values, given, returned}
    assert positions not in taken(root)
