"""What every table of rules needs: arguments by name or position, nodes, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trtllm_port.codegen.ir.nodes import Form, Node
from trtllm_port.codegen.ir.record import Attribute, Literal, Operation, Value

Result = Node | Value | None
Rule = Callable[[Operation], Result]


class RuleTable(dict[str, Rule]):
    """Operation name → rule; a rule returns a node, the value that the output equals, or None (does not apply)."""

    def rule(self, *names: str) -> Callable[[Rule], Rule]:
        """Register a function for some operations."""

        def register(function: Rule) -> Rule:
            self.update(dict.fromkeys(names, function))
            return function

        return register


def node(operation: Operation, form: Form, name: str, *args: Any, **keywords: Any) -> Node:
    """A node that gives the operation's outputs."""
    shaped = next((arg for arg in args if isinstance(arg, Value | Literal)), None)
    shapes = tuple(shaped.tensor.shape) if shaped is not None else ()
    return Node(form, name, args, keywords, operation.outputs, operation.location, shapes)


def argument(operation: Operation, name: str, position: int, default: Any = None) -> Any:
    """An argument given by name or by position."""
    if name in operation.kwargs:
        return operation.kwargs[name]
    return operation.args[position] if len(operation.args) > position else default


def numbers(operation: Operation, name: str) -> tuple[Any, ...]:
    """The integers of `view(2, 3)`, of `view((2, 3))` and of `view(size=(2, 3))`."""
    rest = operation.args[1:] or (operation.kwargs.get(name, ()),)
    return tuple(rest[0]) if len(rest) == 1 and isinstance(rest[0], tuple | list) else tuple(rest)


def is_tensor(arg: Any) -> bool:
    """Whether an argument is a tensor of the record."""
    return isinstance(arg, Value | Attribute | Literal)


def shape_of(arg: Any) -> tuple[int, ...] | None:
    """The shape of a tensor of the record."""
    if isinstance(arg, Attribute):
        return arg.shape
    return tuple(arg.tensor.shape) if isinstance(arg, Value | Literal) else None


def dtype_of(arg: Any) -> torch.dtype | None:
    """The data type of a value or a constant."""
    return arg.tensor.dtype if isinstance(arg, Value | Literal) else None


def unchanged(operation: Operation) -> Value | None:
    """The first argument, if the output has its type, shape and content."""
    source, target = operation.args[0], operation.outputs[0].tensor
    if not isinstance(source, Value) or source.tensor.dtype != target.dtype or source.tensor.shape != target.shape:
        return None
    return source if torch.equal(source.tensor.nan_to_num(), target.nan_to_num()) else None
