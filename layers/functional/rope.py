"""The inverse frequencies of rotary embeddings by rope type, as transformers' `modeling_rope_utils` computes them.

Each function takes HF's `rope_parameters`, the rotated part of a head's size, and `max_position_embeddings`, and
returns the dim / 2 inverse frequencies in float32 and the factor for cosines and sines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from trtllm_port.errors import ConfigError

RopeFunction = Callable[[dict[str, Any], int, int], tuple[torch.Tensor, float]]


def _exponents(dim: int) -> torch.Tensor:
    return torch.arange(0, dim, 2, dtype=torch.int64).float() / dim


def default(rope: dict[str, Any], dim: int, max_position_embeddings: int) -> tuple[torch.Tensor, float]:
    """theta ** (-2i / dim); Su et al. 2021, https://arxiv.org/abs/2104.09864."""
    return 1.0 / (rope["rope_theta"] ** _exponents(dim)), 1.0


def linear(rope: dict[str, Any], dim: int, max_position_embeddings: int) -> tuple[torch.Tensor, float]:
    """Positions divided by a factor."""
    return default(rope, dim, max_position_embeddings)[0] / rope["factor"], 1.0


def proportional(rope: dict[str, Any], dim: int, max_position_embeddings: int) -> tuple[torch.Tensor, float]:
    """The first `partial_rotary_factor` of the frequencies, the rest are zero: a rotation by nothing."""
    rotated = int(rope.get("partial_rotary_factor", 1.0) * dim // 2)
    inv_freq = default(rope, dim, max_position_embeddings)[0].clone()
    inv_freq[rotated:] = 0.0
    return inv_freq / rope.get("factor", 1.0), 1.0


def llama3(rope: dict[str, Any], dim: int, max_position_embeddings: int) -> tuple[torch.Tensor, float]:
    """Long wavelengths divided by a factor, short ones kept, those between interpolated: Llama 3.1."""
    inv_freq = default(rope, dim, max_position_embeddings)[0]
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    wavelength = 2 * math.pi / inv_freq
    smooth = (context / wavelength - low) / (high - low)
    smoothed = (1 - smooth) * inv_freq / factor + smooth * inv_freq
    scaled = torch.where(wavelength > context / low, inv_freq / factor, inv_freq)
    is_medium = (wavelength >= context / high) & (wavelength <= context / low)
    return torch.where(is_medium, smoothed, scaled), 1.0


def yarn(rope: dict[str, Any], dim: int, max_position_embeddings: int) -> tuple[torch.Tensor, float]:
    """Interpolated and extrapolated frequencies blended by a ramp; Peng et al. 2023, https://arxiv.org/abs/2309.00071."""
    base, context = rope["rope_theta"], rope["original_max_position_embeddings"]
    factor = rope["factor"] if rope["factor"] is not None else max_position_embeddings / context
    low, high = (
        dim * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(base))
        for rotations in (rope.get("beta_fast") or 32, rope.get("beta_slow") or 1)
    )
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    span = high - low if high != low else 0.001
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
    positions = base ** (torch.arange(0, dim, 2).float() / dim)
    inv_freq = 1.0 / (factor * positions) * ramp + 1.0 / positions * (1 - ramp)
    return inv_freq, _yarn_attention_factor(rope, factor)


def _yarn_attention_factor(rope: dict[str, Any], factor: float) -> float:
    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return mscale(rope["mscale"]) / mscale(rope["mscale_all_dim"])
    return mscale(1.0)


def longrope(rope: dict[str, Any], dim: int, max_position_embeddings: int) -> tuple[torch.Tensor, float]:
    """Each frequency divided by its own `short_factor`; Ding et al. 2024, https://arxiv.org/abs/2402.13753."""
    return _longrope(rope, dim, max_position_embeddings, "short_factor")


def longrope_long(rope: dict[str, Any], dim: int, max_position_embeddings: int) -> tuple[torch.Tensor, float]:
    """As `longrope`, by `long_factor`: for sequences longer than `original_max_position_embeddings`."""
    return _longrope(rope, dim, max_position_embeddings, "long_factor")


