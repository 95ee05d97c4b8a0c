"""Softmax and normalizations."""

from __future__ import annotations

from trtllm_port.layers.definition.dtypes import FLOAT_DTYPES
from trtllm_port.layers.definition.network import Operand, Tensor
from trtllm_port.layers.definition.operands import axes_mask, require
from trtllm_port.layers.operations.elementwise import mul
from trtllm_port.layers.operations.reduction import mean
from trtllm_port.layers.operations.unary import cast, rsqrt


def softmax(x: Tensor, dim: int = -1, dtype: str | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along dim; dtype casts x first, as torch's softmax(dtype=...)."""
    x = x if dtype is None else cast(x, dtype)
    require(x, FLOAT_DTYPES, "softmax")
    layer = x.network.definition.add_softmax(x.itensor)
    layer.axes = axes_mask(x, dim)
    return x.network.add("softmax", layer)


def layer_norm(x: Tensor, weight: Operand | None, bias: Operand | None, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension.

    In half precision all of it is computed in float32 and rounded once, as torch does.

    Args:
        x: [*, size].
        weight, bias: [size], of x's data type; None leaves them out.
        eps: added to the variance (the mean of squares, not the unbiased one).
    """
    network = x.network
    size = (1,) * (x.ndim - 1) + (x.shape[-1],)
    operands = (1.0 if weight is None else weight, 0.0 if bias is None else bias)
    gain, shift = (cast(network.operand(value, x.dtype, x.ndim), "float32") for value in operands)
    gain, shift = (tensor if tensor.shape == size else tensor.expand(*size) for tensor in (gain, shift))
    wide = cast(x, "float32")
    layer = network.definition.add_normalization_v2(wide.itensor, gain.itensor, shift.itensor, axes_mask(x, -1))
    layer.epsilon = eps
    return cast(network.add("layer_norm", layer), x.dtype)


def rms_norm(x: Tensor, weight: Operand | None, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) * weight over the last dimension; in half precision computed in float32, as in torch."""
    wide = cast(x, "float32")
    normed = mul(wide, rsqrt(mean(mul(wide, wide), -1, keepdim=True) + eps))
    if weight is not None:
        normed = mul(cast(x.network.operand(weight, x.dtype, x.ndim), "float32"), normed)
    return cast(normed, x.dtype)
