"""QUANTIZE and DEQUANTIZE: numbers as multiples of a scale, per tensor, per index of one axis, or per block."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from trtllm_port.runtime.network.dtypes import PACKED
from trtllm_port.runtime.reference.evaluators.layer import Bound, Evaluator, Layer

INTEGER_RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7)}
AT_ONCE = 1 << 18  # elements of a weight that are dequantized at once
FLOAT8_LIMIT = 448.0  # the largest finite float8_e4m3fn
FLOAT4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # float4_e2m1fn without its sign, in the order of its bits


def quantize(layer: Layer) -> Evaluator:
    """`clamp(round(x / scale) + zero_point)`, to nearest even; to float8 and float4 saturating, without zero point."""
    kind = layer["to_type"]
    if layer.has(2) and layer.input(2).dtype != kind:
        layer.refuse(f"a zero point of {layer.input(2).dtype} for {kind}")
    spread = _spreading(layer)
    dtype = layer.dtype(kind)
    if kind in INTEGER_RANGES:
        low, high = INTEGER_RANGES[kind]

        def to_integer(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
            steps = torch.round(x.float() / spread(scale.float(), x))
            shifted = steps if zero is None else steps + spread(zero.float(), x)
            return shifted.clamp(low, high).to(dtype)

        return to_integer
    roundings = {"float8_e4m3fn": _to_float8, "float4_e2m1fn": _to_float4}
    rounding: Callable[[Tensor], Tensor] = layer.choose("to_type", roundings)

    def to_float(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        _require_zero(zero)
        return rounding(x.float() / spread(scale.float(), x)).to(dtype)

    return to_float


def _to_float8(x: Tensor) -> Tensor:
    return x.clamp(-FLOAT8_LIMIT, FLOAT8_LIMIT)  # the conversion rounds to nearest even


def _to_float4(x: Tensor) -> Tensor:
    values = torch.tensor(FLOAT4_VALUES, device=x.device)
    middles = (values[1:] + values[:-1]) / 2
    down = torch.bucketize(x.abs(), middles)  # a middle goes down
    up = torch.bucketize(x.abs(), middles, right=True)  # a middle goes up
    even = torch.where(down % 2 == 0, down, up)  # bit patterns alternate between even and odd significands
    rounded: Tensor = torch.copysign(values[even], x)
    return rounded


@dataclass(frozen=True, eq=False)
class Dequantized:
    """A weight that is dequantized whenever it is needed, so that its codes alone stay in memory.

    Attributes:
        kind: of the codes.
        codes, scale: known beforehand; codes of 4 bits may be two in a byte. The scale has the weight's dimensions.
        shape, dtype: of the weight.
    """

    kind: str
    codes: Tensor
    scale: Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self) -> Tensor:
        """Some rows at a time: what a weight is computed in may be larger than the weight, and that than its codes.

        Codes are exact in every type, so a product by a scale of the weight's own type is rounded once in that, too.
        """
        wide = self.dtype if self.scale.dtype == self.dtype else torch.float32
        rows, high = self.shape[-2], self.shape[-2] // self.scale.shape[-2]
        codes = self.codes.reshape(*self.shape[:-1], -1)
        weight = torch.empty(self.shape, dtype=self.dtype, device=codes.device)
        step = max(1, AT_ONCE // (math.prod(self.shape) // rows * (high if high < rows else 1)))
        step *= high if high < rows else 1
        for start in range(0, rows, step):
            part = slice(start, start + step)
            values = self._values(codes[..., part, :], wide)
            blocks = slice(start // high, -(-min(rows, start + step) // high)) if high < rows else slice(None)
            scale = self.scale[..., blocks, :].to(wide)
            sizes = (*values.shape[:-2], scale.shape[-2], -1, scale.shape[-1], self.shape[-1] // scale.shape[-1])
            values.view(sizes).mul_(scale[..., :, None, :, None])
            weight[..., part, :] = values
        return weight

    def _values(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """What codes stand for: two 4-bit codes, or two of float8, are looked up at once."""
        if codes.dtype == torch.int8 or codes.shape[-1] % 2:
            return codes.to(dtype, copy=True)
        packed = codes.dtype == torch.uint8
        numbers = codes.reshape(-1).int() if packed else codes.reshape(-1).view(torch.int16).int() + (1 << 15)
        table = _pairs(self.kind, dtype, codes.device)
        found = table.view(torch.int32 if dtype.itemsize == 2 else torch.int64)[:, 0].index_select(0, numbers)
        return found.view(dtype).reshape(*codes.shape[:-1], -1)

    @property
    def nbytes(self) -> int:
        """What is read of it."""
        return self.codes.nbytes + self.scale.nbytes


@cache
def _pairs(kind: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The values [n, 2] of all pairs of codes: of bytes with two 4-bit codes, or of words with two of float8."""
    if kind in PACKED:
        return _unpacked(torch.arange(256, dtype=torch.uint8, device=device)[:, None], kind).to(dtype)
    words = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32, device=device).to(torch.int16)
    return words[:, None].view(torch.float8_e4m3fn).to(dtype)


