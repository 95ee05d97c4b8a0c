"""Quantizes weights by rounding: each group of a row's elements to multiples of its own scale.

Source of the scale: compressed-tensors `quantization/utils/helpers.py::calculate_qparams`, symmetric: the greatest
absolute value over half of the range, 7.5 of 4 bits and 127.5 of 8; codes saturate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trtllm_port.errors import ConfigError
from trtllm_port.layers.quantization.layouts.weight import BITS, Kind, QuantizedWeight

#: TensorRT-LLM's names of algorithms that quantize weights alone → kind of the codes
ROUNDED: dict[str, Kind] = {"W8A16": "int8", "W4A16": "int4"}
SMALLEST_GROUP = 16  # that TensorRT takes
#: As TensorRT-LLM leaves them: the head, and what chooses the experts.
LEFT_BY_DEFAULT = ("lm_head", "*.lm_head", "*.gate", "*router*")


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """How a plain model is quantized.

    Attributes:
        algorithm: "W8A16" or "W4A16".
        group_size: features that share a scale, where weights have 4 bits.
        exclude_modules: names or patterns (`*`) of modules that are left as they are, beside `LEFT_BY_DEFAULT`.
        scale_dtype: in which scales are rounded; None: that of the checkpoint.
    """

    algorithm: str
    group_size: int = 128
    exclude_modules: tuple[str, ...] = ()
    scale_dtype: str | None = None

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
        if self.algorithm == "W8A16":
            return features
        group = math.gcd(self.group_size, features)
        return None if group < SMALLEST_GROUP else group

    def rounded(self, parameter: Tensor, inputs: int = -1) -> QuantizedWeight:
        """A weight [..., N, K] (or [..., K, N]) as codes; the same ones for every data type that it is computed in.

        Args:
            parameter: of a floating-point type.
            inputs: the axis of K, -1 or -2.
        """
        kind = ROUNDED[self.algorithm]
        weight = (parameter if inputs == -1 else parameter.mT).float()
        group = self.group(weight.shape[-1])
        if group is None:
            raise ValueError(f"{weight.shape[-1]} features have no groups of {self.group_size}")
        groups = weight.reshape(*weight.shape[:-1], -1, group)
        half = 2.0 ** (BITS[kind] - 1)
        scale = (groups.abs().amax(-1) / (half - 0.5)).to(self.scale_dtype)
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)  # of nothing but zeros, or too small to be kept
        codes = (groups / scale.float().unsqueeze(-1)).round_().clamp_(-half, half - 1).to(torch.int8)
        return QuantizedWeight(
            kind=kind, codes=codes.reshape(weight.shape), block=(1, group), scale=scale, transposed=inputs == -2
        )
