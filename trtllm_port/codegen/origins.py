"""How Hugging Face's classes compute sizes: the arithmetic that stands in the source of their `__init__`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

from torch import nn

from trtllm_port.codegen.expressions import CONDITION, Expression, Values, all_close

_PLAIN = (ast.Call, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Constant, ast.Attribute, ast.Name, ast.Load)
_NAMES = {"self", "config", "int"}


@cache
def sums(kind: Any) -> tuple[dict[str, str], tuple[str, ...]]:
    """Attribute → the arithmetic over `config` and other attributes that it is set to; and all such arithmetic."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind.__init__)))
    except (OSError, TypeError, SyntaxError):
        return {}, ()
    nodes = list(ast.walk(tree))
    assigned = [(target, node.value) for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    attributes = {
        target.attr: ast.unparse(value)
        for target, value in assigned
        if isinstance(target, ast.Attribute) and _is_arithmetic(value)
    }
    every = {ast.unparse(node) for node in nodes if isinstance(node, ast.expr) and _is_arithmetic(node)}
    return attributes, tuple(sorted(every, key=lambda text: (len(text), text)))


def in_source(
    name: str | None, modules: Sequence[nn.Module], configs: Sequence[Mapping[str, Any]], values: Values
) -> Expression | None:
    """The expression of Hugging Face's class for an attribute, or without a name any, that gives these values."""
    kind: Any = type(modules[0])
    attributes, every = sums(kind)
    own = [attributes[name]] if name in attributes else []
    for text in [*own, *(text for text in every if f"self.{name}" not in text)]:
        if text != f"self.{name}" and _gives(text, modules, configs, values):
            return Expression(text, values, CONDITION, 3)
    return None


def _gives(text: str, modules: Sequence[nn.Module], configs: Sequence[Mapping[str, Any]], values: Values) -> bool:
    try:
        results = tuple(
            eval(text, {"__builtins__": {"int": int}}, {"self": module, "config": SimpleNamespace(**config)})
            for module, config in zip(modules, configs, strict=True)
        )
        return all_close(results, values)
    except (ArithmeticError, AttributeError, TypeError):
        return False


def _is_arithmetic(node: ast.expr) -> bool:
    parts = list(ast.walk(node))
    called = [part.func for part in parts if isinstance(part, ast.Call)]
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    plain = all(isinstance(part, _PLAIN) for part in parts) and all(isinstance(one, ast.Name) for one in called)
    return plain and bool(names - {"int"}) and names <= _NAMES and not isinstance(node, ast.Name)
