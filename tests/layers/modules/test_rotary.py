"""Rotary embeddings of every type against transformers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.hunyuan_v1_dense.modeling_hunyuan_v1_dense import HunYuanDenseV1RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from trtllm_port.errors import ConfigError
from trtllm_port.layers import RotaryEmbedding
from trtllm_port.layers.functional.rope import ROPE_TYPES, inverse_frequencies

HEAD, CONTEXT = 16, 64
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "proportional": {"partial_rotary_factor": 0.5, "factor": 2.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32.0, "beta_slow": 1.0},
    "yarn, untruncated, deepseek's scale": {
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "truncate": False,
        "mscale": 0.707,
        "mscale_all_dim": 1.0,
    },
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "short_factor": [1.0 + i / 10 for i in range(HEAD // 2)],
        "long_factor": [2.0 + i for i in range(HEAD // 2)],
    },
}


def rope(name: str) -> dict[str, Any]:
    return {"rope_type": name.split(",")[0], "rope_theta": 10000.0, **ROPES[name]}


def transformers_tables(name: str, x: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    config = LlamaConfig(
        hidden_size=2 * HEAD,
        num_attention_heads=2,
        head_dim=HEAD,
        max_position_embeddings=CONTEXT,
        rope_parameters=rope(name),
    )
    cos, sin = LlamaRotaryEmbedding(config)(x, positions)
    return cos[..., : cos.shape[-1] // 2], sin[..., : sin.shape[-1] // 2]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("length", [9, 40, 100])
@pytest.mark.parametrize("name", sorted(ROPES))
def test_tables_are_transformers(evaluate: Any, name: str, length: int, dtype: str) -> None:
    """Short and longer than the original context, which is where longrope changes its frequencies."""
    x = torch.zeros(2, length, 4, dtype=getattr(torch, dtype))
    positions = torch.arange(length).expand(2, length).contiguous()
    ours = evaluate(RotaryEmbedding(rope(name), HEAD, CONTEXT), x, positions)
    for found, expected in zip(ours, transformers_tables(name, x, positions), strict=True):
        assert found.dtype == x.dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-6 if dtype == "float32" else 8e-3)


@pytest.mark.parametrize("length", [9, 16, 17, 64, 65, 100])
@pytest.mark.parametrize("name", ["longrope", "dynamic"])
def test_frequencies_of_a_length_are_transformers(name: str, length: int) -> None:
    config = LlamaConfig(head_dim=HEAD, max_position_embeddings=CONTEXT, rope_parameters=rope(name))
    expected, factor = ROPE_INIT_FUNCTIONS[name](config, torch.device("cpu"), seq_len=length)
    found, scaling = inverse_frequencies(rope(name), HEAD, CONTEXT, length)
    torch.testing.assert_close(found, expected)
    assert scaling == pytest.approx(factor)


def test_lists_that_do_not_fit_the_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`short_factor` .* has 8 numbers, 16 frequencies"):
        inverse_frequencies(rope("longrope"), 2 * HEAD, CONTEXT)


def test_tables_of_a_data_type_of_their_own(evaluate: Any) -> None:
    x, positions = torch.zeros(1, 9, 4, dtype=torch.bfloat16), torch.arange(9)[None]
    ours = evaluate(RotaryEmbedding(rope("default"), HEAD, CONTEXT, dtype="float32"), x, positions)
    for found, expected in zip(ours, transformers_tables("default", x.float(), positions), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


REAL = {
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {"factor": 32.0, "original_max_position_embeddings": 4096, "beta_fast": 32.0, "beta_slow": 1.0},
    "yarn, untruncated": {"factor": None, "original_max_position_embeddings": 4096, "truncate": False},
    "linear": {"factor": 3.0},
}


@pytest.mark.parametrize("head", [64, 128])
@pytest.mark.parametrize("name", sorted(REAL))
def test_frequencies_at_real_sizes(name: str, head: int) -> None:
    """At real sizes the ramps have an inside: short, long and blended wavelengths."""
    parameters = {"rope_type": name.split(",")[0], "rope_theta": 500000.0, **REAL[name]}
    config = SimpleNamespace(
        rope_parameters=parameters,
        head_dim=head,
        hidden_size=head,
        num_attention_heads=1,
        max_position_embeddings=131072,
        standardize_rope_params=lambda: None,
    )
    expected, scale = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config)
    found, found_scale = inverse_frequencies(parameters, head, 131072)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert found_scale == pytest.approx(scale)


def test_an_alpha_counts_where_the_model_says_so() -> None:
    parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 1.0, "alpha": 1000.0}
    config = SimpleNamespace(rope_parameters=parameters, head_dim=HEAD)
    expected, scale = HunYuanDenseV1RotaryEmbedding.compute_ntk_alpha_rope_parameters(config)
    found, found_scale = inverse_frequencies(parameters, HEAD, CONTEXT, 10 * CONTEXT, by_alpha=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert found_scale == scale
    plain = {name: value for name, value in parameters.items() if name != "alpha"}
    usual = [inverse_frequencies(one, HEAD, CONTEXT)[0] for one in (parameters, plain)]
    assert torch.equal(*usual)


def test_every_type_of_transformers_is_known_and_others_are_refused() -> None:
    assert set(ROPE_INIT_FUNCTIONS) == set(ROPE_TYPES) - {"default"}
    with pytest.raises(ConfigError, match="rope type `spiral` is not supported"):
        RotaryEmbedding({"rope_type": "spiral", "rope_theta": 1e4, "factor": 2.0}, HEAD, CONTEXT)
    with pytest.raises(ConfigError, match="of type `linear` lacks 'factor'"):
        RotaryEmbedding({"rope_type": "linear", "rope_theta": 1e4}, HEAD, CONTEXT)
