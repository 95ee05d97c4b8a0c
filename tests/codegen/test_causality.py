"""A model that looks at later tokens is refused with that reason; a decoder is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from tests.codegen.conftest import hf_config
from trtllm_port.codegen.record.causality import require_causal
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.random_weights import condition

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 101,
}


def _model(model_type: str, **values: Any) -> nn.Module:
    config = hf_config(model_type, **{**SIZES, **values})
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    condition(model)
    return model.eval()


def test_decoders_pass() -> None:
    require_causal(_model("llama", sliding_window=4), "llama")
    require_causal(_model("bert", is_decoder=True), "bert")


@pytest.mark.parametrize(
    ("model_type", "values"),
    [
        ("bert", {"is_decoder": False}),
        ("cpmant", {"dim_head": 8, "dim_ff": 48, "prompt_length": 3, "prompt_types": 4}),
    ],
)
def test_encoders_are_refused(model_type: str, values: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match=f"`{model_type}` looks at later tokens"):
        require_causal(_model(model_type, **values), model_type)
