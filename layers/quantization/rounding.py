"""Quantizes weights by rounding: each group of a row's elements to multiples of its own scale.

Source of the scale: compressed-tensors `quantization/utils/helpers.py::calculate_qparams`, symmetric: the greatest
absolute value over half of the range, 7.5 of 4 bits and 127.5 of 8; codes saturate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from trtllm_port.errors import ConfigError
from trtllm_port.layers.quantization.layouts.weight import BITS, ActivationScheme, Kind, QuantizedWeight


@dataclass(frozen=True)
class Algorithm:
    """What is quantized, and how finely.

    Attributes:
        kind: of the codes of weights.
        shares: what shares a scale: all of a weight ("tensor"), a row, or a group of a row's elements.
        activation: kind of the codes of inputs, all of which share a scale; None: they are not quantized.
    """

    kind: Kind
    shares: Literal["tensor", "row", "group"]
    activation: Kind | None = None


#: TensorRT-LLM's names of what plain models can be quantized by; W8A8 is its W8A8_SQ_PER_CHANNEL without smoothing.
ROUNDED = {
    "W8A16": Algorithm("int8", "row"),
    "W4A16": Algorithm("int4", "group"),
    "FP8": Algorithm("fp8_e4m3", "tensor", "fp8_e4m3"),
    "W8A8": Algorithm("int8", "row", "int8"),
}
SMALLEST_GROUP = 16  # that TensorRT takes
#: As TensorRT-LLM leaves them: the head, and what chooses the experts.
LEFT_BY_DEFAULT = ("lm_head", "*.lm_head", "*.gate", "*router*")
LARGEST = {"fp8_e4m3": 448.0, "int8": 127.0}  # the code of the greatest input


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """How a plain model is quantized.

    Attributes:
        algorithm: a key of `ROUNDED`.
        group_size: features that share a scale, where weights have 4 bits.
        exclude_modules: names or patterns (`*`) of modules that are left as they are, beside `LEFT_BY_DEFAULT`.
        scale_dtype: in which scales of 4- and 8-bit integers are rounded; None: that of the checkpoint.
        ranges: module → its input's greatest absolute value, by calibration; inputs of others are not quantized.
    """

    algorithm: str
    group_size: int = 128
    exclude_modules: tuple[str, ...] = ()
    scale_dtype: str | None = None
    ranges: Mapping[str, float] = field(default_factory=dict)

    @property
    def wants_ranges(self) -> bool:
        """Whether inputs are to be quantized, and no calibration has said how large they are."""
        return ROUNDED[self.algorithm].activation is not None and not self.ranges

    def __post_init__(self) -> None:
        if self.algorithm not in ROUNDED:
            raise ConfigError(
                f"weights cannot be quantized by `{self.algorithm}` here", hint=f"one of {', '.join(ROUNDED)}"
            )
        if self.group_size < SMALLEST_GROUP:
            raise ConfigError(
                f"the group size is {self.group_size}", hint=f"TensorRT takes groups of {SMALLEST_GROUP} and more"
            )


WeightsChoice = Literal["keep", "dequantize"] | QuantizeOptions
"""Quantized weights stay so, or are written as they were before; or those of a plain model are quantized."""


@dataclass(frozen=True)
class Rounding:
    """How weights are rounded.

    Attributes:
        algorithm: a key of `ROUNDED`.
        group_size: features that share a scale, where they have 4 bits; those of 8 bits share it in all of a row.
        scale_dtype: in which scales are kept.
    """

    algorithm: str
    group_size: int
    scale_dtype: torch.dtype

    def group(self, features: int) -> int | None:
        """The features of a weight that share a scale; None: it cannot be quantized."""
        if ROUNDED[self.algorithm].shares != "group":
            return features
        group = math.gcd(self.group_size, features)
        return None if group < SMALLEST_GROUP else group

    def rounded(self, parameter: Tensor, inputs: int = -1, input_range: float | None = None) -> QuantizedWeight:
        """A weight [..., N, K] (or [..., K, N]) as codes; the same ones for every data type that it is computed in.

        Args:
            parameter: of a floating-point type.
            inputs: the axis of K, -1 or -2.
            input_range: the greatest absolute value of what goes in; None: that is not quantized.
        """
        algorithm = ROUNDED[self.algorithm]
        weight = (parameter if inputs == -1 else parameter.mT).float()
        group = self.group(weight.shape[-1])
        if group is None:
            raise ValueError(f"{weight.shape[-1]} features have no groups of {self.group_size}")
        groups = weight.reshape(*weight.shape[:-1], -1, group)
        greatest = groups.abs().amax((-3, -2, -1) if algorithm.shares == "tensor" else -1, keepdim=True)
        codes, scale = self._codes(groups, greatest)
        activation = algorithm.activation if input_range else None
        return QuantizedWeight(
            kind=algorithm.kind,
            codes=codes.reshape(weight.shape),
            block=(weight.shape[-2], group) if algorithm.shares == "tensor" else (1, group),
            scale=scale.squeeze(-1),
            transposed=inputs == -2,
            activation=None
            if activation is None
            else ActivationScheme(kind=activation, granularity="tensor", dynamic=False),
            activation_scale=torch.tensor([input_range / LARGEST[activation]]) if activation and input_range else None,
        )

    def _codes(self, groups: Tensor, greatest: Tensor) -> tuple[Tensor, Tensor]:
        algorithm = ROUNDED[self.algorithm]
        if algorithm.kind == "fp8_e4m3":
            limit = LARGEST["fp8_e4m3"]
            scale = _positive(greatest / limit)
            return (groups / scale).clamp_(-limit, limit).to(torch.float8_e4m3fn), scale
        half = 2.0 ** (BITS[algorithm.kind] - 1)
        scale = greatest / (half - 0.5)
        # the scales of products of 8-bit codes are float32: 16 bits would round the sums of products to 16 bits, too
        scale = _positive(scale if algorithm.activation else scale.to(self.scale_dtype))
        return (groups / scale.float()).round_().clamp_(-half, half - 1).to(torch.int8), scale


def _positive(scale: Tensor) -> Tensor:
    """Scales, those of nothing but zeros (or of what is too small to have one) as 1."""
    return torch.where(scale == 0, torch.ones_like(scale), scale)
