"""Hugging Face's models: with the weights of their files, with new ones, or with none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    FalconMambaConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    PreTrainedConfig,
)

from trtllm_port.huggingface.configs import new_config, whole_config
from trtllm_port.huggingface.loading import (
    count_parameters,
    load_model,
    make_model,
    make_without_weights,
    weights_as_stored,
)
from trtllm_port.huggingface.random_weights import save_random_checkpoint

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 100, "tie_word_embeddings": False}


def _changed(config: PreTrainedConfig, directory: Path) -> list[str]:
    """The names of tensors that a loaded model holds otherwise than the file."""
    save_random_checkpoint(config, directory)
    stored = load_file(directory / "model.safetensors")
    loaded = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).state_dict()
    return [name for name, tensor in stored.items() if not torch.equal(tensor, loaded[name])]


@pytest.mark.parametrize("config_class", [MambaConfig, FalconMambaConfig])  # the latter's modules hold buffers, too
def test_a_weight_that_initialising_divides_stays_as_it_was_read(
    config_class: type[PreTrainedConfig], tmp_path: Path
) -> None:
    config = config_class(**SMALL, rescale_prenorm_residual=True)
    if not _changed(config, tmp_path):
        pytest.skip("this transformers changes nothing that it loads")
    with weights_as_stored():
        assert _changed(config, tmp_path) == []


def test_a_row_that_initialising_empties_stays_as_it_was_read(tmp_path: Path) -> None:
    """Youtu's puts zeros into the padding token's row, of which transformers does not know that it was read."""
    if "youtu" not in CONFIG_MAPPING:
        pytest.skip("this transformers has no such model")
    config = CONFIG_MAPPING["youtu"](**SMALL | {"tie_word_embeddings": True}, pad_token_id=1, num_attention_heads=2)
    if not _changed(config, tmp_path):
        pytest.skip("this transformers changes nothing that it loads")
    with weights_as_stored():
        assert _changed(config, tmp_path) == []


def test_what_no_file_holds_is_computed_as_ever(tmp_path: Path) -> None:
    config = LlamaConfig(**SMALL, intermediate_size=48, num_attention_heads=2)
    save_random_checkpoint(config, tmp_path)
    usual = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with weights_as_stored():
        found = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert dict(found.named_buffers())
    for (name, expected), (_, buffer) in zip(usual.named_buffers(), found.named_buffers(), strict=True):
        assert torch.equal(buffer, expected), name


def test_a_model_is_loaded_as_it_is_asked_for(tmp_path: Path) -> None:
    config = LlamaConfig(**SMALL, intermediate_size=48, num_attention_heads=2)
    save_random_checkpoint(config, tmp_path)
    for eager, implementation in ((True, "eager"), (False, "sdpa")):
        model, info = load_model(tmp_path, whole_config(tmp_path), torch.float64, eager=eager)
        assert model.dtype == torch.float64
        assert model.config._attn_implementation == implementation
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]


def test_a_new_model_of_a_type_is_the_one_of_its_class() -> None:
    values = {**SMALL, "intermediate_size": 48, "num_attention_heads": 2}
    torch.manual_seed(0)
    expected = LlamaForCausalLM(LlamaConfig(**values)).state_dict()
    torch.manual_seed(0)
    found = make_model(new_config("llama", **values)).state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_model_without_weights_has_the_buffers_that_it_computes_with() -> None:
    register = torch.nn.Module.register_parameter
    config = LlamaConfig(**SMALL | {"tie_word_embeddings": True}, intermediate_size=48, num_attention_heads=2)
    model = make_without_weights(config, torch.float32)
    assert torch.nn.Module.register_parameter is register
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert count_parameters(config) == sum(parameter.numel() for parameter in model.parameters())


def test_a_model_of_float64_has_no_weight_of_float32(tmp_path: Path) -> None:
    config = new_config("ernie4_5_moe", **SMALL, intermediate_size=48, num_attention_heads=2, num_key_value_heads=2)
    save_random_checkpoint(config, tmp_path)  # its routers are of float32 in every model
    for dtype in (torch.float32, torch.float64):
        model, _ = load_model(tmp_path, whole_config(tmp_path), dtype, eager=True)
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
