"""The self-check finds what a careless hand changes in a port, and says where."""

from __future__ import annotations

from dataclasses import replace

import pytest
import transformers

from trtllm_port.codegen import PortSource, check_port
from trtllm_port.errors import PortError

MUTATIONS = {
    "gate and up swapped": (
        "self.act_fn(self.gate_proj(x)) * self.up_proj(x)",
        "self.act_fn(self.up_proj(x)) * self.gate_proj(x)",
        "prefill: model.layers.0.mlp.act_fn",
    ),
    "another epsilon": (
        "self.post_attention_layernorm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)",
        "self.post_attention_layernorm = RmsNorm(config.hidden_size, eps=10 * config.rms_norm_eps)",
        "prefill: model.layers.0.post_attention_layernorm",
    ),
    "keys not rotated": (
        "        key_states = rotary_embedding(key_states, cos, sin)\n",
        "",
        "prefill: model.layers.0.self_attn.o_proj",
    ),
    "no mask": ("mask=attention_mask, ", "", "prefill: model.layers.0.self_attn.o_proj"),
    "scale left out": ("scale=self.scaling", "scale=1.0", "prefill: model.layers.0.self_attn.o_proj"),
}


def _edited(port: PortSource, old: str, new: str) -> PortSource:
    assert old in port.files["model.py"]
    return replace(port, files={**port.files, "model.py": port.files["model.py"].replace(old, new)})


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_port_is_found_at_the_wrong_module(llama: PortSource, name: str) -> None:
    old, new, where = MUTATIONS[name]
    check = check_port(transformers.LlamaConfig(), source=_edited(llama, old, new))
    assert not check.passed
    assert check.first_divergence == where


def test_a_port_that_does_not_fit_the_weights_is_a_problem(llama: PortSource) -> None:
    wrong = _edited(llama, "Linear(config.intermediate_size, config.hidden_size", "Linear(config.hidden_size, 7")
    check = check_port(transformers.LlamaConfig(), source=wrong)
    assert not check.passed
    assert check.taps == 0
    assert "down_proj" in str(check.problem)


def test_a_port_must_be_named() -> None:
    with pytest.raises(PortError, match="neither a workspace nor"):
        check_port(transformers.LlamaConfig())


def test_result_is_data(llama: PortSource) -> None:
    found = check_port(transformers.LlamaConfig(), source=llama).to_dict()
    assert found["passed"] is True
    assert found["tokens"] == 512
    assert found["sizes"]["hidden_size"] == 320
