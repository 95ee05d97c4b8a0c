"""A quantized weight in the layout of a port's parameter: codes, and a grid of scales over them.

Shapes: the parameter's own, [..., N, K] or [..., K, N], where K features go in; n, k blocks along N and K.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trtllm_port.layers.quantization.layouts.packing import from_e2m1
from trtllm_port.layers.quantization.layouts.weight import QuantizedWeight


class CannotKeepError(Exception):
    """Why a weight cannot stay quantized."""


@dataclass(frozen=True)
class Grid:
    """A quantized weight in a parameter's layout.

    Attributes:
        kind: of the codes.
        codes: of the parameter's shape, not packed.
        scale: of as many dimensions, each a divisor of the parameter's size; of the stored type.
        zero_point: integers, of the scale's shape; None: 0.
        global_scale: [], float32; None: there is none.
        inputs: the axis of K, -1 or -2.
        permutation: [K]: the features' order in which they meet the codes; None: as they come.
        pre_scale: [K]: what the features are multiplied with; None: nothing.
        activation: kind of the codes of what goes in; None: it is not quantized.
        activation_scale: [1], float32: its scale.
    """

    kind: str
    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None
    global_scale: Tensor | None
    inputs: int
    permutation: Tensor | None = None
    pre_scale: Tensor | None = None
    activation: str | None = None
    activation_scale: Tensor | None = None

    @property
    def block(self) -> tuple[int, ...]:
        """The elements that share a scale, along each axis."""
        return tuple(size // count for size, count in zip(self.codes.shape, self.scale.shape, strict=True))

    @property
    def factors(self) -> Tensor:
        """The blocks' scales in float32, times the global one."""
        scale = self.scale.to(torch.float32)
        return scale if self.global_scale is None else scale * self.global_scale

    def numbers(self) -> Tensor:
        """What the codes stand for before they are scaled, less the zero points, in float32."""
        numbers = from_e2m1(self.codes, torch.float32) if self.kind == "fp4_e2m1" else self.codes.to(torch.float32)
        if self.zero_point is not None:
            numbers = numbers - spread(self.zero_point.to(torch.float32), numbers.shape)
        return numbers

    def parameter(self) -> Tensor:
        """The unquantized parameter, in float32: features in their own order, a pre-scale of them in the weight."""
        weight = self.numbers() * spread(self.factors, self.codes.shape)
        if self.permutation is not None:
            weight = weight.index_select(weight.ndim + self.inputs, torch.argsort(self.permutation))
        if self.pre_scale is not None:
            pre_scale = self.pre_scale.to(torch.float32)
            weight = weight * (pre_scale if self.inputs == -1 else pre_scale.unsqueeze(-1))
        return weight

    def blocked(self, axis: int, block: int) -> Grid:
        """The same weight with smaller blocks along an axis, whose size they divide."""
        times = self.block[axis] // block
        return self if times == 1 else self.with_blocks(lambda blocks: repeated(blocks, times, axis))

    def with_blocks(self, made: Callable[[Tensor], Tensor]) -> Grid:
        """The same codes, with something else made of the scales and of the zero points."""
        zero = self.zero_point
        return replace(self, scale=made(self.scale), zero_point=None if zero is None else made(zero))

    def narrowed(self, axis: int, start: int, size: int) -> Grid:
        """A part along an axis.

        Raises:
            CannotKeepError: along K, in whose order the features do not come.
        """
        along_inputs = axis == self.codes.ndim + self.inputs
        if along_inputs and self.permutation is not None:
            raise CannotKeepError("its columns are in the order of their groups (act-order), and are cut for the ranks")
        grid = self.blocked(axis, math.gcd(self.block[axis], size)) if self.scale.shape[axis] > 1 else self
        begin, count = start // grid.block[axis], size // grid.block[axis]
        if grid.scale.shape[axis] > 1:
            grid = grid.with_blocks(lambda blocks: blocks.narrow(axis, begin, count))
        pre_scale = grid.pre_scale
        return replace(
            grid,
            codes=grid.codes.narrow(axis, start, size),
            pre_scale=pre_scale.narrow(0, start, size) if along_inputs and pre_scale is not None else pre_scale,
        )


def grid_of(weight: QuantizedWeight) -> Grid:
    """A weight as its unquantized parameter is laid out.

    Raises:
        CannotKeepError: groups of columns (act-order) of different sizes.
    """
    codes, scale, zero, permutation = weight.codes, weight.scale, weight.zero_point, weight.permutation
    if permutation is not None:
        groups = weight.g_idx[permutation]  # type: ignore[index]
        regular = torch.arange(codes.shape[-1]) // weight.block[1]
        if not torch.equal(groups, regular):
            raise CannotKeepError("its groups of columns are of different sizes")
        identity = torch.equal(permutation, torch.arange(len(permutation)))
        codes, permutation = (codes, None) if identity else (codes[..., permutation], permutation)
    factor = None if weight.global_scale is None else weight.global_scale.to(torch.float32)
    grid = Grid(weight.kind, codes, scale, zero, factor, -1, permutation, weight.pre_scale, *_activation(weight))
    for axis, block in ((-2, weight.block[0]), (-1, weight.block[1])):
        grid = _regular(grid, axis % codes.ndim, block)
    if not weight.transposed:
        return grid
    return replace(grid.with_blocks(lambda blocks: blocks.mT), codes=grid.codes.mT, inputs=-2)


def _activation(weight: QuantizedWeight) -> tuple[str | None, Tensor | None]:
    """Kind and scale of what goes in, where all of it shares a stored one: TensorRT multiplies no other codes."""
    scheme, scale, zero = weight.activation, weight.activation_scale, weight.activation_zero_point
    if scheme is None or scale is None or scheme.dynamic or scheme.granularity != "tensor" or weight.codes.ndim > 2:
        return None, None
    if scheme.kind not in ("fp8_e4m3", "int8") or weight.kind != scheme.kind or (zero is not None and bool(zero.any())):
        return None, None
    return scheme.kind, scale.reshape(1).float()


def _regular(grid: Grid, axis: int, block: int) -> Grid:
    """The weight with blocks that divide its size: the last ones of a checkpoint may be cut off."""
    size, count = grid.codes.shape[axis], grid.scale.shape[axis]
    if count == 1 or size == count * block:
        return grid
    step = math.gcd(size, block)
    index = torch.arange(0, size, step) // block
    return grid.with_blocks(lambda blocks: taken(blocks, index, axis))


def repeated(tensor: Tensor, times: int, axis: int) -> Tensor:
    """Each element several times along an axis; float8 has no kernel for it."""
    if times == 1:
        return tensor
    if tensor.dtype.itemsize == 1:
        return tensor.view(torch.uint8).repeat_interleave(times, axis).view(tensor.dtype)
    return tensor.repeat_interleave(times, axis)


def taken(tensor: Tensor, index: Tensor, axis: int) -> Tensor:
    """Parts of a tensor along an axis, in an order; float8 has no kernel for it on every device."""
    if tensor.dtype.itemsize == 1:
        return tensor.view(torch.uint8).index_select(axis, index).view(tensor.dtype)
    return tensor.index_select(axis, index)


def spread(blocks: Tensor, shape: Sequence[int]) -> Tensor:
    """Blocks' values for each of their elements."""
    for axis, size in enumerate(shape):
        blocks = repeated(blocks, size // blocks.shape[axis], axis)
    return blocks
