"""REDUCE, TOPK, CUMULATIVE, NORMALIZATION, MATRIX_MULTIPLY, FILL against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorrt_rtx as trt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from trtllm_port.runtime.reference import UnsupportedLayerError

quick = settings(max_examples=15, deadline=None)
REDUCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "SUM": lambda x, axes, keep: x.sum(axes, keep),
    "AVG": lambda x, axes, keep: x.mean(axes, keep),
    "MAX": lambda x, axes, keep: x.amax(axes, keep),
    "MIN": lambda x, axes, keep: x.amin(axes, keep),
}


@quick
@given(
    operation=st.sampled_from(sorted(REDUCTIONS)),
    axes=st.sets(st.integers(0, 2), min_size=1),
    keep=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_reduce(new_net: Callable[[], Any], operation: str, axes: set[int], keep: bool, dtype: torch.dtype) -> None:
    net = new_net()
    x = torch.randn(2, 3, 4).to(dtype)
    mask = sum(1 << axis for axis in axes)
    layer = net.definition.add_reduce(net.input(x), getattr(trt.ReduceOperation, operation), mask, keep)
    (result,) = net.run(layer.get_output(0))
    assert_close(result, REDUCTIONS[operation](x, sorted(axes), keep))


def test_product_of_integers_keeps_their_dtype(net: Any) -> None:
    x = torch.tensor([[1, 2], [3, 4]], dtype=torch.int32)
    layer = net.definition.add_reduce(net.input(x), trt.ReduceOperation.PROD, 0b11, False)
    (result,) = net.run(layer.get_output(0))
    assert result.item() == 24


@quick
@given(k=st.integers(1, 5), axis=st.integers(0, 1), largest=st.booleans(), seed=st.integers(0, 99))
def test_topk(new_net: Callable[[], Any], k: int, axis: int, largest: bool, seed: int) -> None:
    net = new_net()
    x = torch.randperm(25, generator=torch.Generator().manual_seed(seed)).reshape(5, 5).float()
    op = trt.TopKOperation.MAX if largest else trt.TopKOperation.MIN
    layer = net.definition.add_topk(net.input(x), op, k, 1 << axis, trt.int64)
    values, indices = net.run(layer.get_output(0), layer.get_output(1))
    expected = torch.topk(x, k, axis, largest)
    assert_close(values, expected.values)
    assert_close(indices, expected.indices)


def test_of_equal_values_the_first_is_first(net: Any) -> None:
    x = net.input(torch.tensor([[1.0, 3.0, 3.0, 1.0]]))
    outputs = []
    for op in (trt.TopKOperation.MAX, trt.TopKOperation.MIN):
        outputs.append(net.definition.add_topk(x, op, 4, 2, trt.int64).get_output(1))
    largest, smallest = net.run(*outputs)
    assert largest.tolist() == [[1, 2, 0, 3]]
    assert smallest.tolist() == [[0, 3, 1, 2]]


@pytest.mark.parametrize(
    ("exclusive", "reverse", "expected"),
    [(0, 0, [1, 3, 6]), (1, 0, [0, 1, 3]), (0, 1, [6, 5, 3]), (1, 1, [5, 3, 0])],
)
def test_cumulative(net: Any, exclusive: int, reverse: int, expected: list[int]) -> None:
    x, axis = net.input(torch.tensor([1, 2, 3])), net.constant(torch.tensor(0))
    layer = net.definition.add_cumulative(x, axis, trt.CumulativeOperation.SUM, bool(exclusive), bool(reverse))
    (result,) = net.run(layer.get_output(0))
    assert result.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_normalization_of_the_last_axis_is_layer_norm(net: Any, dtype: torch.dtype) -> None:
    x, scale, bias = (torch.randn(shape).to(dtype) for shape in ((2, 3, 8), (1, 1, 8), (1, 1, 8)))
    layer = net.definition.add_normalization_v2(net.input(x), net.input(scale), net.input(bias), 1 << 2)
    layer.epsilon = 1e-3
    (result,) = net.run(layer.get_output(0))
    assert_close(result, torch.nn.functional.layer_norm(x, (8,), scale.view(8), bias.view(8), 1e-3))


@pytest.mark.parametrize("groups", [1, 2])
def test_normalization_of_channels_is_instance_or_group_norm(net: Any, groups: int) -> None:
    x, scale, bias = torch.randn(2, 4, 3, 5), torch.randn(1, 4, 1, 1), torch.randn(1, 4, 1, 1)
    layer = net.definition.add_normalization_v2(net.input(x), net.input(scale), net.input(bias), 0b1100)
    layer.num_groups = groups
    (result,) = net.run(layer.get_output(0))
    count = 4 if groups == 1 else groups
    assert_close(result, torch.nn.functional.group_norm(x, count, scale.view(4), bias.view(4)))


OPERANDS = st.sampled_from(["NONE", "TRANSPOSE", "VECTOR"])


@quick
@given(op0=OPERANDS, op1=OPERANDS, constant=st.booleans(), batch=st.sampled_from([1, 2]))
def test_matrix_multiply(new_net: Callable[[], Any], op0: str, op1: str, constant: bool, batch: int) -> None:
    net = new_net()
    shapes = {
        "NONE": ((2, 3, 4), (batch, 4, 5)),
        "TRANSPOSE": ((2, 4, 3), (batch, 5, 4)),
        "VECTOR": ((2, 4), (batch, 4)),
    }
    a, b = torch.randn(shapes[op0][0]), torch.randn(shapes[op1][1])
    kinds = [getattr(trt.MatrixOperation, op) for op in (op0, op1)]
    right = net.constant(b) if constant else net.input(b)
    (result,) = net.run(net.definition.add_matrix_multiply(net.input(a), kinds[0], right, kinds[1]).get_output(0))
    left = {"NONE": "bik", "TRANSPOSE": "bki", "VECTOR": "bk"}[op0]
    other = {"NONE": "bkj", "TRANSPOSE": "bjk", "VECTOR": "bk"}[op1]
    out = "b" + "i" * (op0 != "VECTOR") + "j" * (op1 != "VECTOR")
    b = b.expand(2, *b.shape[1:])
    assert_close(result, torch.einsum(f"{left},{other}->{out}", a, b))


def test_fill_counts_along_each_axis(net: Any) -> None:
    layer = net.definition.add_fill((2, 3), trt.FillOperation.LINSPACE, trt.int64)
    layer.set_input(1, net.constant(torch.tensor(100)))
    layer.set_input(2, net.constant(torch.tensor([10, 1])))
    (result,) = net.run(layer.get_output(0))
    assert result.tolist() == [[100, 101, 102], [110, 111, 112]]


def test_random_numbers_are_refused(net: Any) -> None:
    layer = net.definition.add_fill((2,), trt.FillOperation.RANDOM_UNIFORM, trt.float32)
    with pytest.raises(UnsupportedLayerError, match=r"FILL .*RANDOM_UNIFORM"):
        net.run(layer.get_output(0))
