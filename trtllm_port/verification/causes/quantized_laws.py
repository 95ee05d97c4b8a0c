"""In words: what is wrong with the codes and scales of a quantized parameter, by what they stand for.

Hugging Face's side has weights without codes. So what a wrong conversion may have done to the port's is undone, one
thing at a time; what then stands for Hugging Face's weight, up to rounding, is what was done. Where something was lost,
such as zero points, the scales and zero points are computed with which the port's codes would stand for it.

R Hugging Face's weight, N rows (out), K columns (in)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trtllm_port.layers.quantization import Grid, spread, taken
from trtllm_port.layers.quantization.layouts.packing import AWQ_NIBBLES
from trtllm_port.verification.causes.weight_laws import Law, order_along
from trtllm_port.verification.taps.layer_groups import LAYER_NUMBER

ROUNDINGS = 8  # so many may lie between what two sides compute
NEAR = 1e-3  # what a ratio of scales is computed with
STEP = 0.51  # of a scale: rounding to the nearest multiple moves no number by more than half of one
NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class QuantizedPair:
    """The two sides of a quantized parameter.

    Attributes:
        name: of the parameter.
        grid: the port's codes and scales.
        reference: Hugging Face's values, rounded to the port's data type.
        others: the port's other quantized parameters, with their names; read once.
    """

    name: str
    grid: Grid = field(repr=False)
    reference: Tensor = field(repr=False)
    others: Iterable[tuple[str, Grid]] = field(repr=False)

    @property
    def tolerance(self) -> float:
        """By how much, of itself, a number may differ."""
        return float(ROUNDINGS * torch.finfo(self.reference.dtype).eps)

    def fits(self, grid: Grid) -> bool:
        """Whether codes and scales stand for Hugging Face's weight."""
        return self.close(grid.parameter(), self.reference)

    def close(self, one: Tensor, other: Tensor) -> bool:
        """Whether numbers are the same but for rounding."""
        one, other = one.double(), other.double()
        return bool(((one - other).abs() <= self.tolerance * other.abs().maximum(one.abs())).all())


@dataclass(frozen=True, kw_only=True)
class Repair:
    """Something that may have been done to a parameter.

    Attributes:
        id: of the kind of cause.
        words: that follow the parameter's name.
        undone: the parameter without it, in the ways in which it may have been done.
    """

    id: str
    words: str
    undone: Callable[[Grid], Iterator[Grid]]


def quantized_law(pair: QuantizedPair) -> Law | None:
    """Say what is wrong with the port's codes and scales; None: nothing that is known."""
    if pair.fits(pair.grid):
        return Law(id="precision.weight", words="is Hugging Face's but for the rounding of its scales")
    for repair in REPAIRS:
        if any(pair.fits(grid) for grid in repair.undone(pair.grid)):
            return Law(id=repair.id, words=repair.words)
    for law in LOSSES:
        found = law(pair)
        if found is not None:
            return found
    return None


def _rows(grid: Grid) -> int:
    return grid.codes.ndim - 3 - grid.inputs


def _columns(grid: Grid) -> int:
    return grid.codes.ndim + grid.inputs


def _halves(grid: Grid) -> Iterator[Grid]:
    if grid.kind in ("int4", "fp4_e2m1"):
        yield replace(grid, codes=grid.codes.reshape(*grid.codes.shape[:-1], -1, 2).flip(-1).flatten(-2))


def _words(grid: Grid) -> Iterator[Grid]:
    """Eight elements of a word in their order: along the rows, as AWQ has them, or the columns."""
    if grid.kind not in ("int4", "fp4_e2m1"):
        return
    for axis in (_rows(grid), _columns(grid)):
        size = grid.codes.shape[axis]
        if size % len(AWQ_NIBBLES):
            continue
        order = torch.arange(size).reshape(-1, len(AWQ_NIBBLES))[:, list(AWQ_NIBBLES)].flatten()
        alone = replace(grid, codes=grid.codes.index_select(axis, order))
        yield alone
        if grid.zero_point is not None and grid.zero_point.shape[axis] == size:
            yield replace(alone, zero_point=grid.zero_point.index_select(axis, order))


