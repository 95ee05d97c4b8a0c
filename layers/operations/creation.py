"""Tensors made from nothing but values and sizes. They need a tensor beside them to find the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trtllm_port.layers.definition.dtypes import torch_dtype
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.tensor_methods import Scalar
from trtllm_port.layers.operations.elementwise import sub
from trtllm_port.layers.operations.shaping import expand, shape, squeeze


def constant(value: Any, *, like: Tensor, dtype: str | None = None) -> Tensor:
    """A torch tensor, array, list or scalar as a constant of the network of `like`.

    dtype None: the torch tensor's own, else that of `like`.
    """
    if not isinstance(value, torch.Tensor):
        value = torch.as_tensor(value, dtype=torch_dtype(dtype or like.dtype))
    elif dtype is not None:
        value = value.to(torch_dtype(dtype))
    return like.network.constant(value)


def bfloat16(number: float) -> float:
    """The number that bfloat16 has for one: some models hold a constant in it whatever their own precision is."""
    return float(torch.tensor(number, dtype=torch.bfloat16))


def full(sizes: Sequence[int | Tensor], value: Scalar, *, like: Tensor, dtype: str | None = None) -> Tensor:
    """A tensor of the given sizes filled with one value; dtype None: that of `like`."""
    return expand(like.network.scalar(value, dtype or like.dtype, len(sizes)), sizes)


def full_like(x: Tensor, value: Scalar, dtype: str | None = None) -> Tensor:
    """A tensor of x's sizes filled with one value; dtype None: that of x."""
    return full([size if size >= 0 else shape(x, dim) for dim, size in enumerate(x.shape)], value, like=x, dtype=dtype)


def parts_like(x: Tensor, values: Sequence[float], sizes: Sequence[int]) -> Tensor:
    """A constant [sum of sizes] of x's data type: each of the values as often as its size says."""
    numbers = torch.tensor(list(values), dtype=torch_dtype(x.dtype))
    repeated = numbers.repeat_interleave(torch.tensor(list(sizes)))
    key = ("parts_like", tuple(values), tuple(sizes), x.dtype)
    return x.network.shared(key, lambda: x.network.constant(repeated))


def arange(end: int | Tensor, *, like: Tensor, start: int = 0, dtype: str = "int64") -> Tensor:
    """start, start + 1, … end - 1.

    Args:
        end: a number, or an int64 tensor of shape [1] for an end known at run time.
        like: any tensor of the network.
        start: the first value.
        dtype: "int64", "int32" or a floating-point type.
    """
    network = like.network
    if not isinstance(end, Tensor):
        key = ("arange", start, end, dtype)
        return network.shared(key, lambda: network.constant(torch.arange(start, end, dtype=torch_dtype(dtype))))
    length = sub(end, start) if start else end
    layer = network.definition.add_fill((1,), network.trt.FillOperation.LINSPACE, network.trt.int64)
    layer.set_input(0, length.itensor)
    first = squeeze(network.integers((start,)), 0)
    layer.set_input(1, first.itensor)
    layer.set_input(2, network.integers((1,)).itensor)
    return network.add("arange", layer).to(dtype)
