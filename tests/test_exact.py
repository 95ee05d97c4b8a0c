"""A float64 reference does not round its softmax and its recurrences to float32."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trtllm_port.exact import ExactArithmetic

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
    with ExactArithmetic():
        found = SPELLINGS[spelling](scores + 4096)
    assert found.dtype == torch.float32
    assert float((rounded - exact).abs().max()) > 1e-5
    assert float((found - exact).abs().max()) < 1e-7


def test_scores_in_float32_stay_as_they_are() -> None:
    scores = torch.tensor([[0.1, 0.3, -0.2]]) + 4096
    with ExactArithmetic():
        found = functional.softmax(scores, dim=-1, dtype=torch.float32)
    assert torch.equal(found, torch.softmax(scores, -1))


def test_a_number_beyond_float32_is_a_float64() -> None:
    lowest = torch.finfo(torch.float64).min
    with ExactArithmetic():
        hiding, plain = torch.full((), lowest), torch.full((2,), -1.0)
        unlimited = torch.full((), float("-inf"))
    assert hiding.dtype == torch.float64
    assert float(hiding) == lowest
    assert plain.dtype == unlimited.dtype == torch.float32


def decayed(x: Tensor, initial_state: Tensor | None = None) -> Tensor:
    """A recurrence as modelling files write it."""
    (x,) = [tensor.to(torch.float32) for tensor in (x,)]
    state = torch.zeros_like(x[0]) if initial_state is None else initial_state.float()
    for new in x:
        state = 0.5 * state + new
    return state


def test_a_recurrence_is_not_rounded() -> None:
    x = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)[:, None]
    exact = sum(0.5 ** (6 - t) * float(x[t]) for t in range(7))
    with ExactArithmetic():
        found, widened = decayed(x), decayed(x.float())
        norm = x.float()  # elsewhere the cast is the model's own
    assert abs(float(found) - exact) < 1e-14
    assert widened.dtype == torch.float64  # sums of what is rounded already are not rounded again
    assert norm.dtype == torch.float32
    assert abs(float(decayed(x)) - exact) > 1e-9


@pytest.mark.parametrize("turned", [False, True])
def test_scores_that_a_model_keeps_in_float32_stay_so_with_a_mask(turned: bool) -> None:
    scores = torch.tensor([0.1, 0.3, -0.2]).view(1, 1, 1, 3)
    mask = torch.tensor([0.0, 0.0, torch.finfo(torch.float64).min], dtype=torch.float64).view(1, 1, 1, 3)
    bias = torch.tensor([0.0, -1.0, -2.0], dtype=torch.float64).view(1, 1, 1, 3)
    with ExactArithmetic():
        masked = functional.softmax(mask + scores if turned else scores + mask, dim=-1)
        biased = functional.softmax(scores + bias, dim=-1)
    assert masked.dtype == torch.float32
    assert torch.equal(masked[..., :2].flatten(), torch.softmax(scores[..., :2].double(), -1).flatten().float())
    assert masked[..., 2] == 0
    assert biased.dtype == torch.float64  # no mask: what it adds is a part of the scores
