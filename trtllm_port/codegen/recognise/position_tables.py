"""Tables of cosines and sines that a model makes once, for its longest text, and looks up by position.

Who made them, where they are kept and how they are sliced is not asked: what a tensor is follows from its content. An
operation that is given one is given what the port computes of its position ids.

B batch, L new tokens, D elements for a token
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trtllm_port.codegen.configs.sizes import Sample
from trtllm_port.codegen.ir.dtypes import DTYPES
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Literal, Operation, Value
from trtllm_port.errors import ConfigError
from trtllm_port.layers.config.built_in import parameter_sets
from trtllm_port.layers.functional.positions import fixed_frequencies

TOLERANCE = 0.02  # of cosines in the trace's bfloat16; of several that are as near the nearest counts
USUAL_BASE = 10000.0
MOST = 2.0  # of a cosine with the factors that are usual
SOME_DIM = 16
ROTATION = "rotary_embedding"
FUNCTIONS = {"rotary_cosines": torch.cos, "rotary_sines": torch.sin}
NAMES = {"rotary_cosines": "cos", "rotary_sines": "sin"}
LAYOUTS: tuple[dict[str, bool], ...] = ({}, {"interleaved": True}, {"once": True})


@dataclass(frozen=True)
class PositionTable:
    """What a table is.

    Attributes:
        function: of `trtllm_port.layers`.
        dim, base, scaling, options: its arguments.
        axis: the dimension of the tokens.
    """

    function: str
    dim: int
    base: float
    scaling: dict[str, Any] | None
    options: dict[str, bool]
    axis: int


class PositionTables:
    """Finds them among the constants of a trace.

    Args:
        sample: the step's sizes: `past` cached tokens, then `length` new ones.
        position_ids: [B, L], of the port.
    """

    def __init__(self, sample: Sample, position_ids: Value) -> None:
        self.position_ids = position_ids
        self.positions = torch.arange(sample.past, sample.past + sample.length)
        self.rows = sample.batch
        self.made: dict[Block, dict[object, Value]] = {}
        self.bases = tuple(dict.fromkeys((*_numbers(sample.values), USUAL_BASE)))
        self.scalings = (None, *_scalings(sample.values))

    def find(self, tensor: Tensor) -> PositionTable | None:
        """What a tensor [*, L, *, D] is, whose other dimensions repeat what is in one of them; or None."""
        if not tensor.is_floating_point() or tensor.ndim < 2 or not tensor.numel() or float(tensor.abs().max()) > MOST:
            return None
        for axis in range(tensor.ndim - 1):
            table = _without_repeats(tensor, axis) if tensor.shape[axis] == len(self.positions) else None
            found = None if table is None else self._nearest(table.float(), axis)
            if found is not None:
                return found
        return None

    def _nearest(self, table: Tensor, axis: int) -> PositionTable | None:
        best: PositionTable | None = None
        least = TOLERANCE / 4
        for options in LAYOUTS:
            dim = table.shape[-1] * (2 if options.get("once") else 1)
            bases = itertools.product(self.scalings, self.bases) if dim > 2 and dim % 2 == 0 else ()
            for scaling, base in bases:
                angles, factor = _angles(self.positions, fixed_frequencies(dim, base, scaling), options)
                for name, function in FUNCTIONS.items():
                    errors = (factor * function(angles) - table).abs()
                    if float(errors.max()) < TOLERANCE and float(errors.mean()) < least:
                        least, best = float(errors.mean()), PositionTable(name, dim, base, scaling, options, axis)
        return best

    def given(self, block: Block, operation: Operation, constant: Literal) -> Value | None:
        """A table as an operation takes it beside what is computed, with nodes for it; None for any other constant."""
        beside = [arg for arg in operation.args if isinstance(arg, Value)]
        found = self.find(constant.tensor) if beside else None
        if found is None:
            return None
        behind = constant.tensor.ndim - 1 - found.axis  # dimensions behind that of the tokens
        lead = operation.outputs[0].tensor.ndim - 1 - behind  # and before it, in what comes out
        if operation.name == ROTATION:  # takes [B, L, D]
            behind = lead = 1
        key = (
            found.function,
            found.dim,
            found.base,
            str(found.scaling),
            str(found.options),
            constant.tensor.dtype,
            lead,
            behind,
        )
        known = self.made.setdefault(block, {})
        if key not in known:
            known[key] = self._nodes(block, operation, constant, found, _changes(lead, behind))
            block.names[known[key]] = [NAMES[found.function]]
        return known[key]

    def _nodes(
        self,
        block: Block,
        operation: Operation,
        constant: Literal,
        found: PositionTable,
        changes: Sequence[tuple[str, tuple[int, ...]]],
    ) -> Value:
        options = dict(found.options)
        shape = (self.rows, len(self.positions), constant.tensor.shape[-1])
        row = _without_repeats(constant.tensor, found.axis)
        assert row is not None  # it was found
        arguments = (self.position_ids, found.dim, found.base, *([found.scaling] if found.scaling else []))
        made = Value(row.float().expand(shape))
        block.nodes.append(Node("function", found.function, arguments, options, (made,), operation.location, shape[:2]))
        if constant.tensor.dtype != torch.float32:
            narrow = Value(made.tensor.to(constant.tensor.dtype))
            block.nodes.append(Node("cast", DTYPES[narrow.tensor.dtype], (made,), {}, (narrow,), operation.location))
            made = narrow
        for method, dims in changes:
            more = Value(getattr(made.tensor, method)(*dims))
            sizes = tuple(made.tensor.shape)
            block.nodes.append(Node("method", method, (made, *dims), {}, (more,), operation.location, sizes))
            made = more
        return made


def _changes(lead: int, behind: int) -> list[tuple[str, tuple[int, ...]]]:
    """The methods that give a table [B, L, D] as many dimensions before and behind its tokens as an operand has.

    Rows come first, and where nothing is before the tokens next to them.
    """
    if lead == 0:
        return [("transpose", (0, 1)), *[("unsqueeze", (-2,))] * (behind - 2)]
    return [*[("unsqueeze", (1,))] * (lead - 1), *[("unsqueeze", (-2,))] * (behind - 1)]


def _angles(positions: Tensor, frequencies: tuple[Tensor, float], options: dict[str, bool]) -> tuple[Tensor, float]:
    """The angles, and the factor of their cosines and sines."""
    angles, factor = positions[:, None].float() * frequencies[0], frequencies[1]
    if options.get("once"):
        return angles, factor
    twice = angles.repeat_interleave(2, -1) if options.get("interleaved") else torch.cat([angles, angles], -1)
    return twice, factor


def _without_repeats(tensor: Tensor, axis: int) -> Tensor | None:
    """[L, D] of a tensor whose dimensions but one and the last have equal elements; else None."""
    others = [dim for dim in range(tensor.ndim - 1) if dim != axis]
    first = tensor
    for dim in others:
        first = first.narrow(dim, 0, 1)
    return first.reshape(tensor.shape[axis], -1) if torch.equal(first.expand_as(tensor), tensor) else None


def _scalings(values: Any) -> Iterator[dict[str, Any]]:
    """Rotary parameters of a config that are more than a base, and whose frequencies are the same for every length."""
    for value in values.values():
        for each in parameter_sets(value) if isinstance(value, dict) else ():
            if each.get("rope_type", "default") != "default":
                with suppress(ConfigError):
                    fixed_frequencies(SOME_DIM, USUAL_BASE, each)
                    yield each


def _numbers(values: Any) -> Iterator[float]:
    """The numbers of a config that may be the base of a rotation, those of dictionaries within it included."""
    for value in values.values() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and value >= 100:
            yield value
