"""Constant folding: what follows from sizes and positions alone is made anew in the port's words, or left out.

See `constants.py` for what such tensors are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trtllm_port.codegen.ir.dtypes import DTYPES, TRACE_DTYPE
from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.operation_names import CASTS
from trtllm_port.codegen.ir.record import Attribute, Literal, Location, Operation, Value
from trtllm_port.codegen.ir.trace import Trace
from trtllm_port.codegen.ir.trees import leaves, map_structure
from trtllm_port.codegen.recognise.batch_rows import BatchRows
from trtllm_port.codegen.recognise.constants import (
    RANDOM,
    ConstantRecognizer,
    constant_of,
    stays_bfloat16,
    stored_tensor,
    uniform,
)
from trtllm_port.codegen.recognise.position_tables import ROTATION, PositionTables
from trtllm_port.codegen.recognise.positional_constants import PositionalConstants
from trtllm_port.codegen.rules.elementwise import BINARY
from trtllm_port.foundation.words import words
from trtllm_port.huggingface.compatibility.remote_code import is_remote

SELECTIONS = words("gather getitem __getitem__ index_select expand expand_as repeat view reshape embedding")
BROADCASTING = frozenset(BINARY) - {"matmul", "bmm"} | {"where", "masked_fill"}


class ConstantFolder:
    """Puts what a `ConstantRecognizer` finds into blocks, as nodes over the inputs of a trace."""

    def __init__(self, trace: Trace) -> None:
        self.inputs = trace.inputs
        self.model = trace.model
        self.bfloat16_buffers = trace.bfloat16_buffers
        self.rows = BatchRows(trace.sample.batch)
        self.by_position = PositionalConstants(trace.sample.batch, self.own_positions, self.own_distances)
        self.positional = {trace.inputs["position_ids"]}  # what follows from positions and constants alone
        self.recognizer = ConstantRecognizer(trace.sample)
        self.tables = PositionTables(trace.sample, trace.inputs["position_ids"])
        self._is_remote = is_remote(type(trace.model))  # what makes transformers' own tables is a module known here

    def outputs(self, block: Block, operation: Operation) -> dict[Value, Value | Literal] | None:
        """What the outputs of an operation are, where they need no node of their own: constants and the like."""
        repeated = self.rows.unchanged(operation)
        if repeated is not None:
            return {operation.outputs[0]: repeated}
        tensors = [
            leaf for leaf in leaves((operation.args, operation.kwargs)) if isinstance(leaf, Value | Attribute | Literal)
        ]
        content = [constant_of(leaf, self.model) for leaf in tensors]
        is_constant = all(c is not None for c in content) if tensors else operation.name not in RANDOM
        if tensors and operation.name in SELECTIONS and content[0] is not None:
            is_constant = is_constant or uniform(content[0]) is not None  # a part of what is the same everywhere
        only_positions = all(c is not None or t in self.positional for t, c in zip(tensors, content, strict=True))
        found: dict[Value, Value | Literal] = {}
        for value in operation.outputs:
            known: Value | Literal | None = self.positions(block, value, operation.location)
            made = self._constant(operation, value, tensors, content) if is_constant else None
            is_known = made is not None and self.by_position.of_distances(made)  # exactly, unlike a mask by its content
            if known is None and (is_constant or only_positions) and not is_known:
                known = self.computed(block, value, operation.location)
            if isinstance(known, Value):
                self.positional.add(known)
            elif only_positions and not is_constant:
                self.positional.add(value)
            if known is None and only_positions and self._is_remote and self.tables.find(value.tensor) is not None:
                made = made or Literal(value.tensor)  # follows from position ids, which a port has
            known = known or made
            if known is not None:
                found[value] = known
        return found if len(found) == len(operation.outputs) and found else None

    def _constant(
        self, operation: Operation, value: Value, tensors: list[Any], content: list[torch.Tensor | None]
    ) -> Literal:
        stays = any(stays_bfloat16(leaf, self.bfloat16_buffers) for leaf in tensors)
        made = Literal(_unrounded(operation, value.tensor, content), stays)
        self.by_position.note(operation, made)
        return made

    def without_uniform_constants(self, block: Block, operation: Operation) -> Operation:
        """A constant whose elements are all the same is a number beside tensors, or a function of the port."""
        tensors = [leaf for leaf in leaves(operation.args) if isinstance(leaf, Value | Attribute)]
        shapes = [
            stored_tensor(self.model, t.path).shape if isinstance(t, Attribute) else t.tensor.shape for t in tensors
        ]
        spread = (
            operation.name in BROADCASTING
            and torch.Size(np.broadcast_shapes(*shapes)) == operation.outputs[0].tensor.shape
        )

        def replaced(arg: Any) -> Any:
            if not isinstance(arg, Literal) or arg.tensor.numel() == 1:
                return arg
            if operation.name in SELECTIONS and self.recognizer.offset_of_positions(arg.tensor, 1) is not None:
                return self._for_all_rows(block, arg.tensor, operation)
            takes_table = operation.name in BROADCASTING or operation.name == ROTATION
            table = self.tables.given(block, operation, arg) if takes_table else None
            if table is not None:
                return table
            is_taken = operation.name in BROADCASTING or operation.name == "gather"
            own = self.by_position.computed(block, arg) if is_taken else None
            if own is not None:
                return own
            number = uniform(arg.tensor) if spread else None
            if number is not None:
                return Literal(arg.tensor.flatten()[0])
            return self.filled(block, arg.tensor, operation.location) or arg

        return replace(operation, args=map_structure(replaced, operation.args))

    def _for_all_rows(self, block: Block, positions: Tensor, operation: Operation) -> Value:
        """The position ids in place of [L]: what is looked up by them becomes [B, L, …], as in other models."""
        for value in operation.outputs:
            self.rows.add(value)
        own = self.own_positions(block, positions, operation.location)
        assert own is not None  # the caller knows
        return own

    def own_positions(self, block: Block, tensor: Tensor, location: Location | None) -> Value | None:
        """The position ids [B, L] (more some offset) for positions [L] that are the same for all rows, or None."""
        offset = self.recognizer.offset_of_positions(tensor, 1)
        return None if offset is None else self._shifted(block, offset, Value(tensor), location)

    def own_distances(self, block: Block, tensor: Tensor, location: Location | None) -> Value | None:
        """The distances [B, L, S] for those that are the same for all rows, [L, S], or None."""
        if not self.recognizer.is_distances(tensor):
            return None
        arguments = self.inputs["position_ids"], self.inputs["cache"]
        return _made(block, "slot_distances", arguments, {}, tensor.expand(self.rows.count, -1, -1), location)

    def positions(self, block: Block, value: Value, location: Location | None) -> Value | None:
        """The position ids (more some offset) that a value is."""
        offset = self.recognizer.offset_of_positions(value.tensor)
        return None if offset is None else self._shifted(block, offset, value, location)

    def computed(self, block: Block, value: Value, location: Location | None) -> Value | None:
        """The mask or the sinusoids that a value is, which follows from nothing but positions and sizes."""
        tensor = value.tensor
        mask = self.recognizer.mask(tensor)
        if mask is not None:
            return self._mask(block, *mask, tensor, location)
        found = self.recognizer.sinusoid(tensor) if tensor.dtype in DTYPES else None
        if found is None:
            return None
        offset, options = found
        positions = self._shifted(block, offset, value, location)
        rows = self.inputs["position_ids"].tensor.shape[0]
        wide = tensor.expand(rows, *tensor.shape[-2:] if tensor.ndim == 2 else tensor.shape[1:])
        table = _made(block, "sinusoidal_positions", (positions, tensor.shape[-1]), options, wide.float(), location)
        made = table
        if tensor.dtype != torch.float32:
            made = Value(wide)
            block.nodes.append(Node("cast", DTYPES[tensor.dtype], (table,), {}, (made,), location))
        self.rows.added |= {made} if tensor.ndim == 2 else set()
        return made

    def filled(self, block: Block, tensor: Tensor, location: Location | None) -> Value | None:
        """Integers [B, L] that are all the same, as token types are unless a caller says something else."""
        number, like = uniform(tensor), self.inputs["input_ids"]
        if number is None or tensor.dtype != torch.int64 or tensor.ndim != 2:
            return None
        if tensor.shape[1] != like.tensor.shape[1] or tensor.shape[0] not in (1, like.tensor.shape[0]):
            return None
        return _made(block, "full_like", (like, number), {}, torch.full_like(like.tensor, int(number)), location)

    def _shifted(self, block: Block, offset: int, value: Value, location: Location | None) -> Value:
        positions = self.inputs["position_ids"]
        if not offset:
            return positions
        shifted = Value(positions.tensor + offset, value.names)
        block.nodes.append(Node("operator", "+", (positions, offset), {}, (shifted,), location))
        return shifted

    def _mask(self, block: Block, window: int | None, hidden: bool, tensor: Tensor, location: Location | None) -> Value:
        wide = tensor.reshape(-1, *tensor.shape[-2:])[:1, None].expand(
            self.inputs["input_ids"].tensor.shape[0], -1, -1, -1
        )
        arguments = self.inputs["position_ids"], self.inputs["cache"]
        mask = _made(block, "causal_mask", arguments, {"window": window}, ~wide if hidden else wide, location)
        if not hidden:
            return mask
        inverted = Value(wide)
        block.nodes.append(Node("operator", "~", (mask,), {}, (inverted,), location))
        return inverted


def _made(
    block: Block,
    function: str,
    args: tuple[Any, ...],
    options: dict[str, Any],
    tensor: Tensor,
    location: Location | None,
) -> Value:
    value = Value(tensor)
    shapes = tuple(args[0].tensor.shape)
    block.nodes.append(Node("function", function, args, options, (value,), location, shapes))
    return value


def _unrounded(operation: Operation, made: Tensor, given: list[Tensor | None]) -> Tensor:
    """What an operation over constants gives; of a number that is cast to the model's data type, the number."""
    if operation.name in CASTS and made.dtype == TRACE_DTYPE and made.numel() == 1 and given[0] is not None:
        return given[0].reshape(made.shape)
    return made
