from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from trtllm_port.verification.judge import metrics as module
from trtllm_port.verification.judge.metrics import metrics, summarise, token_errors


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(2, 50, 16, generator=generator, dtype=torch.float64)
    return reference + 1e-3 * torch.randn(reference.shape, generator=generator, dtype=torch.float64), reference


def test_metrics_are_what_torch_computes(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    value, reference = pair
    found = metrics(value, reference)
    tokens = (value - reference).norm(dim=-1) / reference.norm(dim=-1)
    assert found.rel_l2 == pytest.approx(float((value - reference).norm() / reference.norm()))
    assert found.max_abs == pytest.approx(float((value - reference).abs().max()))
    assert found.cosine == pytest.approx(float(cosine_similarity(value.flatten(), reference.flatten(), dim=0)))
    assert found.token_p50 == pytest.approx(float(tokens.quantile(0.5)))
    assert found.token_p95 == pytest.approx(float(tokens.quantile(0.95)))
    assert found.token_max == pytest.approx(float(tokens.max()))


def test_chunks_change_nothing(pair: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = metrics(*pair)
    monkeypatch.setattr(module, "SCRATCH_BYTES", 400)
    assert metrics(*pair) == pytest.approx(whole)


def test_a_reference_is_summed_up_once(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    value, reference = pair
    known = token_errors(reference * 2, reference)
    assert summarise(token_errors(value, reference, known)) == metrics(value, reference)


def test_low_precision_is_widened_before_subtracting() -> None:
    reference = torch.full((1, 4), 1.0, dtype=torch.float64)
    value = torch.full((1, 4), 1.0 + 2**-7, dtype=torch.bfloat16)
    assert metrics(value, reference).rel_l2 == pytest.approx(2**-7)


def test_a_massive_token_does_not_hide_the_others() -> None:
    reference = torch.ones(100, 8)
    reference[0] = 1e4
    value = reference.clone()
    value[1:] *= 1.05
    found = metrics(value, reference)
    assert found.rel_l2 < 1e-4
    assert found.token_p95 == pytest.approx(0.05, rel=1e-3)


def test_norms_tell_a_permutation_from_a_wrong_value(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, reference = pair
    assert metrics(reference.flip(-1), reference).norm_drift == pytest.approx(0.0, abs=1e-12)
    assert metrics(reference * 1.1, reference).norm_drift == pytest.approx(0.1)


def test_zero_against_zero_is_no_error() -> None:
    found = metrics(torch.zeros(3, 4), torch.zeros(3, 4))
    assert (found.rel_l2, found.token_max, found.cosine) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("shape", [(0, 4), (3, 5)])
def test_what_cannot_be_compared_is_refused(shape: tuple[int, int]) -> None:
    reference = torch.zeros(3, 4) if shape[0] else torch.zeros(shape)
    with pytest.raises(ValueError, match=r"nothing to compare|shapes differ"):
        metrics(torch.zeros(shape), reference)
