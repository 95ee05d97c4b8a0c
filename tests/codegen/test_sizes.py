"""Small versions of a config."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import transformers

from trtllm_port.codegen.configs.depth import find_depth, lengthen, shorten
from trtllm_port.codegen.configs.sizes import config_values, make_config, make_samples, unseen_config


def longrope(frequencies: int) -> dict[str, Any]:
    lists = {name: [1.0 + i / 10 for i in range(frequencies)] for name in ("short_factor", "long_factor")}
    return {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 1024, **lists}


def test_a_small_config_is_for_the_same_architecture_whatever_was_asked_before() -> None:
    assert unseen_config(transformers.LlamaConfig()).architectures is None
    named = transformers.LlamaConfig(architectures=["LlamaForCausalLM"])
    assert unseen_config(named).architectures == ["LlamaForCausalLM"]


def test_heads_of_a_state_keep_filling_twice_the_hidden_size_while_both_vary() -> None:
    config = transformers.BambaConfig(num_hidden_layers=2, attn_layer_indices=[1])
    small = make_samples(config)
    configs = [*(sample.config for sample in small.traced), small.unseen]
    assert all(one.mamba_n_heads * one.mamba_d_head == 2 * one.hidden_size for one in configs)
    assert len({one.mamba_n_heads for one in configs}) > 2
    assert len({one.hidden_size for one in configs}) == len(configs)


def test_sizes_of_layers_stay_in_proportion() -> None:
    """Hugging Face's own view of each layer; 256 and 512 for the two types of layers by default."""
    samples = make_samples(transformers.Gemma4TextConfig(architectures=["Gemma4ForCausalLM"]))
    for config in (*(sample.config for sample in samples.traced), samples.unseen):
        sizes = {kind: config.per_layer_config[kind].head_dim for kind in ("sliding_attention", "full_attention")}
        assert sizes["full_attention"] == 2 * sizes["sliding_attention"] <= 128
    assert len({str(sample.values["head_dim"]) for sample in samples.traced}) == len(samples.traced)


def test_a_number_of_layers_is_no_other_number_everywhere() -> None:
    samples = make_samples(transformers.LlamaConfig())
    counts = [sample.config.num_hidden_layers for sample in samples.traced]
    assert len(set(counts)) > 1
    assert samples.unseen.num_hidden_layers not in counts


def test_layers_are_added_where_the_config_class_lets_lists_stay_as_they_are() -> None:
    """Gemma 4 makes its last layer one of full attention, whatever the list says."""
    config = transformers.Gemma4TextConfig()
    values = config_values(config)
    depth = find_depth(config, values, partial(make_config, config))
    longer = lengthen(values, config, depth, 1, lambda of: config_values(make_config(config, of)))
    assert longer["layer_types"] == config_values(make_config(config, longer))["layer_types"]
    following = shorten(values, config, depth, 1)
    assert following["layer_types"] != config_values(make_config(config, following))["layer_types"]


def test_only_those_head_counts_are_kept_equal_that_must_be() -> None:
    four = {"num_attention_heads": 4, "num_key_value_heads": 4, "linear_num_heads": 4}
    sizes = {"hidden_size": 32, "linear_head_dim": 8, "num_hidden_layers": 5, "vocab_size": 50, "num_experts": 8}
    config = transformers.KimiLinearConfig(**four, **sizes)  # attention cannot share keys, and nothing else is in need
    assert make_samples(config).plan.equal == (("num_key_value_heads", "num_attention_heads"),)
    assert unseen_config(config).linear_num_heads != unseen_config(config).num_attention_heads


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        (transformers.LlamaConfig(head_dim=96, rope_parameters=longrope(48)), "head_dim"),
        (transformers.Phi3Config(hidden_size=768, num_attention_heads=8, rope_parameters=longrope(48)), None),
        (
            transformers.MiniCPM3Config(
                qk_rope_head_dim=32,
                qk_nope_head_dim=64,
                rope_parameters={**longrope(16), "factor": 4.0},  # which transformers 5.20 takes for granted
            ),
            "qk_rope_head_dim",
        ),
        (
            transformers.Phi3Config(
                hidden_size=1024,
                num_attention_heads=8,
                rope_parameters={**longrope(48), "partial_rotary_factor": 0.75},
            ),
            None,
        ),
    ],
)
def test_lists_of_one_number_for_each_frequency_follow_the_heads(config: Any, heads: str | None) -> None:
    """As published: what a checkpoint has of them cannot be built at a small size."""
    samples = make_samples(config)
    for small in (*(sample.config for sample in samples.traced), samples.unseen):
        rope = small.rope_parameters
        size = getattr(small, heads) if heads else small.hidden_size // small.num_attention_heads
        turned = int(size * rope.get("partial_rotary_factor", 1.0)) // 2
        assert len(rope["short_factor"]) == len(rope["long_factor"]) == turned
        assert rope["long_factor"][-1] > 1
