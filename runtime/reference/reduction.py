"""REDUCE, SOFTMAX, TOPK, CUMULATIVE: along axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trtllm_port.runtime.reference.layer import Evaluator, Layer

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.mean(x, axes, keep)


def _max(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.amax(x, axes, keep)


def _min(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.amin(x, axes, keep)


REDUCTIONS: dict[str, Reduction] = {"SUM": _sum, "AVG": _mean, "MAX": _max, "MIN": _min}


def reduce(layer: Layer) -> Evaluator:
    """Sum, mean, maximum, minimum over `axes`, which stay with size 1 if `keep_dims`."""
    function = layer.choose("op", REDUCTIONS)
    axes, keep = layer["axes"], layer["keep_dims"]
    return lambda x: function(x, axes, keep)


def softmax(layer: Layer) -> Evaluator:
    """exp(x) / sum(exp(x)) along one axis."""
    axes = layer["axes"]
    if len(axes) != 1:
        layer.refuse(f"axes {axes}")
    return lambda x: torch.softmax(x, axes[0])
