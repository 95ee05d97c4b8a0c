"""Activation functions, in the operand's data type."""

from __future__ import annotations

from trtllm_port.layers.definition.dtypes import FLOAT_DTYPES
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.operands import require
from trtllm_port.layers.operations.elementwise import mul
from trtllm_port.layers.operations.unary import cast, neg


def _activation(operation: str, trt_operation: str, x: Tensor, **parameters: float) -> Tensor:
    require(x, FLOAT_DTYPES, operation)
    network = x.network
    layer = network.definition.add_activation(x.itensor, getattr(network.trt.ActivationType, trt_operation))
    for name, value in parameters.items():
        setattr(layer, name, value)
    return network.add(operation, layer)


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return _activation("relu", "RELU", x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return _activation("sigmoid", "SIGMOID", x)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return _activation("tanh", "TANH", x)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x); in half precision computed in float32 and rounded once, as torch does."""
    wide = cast(x, "float32")
    return cast(mul(wide, sigmoid(wide)), x.dtype)


def gelu(x: Tensor) -> Tensor:
    """x * (1 + erf(x / sqrt 2)) / 2, torch's gelu(approximate="none")."""
    return _activation("gelu", "GELU_ERF", x)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation: torch's gelu(approximate="tanh"), HF's "gelu_new" and "gelu_pytorch_tanh"."""
    return _activation("gelu_tanh", "GELU_TANH", x)


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), HF's "quick_gelu"."""
    return mul(x, sigmoid(mul(x, 1.702)))


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0) squared, HF's "relu2"."""
    positive = relu(x)
    return mul(positive, positive)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return _activation("softplus", "SOFTPLUS", x, alpha=1.0, beta=1.0)


def log_sigmoid(x: Tensor) -> Tensor:
    """log(sigmoid(x))."""
    return neg(softplus(neg(x)))


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where positive, else negative_slope * x."""
    return _activation("leaky_relu", "LEAKY_RELU", x, alpha=negative_slope)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where positive, else alpha * (exp(x) - 1)."""
    return _activation("elu", "ELU", x, alpha=alpha)
