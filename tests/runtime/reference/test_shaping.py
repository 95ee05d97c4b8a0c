"""SHUFFLE, SLICE, GATHER, SCATTER and their kin against torch and against TensorRT's own examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorrt_rtx as trt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from trtllm_port.runtime.reference import LayerExecutionError

quick = settings(max_examples=20, deadline=None)
X = torch.arange(24.0).reshape(2, 3, 4)


@quick
@given(first=st.permutations([0, 1, 2]), second=st.permutations([0, 1, 2]), dims=st.permutations([2, 3, 4]))
def test_shuffle_is_transpose_reshape_transpose(
    new_net: Callable[[], Any], first: list[int], second: list[int], dims: list[int]
) -> None:
    net = new_net()
    layer = net.definition.add_shuffle(net.input(X))
    layer.first_transpose, layer.second_transpose = trt.Permutation(first), trt.Permutation(second)
    layer.reshape_dims = trt.Dims(dims)
    (result,) = net.run(layer.get_output(0))
    assert_close(result, X.permute(first).reshape(dims).permute(second))


def test_zero_copies_a_size_and_minus_one_is_what_remains(net: Any) -> None:
    layer = net.definition.add_shuffle(net.input(X, dynamic=(0, 1)))
    layer.reshape_dims = trt.Dims([0, 0, 2, -1])
    (result,) = net.run(layer.get_output(0))
    assert result.shape == (2, 3, 2, 2)


def test_shuffle_by_a_shape_that_is_computed(net: Any) -> None:
    x = net.input(X, dynamic=(0, 1))
    shape = net.definition.add_shape(x).get_output(0)
    backwards = net.definition.add_gather(shape, net.constant(torch.tensor([2, 1, 0])), 0).get_output(0)
    layer = net.definition.add_shuffle(x)
    layer.set_input(1, backwards)
    (result,) = net.run(layer.get_output(0))
    assert_close(result, X.reshape(4, 3, 2))


@st.composite
def _slices(draw: Any) -> tuple[int, int, int, int]:
    length = draw(st.integers(1, 6))
    start, step = draw(st.integers(0, length - 1)), draw(st.integers(-3, 3))
    room = length - start if step > 0 else start + 1
    size = draw(st.integers(1, 4)) if step == 0 else draw(st.integers(1, (room + abs(step) - 1) // abs(step)))
    return length, start, size, step


@quick
@given(one=_slices(), two=_slices(), dynamic=st.booleans())
def test_slice(new_net: Callable[[], Any], one: Any, two: Any, dynamic: bool) -> None:
    net = new_net()
    x = torch.randn(one[0], two[0])
    start, size, stride = zip(one[1:], two[1:], strict=True)
    if dynamic:
        layer = net.definition.add_slice(net.input(x), (0, 0), (1, 1), stride)
        layer.set_input(1, net.input(torch.tensor(start)))
        layer.set_input(2, net.input(torch.tensor(size)))
    else:
        layer = net.definition.add_slice(net.input(x), start, size, stride)
    (result,) = net.run(layer.get_output(0))
    rows, columns = ([s + i * d for i in range(n)] for _, s, n, d in (one, two))
    assert_close(result, x[rows][:, columns])


# From -2 to 6 over [0, 1, 2, 3].
BEYOND = {
    "WRAP": [2, 3, 0, 1, 2, 3, 0, 1, 2],
    "CLAMP": [0, 0, 0, 1, 2, 3, 3, 3, 3],
    "REFLECT": [2, 1, 0, 1, 2, 3, 2, 1, 0],
    "FILL": [9, 9, 0, 1, 2, 3, 9, 9, 9],
}


@pytest.mark.parametrize("mode", sorted(BEYOND))
def test_slice_beyond_the_input(net: Any, mode: str) -> None:
    layer = net.definition.add_slice(net.input(torch.arange(4.0)), (-2,), (9,), (1,))
    layer.mode = getattr(trt.SampleMode, mode)
    if mode == "FILL":
        layer.set_input(4, net.constant(torch.tensor(9.0)))
    (result,) = net.run(layer.get_output(0))
    assert result.tolist() == BEYOND[mode]


def test_a_strict_slice_that_leaves_the_input_is_an_error(net: Any) -> None:
    x = net.input(torch.arange(4.0), dynamic=(0,))
    layer = net.definition.add_slice(x, (2,), (3,), (1,))
    with pytest.raises(LayerExecutionError, match="leaves axis 0 of size 4"):
        net.run(layer.get_output(0))


@quick
@given(axis=st.integers(0, 2), shape=st.lists(st.integers(1, 3), max_size=2), seed=st.integers(0, 1000))
def test_gather(new_net: Callable[[], Any], axis: int, shape: list[int], seed: int) -> None:
    net = new_net()
    size = X.shape[axis]
    indices = torch.randint(-size, size, shape, generator=torch.Generator().manual_seed(seed))
    layer = net.definition.add_gather(net.input(X), net.input(indices), axis)
    (result,) = net.run(layer.get_output(0))
    assert_close(result, X[(slice(None),) * axis + (indices,)])


def test_gather_with_a_batch_axis(net: Any) -> None:
    indices = torch.tensor([[2, 0], [1, 1]])
    layer = net.definition.add_gather(net.input(X), net.input(indices), 1)
    layer.num_elementwise_dims = 1
    (result,) = net.run(layer.get_output(0))
    assert_close(result, torch.stack([X[0, indices[0]], X[1, indices[1]]]))


def test_gather_and_scatter_of_index_tuples_are_inverse(net: Any) -> None:
    indices = torch.tensor([[0, 2], [1, -3]])
    tensor = net.input(indices)
    picked = net.definition.add_gather_v2(net.input(X), tensor, trt.GatherMode.ND).get_output(0)
    zeros = net.constant(torch.zeros_like(X))
    put = net.definition.add_scatter(zeros, tensor, picked, trt.ScatterMode.ND).get_output(0)
    gathered, scattered = net.run(picked, put)
    assert_close(gathered, torch.stack([X[0, 2], X[1, 0]]))
    expected = torch.zeros_like(X)
    expected[0, 2], expected[1, 0] = X[0, 2], X[1, 0]
    assert_close(scattered, expected)


def test_an_index_outside_is_an_error_that_names_the_layer(net: Any) -> None:
    layer = net.definition.add_gather(net.input(X), net.input(torch.tensor([3])), 1)
    layer.name = "lookup"
    with pytest.raises(LayerExecutionError, match="lookup"):
        net.run(layer.get_output(0))


def test_non_zero_lists_indices_row_major(net: Any) -> None:
    layer = net.definition.add_non_zero(net.input(torch.tensor([[0.0, 2.0], [3.0, 0.0]])), trt.int64)
    (result,) = net.run(layer.get_output(0))
    assert result.tolist() == [[0, 1], [1, 0]]


def test_squeeze_refuses_an_axis_that_is_not_one(net: Any) -> None:
    x = net.input(torch.zeros(2, 3), dynamic=(0,))
    layer = net.definition.add_squeeze(x, net.constant(torch.tensor([0])))
    with pytest.raises(LayerExecutionError, match="not all of size 1"):
        net.run(layer.get_output(0))
