"""How Hugging Face's classes compute sizes: the arithmetic that stands in the source of their `__init__`."""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

from trtllm_port.codegen.ir.expressions import CONDITION, Expression, Values, all_close
from trtllm_port.codegen.ir.nodes import Instance

_PLAIN = (ast.Call, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Constant, ast.Attribute, ast.Name, ast.Load)
_NAMES = {"self", "config", "int", "layer_idx", "math"}


@cache
def arithmetic_of(kind: Any, config: str = "config") -> tuple[dict[str, str], tuple[str, ...]]:
    """Attribute → the arithmetic over `config` and other attributes that it is set to; and all such arithmetic.

    Args:
        kind: Hugging Face's class.
        config: how its `__init__` calls the config.
    """
    tree = _tree(kind.__init__)
    if tree is None:
        return {}, ()
    if config != "config":
        _Substitution({config: ast.Name("config", ast.Load())}).visit(tree)
    nodes = list(ast.walk(_Inliner(kind.__init__.__globals__).visit(tree)))
    assigned = [(target, node.value) for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    attributes = {
        target.attr: ast.unparse(value)
        for target, value in assigned
        if isinstance(target, ast.Attribute) and _is_arithmetic(value)
    }
    every = {ast.unparse(node) for node in nodes if isinstance(node, ast.expr) and _is_arithmetic(node)}
    return attributes, tuple(sorted(every, key=lambda text: (len(text), text)))


def _tree(function: Any) -> ast.Module | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None


class _Inliner(ast.NodeTransformer):
    """Writes out the calls of functions that return one expression of their arguments.

    Args:
        known: names of the modelling file.
    """

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known = known

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        function = self.known.get(node.func.id) if isinstance(node.func, ast.Name) else None
        tree = _tree(function) if inspect.isfunction(function) else None
        definition = tree.body[0] if tree is not None else None
        if not isinstance(definition, ast.FunctionDef) or node.keywords or len(definition.args.args) != len(node.args):
            return node
        *before, last = definition.body
        told = all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in before)  # a docstring
        if not told or not isinstance(last, ast.Return) or last.value is None:
            return node
        given = dict(zip((argument.arg for argument in definition.args.args), node.args, strict=True))
        written: ast.AST = _Substitution(given).visit(last.value)
        return written


class _Substitution(ast.NodeTransformer):
    """Puts arguments in the place of parameters."""

    def __init__(self, given: Mapping[str, ast.expr]) -> None:
        self.given = given

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self.given.get(node.id, node)


def from_source(name: str | None, instances: Sequence[Instance], values: Values) -> Expression | None:
    """The expression of Hugging Face's class for an attribute, or without a name any, that gives these values."""
    modules = [instance.block.module for instance in instances]
    kind: Any = type(modules[0])
    attributes, every = arithmetic_of(kind, instances[0].trace.config_names.get(kind, "config"))
    own = [attributes[name]] if name in attributes else []
    for text in [*own, *(text for text in every if f"self.{name}" not in text)]:
        if text != f"self.{name}" and _gives(text, instances, values):
            return Expression(text, values, CONDITION, 3)
    return None


def _gives(text: str, instances: Sequence[Instance], values: Values) -> bool:
    def result(instance: Instance) -> Any:
        names: dict[str, Any] = {"self": instance.block.module, "layer_idx": instance.layer_idx, "math": math}
        names["config"] = SimpleNamespace(**instance.trace.sample.values)
        return eval(text, {"__builtins__": {"int": int}}, names)

    try:
        return all_close(tuple(map(result, instances)), values)
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return False


def _is_arithmetic(node: ast.expr) -> bool:
    parts = list(ast.walk(node))
    called = [part.func for part in parts if isinstance(part, ast.Call)]
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    plain = all(isinstance(part, _PLAIN) for part in parts) and all(map(_is_known, called))
    return plain and bool(names - {"int", "math"}) and names <= _NAMES and not isinstance(node, ast.Name)


def _is_known(function: ast.expr) -> bool:
    """Whether a call is of `int` or of a function of `math`."""
    if isinstance(function, ast.Attribute):
        return isinstance(function.value, ast.Name) and function.value.id == "math"
    return isinstance(function, ast.Name) and function.id == "int"
