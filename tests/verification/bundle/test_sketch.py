from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trtllm_port.verification.bundle.sketch import COLUMNS, TOKENS, sampled, sketch, sketched_errors
from trtllm_port.verification.judge.metrics import summarise, token_errors

FIRST_SIGNS = [-3, 1, -1, 3, 3, 1, 3, -3, 3, -1, 3, -3]  # sums of three, of the stream that all bundles use


def noisy(reference: Tensor, size: float, seed: int = 1) -> Tensor:
    return reference + size * torch.randn(reference.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 512, 192), (1, 20, 7), (300, 1), (2, 3, 40, 16)])
@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0])
def test_errors_are_those_of_the_tensors(shape: tuple[int, ...], size: float) -> None:
    reference = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value = noisy(reference, size)
    true = summarise(token_errors(value, reference))
    found = summarise(sketched_errors(sketch(value), sketch(reference)))
    assert found.rel_l2 == pytest.approx(true.rel_l2, rel=0.2)
    assert found.norm_drift == pytest.approx(true.norm_drift, rel=0.3)
    assert 1 - found.cosine == pytest.approx(1 - true.cosine, rel=0.5, abs=1e-12)
    assert found.max_reference == true.max_reference


def test_equal_tensors_have_no_error() -> None:
    tensor = torch.randn(1, 9, 5)
    assert summarise(sketched_errors(sketch(tensor), sketch(tensor.clone()))).rel_l2 == 0.0


def test_a_permutation_keeps_its_norms_and_is_still_seen() -> None:
    tensor = torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(0))
    found = summarise(sketched_errors(sketch(tensor[..., torch.randperm(32)]), sketch(tensor)))
    assert found.rel_l2 > 1.0
    assert found.norm_drift < 1e-6


def test_one_wrong_element_is_seen_among_many() -> None:
    reference = torch.randn(1, 128, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rough = noisy(reference, 1e-3, seed=2)
    wrong = noisy(reference, 1e-3)
    wrong[0, 64, 100] += 1.0
    floor = sketched_errors(sketch(rough), sketch(reference))
    assert sketched_errors(sketch(wrong), sketch(reference)).max_error > 1.5 * floor.max_error


def test_not_a_number_is_seen_wherever_it_is() -> None:
    tensor = torch.zeros(1, 1000, 4)
    tensor[0, 501, 1] = float("nan")
    assert not sketch(tensor).finite


def test_a_sketch_is_small_and_the_same_everywhere() -> None:
    found = sketch(torch.ones(1, 2000, 3))
    assert found.values_NK.shape == (TOKENS, COLUMNS)
    assert (found.values_NK[0] * COLUMNS**0.5).round().int().tolist()[:12] == FIRST_SIGNS


def test_samples_hold_both_ends() -> None:
    assert sampled(5, 9).tolist() == [0, 1, 2, 3, 4]
    indices = sampled(1000, 128)
    assert (int(indices[0]), int(indices[-1]), len(indices.unique())) == (0, 999, 128)
