"""What a module hands out, and to whom: parameters, the wanted tokens' states, what goes into a loop."""

from __future__ import annotations

import pytest

from tests.codegen.conftest import hf_config
from trtllm_port.codegen import check_port, generate_port


@pytest.mark.slow
def test_a_head_of_several_modules_is_computed_for_the_wanted_tokens() -> None:
    lines = generate_port(hf_config("modernbert-decoder")).files["model.py"].splitlines()
    chosen = next(i for i, line in enumerate(lines) if "= gather_tokens(" in line)
    assert lines[chosen].strip().startswith("hidden_states = ")
    assert lines[chosen + 1].strip() == "return self.decoder(self.lm_head(hidden_states))"


@pytest.mark.slow
def test_layers_take_what_a_branch_before_them_gives() -> None:
    config = hf_config("afmoe")
    port = generate_port(config)
    assert "hidden_states = layer(hidden_states, " in port.files["model.py"]
    check = check_port(config, source=port)
    assert check.passed, check


@pytest.mark.slow
def test_a_parameter_that_a_module_hands_out_stays_a_parameter() -> None:
    text = generate_port(hf_config("gpt_neox_japanese")).files["model.py"]
    assert "self.attention.dense_bias" in text
    assert "if self.layer_idx == self.config.num_hidden_layers - 1:" in text
