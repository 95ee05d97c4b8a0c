"""A config with which Hugging Face's own model does not run is told apart from one that the generator cannot shrink."""

from __future__ import annotations

import pytest
import torch
import transformers

from tests.codegen.conftest import hf_config
from trtllm_port.codegen import generate_port
from trtllm_port.codegen.configs.full_size import full_size_error, place_of
from trtllm_port.errors import ConfigError


def _raised(config: transformers.PreTrainedConfig) -> Exception:
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with pytest.raises(RuntimeError) as caught:
        model(input_ids=torch.full((1, 7), 3), use_cache=False)
    return caught.value


def test_the_same_error_at_full_size_is_the_models_own() -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 99}
    given = {"num_key_value_heads": 3, "head_dim": 8, "intermediate_size": 48}
    error = _raised(hf_config("llama", **small, **given))
    assert "modeling_llama.py:" in place_of(error)
    own = full_size_error(hf_config("llama", num_key_value_heads=3), error)
    assert own is not None
    assert "of tensor a (32)" in str(own)  # full size: the config's own number of heads
    assert full_size_error(hf_config("llama"), error) is None
    with pytest.raises(ValueError, match="invalid literal") as another:
        int("another")
    assert full_size_error(hf_config("llama", num_key_value_heads=3), another.value) is None


@pytest.mark.slow
def test_such_a_config_is_not_valid() -> None:
    config = hf_config("minicpm3", num_key_value_heads=1)
    with pytest.raises(ConfigError, match="own `minicpm3` does not run with this config: RuntimeError: The size of"):
        generate_port(config)
