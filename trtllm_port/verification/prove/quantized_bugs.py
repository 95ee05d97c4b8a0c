"""Bugs in quantized weights: what a wrong conversion, or a wrong formula, makes of a parameter's codes and scales.

Each is put into one parameter of the checkpoint, of the second layer where it has one that the bug fits.

N rows (out), K columns (in)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import torch
from torch import Tensor

from trtllm_port.layers.quantization import CheckpointWeights, Grid, Rounding, grid_of, taken
from trtllm_port.verification.prove.bugs import Bug, Injection, SoundPort
from trtllm_port.verification.prove.weight_bugs import LAYER, layer_of

Change = Callable[[CheckpointWeights, str], Grid | None]
"""From all parameters and one's name to its wrong codes and scales; None: it has nothing that the bug fits."""
LAYER_WITH_BUG = 1
FOUR_BITS = ("int4", "fp4_e2m1")
IN_A_WORD = 8
#: AutoAWQ's order of a word's eight elements, see `unpack_awq`
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
NARROWER = {torch.float32: torch.bfloat16, torch.float16: torch.bfloat16}
HEAD = "lm_head.weight"
HEAD_GROUP = 16


def quantized_bug(
    name: str, description: str, change: Callable[[Grid], Grid | None] | None = None, wide: Change | None = None
) -> Bug:
    """A bug in one quantized parameter, whose cause is called as it is; `wide` looks at other parameters, too."""

    def changed(stored: CheckpointWeights, parameter: str) -> Grid | None:
        grid = stored.grid(parameter)
        made = wide(stored, parameter) if wide is not None else change(grid) if change is not None else None
        return None if made is None or _same(made, grid) else made

    def inject(port: SoundPort) -> Injection | None:
        if port.stored is None:
            return None
        found = next((each for each in in_order(port) if changed(port.stored, each) is not None), None)
        if found is None:
            return None

        def quantized(stored: CheckpointWeights) -> dict[str, Grid]:
            made = changed(stored, found)
            return {} if made is None else {found: made}

        return Injection(change=f"`{found}`", modules=(port.holder(found),), quantized=quantized)

    return Bug(id=name, kind="quantized", description=description, causes=(name,), inject=inject)


def in_order(port: SoundPort) -> Iterator[str]:
    """The quantized parameters: those of the second layer first, as they are computed with."""
    names = sorted(port.quantized, key=lambda name: (port.order.index(port.holder(name)), name))
    yield from (name for name in names if layer_of(name) == LAYER_WITH_BUG)
    yield from (name for name in names if layer_of(name) != LAYER_WITH_BUG)


def _same(one: Grid, other: Grid) -> bool:
    return all(_equal(getattr(one, each.name), getattr(other, each.name)) for each in fields(Grid))


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.to(torch.float32), other.to(torch.float32))
    return one == other if not isinstance(one, Tensor) and not isinstance(other, Tensor) else False


def halves_exchanged(grid: Grid) -> Grid | None:
    if grid.kind not in FOUR_BITS:
        return None
    return replace(grid, codes=grid.codes.reshape(*grid.codes.shape[:-1], -1, 2).flip(-1).flatten(-2))


def words_in_order(grid: Grid) -> Grid | None:
    """Eight rows' codes as they lie in a word of AWQ's."""
    axis = grid.codes.ndim - 3 - grid.inputs
    size = grid.codes.shape[axis]
    if grid.kind not in FOUR_BITS or size % IN_A_WORD:
        return None
    order = torch.arange(size).reshape(-1, IN_A_WORD)[:, list(AWQ_ORDER)].flatten()
    zero = grid.zero_point
    if zero is not None and zero.shape[axis] == size:
        zero = zero.index_select(axis, order)
    return replace(grid, codes=grid.codes.index_select(axis, order), zero_point=zero)


