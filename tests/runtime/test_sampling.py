"""Sampling against transformers' logits processors, and the range checks."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from trtllm_port.errors import PortError
from trtllm_port.runtime.sampling import Sampler, SamplingConfig, filter_logits


def logits(rows: int = 4, vocabulary: int = 50) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(3)) * 3


def transformers_scores(scores: torch.Tensor, config: SamplingConfig) -> torch.Tensor:
    processors = LogitsProcessorList([TemperatureLogitsWarper(config.temperature)])
    if config.top_k:
        processors.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1.0:
        processors.append(TopPLogitsWarper(config.top_p))
    return processors(torch.zeros(scores.shape[0], 1, dtype=torch.long), scores)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (1, 1.0), (200, 1.0), (0, 0.7), (10, 0.5), (0, 1e-6)])
def test_filters_are_those_of_transformers(temperature: float, top_k: int, top_p: float) -> None:
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    torch.testing.assert_close(filter_logits(logits(), config), transformers_scores(logits(), config), rtol=0, atol=0)


def test_ties_at_the_last_kept_rank_are_kept_as_in_transformers() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, 0.0]])
    config = SamplingConfig(temperature=1.0, top_k=1)
    torch.testing.assert_close(filter_logits(scores, config), transformers_scores(scores, config))


def test_the_draw_is_that_of_a_seeded_transformers_run() -> None:
    config = SamplingConfig(temperature=0.9, top_k=20, top_p=0.95, seed=11)
    sampler = Sampler(config)
    ours = [sampler(logits()) for _ in range(5)]
    torch.manual_seed(11)
    theirs = [torch.multinomial(transformers_scores(logits(), config).softmax(-1), 1).squeeze(1) for _ in range(5)]
    assert torch.equal(torch.stack(ours), torch.stack(theirs))


def test_greedy_takes_the_most_likely_token_whatever_the_type() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(Sampler(SamplingConfig())(logits().to(dtype)), logits().to(dtype).argmax(-1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
    ],
)
def test_values_out_of_range_are_named(field: str, value: float) -> None:
    with pytest.raises(PortError, match=field):
        SamplingConfig(**{field: value})
