"""Sinusoids and ALiBi against the modelling code of transformers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.musicgen.modeling_musicgen import MusicgenSinusoidalPositionalEmbedding
from transformers.models.xglm.modeling_xglm import XGLMSinusoidalPositionalEmbedding

from trtllm_port import layers as L
from trtllm_port.errors import ConfigError
from trtllm_port.layers.functional.positions import fixed_frequencies

POSITIONS = torch.tensor([[0, 1, 2, 7], [3, 4, 5, 6]])


@pytest.mark.parametrize("dim", [4, 6, 16])
def test_sinusoids_of_gptj_and_tensor2tensor(evaluate: Any, dim: int) -> None:
    found = evaluate(lambda p: L.sinusoidal_positions(p, dim), POSITIONS)
    torch.testing.assert_close(found, create_sinusoidal_positions(8, dim)[POSITIONS])
    inclusive = evaluate(lambda p: L.sinusoidal_positions(p, dim, inclusive=True), POSITIONS)
    torch.testing.assert_close(inclusive, XGLMSinusoidalPositionalEmbedding.get_embedding(8, dim)[POSITIONS])
    pairs = evaluate(lambda p: L.sinusoidal_positions(p, dim, interleaved=True), POSITIONS)
    torch.testing.assert_close(torch.cat([pairs[..., ::2], pairs[..., 1::2]], -1), found)


@pytest.mark.parametrize(
    ("theirs", "options"),
    [(XGLMSinusoidalPositionalEmbedding, {}), (MusicgenSinusoidalPositionalEmbedding, {"cosines_first": True})],
)
def test_inclusive_sinusoids_are_huggings_faces_to_the_last_bit(
    evaluate: Any, theirs: Any, options: dict[str, bool]
) -> None:
    found = evaluate(lambda p: L.sinusoidal_positions(p, 320, inclusive=True, **options), torch.arange(600)[None])
    assert torch.equal(found[0], theirs.get_embedding(600, 320))


def test_sinusoids_of_an_odd_size_are_refused(evaluate: Any) -> None:
    with pytest.raises(ConfigError, match="odd size 5"):
        evaluate(lambda p: L.sinusoidal_positions(p, 5), POSITIONS)


@pytest.mark.parametrize("heads", [1, 2, 4, 5, 6, 8, 10, 12, 14, 16, 71])
def test_alibi_slopes_are_those_of_bloom_and_mpt(heads: int) -> None:
    slots = torch.ones(1, 2, dtype=torch.int64)
    bloom = build_alibi_tensor(slots, heads, torch.float32)[:, 0, 1]
    mpt = build_mpt_alibi_tensor(heads, 2)[:, 0, :].diff()[:, 0]
    torch.testing.assert_close(L.alibi_slopes(heads, powers=True), bloom, rtol=0, atol=0)
    torch.testing.assert_close(L.alibi_slopes(heads), bloom)
    torch.testing.assert_close(L.alibi_slopes(heads), mpt)
    torch.testing.assert_close(L.alibi_slopes(heads, 4.0), build_mpt_alibi_tensor(heads, 2, 4)[:, 0, :].diff()[:, 0])


def test_alibi_differs_from_huggings_faces_by_what_a_softmax_does_not_see(evaluate: Any) -> None:
    heads, slots = 6, 8
    cache: Any = SimpleNamespace(max_seq_len=slots)
    found = evaluate(lambda p: L.alibi_bias(p, cache, heads), POSITIONS)
    expected = build_alibi_tensor(torch.ones(2, slots), heads, torch.float32).view(2, heads, 1, slots)
    torch.testing.assert_close(found.softmax(-1), expected.expand(2, heads, 4, slots).softmax(-1))
    assert (found[0, :, 3, 7] == 0).all()


def test_alibi_from_the_first_slot_is_blooms_to_the_last_bit(evaluate: Any) -> None:
    heads, slots = 20, 512
    cache: Any = SimpleNamespace(max_seq_len=slots)
    found = evaluate(lambda p: L.alibi_bias(p, cache, heads, from_first=True), POSITIONS)
    expected = build_alibi_tensor(torch.ones(1, slots), heads, torch.float32).view(1, heads, 1, slots)
    assert torch.equal(found, expected)


SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 20.0},
    {
        **{"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16},
        **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    },
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: str(scaling["rope_type"]))
def test_scaled_rotary_tables_are_those_of_llama(evaluate: Any, scaling: dict[str, Any]) -> None:
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, rope_parameters={**scaling, "rope_theta": 700.0})
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), POSITIONS)
    for function, expected in ((L.rotary_cosines, cos), (L.rotary_sines, sin)):
        table = evaluate(lambda p, f=function: f(p, 16, 700.0, {**scaling, "rope_theta": 5.0}), POSITIONS)
        torch.testing.assert_close(table, expected)


@pytest.mark.parametrize(
    ("scaling", "told"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "depend on the length"),
        ({"rope_type": "yarn"}, "lacks 'original"),
        ({"rope_type": "x"}, "not supported"),
    ],
)
def test_scalings_that_are_no_table_are_refused(scaling: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        fixed_frequencies(16, 700.0, scaling)


@pytest.mark.parametrize(("dim", "base"), [(8, 10000.0), (12, 500000.0)])
def test_rotary_tables_are_those_of_llama(evaluate: Any, dim: int, base: float) -> None:
    config = LlamaConfig(
        hidden_size=4 * dim, num_attention_heads=4, rope_parameters={"rope_theta": base, "rope_type": "default"}
    )
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), POSITIONS)
    for function, expected in ((L.rotary_cosines, cos), (L.rotary_sines, sin)):
        table = evaluate(lambda p, f=function: f(p, dim, base), POSITIONS)
        torch.testing.assert_close(table, expected)
        once = evaluate(lambda p, f=function: f(p, dim, base, once=True), POSITIONS)
        torch.testing.assert_close(once, expected[..., : dim // 2])
        pairs = evaluate(lambda p, f=function: f(p, dim, base, interleaved=True), POSITIONS)
        torch.testing.assert_close(pairs, once.repeat_interleave(2, -1))
