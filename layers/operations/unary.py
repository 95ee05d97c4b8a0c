"""Elementwise functions of one tensor, and the cast."""

from __future__ import annotations

from trtllm_port.layers.definition.dtypes import FLOAT_DTYPES, trt_dtype
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.operands import require


def cast(x: Tensor, dtype: str) -> Tensor:
    """x in another data type; no layer when it has it already."""
    if x.dtype == dtype:
        return x
    return x.network.add("cast", x.network.definition.add_cast(x.itensor, trt_dtype(x.network.trt, dtype)))


def _unary(operation: str, trt_operation: str, x: Tensor) -> Tensor:
    network = x.network
    if operation not in ("abs", "neg"):
        require(x, FLOAT_DTYPES, operation)
    kind = getattr(network.trt.UnaryOperation, trt_operation)
    return network.add(operation, network.definition.add_unary(x.itensor, kind))


def exp(x: Tensor) -> Tensor:
    """e ** x."""
    return _unary("exp", "EXP", x)


def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, near zero as exact as elsewhere: 2 t / (1 - t) of t = tanh(x / 2) up to 1; in float32, as torch."""
    network, wide = x.network, cast(x, "float32")
    tanh = network.definition.add_activation((wide * 0.5).itensor, network.trt.ActivationType.TANH)
    half = network.add("tanh", tanh)
    near_zero, far = half * 2.0 / (1.0 - half), exp(wide) - 1.0
    picked = network.definition.add_select((wide > 1.0).itensor, far.itensor, near_zero.itensor)
    return cast(network.add("expm1", picked), x.dtype)


def log(x: Tensor) -> Tensor:
    """The natural logarithm."""
    return _unary("log", "LOG", x)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), near zero as exact as elsewhere: made up for what 1 + x rounds off; in float32, as torch."""
    network, wide = x.network, cast(x, "float32")
    moved = wide + 1.0
    kept = moved - 1.0
    near_zero, far = network.operand(1.0, "float32", x.ndim), wide / kept
    scale = network.definition.add_select((kept == 0.0).itensor, near_zero.itensor, far.itensor)
    return cast(log(moved) * network.add("log1p", scale), x.dtype)


def sqrt(x: Tensor) -> Tensor:
    """The square root."""
    return _unary("sqrt", "SQRT", x)


def reciprocal(x: Tensor) -> Tensor:
    """1 / x."""
    return _unary("reciprocal", "RECIP", x)


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x): TensorRT has no such operation, the compiler fuses the two."""
    return reciprocal(sqrt(x))


def sin(x: Tensor) -> Tensor:
    """The sine of x in radians."""
    return _unary("sin", "SIN", x)


def cos(x: Tensor) -> Tensor:
    """The cosine of x in radians."""
    return _unary("cos", "COS", x)


def abs(x: Tensor) -> Tensor:
    """The absolute value."""
    return _unary("abs", "ABS", x)


def neg(x: Tensor) -> Tensor:
    """-x."""
    return _unary("neg", "NEG", x)


def round(x: Tensor) -> Tensor:
    """The nearest integer, halves to the even one, as in torch."""
    return _unary("round", "ROUND", x)


def floor(x: Tensor) -> Tensor:
    """The greatest integer not above x."""
    return _unary("floor", "FLOOR", x)


def ceil(x: Tensor) -> Tensor:
    """The smallest integer not below x."""
    return _unary("ceil", "CEIL", x)


def erf(x: Tensor) -> Tensor:
    """The Gauss error function."""
    return _unary("erf", "ERF", x)
