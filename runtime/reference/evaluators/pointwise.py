"""ELEMENTWISE, UNARY, ACTIVATION, CAST, IDENTITY, SELECT: one output element from the input elements at its place.

Formulas are those of `trt.ElementWiseOperation`, `trt.UnaryOperation` and `trt.ActivationType`. Inputs have one dtype
(strong typing) and one rank; axes of size 1 broadcast.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trtllm_port.runtime.reference.evaluators.layer import Evaluator, Layer

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "EXP": torch.exp,
    "LOG": torch.log,
    "SQRT": torch.sqrt,
    "RECIP": torch.reciprocal,
    "ABS": torch.abs,
    "NEG": torch.neg,
    "SIN": torch.sin,
    "COS": torch.cos,
    "TAN": torch.tan,
    "SINH": torch.sinh,
    "COSH": torch.cosh,
    "ASIN": torch.asin,
    "ACOS": torch.acos,
    "ATAN": torch.atan,
    "ASINH": torch.asinh,
    "ACOSH": torch.acosh,
    "ATANH": torch.atanh,
    "CEIL": torch.ceil,
    "FLOOR": torch.floor,
    "ERF": torch.erf,
    "NOT": torch.logical_not,
    "SIGN": torch.sign,
    "ROUND": torch.round,  # to nearest even
    "ISINF": torch.isinf,
    "ISNAN": torch.isnan,
}


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _floor_divide(a: Tensor, b: Tensor) -> Tensor:
    return torch.floor(a / b) if a.is_floating_point() else torch.div(a, b, rounding_mode="floor")


ELEMENTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SUM": torch.add,
    "PROD": torch.mul,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "SUB": torch.sub,
    "DIV": _divide,
    "POW": torch.pow,
    "FLOOR_DIV": _floor_divide,
    "AND": torch.logical_and,
    "OR": torch.logical_or,
    "XOR": torch.logical_xor,
    "EQUAL": torch.eq,
    "GREATER": torch.gt,
    "LESS": torch.lt,
}


def _selu(x: Tensor, alpha: float, beta: float) -> Tensor:
    return beta * torch.where(x > 0, x, alpha * torch.expm1(x))


def _softplus(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.logaddexp(beta * x, torch.zeros((), dtype=x.dtype, device=x.device))


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(beta * x)


# Activations of one torch function, which rounds once, and those that are computed in float32 to round once as well.
ACTIVATIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "RELU": lambda x, alpha, beta: torch.relu(x),
    "SIGMOID": lambda x, alpha, beta: torch.sigmoid(x),
    "TANH": lambda x, alpha, beta: torch.tanh(x),
    "LEAKY_RELU": lambda x, alpha, beta: F.leaky_relu(x, alpha),
    "ELU": lambda x, alpha, beta: F.elu(x, alpha),
    "SOFTSIGN": lambda x, alpha, beta: F.softsign(x),
    "CLIP": lambda x, alpha, beta: x.clamp(max=beta).clamp(min=alpha),
    "THRESHOLDED_RELU": lambda x, alpha, beta: F.threshold(x, alpha, 0.0),
    "GELU_ERF": lambda x, alpha, beta: F.gelu(x),
    "GELU_TANH": lambda x, alpha, beta: F.gelu(x, approximate="tanh"),
}
FORMULAS = {"SELU": _selu, "SOFTPLUS": _softplus, "HARD_SIGMOID": _hard_sigmoid, "SCALED_TANH": _scaled_tanh}
PARAMETERLESS = {"RELU": torch.relu, "SIGMOID": torch.sigmoid, "TANH": torch.tanh}  # called often: no wrapper


def elementwise(layer: Layer) -> Evaluator:
    """`op(a, b)`."""
    evaluator: Evaluator = layer.choose("op", ELEMENTWISE)
    return evaluator


def unary(layer: Layer) -> Evaluator:
    """`op(a)`."""
    evaluator: Evaluator = layer.choose("op", UNARY)
    return evaluator


def activation(layer: Layer) -> Evaluator:
    """`type(x)` with the layer's alpha and beta."""
    kind, alpha, beta = layer["type"], layer["alpha"], layer["beta"]
    if kind in PARAMETERLESS:
        return PARAMETERLESS[kind]
    if kind in FORMULAS:
        formula = FORMULAS[kind]
        return lambda x: formula(x.float(), alpha, beta).to(x.dtype)
    function = layer.choose("type", ACTIVATIONS)
    return lambda x: function(x, alpha, beta)


def cast(layer: Layer) -> Evaluator:
    """Conversion by value: to integers towards zero, to bool by "is not zero".

    Not to float8 and 4-bit types: TensorRT takes those from a quantization only, and documents no rounding.
    """
    name = layer["to_type"]
    if name in ("float8_e4m3fn", "float8_e8m0fnu", "float4_e2m1fn", "int4"):
        layer.refuse(f"to_type {name}")
    dtype = layer.dtype(name)
    if dtype == torch.bool:
        return lambda x: x != 0
    return lambda x: x.to(dtype)


def identity(layer: Layer) -> Evaluator:
    """The input; converted where the output has another dtype."""
    name = layer.output().dtype
    if name == layer.input(0).dtype:
        return lambda x: x
    dtype = layer.dtype(name)
    return lambda x: x.to(dtype)


def select(layer: Layer) -> Evaluator:
    """Elements of the second input where the first is True, else of the third."""
    return torch.where