def other_offset(grid: Grid) -> Grid | None:
    """Unsigned codes taken for signed ones: the highest bit is the other one."""
    half = {"int4": 8, "int8": 128}.get(grid.kind)
    if half is None:
        return None
    codes = grid.codes.to(torch.int16)
    return replace(grid, codes=torch.where(codes < 0, codes + half, codes - half).to(torch.int8))


def sign_dropped(grid: Grid) -> Grid | None:
    """Nibbles from 0 to 15."""
    return replace(grid, kind="int8", codes=grid.codes & 15) if grid.kind == "int4" else None


def float8_as_int8(grid: Grid) -> Grid | None:
    return replace(grid, kind="int8", codes=grid.codes.view(torch.int8)) if grid.kind == "fp8_e4m3" else None


def zero_point(change: Callable[[Tensor], Tensor | None]) -> Callable[[Grid], Grid | None]:
    """Other zero points."""
    return lambda grid: None if grid.zero_point is None else replace(grid, zero_point=change(grid.zero_point))


def scale(change: Callable[[Grid], Tensor | None]) -> Callable[[Grid], Grid | None]:
    """Other scales."""

    def bug(grid: Grid) -> Grid | None:
        made = change(grid)
        return None if made is None else replace(grid, scale=made.contiguous())

    return bug


def shifted(axis: Callable[[Grid], int]) -> Callable[[Grid], Tensor | None]:
    """Scales shifted by one along an axis."""

    def change(grid: Grid) -> Tensor | None:
        place = grid.scale.ndim + axis(grid)
        return taken(grid.scale, torch.arange(grid.scale.shape[place]).roll(1), place) if place >= 0 else None

    return change


def read_transposed(grid: Grid) -> Tensor | None:
    rows, columns = grid.scale.shape[-2:]
    return grid.scale.mT.reshape(grid.scale.shape) if rows > 1 and columns > 1 else None


def twice_the_group(grid: Grid) -> Grid | None:
    """Groups of twice as many columns: the later half of the scales and zero points is never reached."""
    axis = grid.scale.ndim + grid.inputs
    groups = torch.arange(grid.scale.shape[axis]) // 2
    zero = grid.zero_point
    return replace(
        grid,
        scale=taken(grid.scale, groups, axis),
        zero_point=None if zero is None else zero.index_select(axis, groups),
    )


def inverse_scale(grid: Grid) -> Tensor | None:
    return None if grid.scale.dtype == torch.float8_e4m3fn else (1 / grid.scale.to(torch.float32)).to(grid.scale.dtype)


def rounded_scale(grid: Grid) -> Tensor | None:
    narrow = NARROWER.get(grid.scale.dtype)
    return None if narrow is None else grid.scale.to(narrow).to(grid.scale.dtype)


def power_of_two_scale(grid: Grid) -> Tensor | None:
    return torch.exp2(torch.log2(grid.scale.to(torch.float32)).floor()).to(grid.scale.dtype)


def scale_of(other: Callable[[CheckpointWeights, str], Iterator[str]]) -> Change:
    """Scales of another parameter."""

    def change(stored: CheckpointWeights, name: str) -> Grid | None:
        grid = stored.grid(name)
        for each in other(stored, name):
            found = stored.grid(each)
            if found.scale.shape == grid.scale.shape and found.scale.dtype == grid.scale.dtype:
                return replace(grid, scale=found.scale)
        return None

    return change


def siblings(stored: CheckpointWeights, name: str) -> Iterator[str]:
    """Quantized parameters of the same layer."""
    if layer_of(name) is not None:
        yield from (each for each in stored.quantized_names() if each != name and layer_of(each) == layer_of(name))


def in_layer_before(stored: CheckpointWeights, name: str) -> Iterator[str]:
    other = LAYER.sub(".0.", name, count=1)
    yield from (each for each in stored.quantized_names() if each == other != name)


