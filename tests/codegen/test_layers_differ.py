"""A whole port of a model whose layers differ in size, share caches and get inputs of their own."""

from __future__ import annotations

import pytest

from tests.codegen.conftest import hf_config
from trtllm_port.codegen import check_port, generate_port


@pytest.mark.slow
def test_sizes_of_layers_and_shared_caches_follow_the_config() -> None:
    config = hf_config("gemma4_text", num_kv_shared_layers=12)
    port = generate_port(config)
    assert not port.skeletons
    assert "head_dim: tuple[int, ...]" in port.files["config.py"]
    assert "config.head_dim[config.layer_types.index(name)]" in port.files["model.py"]
    assert "num_kv_shared_layers" in port.ledger.used
    check = check_port(config, source=port)
    assert check.passed, check


@pytest.mark.slow
def test_parts_written_in_place_and_sparse_activations_follow_the_config() -> None:
    config = hf_config("gemma3n_text")
    port = generate_port(config)
    assert not port.skeletons
    text = port.files["model.py"]
    assert "normal_quantile(self.config.activation_sparsity_pattern[self.layer_idx])" in "".join(text.split())
    assert "self.altup.correct_output_scale = Parameter((config.hidden_size,))" in text
    check = check_port(config, source=port)
    assert check.passed, check
