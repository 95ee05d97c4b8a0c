"""Layouts that several methods share: one 8-bit code an element, and two E2M1 codes a byte, with a grid of scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from trtllm_port.layers.quantization.layouts.layout import (
    FLOATS,
    Form,
    Layout,
    Unit,
    factor,
    grid,
    powers,
    undivided,
)
from trtllm_port.layers.quantization.layouts.packing import unpack_nibbles
from trtllm_port.layers.quantization.layouts.scheme import WHOLE
from trtllm_port.layers.quantization.layouts.weight import QuantizedWeight

CODES = {"fp8_e4m3": "float8_e4m3fn", "int8": "int8"}
SCALAR: tuple[tuple[int, ...], ...] = ((), (1,), (1, 1))


def activation_scale(unit: Unit) -> torch.Tensor | None:
    """float32: the stored scale of the input, if there is one."""
    return unit.tensor("input_scale").to(torch.float32) if unit.has("input_scale") else None


def needs_input_scale(unit: Unit) -> Iterator[str]:
    """The stored scale of the input that is missing."""
    activation = unit.scheme.activation
    if activation is not None and (activation.two_level or not activation.dynamic):
        yield from unit.need("input_global_scale" if "input_global_scale" in unit.form.parts else "input_scale")


def nan_codes(codes: torch.Tensor) -> bool:
    """Whether codes of E4M3 are NaN."""
    return codes.dtype == torch.float8_e4m3fn and bool(((codes.view(torch.uint8) & 127) == 127).any())


@dataclass(frozen=True)
class ElementLayout(Layout):
    """[..., N, K] of float8_e4m3fn or int8, W = (code - zero point) * scale.

    A scale is stored as the grid of blocks, [..., n, k]; also as [] or [1] for one, and [N] for one a row. The rows and
    columns of two-dimensional blocks need not be multiples of them.
    """

    forms: tuple[Form, ...]
    scale_dtypes: tuple[str, ...] = FLOATS

    def shape(self, unit: Unit) -> tuple[int, ...]:
        return unit.shape()

    def scale_shapes(self, unit: Unit) -> tuple[tuple[int, ...], ...]:
        """The shapes that the scale may be stored in."""
        shape = self.shape(unit)
        blocks = grid(shape, unit.scheme.block or (WHOLE, WHOLE))
        if len(shape) > 2:
            return (blocks,)
        return (blocks, *(SCALAR if blocks == (1, 1) else ((blocks[0],),) if blocks[1] == 1 else ()))

    def header(self, unit: Unit) -> Iterator[str]:
        if len(unit.shape()) not in (2, 3) or 0 in unit.shape():
            yield f"`{unit.tensors['codes']}` has shape {unit.shape()}, expected rows and columns"
            return
        block = unit.scheme.block
        if block is not None and block[0] == 1:
            yield from undivided(unit, unit.shape()[-1], block[1])
        yield from unit.expect("codes", (CODES[self.kind(unit)],))
        yield from unit.need("scale", *(() if unit.scheme.symmetric else ("zero_point",)))
        yield from unit.expect("scale", self.scale_dtypes, *self.scale_shapes(unit))
        yield from unit.expect("zero_point", ("int8",), *self.scale_shapes(unit))
        yield from needs_input_scale(unit)
        yield from unit.expect("input_scale", FLOATS, *SCALAR, unit.shape()[:-2])
        yield from unit.expect("input_zero_point", ("int8",), *SCALAR)
        yield from unit.expect("pre_scale", FLOATS, unit.shape()[-1:])

    def read(self, unit: Unit) -> QuantizedWeight:
        block = self.block(unit)
        blocks = grid(self.shape(unit), block)
        zero = unit.tensor("zero_point").reshape(blocks) if unit.has("zero_point") else None
        return QuantizedWeight(
            kind=self.kind(unit),
            codes=unit.tensor(),
            block=block,
            scale=powers(unit.tensor("scale")).reshape(blocks),
            zero_point=zero if zero is not None and bool(zero.any()) else None,
            pre_scale=unit.tensor("pre_scale") if unit.has("pre_scale") else None,
            activation=unit.scheme.activation,
            activation_scale=activation_scale(unit),
            activation_zero_point=unit.tensor("input_zero_point") if unit.has("input_zero_point") else None,
        )


@dataclass(frozen=True)
class Float4Layout(Layout):
    """[N, K/2] bytes of two E2M1 codes each, the low nibble first, with a scale for each group of a row.

    W = code * (scale * global scale), or code * (scale / global scale) where the format divides. The product or
    quotient of the scales is rounded before it meets the code.
    """

    forms: tuple[Form, ...]
    scale_dtypes: tuple[str, ...] = ("float8_e4m3fn",)
    has_global: bool = True
    divides: bool = False

    def shape(self, unit: Unit) -> tuple[int, ...]:
        return *unit.shape()[:-1], 2 * unit.shape()[-1]

    def header(self, unit: Unit) -> Iterator[str]:
        if len(unit.shape()) != 2 or 0 in unit.shape():
            yield f"`{unit.tensors['codes']}` has shape {unit.shape()}, expected rows and columns"
            return
        block = unit.scheme.block or (1, WHOLE)
        shape = self.shape(unit)
        yield from undivided(unit, shape[-1], block[1])
        yield from unit.expect("codes", ("uint8",))
        yield from unit.need("scale", *(("global_scale",) if self.has_global else ()))
        yield from unit.expect("scale", self.scale_dtypes, grid(shape, block))
        yield from unit.expect("global_scale", FLOATS, *SCALAR)
        yield from needs_input_scale(unit)
        yield from unit.expect("input_scale", FLOATS, *SCALAR)
        yield from unit.expect("input_global_scale", FLOATS, *SCALAR)
        yield from unit.expect("pre_scale", FLOATS, shape[-1:])

    def read(self, unit: Unit) -> QuantizedWeight:
        stored = unit.tensor("global_scale") if unit.has("global_scale") else None
        total = None if stored is None else 1 / factor(stored) if self.divides else factor(stored)
        inverse = unit.tensor("input_global_scale") if unit.has("input_global_scale") else None
        return QuantizedWeight(
            kind="fp4_e2m1",
            codes=unpack_nibbles(unit.tensor()),
            block=self.block(unit),
            scale=powers(unit.tensor("scale")),
            global_scale=total,
            global_divisor=stored.reshape(()) if stored is not None and self.divides else None,
            pre_scale=unit.tensor("pre_scale") if unit.has("pre_scale") else None,
            activation=unit.scheme.activation,
            activation_scale=activation_scale(unit) if inverse is None else 1 / inverse.to(torch.float32),
        )
