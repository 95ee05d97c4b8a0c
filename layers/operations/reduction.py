"""Functions that reduce a dimension, and cumulative sums."""

from __future__ import annotations

import torch

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.dtypes import FLOAT_DTYPES
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.operands import axes_mask, axis, require
from trtllm_port.layers.operations.shaping import squeeze
from trtllm_port.layers.operations.unary import abs, cast, exp, log, sqrt

LARGEST_K = 3840  # TensorRT's limit
Dims = int | tuple[int, ...] | list[int]


def _reduce(operation: str, trt_operation: str, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    network = x.network
    kind = getattr(network.trt.ReduceOperation, trt_operation)
    return network.add(operation, network.definition.add_reduce(x.itensor, kind, axes_mask(x, dim), keepdim))


def sum(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """The sum over dim, one or several."""
    return _reduce("sum", "SUM", x, dim, keepdim)


def mean(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """The mean over dim, of a floating-point tensor."""
    require(x, FLOAT_DTYPES, "mean")
    return _reduce("mean", "AVG", x, dim, keepdim)


def std(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """The standard deviation over dim as torch computes it with `correction=0`: in float32, then in the type of x."""
    require(x, FLOAT_DTYPES, "std")
    wide = cast(x, "float32")
    deviations = wide - mean(wide, dim, keepdim=True)
    return cast(sqrt(mean(deviations * deviations, dim, keepdim)), x.dtype)


def vector_norm(x: Tensor, p: float, dim: Dims, keepdim: bool = False) -> Tensor:
    """The p-norm over dim as torch computes it: in float32, then in the type of x. p is positive and finite."""
    require(x, FLOAT_DTYPES, "vector_norm")
    wide = cast(x, "float32")
    dims = (dim,) if isinstance(dim, int) else dim
    if p == 1 or all(x.shape[one] == 1 for one in dims):  # without powers, which round; of one number any norm is that
        found = sum(abs(wide), dim, keepdim)
    elif p == 2:
        found = sqrt(sum(wide * wide, dim, keepdim))
    else:
        found = sum(abs(wide) ** p, dim, keepdim) ** (1 / p)
    return cast(found, x.dtype)


def max(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """The greatest value over dim (torch.amax)."""
    return _reduce("max", "MAX", x, dim, keepdim)


def min(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """The smallest value over dim (torch.amin)."""
    return _reduce("min", "MIN", x, dim, keepdim)


def prod(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """The product over dim."""
    return _reduce("prod", "PROD", x, dim, keepdim)


def logsumexp(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over dim, whatever the size of x."""
    greatest = max(x, dim, keepdim=True)
    rest = log(sum(exp(x - greatest), dim, keepdim))
    return rest + (greatest if keepdim else sum(greatest, dim))


def topk(x: Tensor, k: int, dim: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The k greatest (or smallest) values along dim, sorted, and their int64 positions.

    dim is one of the last four.

    Raises:
        NetworkError: k is none of 1 to 3840, which TensorRT takes.
    """
    network = x.network
    if not 1 <= k <= LARGEST_K:
        raise NetworkError(f"{network.where()}`topk` of {k} numbers", hint=f"TensorRT takes 1 to {LARGEST_K}")
    kind = network.trt.TopKOperation.MAX if largest else network.trt.TopKOperation.MIN
    layer = network.definition.add_topk(x.itensor, kind, k, axes_mask(x, dim))
    values, indices = network.add_outputs("topk", layer, 2)
    return values, cast(indices, "int64")


def argmax(x: Tensor, dim: int = -1, keepdim: bool = False) -> Tensor:
    """The int64 position of the greatest value along dim."""
    indices = topk(x, 1, dim)[1]
    return indices if keepdim else squeeze(indices, dim)


def cumsum(x: Tensor, dim: int) -> Tensor:
    """The sum of all elements up to and including each one along dim."""
    network = x.network
    position = axis(x, dim)
    where = network.shared(("axis", position), lambda: network.constant(torch.tensor(position, dtype=torch.int32)))
    kind = network.trt.CumulativeOperation.SUM
    return network.add("cumsum", network.definition.add_cumulative(x.itensor, where.itensor, kind, False, False))