def dequantize(layer: Layer) -> Evaluator | Bound:
    """`(x - zero_point) * scale`, computed in float32 and rounded to the output's dtype."""
    kind = layer.input(0).dtype
    if kind not in (*INTEGER_RANGES, "float8_e4m3fn", "float4_e2m1fn"):
        layer.refuse(f"input {kind}")
    if layer.has(2) and layer.input(2).dtype != kind:
        layer.refuse(f"a zero point of {layer.input(2).dtype} for {kind}")
    spread = _spreading(layer)
    dtype = layer.dtype(layer["to_type"])
    floating, shape = kind not in INTEGER_RANGES, layer.input(0).shape

    def evaluate(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        if x.dtype == torch.uint8 and kind in PACKED:
            x = _unpacked(x, kind)
            x = x.reshape(shape) if x.numel() == math.prod(shape) else x
        if floating:
            _require_zero(zero)
        steps = x.float() if zero is None else x.float() - spread(zero.float(), x)
        return (steps * spread(scale.float(), x)).to(dtype)

    codes, scale = layer.constant(0), layer.constant(1)
    if codes is None or scale is None or not layer.is_of_checkpoint(0) or layer.has(2) or len(shape) < 2:
        return evaluate
    if scale.numel() == 1:
        scale = scale.reshape([1] * len(shape))
    elif scale.ndim == 1:
        scale = scale.reshape([-1 if axis == layer["axis"] % len(shape) else 1 for axis in range(len(shape))])
    return Bound(Dequantized(kind, codes, scale, shape, dtype), ())


def _unpacked(packed: Tensor, kind: str) -> Tensor:
    """Two 4-bit codes of each byte, the low half's first."""
    codes = torch.stack((packed & 15, packed >> 4), -1).flatten(-2)
    if kind == "int4":
        return (codes ^ 8).to(torch.int8) - 8  # two's complement
    values = torch.tensor((*FLOAT4_VALUES, *(-value for value in FLOAT4_VALUES)), device=codes.device)
    return values[codes.int()]


def _require_zero(zero: Tensor | None) -> None:
    if zero is not None and bool(zero.float().any()):
        raise ValueError("the zero point of a floating-point format is not zero")


def _spreading(layer: Layer) -> Callable[[Tensor, Tensor], Tensor]:
    """How a scale or zero point is laid over the tensor: a scalar, a vector along `axis`, or blocks of equal size."""
    axis, rank = layer["axis"], layer.rank()

    def spread(factor: Tensor, x: Tensor) -> Tensor:
        if factor.numel() == 1:
            return factor.reshape(())
        if factor.dim() == 1:
            if factor.numel() != x.shape[axis]:
                raise ValueError(f"{factor.numel()} scales for {x.shape[axis]} places on axis {axis}")
            return factor.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
        return _blocks(factor, x.shape)

    return spread


def _blocks(factor: Tensor, shape: Sequence[int]) -> Tensor:
    if factor.dim() != len(shape) or any(size % count for size, count in zip(shape, factor.shape, strict=True)):
        raise ValueError(f"scales of shape {list(factor.shape)} do not divide {list(shape)} into blocks")
    for axis, size in enumerate(shape):
        if factor.shape[axis] > 1:
            factor = factor.repeat_interleave(size // factor.shape[axis], axis)
    return factor
