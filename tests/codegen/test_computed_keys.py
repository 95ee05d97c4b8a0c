"""What a config class computes of other keys, and ports that follow it."""

from __future__ import annotations

import pytest
import transformers

from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.configs.computed_keys import computed_values, feeds, written_values
from trtllm_port.codegen.configs.sizes import config_values, layer_count, make_samples


def test_lists_by_layer_are_computed_values() -> None:
    config = transformers.JambaConfig(num_hidden_layers=6, attn_layer_period=3, attn_layer_offset=1)
    found = computed_values(config, config_values(config))
    assert found["layers_block_type"] == ["mamba", "attention", "mamba"] * 2
    assert found["layers_num_experts"] == [1, 16] * 3
    assert all(len(value) == 6 for value in found.values())


def test_what_is_in_the_file_or_no_list_by_layer_is_none() -> None:
    for config in (transformers.LlamaConfig(), transformers.FalconConfig(), transformers.Zamba2Config()):
        assert computed_values(config, config_values(config)) == {}


def test_layers_are_counted_by_the_class_where_no_key_does() -> None:
    config = transformers.NemotronHConfig(layers_block_type=["linear_attention", "mlp", "full_attention", "moe"] * 5)
    assert computed_values(config, config_values(config)) == {"num_hidden_layers": 20}
    assert layer_count(config) == 20
    small = make_samples(config)
    assert layer_count(small.traced[0].config) == 4
    assert layer_count(small.unseen) > max(layer_count(sample.config) for sample in small.traced)


@pytest.mark.parametrize(
    ("key", "others", "expected"),
    [
        ("attn_layer_period", [9], ["layers_block_type", "layer_types"]),
        ("expert_layer_offset", [7, 0], ["layers_num_experts"]),  # the class refuses the first
        ("hidden_size", [128], []),
    ],
)
def test_keys_that_something_is_computed_of(key: str, others: list[int], expected: list[str]) -> None:
    def made_with(name: str, value: int | None) -> dict[str, object]:
        config = transformers.JambaConfig(**({name: value} if name else {}))
        return computed_values(config, config_values(config))

    assert feeds(key, others, made_with) == expected


@pytest.mark.parametrize("grouped", [True, False])
def test_what_the_model_writes_where_a_key_is_null(grouped: bool) -> None:
    config = transformers.FalconConfig(new_decoder_architecture=grouped, num_hidden_layers=1, vocab_size=64)
    found = written_values(config, ["num_ln_in_parallel_attn", "ffn_hidden_size"])
    assert found.get("num_ln_in_parallel_attn") == (2 if grouped else None)
    assert config.num_ln_in_parallel_attn is None


@pytest.mark.slow
def test_a_port_takes_the_config_whose_null_the_model_fills_in() -> None:
    config = transformers.FalconConfig(
        new_decoder_architecture=True, num_attention_heads=8, num_kv_heads=2, hidden_size=512
    )
    port = generate_port(config)
    assert "num_ln_in_parallel_attn: int = 2" in port.files["config.py"]
    assert check_port(config, source=port).passed


@pytest.mark.slow
def test_a_port_follows_what_is_computed_not_what_looks_like_it() -> None:
    config = transformers.JambaConfig(num_hidden_layers=6, attn_layer_period=3, attn_layer_offset=2)
    port = generate_port(config)
    text = port.files["model.py"]
    assert 'if config.layers_block_type[layer_idx] == "mamba"' in text
    assert "config.layers_num_experts[layer_idx] <= 1" in text
    assert "layer_idx %" not in text
    assert "cache.update(self.layer_idx" in text
    assert "self.act(self.conv1d(" in text
    assert "if self" not in text  # layers call their feed-forward alike, whatever it is
    assert {"attn_layer_period", "attn_layer_offset", "expert_layer_period"} <= port.ledger.used.keys()
    assert "layers_block_type: tuple[str, ...]" in port.files["config.py"]
    assert "attn_layer_period" not in port.files["config.py"]
    check = check_port(config, source=port)
    assert check.passed, check
