"""How few layers show every kind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.codegen.conftest import hf_config
from trtllm_port.codegen.configs.depth import Depth, shorten
from trtllm_port.codegen.configs.sizes import config_values
from trtllm_port.codegen.write.scope import RoundScope


def test_a_list_of_all_layers_by_number_is_cut_with_them() -> None:
    config = hf_config("llama4_text", num_hidden_layers=16)
    values = config_values(config)
    assert values["moe_layers"] == list(range(16))
    short = shorten(values, config, Depth(4))
    assert short["num_hidden_layers"] == 4
    assert short["moe_layers"] == [0, 1, 2, 3]
    assert len(short["layer_types"]) == len(short["no_rope_layers"]) == 4


def test_layers_that_run_several_times_are_counted_once() -> None:
    """The usual key counts how often layers run; the config's class computes it from the layers of one stack."""
    config = hf_config("hrm_text", num_hidden_layers=16, H_cycles=2, L_cycles=4)
    values = config_values(config)
    assert (values["num_hidden_layers"], values["num_layers_per_stack"]) == (160, 16)
    short = shorten(values, config, Depth(4))
    assert (short["num_hidden_layers"], short["num_layers_per_stack"]) == (40, 4)


def test_what_a_layer_takes_is_told_by_kinds_and_not_by_numbers() -> None:
    """The list of the layers' numbers tells it, too, but says nothing about a model with more layers."""
    values = {"moe_layers": [0, 1, 2, 3], "layer_types": ["chunked", "chunked", "full", "chunked"]}
    trace = SimpleNamespace(sample=SimpleNamespace(values=values))
    scope: Any = RoundScope.__new__(RoundScope)
    scope.outer = SimpleNamespace(fields=set())
    scope.rounds = [SimpleNamespace(trace=trace, layer_idx=number) for number in range(4)]
    assert scope.kinds((0, 0, 1, 0)) == ("layer_types", {"chunked": 0, "full": 1})
    assert scope.outer.fields == {"layer_types"}


def test_layers_that_are_named_by_number_are_the_same_ones_among_fewer() -> None:
    kinds = ["mamba"] * 5 + ["hybrid"] + ["mamba"] * 5 + ["hybrid"]
    config = hf_config("zamba2", num_hidden_layers=12, layers_block_type=kinds)
    short = shorten(config_values(config), config, Depth(None, each=2))
    assert short["layers_block_type"] == ["linear_attention", "linear_attention", "hybrid", "hybrid"]
    assert short["hybrid_layer_ids"] == [2, 3]
