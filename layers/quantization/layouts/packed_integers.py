"""Integers of 4 or 8 bits in 32-bit words along the columns, as compressed-tensors' `pack-quantized` has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from trtllm_port.layers.quantization.layouts.elementwise import SCALAR, activation_scale, needs_input_scale
from trtllm_port.layers.quantization.layouts.layout import FLOATS, Form, Layout, Unit, grid, undivided, up
from trtllm_port.layers.quantization.layouts.packing import signed, unpack_words
from trtllm_port.layers.quantization.layouts.weight import BITS, QuantizedWeight


@dataclass(frozen=True)
class PackedIntegers(Layout):
    """`weight_packed` [N, ⌈K·bits/32⌉] int32, `weight_scale` [N, K/g], `weight_shape` [2].

    Zero points are [⌈N·bits/32⌉, K/g] int32, packed along the rows, or, of older versions, int8 [N, K/g]. The group of
    each column is `weight_g_idx` [K]; without it, or with -1 everywhere, columns are in the order of their groups.
    """

    forms: tuple[Form, ...]

    def shape(self, unit: Unit) -> tuple[int, ...]:
        rows, columns = unit.tensor("shape").tolist()
        return int(rows), int(columns)

    def header(self, unit: Unit) -> Iterator[str]:
        yield from unit.expect("codes", ("int32",))
        yield from unit.need("scale", "shape", *(() if unit.scheme.symmetric else ("zero_point",)))
        yield from unit.expect("shape", ("int64", "int32"), (2,))
        if len(unit.shape()) != 2:
            yield f"`{unit.tensors['codes']}` has shape {unit.shape()}, expected rows and words"
        elif unit.has("shape") and unit.shape("shape") == (2,):
            yield from self._of_shape(unit)
        yield from needs_input_scale(unit)
        yield from unit.expect("input_scale", FLOATS, *SCALAR)
        yield from unit.expect("input_zero_point", ("int8",), *SCALAR)

    def _of_shape(self, unit: Unit) -> Iterator[str]:
        """What does not fit `weight_shape`."""
        shape, bits = self.shape(unit), BITS[unit.scheme.kind]
        if min(shape) < 1 or unit.shape() != (shape[0], up(shape[1] * bits, 32)):
            yield f"`{unit.tensors['codes']}` has shape {unit.shape()}, but `{unit.tensors['shape']}` is {shape}"
            return
        blocks = grid(shape, unit.scheme.block or (1, 0))
        yield from undivided(unit, shape[1], (unit.scheme.block or (1, 0))[1])
        scalars = SCALAR if blocks == (1, 1) else ()
        yield from unit.expect("scale", FLOATS, blocks, *scalars)
        yield from unit.expect("g_idx", ("int32", "int64"), (shape[1],))
        packed = (up(blocks[0] * bits, 32), blocks[1])
        of_type = unit.has("zero_point") and unit.dtype("zero_point") == "int32"
        yield from unit.expect("zero_point", ("int32", "int8"), *((packed,) if of_type else (blocks, *scalars)))

    def values(self, unit: Unit) -> Iterator[str]:
        yield from super().values(unit)
        groups = grid(self.shape(unit), unit.scheme.block or (1, 0))[1]
        if unit.has("g_idx"):
            groups_of = unit.tensor("g_idx")
            unset = bool((groups_of == -1).all())
            if not unset and (int(groups_of.min()) < 0 or int(groups_of.max()) >= groups):
                yield f"`{unit.tensors['g_idx']}` is out of range: there are {groups} groups"
        if unit.has("zero_point") and unit.dtype("zero_point") == "int8":
            zero, most = unit.tensor("zero_point"), 1 << (BITS[unit.scheme.kind] - 1)
            if int(zero.min()) < -most or int(zero.max()) >= most:
                yield f"`{unit.tensors['zero_point']}` is out of range: {-most} to {most - 1}"

    def read(self, unit: Unit) -> QuantizedWeight:
        (rows, columns), bits = self.shape(unit), BITS[unit.scheme.kind]
        block = self.block(unit)
        blocks = grid((rows, columns), block)
        zero = self._zero_point(unit, blocks, bits) if unit.has("zero_point") else None
        return QuantizedWeight(
            kind=unit.scheme.kind,
            codes=signed(unpack_words(unit.tensor(), bits)[:, :columns], bits),
            block=block,
            scale=unit.tensor("scale").reshape(blocks),
            zero_point=zero if zero is not None and bool(zero.any()) else None,
            g_idx=out_of_order(unit.tensor("g_idx"), block[1]) if unit.has("g_idx") else None,
            activation=unit.scheme.activation,
            activation_scale=activation_scale(unit),
            activation_zero_point=unit.tensor("input_zero_point") if unit.has("input_zero_point") else None,
        )

    def _zero_point(self, unit: Unit, blocks: tuple[int, ...], bits: int) -> torch.Tensor:
        stored = unit.tensor("zero_point")
        if stored.dtype == torch.int8:
            return stored.reshape(blocks)
        return signed(unpack_words(stored.T, bits)[:, : blocks[0]].T, bits)


def out_of_order(groups: torch.Tensor, size: int) -> torch.Tensor | None:
    """[K], int64: the group of each column; None where groups of `size` follow one another, or all are -1 (unset)."""
    found = groups.to(torch.int64)
    plain = torch.arange(len(found)) // size
    return None if bool((found == plain).all()) or bool((found == -1).all()) else found
