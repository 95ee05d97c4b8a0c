"""Weights of Hugging Face's models are those of their files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, FalconMambaConfig, LlamaConfig, MambaConfig, PreTrainedConfig

from trtllm_port.huggingface.loading import weights_as_stored
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


def test_what_no_file_holds_is_computed_as_ever(tmp_path: Path) -> None:
    config = LlamaConfig(**SMALL, intermediate_size=48, num_attention_heads=2)
    save_random_checkpoint(config, tmp_path)
    usual = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with weights_as_stored():
        found = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert dict(found.named_buffers())
    for (name, expected), (_, buffer) in zip(usual.named_buffers(), found.named_buffers(), strict=True):
        assert torch.equal(buffer, expected), name
