"""NORMALIZATION: mean and variance over axes, or over groups of channels."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import layer_norm

from trtllm_port.runtime.reference.evaluators.layer import Evaluator, Layer


def normalization(layer: Layer) -> Evaluator:
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`, in float32 and rounded once at the end.

    With `num_groups` over 1 the channels (axis 1) are normalized in groups of consecutive ones. Scale and bias
    broadcast to x, or hold one element per group where the layer is of the first kind (not `is_v2`).
    """
    axes, groups, epsilon = layer["axes"], layer["num_groups"], layer["epsilon"]
    rank = layer.rank()
    if groups != 1:
        if axes != list(range(2, rank)):
            layer.refuse(f"{groups} groups and axes {axes}")
        return lambda x, scale, bias: _grouped(x, scale, bias, groups, epsilon)
    trailing = axes == list(range(rank - len(axes), rank)) and len(axes) > 0

    def evaluate(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        sizes = x.shape[rank - len(axes) :]
        if trailing and scale.numel() == sizes.numel() == bias.numel() and scale.shape[rank - len(axes) :] == sizes:
            return layer_norm(x, sizes, scale.reshape(sizes), bias.reshape(sizes), epsilon)
        return (_standardized(x.float(), axes, epsilon) * scale.float() + bias.float()).to(x.dtype)

    return evaluate


def _standardized(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True) + epsilon).sqrt()


def _grouped(x: Tensor, scale: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
    if x.shape[1] % groups:
        raise ValueError(f"{x.shape[1]} channels cannot be split into {groups} groups")
    parts = x.float().reshape(x.shape[0], groups, -1)
    standardized = _standardized(parts, [2], epsilon).reshape(x.shape)
    return (standardized * _per_channel(scale, x) + _per_channel(bias, x)).to(x.dtype)


def _per_channel(factor: Tensor, x: Tensor) -> Tensor:
    repeats = x.shape[1] // factor.shape[1] if factor.shape[1] > 1 else 1
    return factor.float().repeat_interleave(repeats, 1)
