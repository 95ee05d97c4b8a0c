"""The operators and methods of `Tensor`: which function each of them is.

Tensors know their network and functions know tensors, so it is from here that the functions come to the class. The
signatures are declared in `layers/definition/tensor_methods.py`: who adds a method adds it in both places.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from trtllm_port.layers.definition.network import Operand, Tensor
from trtllm_port.layers.operations import (
    activation,
    elementwise,
    normalization,
    product,
    reduction,
    shaping,
    slicing,
    unary,
)

Method = Callable[..., Any]


def _reflected(function: Method) -> Method:
    """The operator of the tensor on the right."""
    return lambda x, other: function(other, x)


def _listed(function: Method) -> Method:
    """The method that takes one by one what the function takes as a sequence."""
    return lambda x, *dims: function(x, dims)


def _float(x: Tensor) -> Tensor:
    return unary.cast(x, "float32")


def _softmax(x: Tensor, dim: int, dtype: str | None = None) -> Tensor:
    return normalization.softmax(x, dim, dtype)


def _pow(x: Tensor, exponent: Operand) -> Tensor:
    return elementwise.pow(x, exponent)


METHODS: dict[str, Method] = {
    "__add__": elementwise.add,
    "__radd__": _reflected(elementwise.add),
    "__sub__": elementwise.sub,
    "__rsub__": _reflected(elementwise.sub),
    "__mul__": elementwise.mul,
    "__rmul__": _reflected(elementwise.mul),
    "__truediv__": elementwise.div,
    "__rtruediv__": _reflected(elementwise.div),
    "__floordiv__": elementwise.floordiv,
    "__mod__": elementwise.remainder,
    "__pow__": elementwise.pow,
    "__rpow__": _reflected(elementwise.pow),
    "__matmul__": product.matmul,
    "__rmatmul__": _reflected(product.matmul),
    "__neg__": unary.neg,
    "__eq__": elementwise.eq,
    "__ne__": elementwise.ne,
    "__lt__": elementwise.lt,
    "__le__": elementwise.le,
    "__gt__": elementwise.gt,
    "__ge__": elementwise.ge,
    "__and__": elementwise.op_and,
    "__or__": elementwise.op_or,
    "__xor__": elementwise.op_xor,
    "__invert__": elementwise.op_not,
    "__getitem__": slicing.slice_index,
    "to": unary.cast,
    "float": _float,
    "view": _listed(shaping.view),
    "reshape": _listed(shaping.view),
    "flatten": shaping.flatten,
    "transpose": shaping.transpose,
    "permute": _listed(shaping.permute),
    "unsqueeze": shaping.unsqueeze,
    "squeeze": shaping.squeeze,
    "expand": _listed(shaping.expand),
    "repeat": _listed(shaping.repeat),
    "split": slicing.split,
    "chunk": slicing.chunk,
    "unbind": slicing.unbind,
    "sum": reduction.sum,
    "mean": reduction.mean,
    "max": reduction.max,
    "min": reduction.min,
    "softmax": _softmax,
    "pow": _pow,
    "exp": unary.exp,
    "sqrt": unary.sqrt,
    "rsqrt": unary.rsqrt,
    "sin": unary.sin,
    "cos": unary.cos,
    "tanh": activation.tanh,
    "sigmoid": activation.sigmoid,
    "abs": unary.abs,
}


def attach_methods() -> None:
    """Give `Tensor` its operators and methods."""
    for name, function in METHODS.items():
        setattr(Tensor, name, _named(name, function))


def _named(name: str, function: Any) -> FunctionType:
    """The function under the method's name, by which Python calls it when it refuses a call's arguments."""
    method = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    method.__qualname__ = f"{Tensor.__name__}.{name}"
    method.__doc__ = function.__doc__
    return method
