"""Quantized weights as the parameters of a port: codes and scales go the way of the weights, to the bit.

A port's weight map stacks, joins, cuts and transposes weights. Codes go through the same steps as weights would, and
scales, zero points and orders of columns beside them. Where that is not possible, a weight is left as it was before it
was quantized, with the reason.

Shapes: N out, K in; n, k blocks along them; … stacked experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trtllm_port.layers.quantization.grid import CannotKeepError, Grid, grid_of, repeated, spread
from trtllm_port.layers.quantization.layouts.weight import QuantizedWeight
from trtllm_port.layers.quantization.rounding import SMALLEST_GROUP
from trtllm_port.layers.weights import Concat, Stack, Step, Transpose, WeightEntry, WeightPlan
from trtllm_port.layers.weights.steps import run_steps

TRIAL = (24, 48)  # rows and columns with which it is tried where a transform takes the columns


def kept(entry: WeightEntry, weights: Sequence[QuantizedWeight], plan: WeightPlan) -> dict[str, Grid]:
    """The parameters that a step of a conversion makes of quantized weights.

    Args:
        entry: the step.
        weights: of its sources, in their order.
        plan: for the config, which transforms take, and the parameters' shapes.

    Raises:
        CannotKeepError: the step takes blocks apart, or weights together that are quantized in different ways.
    """
    grids = [grid_of(weight) for weight in weights]
    function = entry.function
    if function is None:
        made = grids
    elif callable(function):
        made = _computed(lambda *tensors: _tuple(function(plan.config, *tensors)), _alike(grids))
    else:
        made = _stepped(function, entry.counts, _alike(grids))
    # codes that go into experts are not those of one module of Hugging Face's, which would have to round them, too
    made = [grid if grid.codes.ndim == 2 else replace(grid, activation=None, activation_scale=None) for grid in made]
    found = dict(zip(entry.targets, made, strict=True))
    for name, grid in found.items():
        if tuple(grid.codes.shape) != plan.specs[name].shape:
            raise CannotKeepError(f"its codes came out as {tuple(grid.codes.shape)}")
    return found


def _alike(grids: Sequence[Grid]) -> list[Grid]:
    """Weights that may become one: without factors of their own, and quantized in the same way."""
    grids = [
        grid if grid.global_scale is None else replace(grid, scale=grid.factors, global_scale=None) for grid in grids
    ]
    ways = {(grid.kind, grid.inputs, grid.scale.dtype, grid.zero_point is None) for grid in grids}
    if len(ways) > 1:
        raise CannotKeepError("weights that make it up are quantized in different ways")
    first = grids[0]
    if not all(_equal(grid.activation_scale, first.activation_scale) for grid in grids):
        grids = [replace(grid, activation=None, activation_scale=None) for grid in grids]
    for grid in grids[1:]:
        if not (_equal(grid.permutation, first.permutation) and _equal(grid.pre_scale, first.pre_scale)):
            raise CannotKeepError("weights that make it up meet their inputs in different orders or scales")
    return grids


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


def _stepped(steps: Sequence[Step], counts: Sequence[int], grids: list[Grid]) -> list[Grid]:
    """Through steps as data: blocks go through them as elements do, where none is cut."""

    def through(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        return run_steps(steps, [[next(rest) for _ in range(count)] for count in counts])

    if not all(isinstance(step, Stack | Transpose) for step in steps):
        grids = _divisible(grids, cuts=not all(isinstance(step, Stack | Transpose | Concat) for step in steps))
    first, inputs = grids[0], _inputs_axis(through, grids[0], len(grids))
    codes, scales = through([grid.codes for grid in grids]), through([grid.scale for grid in grids])
    zeros: tuple[Tensor | None, ...] = (None,) * len(codes)
    if first.zero_point is not None:
        zeros = through([grid.zero_point for grid in grids if grid.zero_point is not None])
    made = [
        replace(first, codes=code, scale=scale, zero_point=zero, inputs=inputs)
        for code, scale, zero in zip(codes, scales, zeros, strict=True)
    ]
    for grid in made:
        divides = all(size % count == 0 for size, count in zip(grid.codes.shape, grid.scale.shape, strict=True))
        if not divides or sorted(grid.block[-2:]) != sorted(first.block[-2:]):
            raise CannotKeepError("the weight map cuts blocks that share a scale")
        if grid.permutation is not None and grid.codes.shape[grid.inputs] != len(grid.permutation):
            raise CannotKeepError("the weight map joins inputs whose columns are in the order of their groups")
    return made


def _divisible(grids: list[Grid], *, cuts: bool) -> list[Grid]:
    """Weights that may be joined, or cut: with blocks of one size, and a scale for each row where all share one."""
    inputs = grids[0].inputs
    rows = -3 - inputs  # the other one of the last two axes
    step = math.gcd(*(grid.block[inputs] for grid in grids))
    if cuts and any(grid.scale.shape[inputs] == 1 for grid in grids):
        step = math.gcd(step, SMALLEST_GROUP)
    grids = [grid.blocked(inputs, step) for grid in grids]
    is_shared = any(grid.scale.shape[rows] == 1 for grid in grids)
    if cuts or is_shared or len({grid.block[rows] for grid in grids}) > 1:
        grids = [grid.blocked(rows, 1) for grid in grids]
    return grids


def _inputs_axis(through: Callable[[Sequence[Tensor]], tuple[Tensor, ...]], grid: Grid, sources: int) -> int:
    """Where steps take the axis of K."""
    rows, columns = TRIAL
    numbers = torch.arange(columns) if grid.inputs == -1 else torch.arange(rows)[:, None]
    trial = numbers.expand(TRIAL).reshape(*(1,) * (grid.codes.ndim - 2), *TRIAL)
    return _changing_axis(through([trial] * sources)[0])


def _changing_axis(numbers: Tensor) -> int:
    """The one of the last two axes along which numbers change."""
    if bool((numbers == numbers[..., :1, :]).all()):
        return -1
    if bool((numbers == numbers[..., :, :1]).all()):
        return -2
    raise CannotKeepError("the weight map mixes a weight's rows and columns")


def _computed(function: Callable[..., tuple[Tensor, ...]], grids: list[Grid]) -> list[Grid]:
    """Through a function of weights: scales go through it one for each element, and must come out in blocks."""
    first = grids[0]
    block = math.gcd(*(grid.block[grid.inputs] for grid in grids))
    codes = function(*(_plain(grid.codes) for grid in grids))
    scales = function(*(spread(grid.scale.to(torch.float32), grid.codes.shape) for grid in grids))
    zeros: tuple[Tensor | None, ...] = (None,) * len(codes)
    if first.zero_point is not None:
        points = (spread(grid.zero_point, grid.codes.shape) for grid in grids if grid.zero_point is not None)
        zeros = function(*points)
    made = []
    for code, scale, zero, feature in zip(codes, scales, zeros, function(*map(_features, grids)), strict=True):
        inputs = _changing_axis(feature)
        order = feature.movedim(inputs, -1).reshape(-1, feature.shape[inputs])[0]
        if first.permutation is not None and not torch.equal(order, torch.arange(len(order))):
            raise CannotKeepError("the weight map moves columns that are in the order of their groups")
        made.append(
            replace(
                first,
                codes=code.view(first.codes.dtype),
                scale=_of_blocks(scale, inputs, block),
                zero_point=None if zero is None else _of_blocks(zero, inputs, block),
                inputs=inputs,
            )
        )
    return made


def _of_blocks(values: Tensor, inputs: int, block: int) -> Tensor:
    """Blocks' values from those of their elements."""
    axis = values.ndim + inputs
    first = values.index_select(axis, torch.arange(0, values.shape[axis], block))
    if not torch.equal(repeated(first, block, axis).narrow(axis, 0, values.shape[axis]), values):
        raise CannotKeepError("the weight map takes apart columns that share a scale")
    return first


def _features(grid: Grid) -> Tensor:
    """The number of each element's feature."""
    numbers = torch.arange(grid.codes.shape[grid.inputs])
    return (numbers if grid.inputs == -1 else numbers[:, None]).expand(grid.codes.shape).contiguous()


def _plain(codes: Tensor) -> Tensor:
    """Codes in a type that every function takes: of float8, their bits."""
    return codes.view(torch.int8) if codes.dtype == torch.float8_e4m3fn else codes


def _tuple(made: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (made,) if isinstance(made, Tensor) else tuple(made)
