"""A float64 reference does not round its softmax to float32."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trtllm_port.exact import ExactSoftmax

SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "functional": lambda scores: functional.softmax(scores, dim=-1, dtype=torch.float32),
    "cast before": lambda scores: functional.softmax(scores.float(), dim=-1),
    "torch": lambda scores: torch.softmax(scores.to(torch.float32), -1),
    "method": lambda scores: scores.softmax(-1, dtype=torch.float32),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_large_number_that_a_softmax_does_not_see_costs_nothing(spelling: str) -> None:
    scores = torch.tensor([[0.1, 0.3, -0.2]], dtype=torch.float64)
    weights = [math.exp(score) for score in scores[0].tolist()]
    exact = torch.tensor([[weight / sum(weights) for weight in weights]], dtype=torch.float64)
    rounded = SPELLINGS[spelling](scores + 4096)
    with ExactSoftmax():
        found = SPELLINGS[spelling](scores + 4096)
    assert found.dtype == torch.float32
    assert float((rounded - exact).abs().max()) > 1e-5
    assert float((found - exact).abs().max()) < 1e-7


def test_scores_in_float32_stay_as_they_are() -> None:
    scores = torch.tensor([[0.1, 0.3, -0.2]]) + 4096
    with ExactSoftmax():
        found = functional.softmax(scores, dim=-1, dtype=torch.float32)
    assert torch.equal(found, torch.softmax(scores, -1))
