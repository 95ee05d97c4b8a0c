"""Bugs that are in no catalogue, made by hand in a generated port: still caught, and at the right module."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import Qwen3Config

from trtllm_port.porting.create import create_port
from trtllm_port.verification import DiffSettings, diff_layers

SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=160) | dict(
    num_key_value_heads=2, head_dim=16, max_position_embeddings=256, architectures=["Qwen3ForCausalLM"]
)
EDITS = {
    "the keys are halved": (
        "key_states = rotary_embedding(key_states, cos, sin)\n",
        "key_states = rotary_embedding(key_states, cos, sin) * 0.5\n",
        "model.layers.0.self_attn",
    ),
    "the MLP is applied twice": (
        "hidden_states = self.mlp(hidden_states)\n",
        "hidden_states = self.mlp(self.mlp(hidden_states))\n",
        "model.layers.0",
    ),
    "the values are squared": (
        "key_states, value_states = cache.update(self.layer_idx, key_states, value_states)\n",
        "key_states, value_states = cache.update(self.layer_idx, key_states, value_states * value_states)\n",
        "model.layers.0.self_attn",
    ),
    "a norm's output is shifted": (
        "return self.norm(hidden_states)\n",
        "return self.norm(hidden_states) + 0.01\n",
        "model",
    ),
    "the queries are normalised after the rotation, too": (
        "query_states = rotary_embedding(query_states, cos, sin)\n",
        "query_states = self.q_norm(rotary_embedding(query_states, cos, sin))\n",
        "model.layers.0.self_attn",
    ),
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model directory and a workspace with the port that was generated for it."""
    directory = tmp_path_factory.mktemp("hand_made")
    Qwen3Config(**SIZES).save_pretrained(directory / "model")
    create_port(directory / "model", workspace=directory / "workspace")
    return directory / "model", directory / "workspace"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("edit", EDITS)
def test_a_bug_of_no_catalogue_is_caught_and_placed(port: tuple[Path, Path], edit: str, dtype: str) -> None:
    model_dir, workspace = port
    before, after, module = EDITS[edit]
    source = workspace / "models" / "qwen3" / "model.py"
    text = source.read_text()
    assert text.count(before) == 1
    source.write_text(text.replace(before, after))
    try:
        settings = DiffSettings(tokens=128)
        report = diff_layers(model_dir, workspace=workspace, dtype=dtype, random_weights=True, settings=settings)
    finally:
        source.write_text(text)
    assert report.verdict == "fail"
    assert report.first_divergence == module
