"""How Hugging Face's classes compute the numbers that they keep: the arithmetic that made them of the config's keys.

An expression that merely fits the traced configurations may be right for no other. Arithmetic that was watched while
the model was made holds wherever the same is computed; it tells which of the expressions that fit are the same as it.
"""

from __future__ import annotations

import ast
import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, SimpleNamespace
from typing import Any

from torch import nn

from trtllm_port.codegen.ir.expressions import CONDITION, MISSING, Expression, Values, all_close
from trtllm_port.codegen.ir.nodes import Instance

Origins = Mapping[str, ast.expr]
_COST = 3  # of HF's own arithmetic: as an expression that needs no help
_ROUNDS = 3  # of random values: expressions that agree in all of them are the same
_FUNCTIONS: dict[str, Callable[..., float]] = {
    **{name: getattr(math, name) for name in ("exp", "log", "log2", "sqrt")},
    **dict.fromkeys(("int", "float", "round", "ceil", "floor"), float),  # sizes divide evenly
    **{"abs": abs, "max": max, "min": min},
}
_OPERATORS: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a / b,  # as above
    ast.Pow: lambda a, b: a**b,
}


def origins_of(instances: Sequence[Instance]) -> list[Origins]:
    """For each instance, the arithmetic that made the numbers which Hugging Face's module keeps, by name."""
    return [instance.trace.origins.get(instance.block.module, {}) for instance in instances]


def from_source(name: str, instances: Sequence[Instance], values: Values, own: Origins) -> Expression | None:
    """Hugging Face's arithmetic for an attribute, if it is the same in all instances that have it.

    Args:
        values: of the attribute in each instance.
        own: attributes that the port sets before it: they are named where their arithmetic occurs.
    """
    found = [
        table.get(name) for table, value in zip(origins_of(instances), values, strict=True) if value is not MISSING
    ]
    if None in found or len({ast.dump(one) for one in found if one is not None}) != 1:
        return None
    assert found[0] is not None  # checked above
    return _written(found[0], instances, values, own)


def of_any_size(instances: Sequence[Instance], values: Values) -> Expression | None:
    """Hugging Face's arithmetic for any number that a module or one right below it keeps, which gives these values."""
    for path, _ in instances[0].block.module.named_modules():
        if path.count(".") > 1:
            continue
        tables = [_below(instance, path) for instance in instances]
        for name, origin in tables[0].items():
            alike = all(name in table and ast.dump(table[name]) == ast.dump(origin) for table in tables)
            found = _written(origin, instances, values, {}) if alike and not isinstance(origin, ast.Name) else None
            if found is not None:
                return found
    return None


def _below(instance: Instance, path: str) -> Origins:
    try:
        module: nn.Module = instance.block.module.get_submodule(path)
    except AttributeError:  # it has nothing there
        return {}
    return instance.trace.origins.get(module, {})


def _written(origin: ast.expr, instances: Sequence[Instance], values: Values, own: Origins) -> Expression | None:
    """Arithmetic as an expression, if it is over the port's config and gives these values."""
    code = compile(ast.fix_missing_locations(ast.Expression(copy.deepcopy(origin))), "origin", "eval")
    try:
        for instance, value in zip(instances, values, strict=True):
            if value is not MISSING and not all_close((_evaluate(code, instance),), (value,)):
                return None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None
    text = ast.unparse(_Tidied(own).visit(copy.deepcopy(origin)))
    return Expression(text, values, CONDITION, _COST)


def _evaluate(code: CodeType, instance: Instance) -> Any:
    names = {"layer_idx": instance.layer_idx, "math": math, "config": SimpleNamespace(**instance.trace.sample.values)}
    functions = {"abs": abs, "float": float, "int": int, "max": max, "min": min, "round": round}
    return eval(code, {"__builtins__": functions}, names)


class _Tidied(ast.NodeTransformer):
    """Arithmetic as somebody would write it: `x * s * s` as `x * s**2`, what has a name by its name.

    Args:
        own: attributes of the port that are set already, with their arithmetic.
    """

    def __init__(self, own: Origins) -> None:
        self.names = {ast.dump(origin): name for name, origin in own.items() if not isinstance(origin, ast.Name)}

    def visit(self, node: ast.AST) -> Any:
        name = self.names.get(ast.dump(node))
        if name is not None:
            return ast.Attribute(ast.Name("self", ast.Load()), name, ast.Load())
        return super().visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        left, right = node.left, node.right
        if isinstance(node.op, ast.Pow) and isinstance(right, ast.UnaryOp) and isinstance(right.operand, ast.Constant):
            assert isinstance(right.operand.value, int | float)  # only numbers are in arithmetic
            node.right = ast.Constant(-right.operand.value)
        plain = isinstance(right, ast.Constant | ast.Name | ast.Attribute)
        twice = isinstance(node.op, ast.Mult) and isinstance(left, ast.BinOp) and isinstance(left.op, ast.Mult)
        if twice and not plain and isinstance(left, ast.BinOp) and ast.dump(left.right) == ast.dump(right):
            return ast.BinOp(left.left, ast.Mult(), ast.BinOp(right, ast.Pow(), ast.Constant(2)))
        return node


def same_arithmetic(text: str, origin: ast.expr, attributes: Origins) -> bool | None:
    """Whether an expression of the port computes what some arithmetic does, whatever the keys are; None if unknown.

    Sizes are taken to divide evenly, as they do wherever a model can be made.

    Args:
        attributes: arithmetic of attributes that the text may mention, by name.
    """
    draw = random.Random(text)
    try:
        for _ in range(_ROUNDS):
            values: dict[str, float] = {}
            ours = _value(ast.parse(text, mode="eval").body, values, draw, attributes)
            theirs = _value(origin, values, draw, attributes)
            if not math.isclose(ours, theirs, rel_tol=1e-9):
                return False
    except ArithmeticError:
        return False
    except _UnknownError:
        return None
    return True


class _UnknownError(Exception):
    """Something in an expression is no arithmetic."""


def _value(node: ast.expr, values: dict[str, float], draw: random.Random, attributes: Origins) -> float:
    """The value of an expression for random values of the keys in it, which are drawn when they are met."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]  # checked
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        sides = (_value(side, values, draw, attributes) for side in (node.left, node.right))
        result = _OPERATORS[type(node.op)](*sides)
        if isinstance(result, complex):
            raise _UnknownError
        return result
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, values, draw, attributes)
    if isinstance(node, ast.Call) and (name := ast.unparse(node.func).removeprefix("math.")) in _FUNCTIONS:
        return _FUNCTIONS[name](*(_value(argument, values, draw, attributes) for argument in node.args))
    text = ast.unparse(node)
    if text.startswith("self.") and (own := attributes.get(text.removeprefix("self."))) is not None:
        return _value(own, values, draw, attributes)
    if isinstance(node, ast.Attribute | ast.Subscript | ast.Name) and text.startswith(("config.", "layer_idx")):
        return values.setdefault(text, draw.uniform(1.5, 9.5))
    raise _UnknownError
