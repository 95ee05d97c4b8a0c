"""Elementwise functions of two and three tensors. Scalars and parameters are accepted beside at least one tensor."""

from __future__ import annotations

from trtllm_port.layers.definition.dtypes import FLOAT_DTYPES
from trtllm_port.layers.definition.network import Operand, Tensor
from trtllm_port.layers.definition.operands import network_of, promote, require
from trtllm_port.layers.definition.tensor_methods import Scalar


def _binary(operation: str, trt_operation: str, a: Operand, b: Operand) -> Tensor:
    network, (x, y) = promote(operation, a, b)
    kind = getattr(network.trt.ElementWiseOperation, trt_operation)
    return network.add(operation, network.definition.add_elementwise(x.itensor, y.itensor, kind))


def add(a: Operand, b: Operand) -> Tensor:
    """a + b."""
    return _binary("add", "SUM", a, b)


def sub(a: Operand, b: Operand) -> Tensor:
    """a - b."""
    return _binary("sub", "SUB", a, b)


def mul(a: Operand, b: Operand) -> Tensor:
    """a * b."""
    return _binary("mul", "PROD", a, b)


def div(a: Operand, b: Operand) -> Tensor:
    """a / b of floating-point tensors; integers are cast by hand first, as TensorRT would truncate."""
    for operand in (a, b):
        if isinstance(operand, Tensor):
            require(operand, FLOAT_DTYPES, "div")
    return _binary("div", "DIV", a, b)


def floordiv(a: Operand, b: Operand) -> Tensor:
    """The floor of a / b."""
    return _binary("floordiv", "FLOOR_DIV", a, b)


def remainder(a: Operand, b: Operand) -> Tensor:
    """a - floor(a / b) * b: the sign is the divisor's, as in Python and torch."""
    return sub(a, mul(floordiv(a, b), b))


def pow(a: Operand, b: Operand) -> Tensor:
    """a ** b of floating-point tensors. The square is a product, as in torch: powers of negative bases are delicate."""
    if isinstance(a, Tensor) and not isinstance(b, Tensor) and b == 2:
        return mul(a, a)
    return _binary("pow", "POW", a, b)


def maximum(a: Operand, b: Operand) -> Tensor:
    """The greater of both."""
    return _binary("maximum", "MAX", a, b)


def minimum(a: Operand, b: Operand) -> Tensor:
    """The smaller of both."""
    return _binary("minimum", "MIN", a, b)


def eq(a: Operand, b: Operand) -> Tensor:
    """a == b, as bool."""
    return _binary("eq", "EQUAL", a, b)


def gt(a: Operand, b: Operand) -> Tensor:
    """a > b, as bool."""
    return _binary("gt", "GREATER", a, b)


def lt(a: Operand, b: Operand) -> Tensor:
    """a < b, as bool."""
    return _binary("lt", "LESS", a, b)


def ne(a: Operand, b: Operand) -> Tensor:
    """a != b, as bool."""
    return op_not(eq(a, b))


def ge(a: Operand, b: Operand) -> Tensor:
    """a >= b, as bool. False where one of them is NaN, hence not written as "not less" for floats."""
    if network_dtype(a, b) in FLOAT_DTYPES:
        return op_or(gt(a, b), eq(a, b))
    return op_not(lt(a, b))


def le(a: Operand, b: Operand) -> Tensor:
    """a <= b, as bool; see `ge`."""
    return ge(b, a)


def network_dtype(*operands: Operand) -> str:
    """The data type of the first tensor among the operands."""
    network_of(*operands)
    return next(operand.dtype for operand in operands if isinstance(operand, Tensor))


def op_and(a: Operand, b: Operand) -> Tensor:
    """a & b of bool tensors."""
    return _logical("and", "AND", a, b)


def op_or(a: Operand, b: Operand) -> Tensor:
    """a | b of bool tensors."""
    return _logical("or", "OR", a, b)


def op_xor(a: Operand, b: Operand) -> Tensor:
    """a ^ b of bool tensors."""
    return _logical("xor", "XOR", a, b)


def _logical(operation: str, trt_operation: str, a: Operand, b: Operand) -> Tensor:
    for operand in (a, b):
        if isinstance(operand, Tensor):
            require(operand, ("bool",), operation)
    return _binary(operation, trt_operation, a, b)


def op_not(x: Tensor) -> Tensor:
    """The negation of a bool tensor."""
    require(x, ("bool",), "not")
    network = x.network
    return network.add("not", network.definition.add_unary(x.itensor, network.trt.UnaryOperation.NOT))


logical_and, logical_or, logical_xor, logical_not = op_and, op_or, op_xor, op_not


def where(condition: Tensor, a: Operand, b: Operand) -> Tensor:
    """a where the bool condition holds, else b; all three broadcast."""
    require(condition, ("bool",), "where")
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        network = condition.network
        dtype = next((p.dtype or network.dtype for p in (a, b) if hasattr(p, "dtype")), network.dtype)
        a = network.operand(a, dtype, condition.ndim)
    network, (x, y) = promote("where", a, b)
    ndim = max(condition.ndim, x.ndim)
    operands = [network.operand(t, t.dtype, ndim).itensor for t in (condition, x, y)]
    return network.add("where", network.definition.add_select(*operands))


def clip(x: Tensor, minimum_value: Scalar | None = None, maximum_value: Scalar | None = None) -> Tensor:
    """x limited to [minimum_value, maximum_value]; None leaves that side open."""
    if minimum_value is not None:
        x = maximum(x, minimum_value)
    return x if maximum_value is None else minimum(x, maximum_value)
