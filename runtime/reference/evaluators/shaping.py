"""SHUFFLE, SQUEEZE, UNSQUEEZE, SHAPE, CONCATENATION: the same elements in another arrangement."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trtllm_port.runtime.reference.evaluators.layer import Evaluator, Layer


def shuffle(layer: Layer) -> Evaluator:
    """A transpose, a reshape and a second transpose, in this order.

    In the reshape's dimensions -1 stands for what remains, and 0 copies the size at its place of what is reshaped
    (unless `zero_is_placeholder` is False). The dimensions are an attribute or the second input.
    """
    first, second = layer["first_transpose"], layer["second_transpose"]
    copies = layer["zero_is_placeholder"]
    known = layer.constant(1)
    dims = layer["reshape_dims"] if known is None else known.tolist()
    if layer.has(1) and known is None:
        return lambda x, d: _permuted(_reshaped(_permuted(x, first), d.tolist(), copies), second)
    if dims is None:
        return lambda x, *_: _permuted(_permuted(x, first), second)
    if first is None and not (copies and 0 in dims):
        return lambda x, *_: _permuted(x.reshape(dims), second)
    return lambda x, *_: _permuted(_reshaped(_permuted(x, first), dims, copies), second)


def _permuted(x: Tensor, order: Sequence[int] | None) -> Tensor:
    return x if order is None else x.permute(*order)


def _reshaped(x: Tensor, dims: Sequence[int], copies: bool) -> Tensor:
    if copies:
        dims = [x.shape[axis] if size == 0 else size for axis, size in enumerate(dims)]
    return x.reshape(dims)


def squeeze(layer: Layer) -> Evaluator:
    """Without the axes of the second input, each of size 1; without that input, without all axes of size 1."""
    known = layer.constant(1)
    if not layer.has(1):
        axes = [axis for axis, size in enumerate(layer.input(0).shape) if size == 1]
        if len(layer.output().shape) != layer.rank() - len(axes):
            layer.refuse("no axes and an input whose sizes are not known")
        return lambda x: x.squeeze(tuple(axes))
    if known is not None:
        axes = known.reshape(-1).tolist()
        return lambda x, _: _squeezed(x, axes)
    return lambda x, axes: _squeezed(x, axes.reshape(-1).tolist())


def _squeezed(x: Tensor, axes: Sequence[int]) -> Tensor:
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"the axes {list(axes)} to squeeze are not all of size 1")
    return x.squeeze(tuple(axes))


def unsqueeze(layer: Layer) -> Evaluator:
    """With axes of size 1 at the places, in the output, that the second input names."""
    known = layer.constant(1)
    if known is not None:
        axes = known.reshape(-1).tolist()
        return lambda x, _: _unsqueezed(x, axes)
    return lambda x, axes: _unsqueezed(x, axes.reshape(-1).tolist())


def _unsqueezed(x: Tensor, axes: Sequence[int]) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def shape(layer: Layer) -> Evaluator:
    """The input's sizes, as a vector of int64."""
    device = layer.device
    return lambda x: torch.tensor(x.shape, dtype=torch.int64, device=device)


def concatenation(layer: Layer) -> Evaluator:
    """The inputs, one after the other along `axis`."""
    axis = layer["axis"]
    return lambda *parts: torch.cat(parts, axis)
