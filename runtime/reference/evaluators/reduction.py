"""REDUCE, SOFTMAX, TOPK, CUMULATIVE: along axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trtllm_port.runtime.reference.evaluators.layer import Evaluator, Layer

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keep, dtype=x.dtype)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, axes, keep)
    count = torch.Size(x.shape[axis] for axis in axes).numel()
    return torch.div(_sum(x, axes, keep), count, rounding_mode="trunc")


def _extreme(function: Callable[..., Tensor], of_nothing: Callable[[torch.dtype], float]) -> Reduction:
    def evaluate(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if all(x.shape[axis] for axis in axes):
            return function(x, axes, keep)
        kept = (1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes)
        return x.new_full(tuple(kept), of_nothing(x.dtype))

    return evaluate


def _lowest(dtype: torch.dtype) -> float:
    return -torch.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> float:
    return torch.inf if dtype.is_floating_point else torch.iinfo(dtype).max


REDUCTIONS: dict[str, Reduction] = {
    "SUM": _sum,
    "PROD": _product,
    "AVG": _mean,
    "MAX": _extreme(torch.amax, _lowest),
    "MIN": _extreme(torch.amin, _highest),
}


def reduce(layer: Layer) -> Evaluator:
    """Sum, product, mean, maximum, minimum over `axes`, which stay with size 1 if `keep_dims`.

    Over nothing the maximum is the lowest number of the dtype, the minimum the highest.
    """
    function = layer.choose("op", REDUCTIONS)
    axes, keep = layer["axes"], layer["keep_dims"]
    if not axes:
        return lambda x: x
    return lambda x: function(x, axes, keep)


def softmax(layer: Layer) -> Evaluator:
    """exp(x) / sum(exp(x)) along one axis."""
    axes = layer["axes"]
    if len(axes) != 1:
        layer.refuse(f"axes {axes}")
    return lambda x: torch.softmax(x, axes[0])


def topk(layer: Layer) -> Evaluator:
    """The k largest or smallest along one axis, sorted, and their indices. Of equals the first comes first.

    k is an attribute or the second input.
    """
    axes = layer["axes"]
    if len(axes) != 1:
        layer.refuse(f"axes {axes}")
    largest = layer.choose("op", {"MAX": True, "MIN": False})
    dtype = layer.dtype(layer.output(1).dtype)
    fixed = 0 if layer.has(1) else layer["k"]

    def evaluate(x: Tensor, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
        k: int = fixed if count is None else int(count)
        if not 0 <= k <= x.shape[axes[0]]:
            raise ValueError(f"k is {k}, axis {axes[0]} has size {x.shape[axes[0]]}")
        values, indices = torch.sort(x, dim=axes[0], descending=largest, stable=True)
        return values.narrow(axes[0], 0, k), indices.narrow(axes[0], 0, k).to(dtype)

    return evaluate


def cumulative(layer: Layer) -> Evaluator:
    """Running sums along the axis of the second input: of the elements before (`exclusive`) or up to each element.

    `reverse` runs from the end.
    """
    layer.choose("op", {"SUM": None})
    exclusive, reverse = layer["exclusive"], layer["reverse"]

    def evaluate(x: Tensor, axis: Tensor) -> Tensor:
        dim = int(axis)
        x = x.flip(dim) if reverse else x
        sums = torch.cumsum(x, dim, dtype=x.dtype)
        if exclusive:
            sums = torch.cat([torch.zeros_like(sums.narrow(dim, 0, 1)), sums.narrow(dim, 0, x.shape[dim] - 1)], dim)
        return sums.flip(dim) if reverse else sums

    return evaluate
