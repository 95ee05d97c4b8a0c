"""SLICE: start, size and stride per axis, and what to read outside the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trtllm_port.runtime.reference.evaluators.layer import Evaluator, Layer


def _wrap(index: Tensor, size: int) -> Tensor:
    return index % size


def _clamp(index: Tensor, size: int) -> Tensor:
    return index.clamp(0, size - 1)


def _reflect(index: Tensor, size: int) -> Tensor:
    if size == 1:
        return torch.zeros_like(index)
    index = index % (2 * size - 2)  # the edge elements are not repeated
    return torch.where(index < size, index, 2 * size - 2 - index)


BOUNDS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "WRAP": _wrap,
    "CLAMP": _clamp,
    "REFLECT": _reflect,
    "FILL": _clamp,
}


def slice_layer(layer: Layer) -> Evaluator:
    """`output[i] = input[start + i * stride]` on each axis, `size` elements.

    Start, size, stride and axes are attributes or the inputs 1, 2, 3 and 5; input 4 is the value of mode FILL. Without
    axes they name every axis. In mode STRICT_BOUNDS an index outside the input is an error.
    """
    mode = layer["mode"]
    if mode != "STRICT_BOUNDS" and mode not in BOUNDS:
        layer.refuse(f"mode {mode}")
    numbers = [
        _numbers(layer, 1, "start"),
        _numbers(layer, 2, "shape"),
        _numbers(layer, 3, "stride"),
        _numbers(layer, 5, "axes"),
    ]
    start, size, stride, axes = numbers
    if (
        mode == "STRICT_BOUNDS"
        and start is not None
        and size is not None
        and stride is not None
        and not _dynamic(layer, 5)
    ):
        plan = _plan(start, size, stride, axes, layer.rank())
        return lambda x, *_: _sample(x, plan, mode, None)

    def evaluate(x: Tensor, *inputs: Tensor | None) -> Tensor:
        met = [None if t is None else t.tolist() for t in (*inputs, *[None] * (5 - len(inputs)))]
        starts, sizes, strides = (met[i] if met[i] is not None else numbers[i] for i in range(3))
        chosen = met[4] if met[4] is not None else axes
        fill = inputs[3] if len(inputs) > 3 else None
        if starts is None or sizes is None or strides is None:
            raise ValueError("start, size and stride are not all known")
        return _sample(x, _plan(starts, sizes, strides, chosen, x.dim()), mode, fill)

    return evaluate


def _dynamic(layer: Layer, index: int) -> bool:
    return layer.has(index) and layer.constant(index) is None


def _numbers(layer: Layer, index: int, attribute: str) -> list[int] | None:
    known = layer.constant(index)
    if known is not None:
        return [int(number) for number in known.tolist()]
    numbers: list[int] | None = None if layer.has(index) else layer[attribute]
    return numbers


def _plan(
    start: Sequence[int], size: Sequence[int], stride: Sequence[int], axes: Sequence[int] | None, rank: int
) -> list[tuple[int, int, int, int]]:
    """(axis, start, size, stride) of each sliced axis."""
    chosen = range(rank) if axes is None else [axis % rank for axis in axes]
    return list(zip(chosen, start, size, stride, strict=True))


def _sample(x: Tensor, plan: Sequence[tuple[int, int, int, int]], mode: str, fill: Tensor | None) -> Tensor:
    inside: Tensor | None = None
    for axis, start, size, stride in plan:
        length = x.shape[axis]
        last = start + (size - 1) * stride
        if size > 0 and stride > 0 and start >= 0 and last < length:  # a view, which copies nothing
            x = x[(slice(None),) * axis + (slice(start, last + 1, stride),)]
            continue
        index = start + stride * torch.arange(size, device=x.device)
        valid = (index >= 0) & (index < length)
        if mode == "STRICT_BOUNDS":
            if not bool(valid.all()):
                raise IndexError(f"the slice leaves axis {axis} of size {length}")
        elif length == 0 and size > 0:
            if mode != "FILL":
                raise IndexError(f"nothing can be read from axis {axis} of size 0")
            x = x.new_zeros([size if i == axis else n for i, n in enumerate(x.shape)])
            index = torch.arange(size, device=x.device)
        else:
            index = BOUNDS[mode](index, length)
        x = x.index_select(axis, index)
        if mode == "FILL":
            valid = valid.reshape([-1 if i == axis else 1 for i in range(x.dim())])
            inside = valid if inside is None else inside & valid
    if inside is None:
        return x
    value = torch.zeros((), dtype=x.dtype, device=x.device) if fill is None else fill.reshape(())
    return torch.where(inside, x, value)
