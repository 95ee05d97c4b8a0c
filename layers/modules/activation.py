"""Activation functions by HF's names."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from trtllm_port.errors import ConfigError
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.modules.module import Module
from trtllm_port.layers.operations.activation import (
    gelu,
    gelu_tanh,
    leaky_relu,
    quick_gelu,
    relu,
    relu_squared,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from trtllm_port.layers.operations.elementwise import clip
from trtllm_port.layers.operations.unary import erf


def _laplace(x: Tensor) -> Tensor:
    return (erf((x - 0.707107) / (0.282095 * sqrt(2.0))) + 1.0) * 0.5


class _Functions(dict[str, Callable[[Tensor], Tensor]]):
    """Functions by name; ConfigError, which lists the known names, for any other."""

    def __missing__(self, name: str) -> Callable[[Tensor], Tensor]:
        raise ConfigError(f"activation `{name}` is not supported", hint=f"one of {', '.join(self)}")


#: Name in HF's config → function; the names and formulas are those of `transformers.activations.ACT2FN`.
ACT2FN = _Functions(
    {
        "gelu": gelu,
        "gelu_10": lambda x: clip(gelu(x), -10.0, 10.0),
        "gelu_accurate": gelu_tanh,
        "gelu_fast": gelu_tanh,
        "gelu_new": gelu_tanh,
        "gelu_python": gelu,
        "gelu_python_tanh": gelu_tanh,
        "gelu_pytorch_tanh": gelu_tanh,
        "laplace": _laplace,
        "leaky_relu": leaky_relu,
        "linear": lambda x: x,
        "mish": lambda x: x * tanh(softplus(x)),
        "quick_gelu": quick_gelu,
        "relu": relu,
        "relu2": relu_squared,
        "relu6": lambda x: clip(x, 0.0, 6.0),
        "sigmoid": sigmoid,
        "silu": silu,
        "swish": silu,
        "tanh": tanh,
    }
)


class Activation(Module):
    """An activation function as a module, chosen as by `ACT2FN`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = ACT2FN[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
