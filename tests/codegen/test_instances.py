"""Which layer a module is in, and which of several numbers counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from trtllm_port.codegen.ir.nodes import Block, Instance


@pytest.mark.parametrize(
    ("path", "given", "number", "expected"),
    [
        ("model.layers.3.self_attn", {"layer_idx": 3}, None, 3),
        ("model.layers.3.self_attn.1", {"layer_idx": 7}, None, 7),  # of two in one layer each has its own cache
        ("model.layers.3.norms.1", {}, None, 3),
        ("model.layers.3.norms.1", {"layer_idx": None}, None, 3),
        ("model.layers.3.self_attn", {"layer_idx": 30}, None, 3),  # the only one keeps the layer's
        ("model", {}, 2, 2),  # a loop's round
        ("model.norm", {}, None, None),
    ],
)
def test_number_of_a_layer(path: str, given: dict[str, Any], number: int | None, expected: int | None) -> None:
    module = nn.Identity()
    trace: Any = SimpleNamespace(made_with={module: given})
    assert Instance(trace, Block(path, module), number).layer_idx == expected
