"""Rules for operations element by element, and for casts."""

from __future__ import annotations

from typing import Any

import torch

from trtllm_port.codegen.ir.dtypes import DTYPES
from trtllm_port.codegen.ir.operation_names import CASTS
from trtllm_port.codegen.ir.record import Operation, Value
from trtllm_port.codegen.rules.base import Result, RuleTable, argument, is_tensor, node, unchanged
from trtllm_port.foundation.words import words

ELEMENTWISE = RuleTable()
BINARY = {
    **dict.fromkeys(("add",), "+"),
    **dict.fromkeys(("sub", "subtract"), "-"),
    **dict.fromkeys(("mul", "multiply"), "*"),
    **dict.fromkeys(("div", "truediv", "true_divide", "divide"), "/"),
    **dict.fromkeys(("floordiv", "floor_divide"), "//"),
    **dict.fromkeys(("mod", "remainder"), "%"),
    **dict.fromkeys(("matmul", "bmm"), "@"),
    "pow": "**",
    **dict.fromkeys(("and", "bitwise_and", "logical_and"), "&"),
    **dict.fromkeys(("or", "bitwise_or", "logical_or"), "|"),
    **dict.fromkeys(("eq",), "=="),
    **dict.fromkeys(("ne", "not_equal"), "!="),
    **dict.fromkeys(("lt", "less"), "<"),
    **dict.fromkeys(("le", "less_equal"), "<="),
    **dict.fromkeys(("gt", "greater"), ">"),
    **dict.fromkeys(("ge", "greater_equal"), ">="),
}
METHODS = frozenset(("exp", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid", "abs"))  # of `layers.Tensor`
FUNCTIONS = words("expm1 log log1p erf floor ceil round reciprocal relu silu softplus log_sigmoid")
IDENTITIES = ("contiguous", "clone", "detach", "dropout", "alias", "data", "cpu", "nan_to_num")


@ELEMENTWISE.rule(*BINARY)
def _binary(operation: Operation) -> Result:
    if len(operation.args) != 2 or operation.kwargs.get("alpha", 1) != 1 or operation.kwargs.get("rounding_mode"):
        return None
    left, right = operation.args
    symbol = BINARY[operation.name]
    if symbol in "+-" and not is_tensor(right) and right == 0:
        return unchanged(operation)
    return node(operation, "operator", symbol, left, right)


@ELEMENTWISE.rule("neg", "negative")
def _minus(operation: Operation) -> Result:
    return node(operation, "operator", "-", operation.args[0])


@ELEMENTWISE.rule("invert", "bitwise_not", "logical_not")
def _not(operation: Operation) -> Result:
    return node(operation, "operator", "~", operation.args[0])


@ELEMENTWISE.rule("square")
def _square(operation: Operation) -> Result:
    return node(operation, "operator", "**", operation.args[0], 2)


@ELEMENTWISE.rule(*METHODS)
def _method(operation: Operation) -> Result:
    return node(operation, "method", operation.name, operation.args[0])


@ELEMENTWISE.rule(*FUNCTIONS)
def _function(operation: Operation) -> Result:
    options = {key: value for key, value in operation.kwargs.items() if key != "inplace" or value}
    return (
        None if options or len(operation.args) > 1 else node(operation, "function", operation.name, operation.args[0])
    )


@ELEMENTWISE.rule("gelu")
def _gelu(operation: Operation) -> Result:
    approximate = argument(operation, "approximate", 1, "none")
    return node(operation, "function", "gelu_tanh" if approximate == "tanh" else "gelu", operation.args[0])


@ELEMENTWISE.rule("clamp", "clip", "clamp_min", "clamp_max")
def _clip(operation: Operation) -> Result:
    low, high = argument(operation, "min", 1), argument(operation, "max", 2)
    if operation.name == "clamp_max":
        low, high = None, argument(operation, "max", 1)
    if is_tensor(low) and high is None:
        return node(operation, "function", "maximum", operation.args[0], low)
    if is_tensor(high) and low is None:
        return node(operation, "function", "minimum", operation.args[0], high)
    bounded = is_tensor(low) or is_tensor(high)
    return None if bounded else node(operation, "function", "clip", operation.args[0], low, high)


@ELEMENTWISE.rule("maximum", "minimum")
def _extremum(operation: Operation) -> Result:
    return node(operation, "function", operation.name, *operation.args)


@ELEMENTWISE.rule("where")
def _where(operation: Operation) -> Result:
    return node(operation, "function", "where", *operation.args) if len(operation.args) == 3 else None


@ELEMENTWISE.rule("masked_fill")
def _masked_fill(operation: Operation) -> Result:
    value = argument(operation, "value", 2)
    return node(operation, "function", "where", argument(operation, "mask", 1), value, operation.args[0])


@ELEMENTWISE.rule(*sorted(CASTS))
def _cast(operation: Operation) -> Result:
    source: Any = operation.args[0]
    target: torch.dtype = operation.outputs[0].tensor.dtype
    if isinstance(source, Value) and source.tensor.dtype == target:
        return source
    return node(operation, "cast", DTYPES[target], source) if target in DTYPES else None


@ELEMENTWISE.rule(*IDENTITIES)
def _identity(operation: Operation) -> Result:
    return unchanged(operation)
