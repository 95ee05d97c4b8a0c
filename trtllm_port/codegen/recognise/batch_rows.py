"""What Hugging Face computes once for all rows of a batch, and a port for each of them: positions differ by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trtllm_port.codegen.ir.record import Operation, Value
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.rules.elementwise import BINARY
from trtllm_port.codegen.rules.translation import canonical_name
from trtllm_port.foundation.words import words

#: Operations that leave the first dimension where it is, whatever they do to the others.
BY_ROW = frozenset(BINARY) - {"matmul", "bmm"} | words(
    "getitem chunk split cat stack view reshape view_as reshape_as unsqueeze flatten neg sin cos exp to float type "
    "repeat_interleave contiguous dropout where"
)


class BatchRows:
    """Values with a dimension for rows that Hugging Face's have not, or have once.

    Args:
        count: of rows in the example input.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.added: set[Value] = set()  # [B, L, …], where Hugging Face has [L, …]
        self.widened: set[Value] = set()  # [B, …], where Hugging Face has [1, …]

    def add(self, value: Value) -> None:
        """Let a value have a dimension for rows before its others."""
        if value not in self.added:  # a block is made more than once
            value.tensor = value.tensor.expand(self.count, *value.tensor.shape)
            self.added.add(value)

    def unchanged(self, operation: Operation) -> Value | None:
        """What an operation gives that would add the dimension, where it is there already."""
        source = operation.args[0] if operation.args else None
        is_there = operation.name == "unsqueeze" and operation.args[1:] == (0,)
        return source if is_there and isinstance(source, Value) and source in self.added else None

    def operation(self, operation: Operation) -> Operation:
        """An operation on such values, its outputs with all rows as well."""
        source = operation.args[0] if operation.args else None
        index: Any = operation.args[1] if len(operation.args) > 1 else None
        name = canonical_name(operation.name)[0]
        first_is_new = name == "getitem" and isinstance(index, tuple) and index[0] is None
        if isinstance(source, Value) and source in self.added and first_is_new:
            self._widen(operation)
            return replace(operation, args=(source, (slice(None), *index[1:])))
        if name in BY_ROW and any(leaf in self.widened for leaf in leaves(operation.args) if isinstance(leaf, Value)):
            self._widen(operation)
        return operation

    def _widen(self, operation: Operation) -> None:
        for value in operation.outputs:
            if value not in self.widened and value.tensor.ndim > 1 and value.tensor.shape[0] == 1:
                value.tensor = value.tensor.expand(self.count, *value.tensor.shape[1:])
                self.widened.add(value)