def _longrope(rope: dict[str, Any], dim: int, max_position_embeddings: int, key: str) -> tuple[torch.Tensor, float]:
    context = rope["original_max_position_embeddings"]
    factor = rope.get("factor") or max_position_embeddings / context
    attention_factor = rope.get("attention_factor")
    if attention_factor is None:
        attention_factor = 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(context))
    factors = torch.tensor(rope[key], dtype=torch.float32)
    if factors.shape != (dim // 2,):
        raise ConfigError(f"`{key}` of `rope_parameters` has {len(rope[key])} numbers, {dim // 2} frequencies need one")
    return 1.0 / (factors * rope["rope_theta"] ** _exponents(dim)), attention_factor


def dynamic(rope: dict[str, Any], dim: int, max_position_embeddings: int) -> tuple[torch.Tensor, float]:
    """As `default` up to `max_position_embeddings`; see `dynamic_exponents` for what is longer."""
    _ = rope["factor"]  # which longer sequences need
    return default(rope, dim, max_position_embeddings)


def dynamic_exponents(dim: int) -> torch.Tensor:
    """The powers of `factor * length / max_position_embeddings - (factor - 1)` by which frequencies shrink.

    Lengths beyond `max_position_embeddings` make the base greater; transformers' `_compute_dynamic_ntk_parameters`.
    """
    return -dim / (dim - 2) * _exponents(dim)


def ntk_alpha(rope: dict[str, Any], dim: int, max_position_embeddings: int) -> tuple[torch.Tensor, float]:
    """A base that is greater for every length; HunYuan's `compute_ntk_alpha_rope_parameters` in transformers."""
    base = rope["rope_theta"] * rope["alpha"] ** (dim / (dim - 2))
    return default({"rope_theta": base}, dim, max_position_embeddings)


def stretched_by_alpha(rope_parameters: dict[str, Any]) -> bool:
    """Whether parameters of type `dynamic` have the `alpha` for which HunYuan has a type of its own."""
    return rope_parameters.get("rope_type") == "dynamic" and bool(rope_parameters.get("alpha"))


ROPE_TYPES: dict[str, RopeFunction] = {
    "default": default,
    "dynamic": dynamic,
    "linear": linear,
    "llama3": llama3,
    "longrope": longrope,
    "proportional": proportional,
    "yarn": yarn,
}


def switch_length(rope_parameters: dict[str, Any], max_position_embeddings: int) -> int | None:
    """The length past which all positions have other frequencies than in shorter texts; None if there is none."""
    if rope_parameters.get("rope_type") == "dynamic":
        return max_position_embeddings
    long = rope_parameters.get("rope_type") == "longrope"
    return int(rope_parameters["original_max_position_embeddings"]) if long else None


def inverse_frequencies(
    rope_parameters: dict[str, Any], dim: int, max_position_embeddings: int, length: int = 0, *, by_alpha: bool = False
) -> tuple[torch.Tensor, float]:
    """The inverse frequencies [dim / 2] and the factor for cosines and sines.

    Args:
        rope_parameters, dim, max_position_embeddings: as for every function here.
        length: of the text, see `switch_length`; 0: of a short one.
        by_alpha: an `alpha` counts, see `ntk_alpha`; for most models it does not.

    Raises:
        ConfigError: the rope type is unknown, or a parameter that it needs is missing.
    """
    rope_type = rope_parameters.get("rope_type", "default")
    if rope_type not in ROPE_TYPES:
        raise ConfigError(f"rope type `{rope_type}` is not supported", hint=f"one of {', '.join(ROPE_TYPES)}")
    if by_alpha and stretched_by_alpha(rope_parameters):
        return ntk_alpha(rope_parameters, dim, max_position_embeddings)
    try:
        found = ROPE_TYPES[rope_type](rope_parameters, dim, max_position_embeddings)
        switch = switch_length(rope_parameters, max_position_embeddings)
        if switch is None or length <= switch:
            return found
        if rope_type == "longrope":
            return longrope_long(rope_parameters, dim, max_position_embeddings)
        growth = rope_parameters["factor"] * length / switch - (rope_parameters["factor"] - 1)
        return found[0] * growth ** dynamic_exponents(dim), found[1]
    except KeyError as error:
        raise ConfigError(f"`rope_parameters` of type `{rope_type}` lacks {error}") from error
