"""Numbers that follow from the positions [L]: Hugging Face computes them once, a port from those of each row.

So it is with distances [L, S], of each token from each slot of the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.operation_names import CASTS
from trtllm_port.codegen.ir.record import Literal, Location, Operation, Value
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.rules.base import node
from trtllm_port.codegen.rules.elementwise import BINARY
from trtllm_port.codegen.rules.translation import canonical_name, translate
from trtllm_port.foundation.words import words

#: Operations on one tensor or two (and numbers) that treat every element alike.
ELEMENTWISE = (frozenset(BINARY) - {"matmul", "bmm"} | CASTS) | words(
    "neg exp expm1 log log1p sqrt rsqrt floor ceil abs clamp"
)
VIEWS = words("view reshape unsqueeze getitem")

Finder = Callable[[Block, torch.Tensor, Location | None], Value | None]


def never(block: Block, tensor: torch.Tensor, location: Location | None) -> None:
    """Of a port that knows no such tensors."""


@dataclass
class PositionalConstants:
    """Follows what becomes of constants, until one is needed whose elements follow from the tokens' positions.

    Args:
        rows: of a batch.
        positions: gives the position ids [B, L] of a port for a tensor [L] of positions; None for every other tensor.
        distances: gives the distances [B, L, S] of a port for those of a batch, [L, S]; None for every other tensor.

    Attributes:
        made: a constant → the operation that made it.
    """

    rows: int
    positions: Finder
    distances: Finder = never
    made: dict[Literal, Operation] = field(default_factory=dict)
    _values: dict[tuple[Block, Literal], tuple[Value, bool]] = field(default_factory=dict)

    def note(self, operation: Operation, made: Literal) -> None:
        """Take note of a constant that an operation gave."""
        self.made[made] = operation

    def computed(self, block: Block, constant: Literal) -> Value | None:
        """A constant as a block computes it from position ids [B, L]; None if it is no function of a position."""
        is_known = constant.tensor.is_floating_point() and self._follows(constant, self.positions)
        return self._value(block, constant)[0] if is_known or self.of_distances(constant) else None

    def of_distances(self, constant: Literal) -> bool:
        """Whether a constant follows from the distances of tokens from slots."""
        return self._follows(constant, self.distances)

    def _follows(self, constant: Literal, start: Finder) -> bool:
        """Whether only operations known here lead from positions, or from distances, to a constant."""
        if start(Block("", torch.nn.Module()), constant.tensor, None) is not None:
            return True
        operation = self.made.get(constant)
        sources = [] if operation is None else _sources(operation)
        return bool(sources) and all(self._follows(source, start) for source in sources)

    def _value(self, block: Block, constant: Literal) -> tuple[Value, bool]:
        """A constant with a dimension for rows, and whether that is one more than it has."""
        key = block, constant
        if key not in self._values:
            self._values[key] = self._start(block, constant) or self._made(block, constant)
        return self._values[key]

    def _start(self, block: Block, constant: Literal) -> tuple[Value, bool] | None:
        operation = self.made.get(constant)
        apart = self.distances(block, constant.tensor, None if operation is None else operation.location)
        if apart is not None and operation is not None:
            apart.names.update(operation.outputs[0].names)
        found = apart or self.positions(block, constant.tensor, None)
        return None if found is None else (found, True)

    def _made(self, block: Block, constant: Literal) -> tuple[Value, bool]:
        operation = self.made[constant]
        given = {source: self._value(block, source) for source in _sources(operation)}
        value, is_new = next(iter(given.values()))[0], all(is_new for _, is_new in given.values())
        name = canonical_name(operation.name)[0]
        is_view, shape = name in VIEWS or name == "expand", constant.tensor.shape
        is_new = is_new and not (is_view and len(shape) > 1 and shape[0] in (1, self.rows))
        tensor = constant.tensor.expand(self.rows, *(shape if is_new else shape[1:]))
        if is_view:
            return _viewed(block, value, tensor, operation, grows=name == "expand"), is_new
        args = tuple(given[arg][0] if arg in given else arg for arg in operation.args)
        made = translate(replace(operation, args=args, outputs=(Value(tensor, operation.outputs[0].names),)))
        if isinstance(made, Node):
            block.nodes.append(made)
            return made.outputs[0], is_new
        return made, is_new


def _viewed(block: Block, given: Value, tensor: torch.Tensor, operation: Operation, *, grows: bool) -> Value:
    """The same elements in the shape of a tensor."""
    if given.tensor.shape == tensor.shape:
        return given
    viewed = Value(tensor, operation.outputs[0].names)
    view = replace(operation, outputs=(viewed,))
    more: dict[str, Any] = {} if grows else {"inferred": None}
    dims = range(tensor.ndim) if tensor.ndim == given.tensor.ndim + 1 else ()
    new = [dim for dim in dims if given.tensor.unsqueeze(dim).shape == tensor.shape]
    if new:
        block.nodes.append(node(view, "method", "unsqueeze", given, new[0]))
    else:
        block.nodes.append(node(view, "method", "expand" if grows else "view", given, tuple(tensor.shape), **more))
    return viewed


def _sources(operation: Operation) -> list[Literal]:
    """The tensors that an operation known here takes, without those that are but numbers; none for any other."""
    name = canonical_name(operation.name)[0]
    if name not in ELEMENTWISE | VIEWS | {"expand"} or len(operation.outputs) != 1:
        return []
    tensors: list[Any] = [leaf for leaf in leaves(operation.args) if isinstance(leaf, Literal)]
    wide = [tensor for tensor in tensors if tensor.tensor.numel() > 1]
    size = operation.outputs[0].tensor.numel()
    grown = any(source.tensor.numel() != size for source in wide)
    alike = len({source.tensor.ndim for source in wide}) == 1  # a dimension for rows comes before those of each
    return wide if alike and (not grown or name == "expand") else []
