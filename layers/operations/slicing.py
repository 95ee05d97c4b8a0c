"""Functions that take parts of a tensor by position."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.operands import axis, static
from trtllm_port.layers.operations.elementwise import minimum, sub
from trtllm_port.layers.operations.indexing import index_select
from trtllm_port.layers.operations.shaping import shape, squeeze, unsqueeze


def slice(
    x: Tensor, dim: int, start: int | Tensor | None = None, end: int | Tensor | None = None, step: int = 1
) -> Tensor:
    """x[..., start:end:step, ...] along dim, with Python's rules for negative and missing bounds.

    Args:
        x: any tensor.
        dim: the dimension.
        start, end: a bound, or an int64 tensor of shape [1] that is not negative.
        step: positive; other than 1 only where x's size is known.
    """
    size = x.shape[axis(x, dim)]
    if size >= 0 and not isinstance(start, Tensor) and not isinstance(end, Tensor):
        positions = range(*builtins.slice(start, end, step).indices(size))
        return x if len(positions) == size else _narrow(x, dim, positions.start, len(positions), step)
    if step != 1:
        raise NetworkError(f"{x.network.where()}`slice` with step {step} along dimension {dim} of {x.shape}")
    start = 0 if start is None else start
    from_first = isinstance(start, int) and start == 0
    if from_first and end is None:
        return x
    if isinstance(start, int) and start < 0 and (end is None or (isinstance(end, int) and end < 0)):
        return _narrow(x, dim, _bound(x, dim, start), (0 if end is None else end) - start)
    first = _bound(x, dim, start)
    last = shape(x, dim) if end is None else _bound(x, dim, end)
    if isinstance(last, int):
        last = minimum(shape(x, dim), last)
    return _narrow(x, dim, first, last if from_first else sub(last, first))


def _bound(x: Tensor, dim: int, bound: int | Tensor) -> int | Tensor:
    if isinstance(bound, Tensor) or bound >= 0:
        return bound
    return sub(shape(x, dim), -bound)


def _narrow(x: Tensor, dim: int, start: int | Tensor, size: int | Tensor, step: int = 1) -> Tensor:
    """`size` positions from `start` along one dimension; the others are untouched."""
    network = x.network
    fixed_start = 0 if isinstance(start, Tensor) else start
    fixed_size = 1 if isinstance(size, Tensor) else size
    layer = network.definition.add_slice(x.itensor, (fixed_start,), (fixed_size,), (step,))
    layer.axes = (axis(x, dim),)
    if isinstance(start, Tensor):
        layer.set_input(1, start.itensor)
    if isinstance(size, Tensor):
        layer.set_input(2, size.itensor)
    return network.add("slice", layer)


def select(x: Tensor, dim: int, index: int) -> Tensor:
    """x[..., index, ...] along dim, which disappears."""
    size = x.shape[axis(x, dim)]
    if size >= 0 and not -size <= index < size:
        raise NetworkError(f"{x.network.where()}`select` of {index} along dimension {dim} of {x.shape}")
    end = None if index == -1 else index + 1
    return squeeze(_one(x, dim, index, end), dim)


def _one(x: Tensor, dim: int, index: int, end: int | None) -> Tensor:
    if x.shape[axis(x, dim)] >= 0:
        return slice(x, dim, index, end)
    return _narrow(x, dim, _bound(x, dim, index), 1)


def split(x: Tensor, sizes: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """x cut along dim into parts of the given sizes; a number is the size of every part but perhaps the last."""
    total = static(x, dim, "split")
    if isinstance(sizes, int):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
    if builtins.sum(sizes) != total:
        raise NetworkError(f"{x.network.where()}`split` of {x.shape} along dimension {dim} into {tuple(sizes)}")
    starts = [builtins.sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(_narrow(x, dim, start, size) for start, size in zip(starts, sizes, strict=True))


def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """x cut along dim into `chunks` parts of equal size, the last one possibly smaller."""
    return split(x, -(-static(x, dim, "chunk") // chunks), dim)


def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The parts of x along dim, which disappears."""
    return tuple(select(x, dim, index) for index in range(static(x, dim, "unbind")))


def slice_index(x: Tensor, index: Any) -> Tensor:
    """`x[index]`: integers, slices, None, `...` and at most one integer tensor, as in torch."""
    items = list(index) if isinstance(index, tuple) else [index]
    consumed = builtins.sum(1 for item in items if item is not None and item is not Ellipsis)
    if consumed > x.ndim:
        raise NetworkError(f"{x.network.where()}{consumed} indices of a tensor with {x.ndim} dimensions {x.shape}")
    if not any(item is Ellipsis for item in items):
        items.append(Ellipsis)
    dim = 0
    for item in items:
        if item is Ellipsis:
            dim += x.ndim - dim - _remaining(items)
        elif item is None:
            x, dim = unsqueeze(x, dim), dim + 1
        elif isinstance(item, builtins.slice):
            x, dim = slice(x, dim, item.start, item.stop, 1 if item.step is None else item.step), dim + 1
        elif isinstance(item, Tensor):
            x, dim = index_select(x, dim, item), dim + item.ndim
        else:
            x = select(x, dim, item)
    return x


def _remaining(items: list[Any]) -> int:
    """Dimensions that the items behind the ellipsis use up."""
    position = next(i for i, item in enumerate(items) if item is Ellipsis)
    return builtins.sum(1 for item in items[position + 1 :] if item is not None)
