"""Constants recognised by their content, and models whose ports depend on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.musicgen.modeling_musicgen import MusicgenSinusoidalPositionalEmbedding
from transformers.models.xglm.modeling_xglm import XGLMSinusoidalPositionalEmbedding

from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.configs.sizes import Sample
from trtllm_port.codegen.recognise.constants import ConstantRecognizer, sinusoid, uniform

LENGTH, PAST = 11, 6
SLOTS = LENGTH + PAST
STEP = ConstantRecognizer(Sample(config=None, batch=2, length=LENGTH, past=PAST))
POSITIONS = torch.arange(PAST, SLOTS)
QUERY, SLOT = POSITIONS[:, None], torch.arange(SLOTS)[None]


def test_positions() -> None:
    assert STEP.offset_of_positions(POSITIONS[None]) == 0
    assert STEP.offset_of_positions(POSITIONS.expand(2, -1) + 2) == 2
    for other in (torch.arange(LENGTH)[None], POSITIONS, POSITIONS[None].float(), POSITIONS.flip(0)[None]):
        assert STEP.offset_of_positions(other) is None


@pytest.mark.parametrize("window", [None, 5])
def test_masks(window: int | None) -> None:
    mask = (SLOT <= QUERY) & (QUERY - (window or SLOTS) < SLOT)
    assert STEP.mask(mask[None, None]) == (window, False)
    assert STEP.mask(~mask) == (window, True)
    spoiled = mask.clone()
    spoiled[3, 2] ^= True
    assert STEP.mask(spoiled) is None
    assert STEP.mask(mask[:, :-1]) is None
    assert STEP.mask(torch.ones_like(mask)) is None


def test_sinusoids() -> None:
    table = create_sinusoidal_positions(64, 16)
    assert STEP.sinusoid(table[POSITIONS][None]) == (0, {})
    assert STEP.sinusoid(table[POSITIONS + 2][None].bfloat16()) == (2, {})
    inclusive = XGLMSinusoidalPositionalEmbedding.get_embedding(64, 16)
    assert STEP.sinusoid(inclusive[POSITIONS][None]) == (0, {"inclusive": True})
    pairs = torch.stack(table[POSITIONS][None].chunk(2, -1), -1).flatten(-2)
    assert STEP.sinusoid(pairs) == (0, {"interleaved": True})
    cosines_first = MusicgenSinusoidalPositionalEmbedding.get_embedding(64, 16)
    assert STEP.sinusoid(cosines_first[POSITIONS]) == (0, {"inclusive": True, "cosines_first": True})
    assert STEP.sinusoid(torch.randn(1, LENGTH, 16)) is None
    wide = sinusoid(POSITIONS + 2, 240, inclusive=True)[None]  # half precision hardly tells it from the other form
    assert STEP.sinusoid(wide.bfloat16()) == (2, {"inclusive": True})
    assert STEP.sinusoid(table[POSITIONS].flip(-1)[None]) is None


@pytest.mark.parametrize("heads", [4, 6])
def test_alibi(heads: int) -> None:
    bloom = build_alibi_tensor(torch.ones(2, SLOTS), heads, torch.bfloat16)
    assert STEP.alibi(bloom, heads) == {"from_first": True}
    assert STEP.alibi(build_mpt_alibi_tensor(heads, SLOTS, 8), heads) == {}
    assert STEP.alibi(build_mpt_alibi_tensor(heads, SLOTS, 4), heads) == {"max_bias": 4.0}
    assert STEP.alibi(-bloom, heads) is None
    assert STEP.alibi(bloom.flip(0), heads) is None
    assert STEP.alibi(torch.randn(heads, 1, SLOTS), heads) is None


def test_uniform() -> None:
    assert uniform(torch.zeros(2, 3, dtype=torch.int64)) == 0
    assert uniform(torch.arange(3)) is None


MODELS: dict[str, tuple[dict[str, Any], list[str]]] = {  # model type → config, what its port must say
    "gptj": ({"rotary_dim": 16}, ["sinusoidal_positions(position_ids, self.config.rotary_dim)"]),
    "bert": ({"is_decoder": True}, ["full_like(input_ids, 0)", "self.position_embeddings(position_ids)"]),
    "bloom": ({}, ["alibi_bias(position_ids, cache, ", "= attention("]),
    "roformer": ({"is_decoder": True}, ["self.embed_positions(position_ids)", "view(0, 1, 0, "]),
    "megatron-bert": ({"is_decoder": True}, ["= attention("]),
    "roberta": (
        {"is_decoder": True},
        ["position_ids + (self.config.pad_token_id + 1)"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODELS)
def test_port_agrees_with_hugging_face(model_type: str) -> None:
    values, texts = MODELS[model_type]
    config = transformers.CONFIG_MAPPING[model_type](**values)
    port = generate_port(config)
    assert port.skeletons == ()
    for text in texts:
        assert text in port.files["model.py"]
    check = check_port(config, source=port)
    assert check.passed, check
