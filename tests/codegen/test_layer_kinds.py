"""Models whose layers are not all alike: branches, sub-modules of several classes, rope parameters by layer type."""

from __future__ import annotations

from typing import Any

import pytest

from tests.codegen.conftest import hf_config
from trtllm_port.codegen import PortSource, check_port, generate_port

CONFIGS: dict[str, dict[str, Any]] = {
    "smollm3": {"pad_token_id": 0},
    "cohere2": {},
    "exaone4": {"sliding_window": 16},
    "olmo3": {},
    "gemma3_text": {},
    "nanochat": {},
}


def _port(model_type: str) -> PortSource:
    config = hf_config(model_type, **CONFIGS[model_type])
    port = generate_port(config)
    assert port.skeletons == ()
    check = check_port(config, source=port)
    assert check.passed, check
    return port


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "condition", "tables"),
    [
        ("smollm3", "if self.config.no_rope_layers[self.layer_idx]:", "cos, sin"),
        (
            "cohere2",
            'if self.config.layer_types[self.layer_idx] == "sliding_attention":',
            "cos, sin, interleaved=True",
        ),
        ("exaone4", "if self.is_sliding:", "cos, sin"),
    ],
)
def test_layers_without_rope_are_a_branch(model_type: str, condition: str, tables: str) -> None:
    lines = [line.strip() for line in _port(model_type).files["model.py"].splitlines()]
    start = lines.index(condition)
    assert lines[start + 1] == f"query_states = rotary_embedding(query_states, {tables})"
    assert lines[start + 2] == f"key_states = rotary_embedding(key_states, {tables})"


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["olmo3", "gemma3_text"])
def test_rope_parameters_by_layer_type_are_rotary_modules_by_name(model_type: str) -> None:
    text = _port(model_type).files["model.py"]
    assert "for name, parameters in config.rope_parameters.items()" in text
    assert "cos, sin = position_embeddings[layer_type]" in text


@pytest.mark.slow
def test_a_rotation_the_other_way_round_takes_the_negative_sine() -> None:
    assert "rotary_embedding(query_states, cos, -sin)" in _port("nanochat").files["model.py"]
