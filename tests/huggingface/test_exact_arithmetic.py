"""A float64 reference takes itself for a float32 model and is rounded to float32 nowhere."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from trtllm_port.huggingface.exact_arithmetic import ExactArithmetic, tensors_as_they_are

SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "functional": lambda scores: functional.softmax(scores, dim=-1, dtype=torch.float32),
    "cast before": lambda scores: functional.softmax(scores.float(), dim=-1),
    "torch": lambda scores: torch.softmax(scores.to(torch.float32), -1),
    "method": lambda scores: scores.softmax(-1, dtype=torch.float32),
}
CASTS: dict[str, Callable[[Tensor], Tensor]] = {
    "float": lambda x: x.float(),
    "to": lambda x: x.to(torch.float32),
    "to by keyword": lambda x: x.to(dtype=torch.float32),
    "to another": lambda x: x.to(torch.ones(1)),
    "type": lambda x: x.type(torch.float32),
    "type_as": lambda x: x.type_as(torch.ones(1)),
    "to its own": lambda x: x.float().to(x.dtype),
}
SUMS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(-1, dtype=torch.float32),
    "written into": lambda x: torch.zeros(1, dtype=torch.float32).index_add_(0, torch.zeros(7, dtype=torch.int64), x),
    "written into another": lambda x: x.new_zeros(1, dtype=x.dtype).index_add_(
        0, torch.zeros(7, dtype=torch.int64), x.float()
    ),
    "product with ones": lambda x: x.float() @ torch.full((7,), 1.0),
    "norm": lambda x: x.to(torch.float32).pow(2).mean(-1, keepdim=True).sqrt() / x.pow(2).mean(-1).sqrt() * x.sum(-1),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_large_number_that_a_softmax_does_not_see_costs_nothing(spelling: str) -> None:
    scores = torch.tensor([[0.1, 0.3, -0.2]], dtype=torch.float64)
    weights = [math.exp(score) for score in scores[0].tolist()]
    exact = torch.tensor([[weight / sum(weights) for weight in weights]], dtype=torch.float64)
    rounded = SPELLINGS[spelling](scores + 4096)
    with ExactArithmetic():
        found = SPELLINGS[spelling](scores + 4096)
    assert float((rounded - exact).abs().max()) > 1e-5
    assert float((found - exact).abs().max()) < 1e-12


@pytest.mark.parametrize("spelling", CASTS)
def test_no_cast_rounds(spelling: str) -> None:
    x = torch.tensor([1 / 3], dtype=torch.float64)
    with ExactArithmetic():
        found = CASTS[spelling](x)
        says = found.dtype
    assert torch.equal(found, x)
    assert found.dtype == torch.float64
    assert says == torch.float32


@pytest.mark.parametrize("spelling", SUMS)
def test_nothing_on_the_way_rounds(spelling: str) -> None:
    x = torch.linspace(0.1, 0.9, 7, dtype=torch.float64) / 3
    with ExactArithmetic():
        found = SUMS[spelling](x)
    assert abs(float(found) - float(x.sum())) < 1e-15


def test_what_is_of_float32_before_the_models_numbers_stays() -> None:
    """Tables of angles are those of the model in float32, and so of the port."""
    frequencies = 1.0 / 10000 ** (torch.arange(0, 8, 2, dtype=torch.int64).float() / 8)
    positions = torch.arange(512)
    angles = positions[:, None].float() * frequencies
    x = torch.rand(512, 4, dtype=torch.float64)
    with ExactArithmetic():
        table = (positions[:, None].float() * frequencies).cos()
        constant, half = torch.tensor(0.1, dtype=x.dtype), x.to(torch.bfloat16)
        turned = x * table
    assert torch.equal(table, angles.cos())
    assert table.dtype == constant.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    assert torch.equal(turned, x * angles.cos().double())


def test_the_model_decides_as_in_float32() -> None:
    x = torch.ones(2, dtype=torch.float64)
    with ExactArithmetic():
        lowest = torch.finfo(x.dtype).min
        mask = torch.full((2,), lowest, dtype=x.dtype)
        masked = x + mask
    assert lowest == torch.finfo(torch.float32).min
    assert masked.dtype == torch.float64


def test_a_value_is_written_where_it_was_to_be_written() -> None:
    x, table = torch.tensor([1 / 3], dtype=torch.float64), torch.zeros(2)
    with ExactArithmetic():
        table[:1] = x
        table[1:].copy_(x)
        table += x
    assert torch.allclose(table, torch.tensor(2 / 3))


def test_a_function_of_ours_sees_tensors_as_they_are() -> None:
    x = torch.ones(2, dtype=torch.float64)
    with ExactArithmetic():
        assert x.dtype == torch.float32
        with tensors_as_they_are():
            assert (x.dtype, x.float().dtype) == (torch.float64, torch.float32)
            with tensors_as_they_are(False):  # the model once more
                assert x.dtype == torch.float32
        assert x.dtype == torch.float32
    assert x.dtype == torch.float64


def decayed(x: Tensor, initial_state: Tensor | None = None) -> Tensor:
    """A recurrence as modelling files write it."""
    (x,) = [tensor.to(torch.float32) for tensor in (x,)]
    state = torch.zeros(1, dtype=torch.float32) if initial_state is None else initial_state.float()
    for new in x:
        state = 0.5 * state + new
    return state


def test_a_recurrence_is_not_rounded() -> None:
    x = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)[:, None]
    exact = sum(0.5 ** (6 - t) * float(x[t]) for t in range(7))
    with ExactArithmetic():
        found = decayed(x)
    assert abs(float(found) - exact) < 1e-14
    assert abs(float(decayed(x)) - exact) > 1e-9


def test_a_model_that_insists_on_scores_in_float32_runs() -> None:
    """GPT-2 looks whether its scores are of float32, and stops otherwise."""
    config = GPT2Config(vocab_size=32, n_positions=32, n_embd=16, n_layer=2, n_head=2, reorder_and_upcast_attn=True)
    model = GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval().double()
    ids = torch.arange(9)[None]
    with torch.no_grad(), ExactArithmetic():
        logits = model(input_ids=ids).logits
    plain = GPT2Config(**{**config.to_dict(), "reorder_and_upcast_attn": False})
    other = GPT2LMHeadModel._from_config(plain, attn_implementation="eager").eval().double()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        exact = other(input_ids=ids).logits
    assert float((logits - exact).abs().max()) < 1e-12
