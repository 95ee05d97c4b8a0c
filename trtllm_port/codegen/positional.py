"""Numbers that follow from the positions [L]: Hugging Face computes them once, a port from those of each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trtllm_port.codegen.ir import Block, Node
from trtllm_port.codegen.operation_names import CASTS, words
from trtllm_port.codegen.recorder import Literal, Location, Operation, Value, leaves
from trtllm_port.codegen.rules import BINARY, canonical_name, node, translate

#: Operations on one tensor (and numbers) that treat every element alike.
ELEMENTWISE = frozenset(BINARY) - {"matmul", "bmm"} | CASTS | words("neg exp expm1 log log1p sqrt rsqrt floor ceil abs")
VIEWS = words("view reshape unsqueeze expand getitem")


@dataclass
class Positional:
    """Follows what becomes of constants, until one is needed whose elements follow from the tokens' positions.

    Args:
        rows: of a batch.
        positions: gives the position ids of a port for a tensor [L] of positions; None for every other tensor.

    Attributes:
        made: a constant → the operation that made it.
    """

    rows: int
    positions: Callable[[Block, torch.Tensor, Location | None], Value | None]
    made: dict[Literal, Operation] = field(default_factory=dict)

    def note(self, operation: Operation, made: Literal) -> None:
        """Take note of a constant that an operation gave."""
        self.made[made] = operation

    def computed(self, block: Block, constant: Literal) -> Value | None:
        """A constant as a block computes it from position ids [B, L]; None if it is no function of a position."""
        if not constant.tensor.is_floating_point() or not self._follows(constant):
            return None
        return self._value(block, constant)[0]

    def _follows(self, constant: Literal) -> bool:
        """Whether only operations known here lead from positions to a constant."""
        if self._is_positions(constant):
            return True
        operation = self.made.get(constant)
        source = None if operation is None else _source(operation)
        return source is not None and self._follows(source)

    def _is_positions(self, constant: Literal) -> bool:
        return self.positions(Block("", torch.nn.Module()), constant.tensor, None) is not None

    def _value(self, block: Block, constant: Literal) -> tuple[Value, bool]:
        """A constant with a dimension for rows, and whether that is one more than it has."""
        found = self.positions(block, constant.tensor, None)
        if found is not None:
            return found, True
        operation = self.made[constant]
        source = _source(operation)
        assert source is not None  # `_follows` says so
        given, is_new = self._value(block, source)
        is_view = canonical_name(operation.name)[0] in VIEWS
        shape = constant.tensor.shape
        is_new = is_new and not (is_view and len(shape) > 1 and shape[0] in (1, self.rows))
        tensor = constant.tensor.expand(self.rows, *(shape if is_new else shape[1:]))
        if is_view:
            return (given if given.tensor.shape == tensor.shape else _viewed(block, given, tensor, operation)), is_new
        args = tuple(given if arg is source else arg for arg in operation.args)
        made = translate(replace(operation, args=args, outputs=(Value(tensor, operation.outputs[0].names),)))
        if isinstance(made, Node):
            block.nodes.append(made)
            return made.outputs[0], is_new
        return made, is_new


def _viewed(block: Block, given: Value, tensor: torch.Tensor, operation: Operation) -> Value:
    """The same elements in the shape of a tensor."""
    viewed = Value(tensor, operation.outputs[0].names)
    view = replace(operation, outputs=(viewed,))
    block.nodes.append(node(view, "method", "view", given, tuple(tensor.shape), inferred=None))
    return viewed


def _source(operation: Operation) -> Literal | None:
    """The one tensor that an operation known here takes, if it takes no other that is more than a number."""
    name = canonical_name(operation.name)[0]
    if name not in ELEMENTWISE | VIEWS or len(operation.outputs) != 1:
        return None
    tensors: list[Any] = [leaf for leaf in leaves(operation.args) if isinstance(leaf, Literal)]
    wide = [tensor for tensor in tensors if tensor.tensor.numel() > 1]
    grown = operation.outputs[0].tensor.numel() != (wide[0].tensor.numel() if wide else 0)
    return wide[0] if len(wide) == 1 and (not grown or name == "expand") else None
