"""A quantized parameter's tensors in a checkpoint, as TensorRT's layers take them, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trtllm_port.layers.definition.dtypes import torch_dtype
from trtllm_port.layers.definition.quantized import CODES, STORED, WeightFormat, part_name, parts_of
from trtllm_port.layers.quantization.grid import CannotKeepError, Grid
from trtllm_port.layers.quantization.layouts.packing import (
    from_twos_complement,
    pack_nibbles,
    unpack_nibbles,
)
from trtllm_port.layers.weights import TensorSource

FOUR_BITS = ("int4", "fp4_e2m1")


def tensors_of(name: str, grid: Grid, dtype: torch.dtype) -> tuple[WeightFormat, dict[str, Tensor]]:
    """A parameter's format and its tensors in a checkpoint, as TensorRT takes them in a network of a data type.

    Sources: TensorRT's `IDequantizeLayer`, and what the compiler of TensorRT-RTX 1.7.1 takes: INT4 in blocks along one
    axis only, of which there are several; scales of 4-bit blocks, and of INT8's, of the output's type; others float32.
    """
    grid = _as_taken(grid)
    scale, factor = _scales(grid, dtype)
    codes = pack_nibbles(_nibbles(grid)) if grid.kind in FOUR_BITS else grid.codes
    tensors = {name: codes.contiguous().view(STORED[grid.kind]), part_name(name, "scale"): scale.contiguous()}
    if factor is not None:
        tensors[part_name(name, "global_scale")] = factor
    if grid.zero_point is not None:
        tensors[part_name(name, "zero_point")] = grid.zero_point.to(scale.dtype).contiguous()
    if grid.permutation is not None:
        tensors[part_name(name, "permutation")] = grid.permutation
    if grid.pre_scale is not None:
        tensors[part_name(name, "pre_scale")] = grid.pre_scale.to(dtype)
    if grid.activation_scale is not None:
        tensors[part_name(name, "activation_scale")] = grid.activation_scale
    return WeightFormat(grid.kind, grid.inputs, grid.activation), tensors


def bytes_of_integers(grid: Grid, dtype: torch.dtype) -> int:
    """The bytes of the tensors of an INT4 or INT8 weight that has scales alone, without making them."""
    grid = _as_taken(grid)
    scale = dtype.itemsize if _is_narrow(grid, grid.scale) else torch.float32.itemsize
    return grid.codes.numel() // CODES[grid.kind][1] + grid.scale.numel() * scale


def _as_taken(grid: Grid) -> Grid:
    """With blocks along as many axes as TensorRT takes."""
    inputs = grid.codes.ndim + grid.inputs
    if grid.kind == "int4":
        for axis in range(grid.codes.ndim):
            grid = grid if axis == inputs else grid.blocked(axis, 1)
        if grid.scale.shape[inputs] == 1:
            grid = grid.blocked(inputs, grid.codes.shape[inputs] // 2)
    elif grid.kind == "int8" and all(count > 1 for count in grid.scale.shape[-2:]):
        grid = grid.blocked(grid.codes.ndim - 1 if inputs == grid.codes.ndim - 2 else grid.codes.ndim - 2, 1)
    return grid


def _is_narrow(grid: Grid, scale: Tensor) -> bool:
    """Whether scales are of the output's type."""
    is_blocked = sum(count > 1 for count in scale.shape) > 1 or grid.kind == "int4"
    return grid.kind in ("int4", "int8") and is_blocked


def _scales(grid: Grid, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    if grid.kind == "fp4_e2m1" and grid.scale.dtype in (torch.float8_e4m3fn, torch.float8_e8m0fnu):
        return grid.scale, grid.global_scale
    scale = grid.factors
    rounded = scale.to(dtype) if _is_narrow(grid, scale) else scale
    if not bool(torch.isfinite(rounded).all()) or bool(((rounded == 0) & (scale != 0)).any()):
        raise CannotKeepError(f"its scales are beyond {str(dtype).removeprefix('torch.')}")
    return rounded, None


def _nibbles(grid: Grid) -> Tensor:
    return (grid.codes.view(torch.uint8) & 15) if grid.kind == "int4" else grid.codes


class CheckpointWeights:
    """The parameters in a checkpoint's file, those that are quantized as what they stand for; a `TensorSource`.

    Args:
        source: the file's tensors.
        formats: how some of the parameters are quantized, by name.
        dtype: of the weights that quantized ones stand for: the checkpoint's.
    """

    def __init__(self, source: TensorSource, formats: Mapping[str, WeightFormat], dtype: str) -> None:
        self._source, self._formats, self._dtype = source, formats, dtype
        stored = dict.fromkeys(source.names())
        beside = {part for name in formats for part in parts_of(name, stored).values()}
        self._names = [name for name in stored if name not in beside]

    def names(self) -> Sequence[str]:
        """Of the parameters."""
        return list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the unquantized parameter."""
        shape = self._source.shape(name)
        return (*shape[:-1], shape[-1] * CODES[self._formats[name].kind][1]) if name in self._formats else shape

    def dtype(self, name: str) -> str:
        """Of the unquantized parameter."""
        return self._dtype if name in self._formats else self._source.dtype(name)

    def tensor(self, name: str) -> Tensor:
        """The parameter; of a quantized one the weight that its tensors stand for, rounded once."""
        if name not in self._formats:
            return self._source.tensor(name)
        return self.grid(name).parameter().to(torch_dtype(self._dtype))

    def quantized_names(self) -> Sequence[str]:
        """Of the parameters that are quantized."""
        return [name for name in self._names if name in self._formats]

    def grid(self, name: str) -> Grid:
        """The codes and scales of a quantized parameter."""
        return stored_grid(name, self._formats[name], self._source)


def stored_grid(name: str, weight_format: WeightFormat, source: TensorSource) -> Grid:
    """A quantized parameter from its tensors in a checkpoint: what `tensors_of` was given, as TensorRT takes it."""
    parts = {part: source.tensor(own) for part, own in parts_of(name, dict.fromkeys(source.names())).items()}
    codes, scale = source.tensor(name), parts["scale"]
    if weight_format.kind in FOUR_BITS:
        codes = unpack_nibbles(codes)
    if weight_format.kind == "int4":
        codes = from_twos_complement(codes)
    return Grid(
        kind=weight_format.kind,
        codes=codes,
        scale=scale,
        zero_point=parts.get("zero_point"),
        global_scale=parts.get("global_scale"),
        inputs=weight_format.inputs,
        permutation=parts.get("permutation"),
        pre_scale=parts.get("pre_scale"),
    )
