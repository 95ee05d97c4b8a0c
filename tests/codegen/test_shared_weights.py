"""Blocks of layers that share their weights, in turn."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import transformers
from torch import nn

from tests.codegen.conftest import hf_config
from trtllm_port.codegen.configs.depth import Depth, find_depth, shorten
from trtllm_port.codegen.configs.sizes import config_values, make_config
from trtllm_port.codegen.exploration import Exploration
from trtllm_port.codegen.ir.expressions import MISSING
from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.codegen.lower.aliasing import distinct_copies
from trtllm_port.codegen.merge.shared_weights import Pair, shared_blocks
from trtllm_port.errors import ConfigError, UnsupportedModelError


class Layer(nn.Module):
    def __init__(self, *, has_block: bool) -> None:
        super().__init__()
        self.own = nn.Linear(2, 2)
        if has_block:
            self.block = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))


def _model(layers: str, sources: dict[int, int]) -> tuple[nn.Module, set[Pair]]:
    """Layers with ("x") and without (".") a block, some of which have another one's weights, and the pairs of names."""
    model = nn.Module()
    model.layers = nn.ModuleList(Layer(has_block=one == "x") for one in layers)
    names = [name for name, _ in Layer(has_block=True).block.named_parameters()]
    pairs = {(f"layers.{a}.block.{name}", f"layers.{b}.block.{name}") for b, a in sources.items() for name in names}
    return model, pairs


def test_blocks_are_repeated_in_turn() -> None:
    one, two = _model(".x.xx", {3: 1, 4: 1}), _model("xx.xxx", {3: 0, 4: 1, 5: 0})
    (found,) = shared_blocks([one[0], two[0]], [one[1], two[1] | {("a", "b")}])
    assert (found.layers, found.block, found.counts) == ("layers", "block", (1, 2))
    assert [set(pairs) for pairs in found.pairs] == [one[1], two[1]]


def test_other_orders_and_single_weights_are_not_blocks_in_turn() -> None:
    model, pairs = _model("xxxx", {2: 1, 3: 0})
    assert not list(shared_blocks([model], [pairs]))
    model, pairs = _model("xxxx", {2: 0, 3: 1})
    assert not list(shared_blocks([model], [set(list(pairs)[1:])]))


def test_a_copy_is_told_apart_where_a_module_is_given_both() -> None:
    x, copy, other = (Value(torch.zeros(2)) for _ in range(3))
    made = [Operation("clone", (x,), {}, (one,), None) for one in (copy, other)]
    layers = [Call("0", nn.Identity(), {"a": x, "b": copy}, None), Call("1", nn.Identity(), {"b": other}, None)]
    root = Call("", nn.Identity(), {}, None)
    root.body += [*made, *layers]
    assert distinct_copies(root) == {copy}


def test_two_layers_show_that_one_has_the_others_weights() -> None:
    config = transformers.ZambaConfig(num_hidden_layers=14)
    values = config_values(config)
    depth = find_depth(config, values, partial(make_config, config))
    assert depth == Depth(None, each=2)
    assert shorten(values, config, depth)["layers_block_type"].count("hybrid") == 2


def test_a_model_that_cannot_be_built_at_any_size_is_told_so() -> None:
    """From transformers 5.24 on the config's class refuses it, and not at this size: so it is told as of small ones."""
    config = hf_config("gemma4_text", num_hidden_layers=4, num_kv_shared_layers=4, hidden_size_per_layer_input=0)
    told = "own `gemma4_text` does not run with this config|layer types producing a cache is different"
    with pytest.raises((ConfigError, UnsupportedModelError), match=told):
        Exploration(config, False, lambda phase, done, total: None)


def test_a_block_that_is_shared_in_one_model_and_not_in_another_says_so() -> None:
    shared, own = _model("xx", {1: 0}), _model("xx", {})
    (found,) = shared_blocks([shared[0], own[0]], [shared[1], own[1]])
    assert found.counts == (1, MISSING)
    assert not list(shared_blocks([own[0]], [own[1]]))
