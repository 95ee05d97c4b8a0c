"""One operation as a node, by the rule for it in one of the tables."""

from __future__ import annotations

from dataclasses import replace

from trtllm_port.codegen.ir.nodes import Node
from trtllm_port.codegen.ir.record import Operation, Value
from trtllm_port.codegen.rules.base import RuleTable, node
from trtllm_port.codegen.rules.elementwise import BINARY, ELEMENTWISE
from trtllm_port.codegen.rules.layers import LAYERS
from trtllm_port.codegen.rules.routing import ROUTING
from trtllm_port.codegen.rules.shapes import SHAPES

RULES = RuleTable({**ELEMENTWISE, **SHAPES, **LAYERS, **ROUTING})


def translate(operation: Operation) -> Node | Value:
    """The node for an operation, or the value that its output equals; a node "untranslated" if no rule applies."""
    name, exchanged = canonical_name(operation.name)
    args = operation.args[::-1] if exchanged else operation.args
    plain = replace(operation, name=name, args=args)
    found = RULES.get(name)
    result = found(plain) if found is not None and operation.outputs else None
    return result if result is not None else node(plain, "untranslated", name, *args, **operation.kwargs)


def canonical_name(name: str) -> tuple[str, bool]:
    """An operation's plain name, and whether its two operands are exchanged: `__radd__` is `add`, exchanged."""
    if not name.startswith("__"):
        plain = name.removesuffix("_")
        return ("sub", True) if plain == "rsub" else (plain, False)
    plain = name.removeprefix("__").removesuffix("__")
    if plain[0] in "ri" and plain[1:] in BINARY:
        return plain[1:], plain[0] == "r"
    return plain, False
