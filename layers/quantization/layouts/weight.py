"""The canonical form of a quantized weight: codes, scales and what else its formula needs, whatever the format was.

Shapes: N out (rows), K in (columns); n, k blocks along them; … stacked experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from trtllm_port.layers.quantization.layouts.packing import from_e2m1

Kind = Literal["int4", "int8", "fp8_e4m3", "fp4_e2m1"]
Granularity = Literal["tensor", "token", "group"]
BITS: dict[str, int] = {"int4": 4, "int8": 8, "fp8_e4m3": 8, "fp4_e2m1": 4}


@dataclass(frozen=True, kw_only=True)
class ActivationScheme:
    """How a module's input is quantized.

    Attributes:
        kind: of the codes.
        granularity: what shares a scale: all of the tensor, a token, or a group of a token's elements.
        dynamic: the scale is of the values met; else it is stored.
        group_size: elements of a group; None where the granularity is another.
        two_level: the scales of dynamic groups are 8-bit numbers, which a stored scale multiplies.
    """

    kind: Kind
    granularity: Granularity
    dynamic: bool
    group_size: int | None = None
    two_level: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedWeight:
    """One weight: W = (codes - zero point) * scale, or what `dequantize` says.

    Attributes:
        kind: of the codes.
        codes: [..., N, K]: int8 for int4 (-8 to 7) and int8, float8_e4m3fn, uint8 for E2M1 (0 to 15).
        block: rows and columns that share a scale.
        scale: [..., n, k], of the type and with the bits that are stored; powers of two are float8_e8m0fnu.
        global_scale: [], float64: a further factor of all scales; None: there is none.
        global_divisor: [], as stored, of a format that divides by it: `global_scale` is its inverse.
        zero_point: int8, of the scale's shape, on the codes' scale; None: 0 everywhere.
        g_idx: [K], int64: the group of each column; None: columns are in the order of their groups.
        pre_scale: [K], as stored: the input is multiplied by it before the product; None: it is not.
        activation: how the input is quantized; None: it is not.
        activation_scale: float32: the stored scale of the input, a factor; for dynamic groups that of their scales.
        activation_zero_point: int8, of the activation scale's shape.
        transposed: the unquantized model's parameter is [..., K, N].
    """

    kind: Kind
    codes: torch.Tensor
    block: tuple[int, int]
    scale: torch.Tensor
    global_scale: torch.Tensor | None = None
    global_divisor: torch.Tensor | None = None
    zero_point: torch.Tensor | None = None
    g_idx: torch.Tensor | None = None
    pre_scale: torch.Tensor | None = None
    activation: ActivationScheme | None = None
    activation_scale: torch.Tensor | None = None
    activation_zero_point: torch.Tensor | None = None
    transposed: bool = False

    @property
    def permutation(self) -> torch.Tensor | None:
        """[K], int64: the order of columns in which groups are together; None: they are."""
        return None if self.g_idx is None else torch.argsort(self.g_idx, stable=True)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """[..., N, K]: the weight that the quantized module multiplies its (scaled) input with.

        The formula is computed in float64 for float64, else in float32, and rounded to `dtype` last. Codes less their
        zero points are exact; the scale is first multiplied (or divided) by the global one, then by the code.
        """
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        values = self._values(compute)
        values *= self._spread(self._scales(compute))
        return values.to(dtype)

    def parameter(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The unquantized model's parameter, in its layout; a pre-scale of the input is in the columns."""
        if self.pre_scale is None:
            weight = self.dequantize(dtype)
        else:
            compute = torch.float64 if dtype == torch.float64 else torch.float32
            weight = (self.dequantize(compute) * self.pre_scale.to(compute)).to(dtype)
        return weight.transpose(-1, -2).contiguous() if self.transposed else weight

    def _values(self, dtype: torch.dtype) -> torch.Tensor:
        """Codes less zero points, exact."""
        if self.kind == "fp4_e2m1":
            return from_e2m1(self.codes, dtype)
        if self.zero_point is None:
            return self.codes.to(dtype)
        return self.codes.to(dtype) - self._spread(self.zero_point.to(dtype))

    def _scales(self, dtype: torch.dtype) -> torch.Tensor:
        # float8 is first widened to float32, exactly: torch converts it to no other type on every device
        scale = self.scale.to(torch.float32).to(dtype)
        if self.global_divisor is not None:
            return scale / self.global_divisor.to(dtype)
        return scale if self.global_scale is None else scale * self.global_scale.to(dtype)

    def _spread(self, blocks: torch.Tensor) -> torch.Tensor:
        """[..., n, k] → [..., N, K], or with sizes of 1 where all rows or columns share a block."""
        rows, columns = self.codes.shape[-2:]
        if blocks.shape[-2] > 1:
            blocks = blocks.repeat_interleave(self.block[0], -2)[..., :rows, :]
        if self.g_idx is not None:
            return blocks[..., self.g_idx]
        if blocks.shape[-1] > 1:
            blocks = blocks.repeat_interleave(self.block[1], -1)[..., :columns]
        return blocks