def head_rounded(port: SoundPort) -> Injection | None:
    """The head, which quantized models leave as it is."""
    head = port.weights.get(HEAD)
    if port.stored is None or head is None or HEAD in port.quantized or HEAD not in port.stored.names():
        return None
    if head.shape[-1] % (2 * HEAD_GROUP):
        return None
    grid = grid_of(Rounding("W4A16", HEAD_GROUP, torch.float32).rounded(head))
    return Injection(change=f"`{HEAD}`", modules=(port.holder(HEAD),), quantized=lambda _stored: {HEAD: grid})


BUGS: tuple[Bug, ...] = (
    quantized_bug("quantized.nibbles", "the two halves of each byte exchanged", halves_exchanged),
    quantized_bug("quantized.packing", "a word's elements in AWQ's order of eight rows", words_in_order),
    quantized_bug("quantized.offset", "unsigned codes taken for signed ones: half of the range away", other_offset),
    quantized_bug("quantized.sign", "codes of 4 bits without the extension of their sign", sign_dropped),
    quantized_bug("quantized.codes.int8", "codes of float8 read as integers", float8_as_int8),
    quantized_bug("quantized.zero_point.one", "zero points less by one", zero_point(lambda zero: zero - 1)),
    quantized_bug("quantized.zero_point.ignored", "zero points ignored", zero_point(lambda zero: None)),
    quantized_bug("quantized.zero_point.negated", "zero points added instead of subtracted", zero_point(torch.neg)),
    quantized_bug(
        "quantized.zero_point.offset", "zero points of unsigned codes beside signed ones", zero_point(lambda z: z + 8)
    ),
    quantized_bug("quantized.scale.row", "scales of the row beside it", scale(shifted(lambda grid: -3 - grid.inputs))),
    quantized_bug("quantized.scale.group", "scales of the group beside it", scale(shifted(lambda grid: grid.inputs))),
    quantized_bug("quantized.scale.expert", "scales of the expert beside it", scale(shifted(lambda grid: -3))),
    quantized_bug("quantized.scale.transposed", "the matrix of scales read transposed", scale(read_transposed)),
    quantized_bug("quantized.group_size", "groups of twice as many columns", twice_the_group),
    quantized_bug("quantized.scale.inverse", "codes divided by the scale", scale(inverse_scale)),
    quantized_bug("quantized.scale.bfloat16", "scales rounded to bfloat16", scale(rounded_scale)),
    quantized_bug("quantized.scale.power", "scales rounded down to powers of two", scale(power_of_two_scale)),
    quantized_bug("quantized.scale.sibling", "scales of another projection in the layer", wide=scale_of(siblings)),
    quantized_bug("quantized.scale.layer", "scales of the layer before", wide=scale_of(in_layer_before)),
    quantized_bug(
        "quantized.global_scale.ignored",
        "the scale of the scales forgotten",
        lambda grid: None if grid.global_scale is None else replace(grid, global_scale=None),
    ),
    quantized_bug(
        "quantized.global_scale.inverse",
        "scales divided by their scale",
        lambda grid: None if grid.global_scale is None else replace(grid, global_scale=1 / grid.global_scale),
    ),
    quantized_bug(
        "quantized.permutation.ignored",
        "columns left in the order of their groups (act-order)",
        lambda grid: replace(grid, permutation=None),
    ),
    quantized_bug(
        "quantized.permutation.inverse",
        "columns in the inverse of the order of their groups",
        lambda grid: None if grid.permutation is None else replace(grid, permutation=torch.argsort(grid.permutation)),
    ),
    quantized_bug(
        "quantized.pre_scale.ignored", "features not scaled before", lambda grid: replace(grid, pre_scale=None)
    ),
    quantized_bug(
        "quantized.pre_scale.divided",
        "features divided by what they are multiplied with",
        lambda grid: None if grid.pre_scale is None else replace(grid, pre_scale=1 / grid.pre_scale),
    ),
    Bug(
        id="quantized.excluded",
        kind="quantized",
        description="the head rounded to 4 bits, which is not quantized",
        causes=("quantized.excluded",),
        inject=head_rounded,
    ),
)
