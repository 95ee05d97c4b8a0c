"""Normalization layers over the last dimension, with the precision of torch and of HF."""

from __future__ import annotations

from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.parameter import Parameter
from trtllm_port.layers.modules.module import Module
from trtllm_port.layers.operations.normalization import layer_norm, rms_norm


class LayerNorm(Module):
    """torch.nn.LayerNorm."""

    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True, elementwise_affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = Parameter((size,)) if elementwise_affine else None
        self.bias = Parameter((size,)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps)


class RmsNorm(Module):
    """x / sqrt(mean(x²) + eps) * weight; computed in float32, as HF does.

    Args:
        size: the last dimension.
        eps: added to the mean of squares.
        offset: 0.0: the result is cast back before it is multiplied by the weight, as in Llama. Other values are added
            to the weight, and the product is formed in float32 and then cast back, as in Gemma (offset 1.0).

    A residual stream in float32 stays so: the weight is cast, as torch does.
    """

    def __init__(self, size: int, eps: float = 1e-6, offset: float = 0.0) -> None:
        super().__init__()
        self.eps = eps
        self.offset = offset
        self.weight = Parameter((size,))

    def forward(self, x: Tensor) -> Tensor:
        if not self.offset:
            return x.network.parameter(self.weight, x.ndim).to(x.dtype) * rms_norm(x, None, self.eps)
        gain = x.network.parameter(self.weight, x.ndim).float() + self.offset
        return (rms_norm(x.float(), None, self.eps) * gain).to(x.dtype)