def _offset(grid: Grid) -> Iterator[Grid]:
    half = {"int4": 8, "int8": 128}.get(grid.kind)
    if half is not None:
        codes = grid.codes.to(torch.int16)
        yield replace(grid, codes=torch.where(codes < 0, codes + half, codes - half).to(torch.int8))


def _sign(grid: Grid) -> Iterator[Grid]:
    if grid.kind == "int8" and int(grid.codes.min()) >= 0 and int(grid.codes.max()) < 16:
        yield replace(grid, codes=torch.where(grid.codes > 7, grid.codes - 16, grid.codes))


def _float8(grid: Grid) -> Iterator[Grid]:
    if grid.kind == "int8":
        yield replace(grid, kind="fp8_e4m3", codes=grid.codes.view(torch.float8_e4m3fn))


def _zero_points(*changes: Callable[[Tensor], Tensor]) -> Callable[[Grid], Iterator[Grid]]:
    def undone(grid: Grid) -> Iterator[Grid]:
        if grid.zero_point is not None:
            yield from (replace(grid, zero_point=change(grid.zero_point)) for change in changes)

    return undone


def _shifted(axis: Callable[[Grid], int]) -> Callable[[Grid], Iterator[Grid]]:
    def undone(grid: Grid) -> Iterator[Grid]:
        place = axis(grid)
        count = grid.scale.shape[place] if place >= 0 else 1
        for step in (-1, 1) if count > 1 else ():
            yield replace(grid, scale=taken(grid.scale, torch.arange(count).roll(step), place))

    return undone


def _transposed(grid: Grid) -> Iterator[Grid]:
    *stacked, rows, columns = grid.scale.shape
    if rows > 1 and columns > 1:
        yield replace(grid, scale=grid.scale.reshape(*stacked, columns, rows).mT)


def _inverse_scale(grid: Grid) -> Iterator[Grid]:
    yield replace(grid, scale=1 / grid.scale.to(torch.float32))


def _inverse_global(grid: Grid) -> Iterator[Grid]:
    if grid.global_scale is not None:
        yield replace(grid, global_scale=1 / grid.global_scale)


def _inverse_order(grid: Grid) -> Iterator[Grid]:
    if grid.permutation is not None:
        yield replace(grid, permutation=torch.argsort(grid.permutation))


def _inverse_pre_scale(grid: Grid) -> Iterator[Grid]:
    if grid.pre_scale is not None:
        yield replace(grid, pre_scale=1 / grid.pre_scale)


REPAIRS: tuple[Repair, ...] = (
    Repair(id="quantized.nibbles", words="has the two halves of each byte exchanged", undone=_halves),
    Repair(id="quantized.packing", words="has each eight codes in the order of AWQ's words", undone=_words),
    Repair(id="quantized.offset", words="has unsigned codes taken for signed ones", undone=_offset),
    Repair(id="quantized.sign", words="has codes of 4 bits without the extension of their sign", undone=_sign),
    Repair(id="quantized.codes.int8", words="has codes of float8 read as integers", undone=_float8),
    Repair(
        id="quantized.zero_point.one",
        words="has zero points that are off by one",
        undone=_zero_points(lambda zero: zero + 1, lambda zero: zero - 1),
    ),
    Repair(
        id="quantized.zero_point.negated",
        words="has its zero points added instead of subtracted",
        undone=_zero_points(torch.neg),
    ),
    Repair(
        id="quantized.zero_point.offset",
        words="has zero points that are off by half of the codes' range",
        undone=_zero_points(lambda zero: zero - 8, lambda zero: zero + 8),
    ),
    Repair(id="quantized.scale.row", words="has the scales of the row beside", undone=_shifted(_rows)),
    Repair(id="quantized.scale.group", words="has the scales of the group beside", undone=_shifted(_columns)),
    Repair(
        id="quantized.scale.expert",
        words="has the scales of the expert beside",
        undone=_shifted(lambda grid: grid.codes.ndim - 3),
    ),
    Repair(
        id="quantized.scale.transposed",
        words="has its matrix of scales read the other way round",
        undone=_transposed,
    ),
    Repair(id="quantized.scale.inverse", words="is divided by its scales", undone=_inverse_scale),
    Repair(id="quantized.global_scale.inverse", words="is divided by the scale of its scales", undone=_inverse_global),
    Repair(
        id="quantized.permutation.inverse",
        words="has its columns in the inverse of the order of their groups",
        undone=_inverse_order,
    ),
    Repair(
        id="quantized.pre_scale.divided",
        words="has its features divided by what they are multiplied with",
        undone=_inverse_pre_scale,
    ),
)


