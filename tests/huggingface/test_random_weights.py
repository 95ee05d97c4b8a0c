"""Random weights: reproducible, conditioned, and a real checkpoint for whoever reads one."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import transformers

from trtllm_port.errors import ConfigError, UnsupportedModelError
from trtllm_port.huggingface.random_weights import condition, save_random_checkpoint

SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 89}


def _llama(**values: object) -> torch.nn.Module:
    model: torch.nn.Module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL | values))
    return model


def test_equal_names_have_equal_weights_whatever_else_the_model_holds() -> None:
    one, two = _llama(), _llama(num_hidden_layers=3, attention_bias=True)
    condition(one, seed=5)
    condition(two, seed=5)
    others = dict(two.named_parameters())
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, others[name]), name


def test_seeds_differ() -> None:
    one, two = _llama(), _llama()
    condition(one, seed=1)
    condition(two, seed=2)
    assert not torch.equal(next(one.parameters()), next(two.parameters()))


def test_nothing_is_hidden() -> None:
    model = _llama(attention_bias=True)
    condition(model)
    weights = model.state_dict()
    gain, bias = weights["model.norm.weight"], weights["model.layers.0.self_attn.q_proj.bias"]
    assert 0.7 < float(gain.mean()) < 1.3
    assert 0.15 < float(gain.std()) < 0.45
    assert 0.15 < float(bias.std()) < 0.45
    assert float(weights["model.layers.1.mlp.down_proj.weight"].std()) == pytest.approx(96**-0.5, rel=0.1)


def test_biases_among_stored_buffers_are_not_zero() -> None:
    model = torch.nn.Module()
    model.register_buffer("e_score_correction_bias", torch.zeros(8))
    model.register_buffer("scale", torch.ones(8))
    model.register_buffer("mask_bias", torch.zeros(8), persistent=False)
    condition(model)
    assert model.e_score_correction_bias.count_nonzero() == 8  # type: ignore[operator,union-attr]
    assert torch.equal(model.scale, torch.ones(8))  # type: ignore[arg-type]
    assert torch.equal(model.mask_bias, torch.zeros(8))  # type: ignore[arg-type]


def test_conv1d_counts_its_inputs() -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=64, n_head=4, n_layer=1, vocab_size=89))
    condition(model)
    assert float(model.state_dict()["transformer.h.0.mlp.c_proj.weight"].std()) == pytest.approx(256**-0.5, rel=0.1)


def test_a_checkpoint_is_one_that_transformers_loads(tmp_path: Path) -> None:
    save_random_checkpoint(transformers.LlamaConfig(**SMALL), tmp_path / "a", "bfloat16", seed=3)
    save_random_checkpoint(tmp_path / "a", tmp_path / "b", "bfloat16", seed=3)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert loaded.dtype == torch.bfloat16
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in loaded.state_dict().items())
    assert {path.name for path in (tmp_path / "a").iterdir()} >= {"config.json", "model.safetensors"}


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no `config\.json`"):
        save_random_checkpoint(tmp_path, tmp_path / "out")
    with pytest.raises(UnsupportedModelError, match="no causal language model"):
        save_random_checkpoint(transformers.ViTConfig(), tmp_path / "out")


def test_a_size_may_be_zero(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=0, num_hidden_layers=1, num_attention_heads=2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it initialises nothing
        save_random_checkpoint(config, tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
