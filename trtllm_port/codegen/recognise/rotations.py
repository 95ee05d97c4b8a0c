"""Rotations and their tables in the words of `trtllm_port.layers`, whose tables are two and hold every angle once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from trtllm_port.codegen.ir.nodes import Block, Node
from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.codegen.recognise.rotary_tables import RotaryTables
from trtllm_port.codegen.rules.base import node

PARTS = ("cos", "sin")  # real and imaginary part of a table of complex numbers, by the names that they have in the port


@dataclass
class Rotations:
    """What is known of the tables of a trace.

    Attributes:
        halved: cos and sin that the port holds once, HF twice.
        sets: calls of rotary modules → which of the config's rope parameters they go by.
        parts: a table of complex numbers → its cos and sin.
    """

    halved: set[Value] = field(default_factory=set)
    sets: dict[Call, str] = field(default_factory=dict)
    parts: dict[Value, tuple[Value, ...]] = field(default_factory=dict)

    def note(self, call: Call, rotary: RotaryTables) -> None:
        """Take note of the tables that a call gives."""
        self.halved.update(call.outputs if rotary.doubled else ())
        self.sets.update({call: rotary.key} if rotary.key is not None else {})
        for value in call.outputs:
            if value.tensor.is_complex():
                self.parts[value] = (Value(value.tensor.real), Value(value.tensor.imag))

    def of(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The values with cos and sin in place of every table of complex numbers."""
        return tuple(part for value in values for part in self.parts.get(value, (value,)))

    def names(self, value: Value, names: list[str]) -> list[tuple[Value, list[str]]]:
        """Values with the names of local variables: those of a table's parts are their own."""
        if value not in self.parts:
            return [(value, names)]
        return [(part, [name]) for part, name in zip(self.parts[value], PARTS, strict=True)] if names else []

    def prepared(self, block: Block, operation: Operation) -> Operation:
        """A rotation by the tables that the port has, with nodes for what becomes of them first."""
        x, *tables = operation.args
        operation = replace(operation, args=(x, *self.of(tuple(tables))))
        return _by_negative_sine(block, self._halve_tables(block, operation))

    def _halve_tables(self, block: Block, operation: Operation) -> Operation:
        """TensorRT's rotation takes every angle once; cut the tables of a model that holds them twice."""
        x, *tables = operation.args
        layout = operation.kwargs["tables"]
        if layout == "once" or all(table in self.halved for table in tables):
            return operation
        cut_tables = []
        for table in tables:
            size = table.tensor.shape[-1]
            part = slice(None, size // 2, None) if layout == "halves" else slice(None, None, 2)
            cut = Operation(
                "getitem", (table, (Ellipsis, part)), {}, (Value(table.tensor[..., part]),), operation.location
            )
            block.nodes.append(node(cut, "index", "", *cut.args))
            cut_tables.append(cut.outputs[0])
        return replace(operation, args=(x, *cut_tables))


def _by_negative_sine(block: Block, operation: Operation) -> Operation:
    """A rotation the other way round is one by the negative sine."""
    x, cos, sin = operation.args
    if not operation.kwargs.get("backwards"):
        return operation
    negative = Value(-sin.tensor)
    block.nodes.append(Node("operator", "-", (sin,), {}, (negative,), operation.location))
    return replace(operation, args=(x, cos, negative))