def _order_ignored(pair: QuantizedPair) -> Law | None:
    """R's columns in another order, where no order is stored, of several groups."""
    if pair.grid.permutation is not None or pair.grid.scale.shape[_columns(pair.grid)] == 1:
        return None
    order = order_along(pair.grid.parameter().to(pair.reference), pair.reference, _columns(pair.grid))
    if order is None or sorted(order) != list(range(len(order))):
        return None
    return Law(id="quantized.permutation.ignored", words="has its columns in the order of their groups (act-order)")


def _factor_ignored(pair: QuantizedPair) -> Law | None:
    """One factor of all, beside scales of 8 bits, which have one."""
    grid, port, reference = pair.grid, pair.grid.parameter().double(), pair.reference.double()
    if grid.global_scale is not None or grid.scale.dtype != torch.float8_e4m3fn:
        return None
    factor = float((port * reference).sum() / port.square().sum())
    if not pair.close(factor * port, reference):
        return None
    return Law(id="quantized.global_scale.ignored", words=f"lacks the scale of its scales, {factor:.6g}")


def _scales(pair: QuantizedPair) -> Law | None:
    """Other scales and zero points, with which the port's codes would stand for R."""
    grid, right = pair.grid, _solved(pair)
    if right is None:
        return None
    if pair.close(grid.factors, right.factors):
        if grid.zero_point is None:
            return Law(id="quantized.zero_point.ignored", words="lacks its zero points")
        return Law(id="quantized.zero_point", words="has other zero points than its codes ask for")
    groups = torch.arange(right.scale.shape[_columns(grid)]) // 2
    if pair.close(grid.factors, right.factors.index_select(_columns(grid), groups)):
        return Law(id="quantized.group_size", words="has groups of twice as many columns as its scales are for")
    for name, other in pair.others:
        if other.scale.shape == grid.scale.shape and torch.equal(other.scale.float(), grid.scale.float()):
            if LAYER_NUMBER.sub("*", name) == LAYER_NUMBER.sub("*", pair.name):
                return Law(id="quantized.scale.layer", words=f"has the scales of `{name}`, of another layer")
            return Law(id="quantized.scale.sibling", words=f"has the scales of `{name}`")
    return _rounded_scales(pair, right)


def _rounded_scales(pair: QuantizedPair, right: Grid) -> Law:
    grid, ratio = pair.grid, pair.grid.factors.double() / right.factors.double()
    for name, dtype in NARROW.items():
        if pair.close(grid.factors, right.factors.to(dtype)):
            return Law(id="quantized.scale.bfloat16", words=f"has scales rounded to {name}")
    exponents = torch.log2(grid.scale.float())
    is_near = bool(((ratio > 0.5 - NEAR) & (ratio < 2 + NEAR)).all())
    if is_near and torch.equal(exponents, exponents.round()):
        return Law(id="quantized.scale.power", words="has scales rounded to powers of two")
    low, high = float(ratio.min()), float(ratio.max())
    return Law(
        id="quantized.scale", words=f"has other scales, {low:.4g} to {high:.4g} times as large as they should be"
    )


