"""The canonical form of a quantized weight: codes, scales and what else its formula needs, whatever the format was.

Shapes: N out (rows), K in (columns); n, k blocks along them; … stacked experts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch

from trtllm_port.layers.quantization.layouts.packing import from_e2m1

Kind = Literal["int4", "int8", "fp8_e4m3", "fp4_e2m1"]
Granularity = Literal["tensor", "token", "group"]
AT_ONCE = 1 << 24  # elements that are dequantized at once
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
        weight = torch.empty(self.codes.shape, dtype=dtype)
        self._fill(weight, None)
        return weight

    def parameter(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The unquantized model's parameter, in its layout; a pre-scale of the input is in the columns."""
        if not self.transposed:
            weight = torch.empty(self.codes.shape, dtype=dtype)
            self._fill(weight, self.pre_scale)
            return weight
        weight = torch.empty(self.codes.transpose(-1, -2).shape, dtype=dtype)
        self._fill(weight.transpose(-1, -2), self.pre_scale)
        return weight

    def _fill(self, weight: torch.Tensor, pre_scale: torch.Tensor | None) -> None:
        """Write the formula's values, some rows at a time: what they are computed in is larger than the codes."""
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        *stacked, rows, columns = self.codes.shape
        high = self.block[0] if self.scale.shape[-2] > 1 else 1
        step = max(1, AT_ONCE // (columns * high)) * high
        for index in itertools.product(*map(range, stacked)):
            for start in range(0, rows, step):
                values = self._rows(index, slice(start, min(start + step, rows)), dtype)
                weight[index][start : start + step] = values if pre_scale is None else values * pre_scale.to(dtype)

    def _rows(self, index: tuple[int, ...], rows: slice, dtype: torch.dtype) -> torch.Tensor:
        """Some rows of one matrix, which begin with a block."""
        codes = self.codes[index][rows]
        if self.kind == "fp4_e2m1":
            values = from_e2m1(codes, dtype)
        else:
            values = codes.to(dtype)
            if self.zero_point is not None:
                values -= self._spread(self.zero_point[index], rows).to(dtype)
        # 8-bit scales are first widened to float32, exactly
        scale = self._spread(self.scale[index], rows).to(torch.float32).to(dtype)
        if self.global_divisor is not None:
            scale = scale / self.global_divisor.to(dtype)
        elif self.global_scale is not None:
            scale = scale * self.global_scale.to(dtype)
        return values.mul_(scale)

    def _spread(self, blocks: torch.Tensor, rows: slice) -> torch.Tensor:
        """[n, k] → these rows of [N, K], or with sizes of 1 where all rows or columns share a block."""
        columns = self.codes.shape[-1]
        if blocks.shape[0] > 1:
            high = self.block[0]
            blocks = blocks[rows.start // high : -(-rows.stop // high)]
            blocks = blocks.repeat_interleave(high, 0)[: rows.stop - rows.start]
        if self.g_idx is not None:
            return blocks[:, self.g_idx]
        if blocks.shape[1] > 1:
            blocks = blocks.repeat_interleave(self.block[1], 1)[:, :columns]
        return blocks
