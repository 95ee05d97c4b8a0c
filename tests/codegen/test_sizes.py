"""Small versions of a config."""

from __future__ import annotations

import transformers

from trtllm_port.codegen.sizes import unseen_config


def test_a_small_config_is_for_the_same_architecture_whatever_was_asked_before() -> None:
    assert unseen_config(transformers.LlamaConfig()).architectures is None
    named = transformers.LlamaConfig(architectures=["LlamaForCausalLM"])
    assert unseen_config(named).architectures == ["LlamaForCausalLM"]
