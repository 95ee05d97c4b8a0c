"""Distances of distributions, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trtllm_port.verification.loss.divergence import compare_logits, mean_kl

HALVES, THIRD = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()


def test_by_hand() -> None:
    """Of (1/2, 1/2) from (1/4, 3/4): 1/2 log 2 + 1/2 log 2/3. Logits may all be larger by the same."""
    original, quantized = torch.stack([HALVES, THIRD])[None], torch.stack([THIRD, THIRD + 7])[None]
    found = compare_logits(original, quantized, torch.tensor([[1, 0]]))
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert found.kl[0].tolist() == pytest.approx([expected, 0.0], abs=1e-7)
    assert found.agrees.tolist() == [[0.0, 1.0]]
    assert found.original[0].tolist() == pytest.approx([math.log(2), math.log(4)])
    assert found.quantized[0].tolist() == pytest.approx([math.log(4 / 3), math.log(4)])
    assert mean_kl(original, quantized) == pytest.approx(expected / 2, abs=1e-7)


def test_all_of_many_tokens_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces as in one."""
    original, quantized = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).unbind()
    ids = torch.arange(15).reshape(3, 5) % 7
    whole = compare_logits(original, quantized, ids)
    monkeypatch.setattr("trtllm_port.verification.judge.logit_metrics.SCRATCH_BYTES", 8 * 7 * 4)
    pieces = compare_logits(original, quantized, ids)
    for name in ("kl", "agrees", "original", "quantized"):
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name))
    expected = -original.double().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    torch.testing.assert_close(whole.original, expected)


def test_a_token_that_is_excluded_adds_nothing_and_nan_is_seen() -> None:
    masked = torch.tensor([[[0.0, 1.0, -math.inf]]])
    assert mean_kl(masked, masked) == 0.0
    assert math.isnan(mean_kl(masked, masked * math.nan))
    assert math.isnan(mean_kl(masked * math.nan, masked))
    assert mean_kl(torch.zeros(1, 1, 3), masked) == math.inf
