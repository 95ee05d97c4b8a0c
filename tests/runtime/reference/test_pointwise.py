"""ELEMENTWISE, UNARY, ACTIVATION, CAST, SELECT against torch, over shapes, dtypes and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorrt_rtx as trt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

FLOATS = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
SEEDS = st.integers(0, 2**16)
quick = settings(max_examples=15, deadline=None)


def _random(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _broadcast(sizes: list[tuple[int, bool, bool]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(1 if a else n for n, a, _ in sizes), tuple(1 if b else n for n, _, b in sizes)


SIZES = st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=4).map(_broadcast)
OPERATIONS = {
    "SUM": lambda a, b: a + b,
    "SUB": lambda a, b: a - b,
    "PROD": lambda a, b: a * b,
    "DIV": lambda a, b: a / b,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "GREATER": lambda a, b: a > b,
    "LESS": lambda a, b: a < b,
    "EQUAL": lambda a, b: a == b,
}


@quick
@given(shapes=SIZES, dtype=FLOATS, seed=SEEDS, operation=st.sampled_from(sorted(OPERATIONS)))
def test_elementwise(
    new_net: Callable[[], Any], shapes: tuple[Any, Any], dtype: torch.dtype, seed: int, operation: str
) -> None:
    net = new_net()
    a, b = _random(shapes[0], dtype, seed), _random(shapes[1], dtype, seed + 1)
    op = getattr(trt.ElementWiseOperation, operation)
    layer = net.definition.add_elementwise(net.input(a), net.input(b), op)
    (result,) = net.run(layer.get_output(0))
    assert_close(result, OPERATIONS[operation](a, b), rtol=0, atol=0)


def test_integers_divide_towards_zero_and_floor_divide_down(net: Any) -> None:
    a, b = torch.tensor([7, -7, 7, -7]), torch.tensor([2, 2, -2, -2])
    x, y = net.input(a), net.input(b)
    quotients = [
        net.definition.add_elementwise(x, y, op).get_output(0)
        for op in (trt.ElementWiseOperation.DIV, trt.ElementWiseOperation.FLOOR_DIV)
    ]
    towards_zero, down = net.run(*quotients)
    assert towards_zero.tolist() == [3, -3, -3, 3]
    assert down.tolist() == [3, -4, -4, 3]


UNARIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "EXP": torch.exp,
    "RECIP": torch.reciprocal,
    "ABS": torch.abs,
    "NEG": torch.neg,
    "SIN": torch.sin,
    "ERF": torch.erf,
    "ROUND": torch.round,
    "SIGN": torch.sign,
    "ISNAN": torch.isnan,
}


@quick
@given(dtype=FLOATS, seed=SEEDS, operation=st.sampled_from(sorted(UNARIES)))
def test_unary(new_net: Callable[[], Any], dtype: torch.dtype, seed: int, operation: str) -> None:
    net = new_net()
    x = _random((3, 5), dtype, seed)
    layer = net.definition.add_unary(net.input(x), getattr(trt.UnaryOperation, operation))
    (result,) = net.run(layer.get_output(0))
    assert_close(result, UNARIES[operation](x), rtol=0, atol=0)


# Formulas as TensorRT's documentation writes them, alpha = 1.5 and beta = 0.5.
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "RELU": lambda x: x.clamp(min=0),
    "SIGMOID": lambda x: 1 / (1 + torch.exp(-x)),
    "TANH": torch.tanh,
    "LEAKY_RELU": lambda x: torch.where(x >= 0, x, 1.5 * x),
    "ELU": lambda x: torch.where(x >= 0, x, 1.5 * (torch.exp(x) - 1)),
    "SELU": lambda x: torch.where(x > 0, 0.5 * x, 0.5 * (1.5 * torch.exp(x) - 1.5)),
    "SOFTSIGN": lambda x: x / (1 + x.abs()),
    "SOFTPLUS": lambda x: 1.5 * torch.log(torch.exp(0.5 * x) + 1),
    "CLIP": lambda x: torch.full_like(x, 1.5),  # max(alpha, min(beta, x)): alpha above beta wins
    "HARD_SIGMOID": lambda x: (1.5 * x + 0.5).clamp(0, 1),
    "SCALED_TANH": lambda x: 1.5 * torch.tanh(0.5 * x),
    "THRESHOLDED_RELU": lambda x: torch.where(x > 1.5, x, 0.0),
    "GELU_ERF": lambda x: 0.5 * x * (1 + torch.erf(x * 0.5**0.5)),
    "GELU_TANH": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (0.044715 * x**3 + x))),
}


@pytest.mark.parametrize("kind", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activation(net: Any, kind: str, dtype: torch.dtype) -> None:
    x = (3 * _random((4, 25), torch.float32, 0)).to(dtype)
    layer = net.definition.add_activation(net.input(x), getattr(trt.ActivationType, kind))
    layer.alpha, layer.beta = 1.5, 0.5
    (result,) = net.run(layer.get_output(0))
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-6}
    assert_close(result, ACTIVATIONS[kind](x.double()).to(dtype), **tolerance)


def test_every_activation_of_tensorrt_is_covered() -> None:
    assert set(ACTIVATIONS) == set(trt.ActivationType.__members__)


def test_cast_truncates_and_bool_asks_for_zero(net: Any) -> None:
    x = net.input(torch.tensor([-1.9, -0.2, 0.0, 0.7, 2.5]))
    casts = [net.definition.add_cast(x, dtype).get_output(0) for dtype in (trt.int64, trt.bool)]
    integers, booleans = net.run(*casts)
    assert integers.tolist() == [-1, 0, 0, 0, 2]
    assert booleans.tolist() == [True, True, False, True, True]


def test_select_broadcasts(net: Any) -> None:
    condition = torch.tensor([[True, False]])
    a, b = torch.arange(6.0).reshape(3, 2), torch.full((1, 1), -1.0)
    layer = net.definition.add_select(net.input(condition), net.input(a), net.input(b))
    (result,) = net.run(layer.get_output(0))
    assert_close(result, torch.where(condition, a, b))