def _solved(pair: QuantizedPair) -> Grid | None:
    """The port's codes with the scales and zero points with which they stand for R; None: there are none."""
    grid = pair.grid
    counts = tuple(grid.scale.shape)
    target = _as_coded(grid, pair.reference)
    numbers, zero = replace(grid, zero_point=None).numbers().double(), torch.zeros(counts, dtype=torch.float64)
    if grid.kind in ("int4", "int8"):
        size = numbers.numel() // grid.scale.numel()
        x, y = _sums(numbers, counts), _sums(target, counts)
        slope = (size * _sums(numbers * target, counts) - x * y) / (size * _sums(numbers**2, counts) - x * x)
        zero = ((x - y / slope) / size).round()
        known = zero.new_zeros(()) if grid.zero_point is None else grid.zero_point.double()
        zero = torch.where(zero.isfinite(), zero, known)
    numbers = numbers - spread(zero, numbers.shape)
    scale = _sums(numbers * target, counts) / _sums(numbers**2, counts)
    scale = torch.where(scale.isfinite(), scale, grid.factors.double())
    points = zero.float() if bool(zero.any()) else None
    made = replace(grid, scale=scale.float(), zero_point=points, global_scale=None)
    return made if pair.fits(made) else None


def _as_coded(grid: Grid, reference: Tensor) -> Tensor:
    """R without the pre-scale, its columns in the order of the codes."""
    target = reference.double()
    if grid.pre_scale is not None:
        pre_scale = grid.pre_scale.double()
        target = target / (pre_scale if grid.inputs == -1 else pre_scale.unsqueeze(-1))
    return target if grid.permutation is None else target.index_select(_columns(grid), grid.permutation)


def _sums(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Sums over the elements of each block."""
    sizes = [each for size, count in zip(values.shape, counts, strict=True) for each in (count, size // count)]
    return values.reshape(sizes).sum(tuple(range(1, len(sizes), 2)))


def _features(pair: QuantizedPair) -> Law | None:
    """One factor for each column, where none are stored."""
    grid, port, reference = pair.grid, pair.grid.parameter().double(), pair.reference.double()
    if grid.pre_scale is not None:
        return None
    others = [axis for axis in range(port.ndim) if axis != _columns(grid)]
    factors = (port * reference).sum(others, keepdim=True) / port.square().sum(others, keepdim=True)
    if not pair.close(torch.where(factors.isfinite(), factors, 1.0) * port, reference):
        return None
    low, high = float(factors.min()), float(factors.max())
    words = f"lacks what its features are multiplied with, {low:.4g} to {high:.4g}"
    return Law(id="quantized.pre_scale.ignored", words=words)


def _not_quantized(pair: QuantizedPair) -> Law | None:
    """R rounded to the nearest multiples of the scales: codes stand for no R, so it is not quantized."""
    grid = replace(pair.grid, permutation=None, pre_scale=None)
    far = (grid.parameter().double() - _as_coded(pair.grid, pair.reference)).abs()
    if bool((far > STEP * spread(grid.factors, far.shape).abs()).any()):
        return None
    words = f"is Hugging Face's rounded to {grid.kind}, whose weight is not quantized"
    return Law(id="quantized.excluded", words=words)


LOSSES: tuple[Callable[[QuantizedPair], Law | None], ...] = (
    _order_ignored,
    _factor_ignored,
    _scales,
    _features,
    _not_quantized,
)
IDS = frozenset(
    {
        *(repair.id for repair in REPAIRS),
        *("quantized.permutation.ignored", "quantized.global_scale.ignored", "quantized.zero_point.ignored"),
        *("quantized.zero_point", "quantized.group_size", "quantized.scale", "quantized.scale.layer"),
        *("quantized.scale.sibling", "quantized.scale.bfloat16", "quantized.scale.power"),
        *("quantized.pre_scale.ignored", "quantized.excluded"),
    }
)
