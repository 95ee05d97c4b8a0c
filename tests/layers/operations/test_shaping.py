"""Shapes and parts of tensors, by property: what torch gives for the same arguments."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from trtllm_port import layers as L
from trtllm_port.errors import NetworkError

FEW = settings(max_examples=25, deadline=None)
sizes = st.lists(st.integers(1, 4), min_size=2, max_size=4)


def numbered(shape: list[int]) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert torch.equal(ours, theirs)


@FEW
@given(data=st.data(), shape=sizes)
def test_permute_and_transpose(evaluate: Any, data: st.DataObject, shape: list[int]) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    a, b = data.draw(st.tuples(*[st.integers(-len(shape), len(shape) - 1)] * 2))
    x = numbered(shape)
    same(evaluate(lambda t: t.permute(*order).transpose(a, b), x), x.permute(order).transpose(a, b))


@FEW
@given(data=st.data(), shape=sizes)
def test_slices_of_known_and_unknown_sizes(evaluate: Any, data: st.DataObject, shape: list[int]) -> None:
    """Bounds beyond the size, negative ones and missing ones; the sizes of axes 0 and 1 are unknown."""
    x = numbered(shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    bound = st.none() | st.integers(-shape[axis], shape[axis] + 2)
    start, stop = data.draw(st.tuples(bound, bound))
    step = data.draw(st.integers(1, 3)) if axis > 1 else 1
    index = (*([slice(None)] * axis), slice(start, stop, step))
    expected = x[index]
    if expected.numel() == 0:
        return  # TensorRT has no use for empty tensors
    same(evaluate(lambda t: t[index], x), expected)


@FEW
@given(data=st.data(), shape=sizes)
def test_indexing(evaluate: Any, data: st.DataObject, shape: list[int]) -> None:
    """Integers, None, an ellipsis and slices together."""
    kinds = [st.integers(-size, size - 1) | st.just(slice(None)) | st.just(slice(0, 1)) for size in shape]
    items: list[Any] = [data.draw(kind) for kind in kinds]
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(shape))] * 2)))
    if data.draw(st.booleans()):
        items[first:last] = [Ellipsis]
    items.insert(data.draw(st.integers(0, len(items))), None)
    x = numbered(shape)
    index = tuple(items)
    same(evaluate(lambda t: t[index], x), x[index])


@FEW
@given(data=st.data(), left=sizes)
def test_broadcasting_adds_ones_in_front(evaluate: Any, data: st.DataObject, left: list[int]) -> None:
    right = [data.draw(st.sampled_from([1, size])) for size in left][data.draw(st.integers(0, len(left) - 1)) :]
    x, y = numbered(left), numbered(right) + 1
    same(evaluate(lambda a, b: a * b + 2.0 - b, x, y, dynamic=()), x * y + 2.0 - y)


@FEW
@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), wide=st.booleans())
def test_views_know_all_that_can_be_known(evaluate: Any, shape: tuple[int, ...], wide: bool) -> None:
    """The idiom of attention: 0 copies, -1 is what remains; the result's last size is static."""
    x = numbered(list(shape))
    b, s, n, h = shape

    def join(t: L.Tensor) -> L.Tensor:
        joined = t.view(0, 0, -1)
        assert joined.shape == (-1, -1, n * h)
        return joined.view(0, 0, n, -1) if wide else joined

    same(evaluate(join, x), x if wide else x.view(b, s, n * h))


@pytest.mark.parametrize("dims", [(-1, -1), (5, 0, 0, 2, 0), (0, 0, 5, -1), (0, 0, 3)])
def test_impossible_views_are_refused(evaluate: Any, dims: tuple[int, ...]) -> None:
    with pytest.raises(NetworkError, match="view"):
        evaluate(lambda t: t.view(*dims), torch.zeros(2, 3, 4, 2))


def test_sizes_known_at_run_time(evaluate: Any) -> None:
    x, y = torch.randn(2, 5, 4), torch.randn(2, 3)
    same(evaluate(lambda a, b: a[:, : L.shape(b, 1)], x, y), x[:, :3])
    same(evaluate(lambda a, b: a[:, L.shape(b, 1) :], x, y), x[:, 3:])
    same(evaluate(lambda a, b: a.view(L.shape(a, 0) * L.shape(a, 1), 4), x, y), x.view(10, 4))
    same(evaluate(lambda a, b: L.expand(b.unsqueeze(2), (-1, -1, L.shape(a, 0))), x, y), y[:, :, None].expand(2, 3, 2))


def test_an_index_tensor_between_slices(evaluate: Any) -> None:
    x, index = torch.randn(2, 5, 4), torch.tensor([[3, 0], [1, 1]])
    same(evaluate(lambda a, i: a[:, i], x, index), x[:, index])
    same(evaluate(lambda a, i: a[..., i, 1:2], x, index), x[..., index, 1:2])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda t: t.transpose(0, 3), "dimension 3"),
        (lambda t: t.permute(0, 0, 1), "each dimension comes once"),
        (lambda t: t.split((1, 1), -1), "split"),
        (lambda t: t.split(2, 0), "known at run time only"),
        (lambda t: t[0, 0, 0, 0], "4 indices"),
        (lambda t: t[:, :, 7], "select"),
        (lambda t: t[:, ::2], "step 2"),
    ],
)
def test_wrong_arguments_are_refused(evaluate: Any, function: Any, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        evaluate(function, torch.zeros(2, 3, 4))
