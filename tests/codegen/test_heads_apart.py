"""Heads that are not treated alike: gains of their own in a norm, a norm for each, keys and values within groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.codegen.conftest import hf_config
from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.ir.nodes import Block, Leaf, Node
from trtllm_port.codegen.ir.record import Value
from trtllm_port.codegen.lower.parallel_calls import join_parallel
from trtllm_port.codegen.solve.solver import Solver


class _Heads(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(heads))


def _parts(heads: int = 3, *, order: tuple[int, ...] = (0, 1, 2), dim: int = 1) -> Block:
    """The block of `concat([norm(part) for …])`."""
    module = _Heads(heads)
    given, whole = Value(torch.zeros(1, 3, 4)), Value(torch.zeros(1, 3, 4))
    parts, results = ([Value(torch.zeros(1, 1, 4)) for _ in order] for _ in range(2))
    leaf = Leaf("LayerNorm", (4,), {"eps": 1e-5, "bias": True})
    cut = Node("method", "split", (given, 1), {"dim": 1}, tuple(parts))
    calls = [
        Node("call", f"norms.{i}", (part,), {}, (made,), block=Block(f"norms.{i}", module.norms[i], leaf=leaf))
        for i, part, made in zip(order, parts, results, strict=True)
    ]
    join = Node("function", "concat", (tuple(results),), {"dim": dim}, (whole,))
    return Block("", module, inputs=(given,), nodes=[cut, *calls, join], outputs=(whole,))


def test_modules_on_one_part_each_are_one_call() -> None:
    block = _parts()
    join_parallel(block)
    (call,) = block.nodes
    assert (call.form, call.name, call.args, call.keywords) == ("call", "norms.*", block.inputs, {"size": 1, "dim": 1})
    assert call.outputs == block.outputs
    assert call.block is not None
    assert {name for name, _ in call.block.module.named_parameters()} >= {"0.weight", "2.bias"}


@pytest.mark.parametrize(
    "block", [_parts(heads=4), _parts(order=(0, 2, 1)), _parts(dim=2)], ids=["one is idle", "order", "another place"]
)
def test_what_is_no_such_list_stays_as_it_is(block: Block) -> None:
    nodes = list(block.nodes)
    join_parallel(block)
    assert block.nodes == nodes


def test_a_part_that_something_else_takes_stays_as_it_is() -> None:
    block = _parts()
    block.outputs += (block.nodes[0].outputs[1],)
    join_parallel(block)
    assert len(block.nodes) == 5


def test_a_number_of_widths_is_preferred_to_one_of_layers() -> None:
    atoms: dict[str, tuple[Any, ...]] = {
        "config.num_hidden_layers": (4, 5, 4, 4),
        "config.num_attention_heads": (4, 8, 12, 8),
        "config.num_kv_heads": (2, 2, 6, 4),
    }
    found = Solver(atoms).solve((4, 6, 4, 4))
    assert found is not None
    assert found.text == "config.num_attention_heads // config.num_kv_heads + 2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "options", "texts"),
    [
        (
            "cohere",
            {"use_qk_norm": True},
            (
                "self.weight = Parameter(hidden_size)",
                "CohereLayerNorm((config.num_key_value_heads, self.head_dim), config.layer_norm_eps)",
            ),
        ),
        (
            "stablelm",
            {"qk_layernorm": True, "num_key_value_heads": 8},
            ("self.norms = ModuleList(LayerNorm(dim, eps=eps, bias=False) for _ in range(num_heads))",),
        ),
        (
            "stablelm",  # its option is traced at few sizes, of which two have as many keys
            {"qk_layernorm": False},
            ("StableLmLayerNormPerHead(self.head_dim, self.num_key_value_heads, config.layer_norm_eps)",),
        ),
        (
            "falcon",
            {"new_decoder_architecture": True, "multi_query": False, "num_kv_heads": 8},
            (
                "-1, self.config.num_attention_heads // self.config.num_kv_heads + 2, self.head_dim",
                "self.input_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)",
                "FalconLinear( config.hidden_size, "
                "(config.num_attention_heads + 2 * config.num_kv_heads) * self.head_dim )",
            ),
        ),
    ],
)
def test_whole_ports(model_type: str, options: dict[str, Any], texts: tuple[str, ...]) -> None:
    config = hf_config(model_type, **options)
    port = generate_port(config)
    assert not port.skeletons
    model = " ".join(port.files["model.py"].split())
    assert all(text in model for text in texts), model
    check = check_port(config, source=port)
    assert check.passed, check
