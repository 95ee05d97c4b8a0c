"""Small versions of a config."""

from __future__ import annotations

import transformers

from trtllm_port.codegen.sizes import make_samples, unseen_config


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
