"""What models compute of a token's position: sinusoids, biases of scores, and tables of rotations that they write out.

Shapes: B batch, L new tokens, S slots of the cache, N query heads, D size of a token's vector, F frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from trtllm_port.errors import ConfigError
from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.functional.cache import KVCache
from trtllm_port.layers.functional.rope import inverse_frequencies
from trtllm_port.layers.operations.creation import arange
from trtllm_port.layers.operations.elementwise import mul, sub
from trtllm_port.layers.operations.shaping import concat, flatten, stack, unsqueeze
from trtllm_port.layers.operations.unary import cast, cos, sin


def sinusoidal_positions(
    position_ids: Tensor,
    dim: int,
    *,
    base: float = 10000.0,
    interleaved: bool = False,
    inclusive: bool = False,
    cosines_first: bool = False,
) -> Tensor:
    """Sines and cosines of the positions ("Attention Is All You Need", section 3.5), computed inside the network.

    Args:
        position_ids: [B, L], integers.
        dim: D, even.
        base: the longest period over 2 pi.
        interleaved: sine and cosine of a frequency are neighbours, instead of all sines before all cosines.
        inclusive: the last frequency is 1 / base, as in tensor2tensor, instead of one step higher; rounded as there.
        cosines_first: in front of the sines.

    Returns:
        float32 [B, L, D].

    Raises:
        ConfigError: dim is odd.
    """
    if dim % 2:
        raise ConfigError(f"sinusoidal positions of an odd size {dim}")
    steps = dim // 2 - 1 if inclusive else dim // 2
    number = torch.arange(dim // 2, dtype=torch.float32)
    frequency = torch.exp(number * -(math.log(base) / steps)) if inclusive else 1.0 / base ** (number / steps)
    angle_BLF = mul(cast(unsqueeze(position_ids, 2), "float32"), position_ids.network.constant(frequency[None, None]))
    parts = [function(angle_BLF) for function in ((cos, sin) if cosines_first else (sin, cos))]
    return flatten(stack(parts, -1), -2) if interleaved else concat(parts, -1)


def rotary_cosines(
    position_ids: Tensor,
    dim: int,
    base: float,
    scaling: dict[str, Any] | None = None,
    *,
    once: bool = False,
    interleaved: bool = False,
) -> Tensor:
    """Cosines of the angles by which a rotary embedding turns, computed inside the network.

    Args:
        position_ids: [B, L], integers.
        dim: twice the frequencies F; `base ** (2 f / dim)` tokens make one radian.
        base: see `dim`.
        scaling: HF's `rope_parameters`, of a type whose frequencies are the same for every length, without the base.
        once: each angle has one cosine, instead of two.
        interleaved: the two of an angle are neighbours, instead of F apart.

    Returns:
        float32 [B, L, F] if `once`, else [B, L, 2 F]; Su et al. 2021, "RoFormer".

    Raises:
        ConfigError: see `fixed_frequencies`.
    """
    return _twice(_rotary_table(cos, position_ids, dim, base, scaling), once, interleaved)


def rotary_sines(
    position_ids: Tensor,
    dim: int,
    base: float,
    scaling: dict[str, Any] | None = None,
    *,
    once: bool = False,
    interleaved: bool = False,
) -> Tensor:
    """As `rotary_cosines`, of sines."""
    return _twice(_rotary_table(sin, position_ids, dim, base, scaling), once, interleaved)


def fixed_frequencies(dim: int, base: float, scaling: dict[str, Any] | None = None) -> tuple[torch.Tensor, float]:
    """Radians per token, float32 [dim / 2], and the factor for cosines and sines.

    Raises:
        ConfigError: they depend on the length of the text, or a parameter is missing or of an unknown type.
    """
    rope = {**(scaling or {}), "rope_theta": base}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        raise ConfigError(f"the frequencies of rope type `{rope['rope_type']}` depend on the length of a text")
    return inverse_frequencies(rope, dim, 0)


def _rotary_table(
    function: Callable[[Tensor], Tensor], position_ids: Tensor, dim: int, base: float, scaling: dict[str, Any] | None
) -> Tensor:
    """float32 [B, L, F]."""
    frequency_F, factor = fixed_frequencies(dim, base, scaling)
    network = position_ids.network
    table_BLF = function(mul(cast(unsqueeze(position_ids, 2), "float32"), network.constant(frequency_F[None, None])))
    return table_BLF if factor == 1.0 else mul(table_BLF, factor)


def _twice(table_BLF: Tensor, once: bool, interleaved: bool) -> Tensor:
    if once:
        return table_BLF
    parts = [table_BLF, table_BLF]
    return flatten(stack(parts, -1), -2) if interleaved else concat(parts, -1)


def alibi_slopes(num_heads: int, max_bias: float = 8.0, *, powers: bool = False) -> torch.Tensor:
    """How much each head's scores fall per token of distance: powers of 2 ** (-max_bias / num_heads).

    Where num_heads is no power of two, the next lower power's slopes, then every other one of the next higher's.

    Args:
        num_heads: N.
        max_bias: the negative exponent of the last slope.
        powers: of the base as a float32, as BLOOM computes them; else each exponent is exact, as in MPT.

    Returns:
        float32 [N]; Press et al. 2021, "Train Short, Test Long".
    """
    power = 2 ** math.floor(math.log2(num_heads))
    steps = torch.arange(1, power + 1), torch.arange(1, 2 * power + 1, 2)
    exponents = -max_bias / power, -max_bias / (2 * power)
    if powers:
        slopes = [torch.full((), 2.0**exponent) ** step for exponent, step in zip(exponents, steps, strict=True)]
    else:
        slopes = [2.0 ** (exponent * step.float()) for exponent, step in zip(exponents, steps, strict=True)]
    return torch.cat(slopes)[:num_heads]


def alibi_bias(
    position_ids: Tensor, cache: KVCache, num_heads: int, *, max_bias: float = 8.0, from_first: bool = False
) -> Tensor:
    """ALiBi: what is added to attention's scores, falling with the distance of a slot from the token.

    Where the distance is counted from, a softmax does not see, but rounding does. Computed once for equal arguments,
    so that all layers share it.

    Args:
        position_ids: [B, L], int64.
        cache: the cache whose slots are meant.
        num_heads: N.
        max_bias: see `alibi_slopes`.
        from_first: 0 for the first slot and rising from there, as in BLOOM; else 0 for the token itself.

    Returns:
        float32 [B, N, L, S], or [1, N, 1, S] from the first; slots behind the token are for the mask to hide.
    """

    def make() -> Tensor:
        network = position_ids.network
        slopes_1N11 = network.constant(alibi_slopes(num_heads, max_bias, powers=from_first)[None, :, None, None])
        slot_S = arange(cache.max_seq_len, like=position_ids, dtype=position_ids.dtype)
        if from_first:
            return mul(cast(slot_S, "float32"), slopes_1N11)
        distance_B1LS = sub(slot_S, unsqueeze(unsqueeze(position_ids, 1), 3))
        return mul(cast(distance_B1LS, "float32"), slopes_1N11)

    key = ("alibi_bias", position_ids.name, cache.max_seq_len, num_heads, max_bias, from_first)
    return position_ids.network.shared(key, make)
