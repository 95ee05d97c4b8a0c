"""Which modules are taken for rotary tables of a type: those that are so past the length where frequencies change."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from trtllm_port.codegen.ir.record import Call, Value
from trtllm_port.codegen.recognise.rotary_tables import _agree_beyond, _halves

LISTS = {"short_factor": [1.0] * 8, "long_factor": [2.0 + i for i in range(8)]}
ROPES: list[dict[str, Any]] = [
    {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, **LISTS},
    {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
]


class Unchanging(LlamaRotaryEmbedding):
    """Keeps the frequencies of short texts."""

    forward = inspect.unwrap(LlamaRotaryEmbedding.forward)


@pytest.mark.parametrize(("kind", "expected"), [(LlamaRotaryEmbedding, True), (Unchanging, False)])
@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: str(rope["rope_type"]))
def test_tables_are_probed_past_the_length(rope: dict[str, Any], kind: type, expected: bool) -> None:
    config = LlamaConfig(head_dim=16, max_position_embeddings=128, rope_parameters=dict(rope))
    args = {"x": Value(torch.zeros(1, 4, 16)), "position_ids": Value(torch.arange(4)[None])}
    call = Call("rotary_emb", kind(config), args, None)
    assert _agree_beyond(call, rope, _halves, 16, 128) is expected
