"""Stacks of layers that run several times for every token, with keys and values of each time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.codegen.conftest import hf_config
from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.ir.nodes import Block
from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.codegen.lower.repeated_calls import RepeatedCalls


def _value() -> Value:
    return Value(torch.zeros(()))


def _stack(path: str, first: int, layers: int = 2) -> Call:
    """A call of a stack whose layers use those of the cache from `first` on."""
    call = Call(path, nn.Module(), {}, None)
    for layer in range(layers):
        inner = Call(f"{path}.layers.{layer}", nn.Module(), {}, None)
        inner.body.append(Operation("cache_update", (None, first + layer), {}, (), None))
        call.body.append(inner)
    return call


def test_a_stack_that_runs_again_is_given_a_part_of_the_cache() -> None:
    calls, cache, block = [_stack("stack", 0), _stack("stack", 2)], _value(), Block("", nn.Module())
    repeated = RepeatedCalls(Call("", nn.Module(), {}, None, body=[*calls]), cache)
    for call, first in zip(calls, (0, 2), strict=True):
        part = repeated.enter(block, call)
        assert part in repeated.caches
        assert block.nodes[-1].args == (cache, first)
        inner = call.body[1]
        assert isinstance(inner, Call)
        assert isinstance(inner.body[0], Operation)
        assert repeated.operation(inner.body[0]).args[1] == 1
        repeated.leave()


def test_one_that_runs_once_is_given_the_cache_itself() -> None:
    call, block = _stack("stack", 0), Block("", nn.Module())
    repeated = RepeatedCalls(Call("", nn.Module(), {}, None, body=[call]), _value())
    assert repeated.enter(block, call) is None
    assert block.nodes == []


def test_layers_that_are_not_shifted_alike_stay_as_they_are() -> None:
    odd = Call("stack", nn.Module(), {}, None, body=[*_stack("stack", 0, 1).body, *_stack("stack", 5, 1).body])
    repeated = RepeatedCalls(Call("", nn.Module(), {}, None, body=[odd, odd]), _value())
    assert repeated.enter(Block("", nn.Module()), odd) is None


@pytest.mark.slow
def test_a_model_of_two_stacks_that_run_in_turn() -> None:
    config = hf_config("hrm_text", num_hidden_layers=2, architectures=["HrmTextForCausalLM"])
    port = generate_port(config)
    text = port.files["model.py"]
    assert "cache.beginning_at(self.config.num_layers_per_stack)" in text
    assert "DecoderLayerList(HrmTextDecoderLayer, config, config.num_layers_per_stack)" in text
    assert port.ledger.fixed.keys() >= {"H_cycles", "L_cycles"}
    check = check_port(config, source=port)
    assert check.passed, check
