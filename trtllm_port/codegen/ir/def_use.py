"""All operations and calls of a record, and who takes which of its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.codegen.ir.trees import leaves


def items(root: Call) -> Iterator[Operation | Call]:
    """All operations and calls in a call, inner ones included."""
    stack: list[Call] = [root]
    while stack:
        for item in stack.pop().body:
            yield item
            if isinstance(item, Call):
                stack.append(item)


def operations(root: Call) -> Iterator[Operation]:
    """All operations of a record, inner ones included."""
    return (item for item in items(root) if isinstance(item, Operation))


def uses(root: Call) -> dict[Value, list[Operation]]:
    """value → the operations that take it."""
    found: dict[Value, list[Operation]] = {}
    for operation in operations(root):
        for leaf in leaves((operation.args, operation.kwargs)):
            if isinstance(leaf, Value):
                found.setdefault(leaf, []).append(operation)
    return found


def taken(root: Call) -> set[Value]:
    """All values that an operation or a module takes, or that a module returns."""
    found: set[Value] = set()
    stack: list[Operation | Call] = [root]
    while stack:
        item = stack.pop()
        trees: tuple[Any, ...] = (item.args, item.outputs) if isinstance(item, Call) else (item.args, item.kwargs)
        found.update(leaf for leaf in leaves(trees) if isinstance(leaf, Value))
        stack += item.body if isinstance(item, Call) else []
    return found
