"""What models add for a token's position when they neither learn nor rotate it: sinusoids, and biases of scores.

Shapes: B batch, L new tokens, S slots of the cache, N query heads, D size of a token's vector.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from trtllm_port.errors import ConfigError
from trtllm_port.layers.functional.creation import arange
from trtllm_port.layers.functional.elementwise import mul, sub
from trtllm_port.layers.functional.shaping import concat, flatten, stack, unsqueeze
from trtllm_port.layers.functional.unary import cast, cos, sin
from trtllm_port.layers.tensor import Tensor

if TYPE_CHECKING:
    from trtllm_port.layers.cache import KVCache


def sinusoidal_positions(
    position_ids: Tensor, dim: int, *, base: float = 10000.0, interleaved: bool = False, inclusive: bool = False
) -> Tensor:
    """Sines and cosines of the positions ("Attention Is All You Need", section 3.5), computed inside the network.

    Args:
        position_ids: [B, L], integers.
        dim: D, even.
        base: the longest period over 2 pi.
        interleaved: sine and cosine of a frequency are neighbours, instead of all sines before all cosines.
        inclusive: the last frequency is 1 / base, as in tensor2tensor, instead of one step higher; rounded as there.

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
    parts = [sin(angle_BLF), cos(angle_BLF)]
    return flatten(stack(parts, -1), -2) if interleaved else concat(parts, -1)


def alibi_slopes(num_heads: int, max_bias: float = 8.0) -> torch.Tensor:
    """How much each head's scores fall per token of distance: powers of 2 ** (-max_bias / num_heads).

    Where num_heads is no power of two, the next lower power's slopes, then every other one of the next higher's.

    Returns:
        float32 [N]; Press et al. 2021, "Train Short, Test Long".
    """
    power = 2 ** math.floor(math.log2(num_heads))
    exact = 2.0 ** (-max_bias / power * torch.arange(1, power + 1, dtype=torch.float32))
    between = 2.0 ** (-max_bias / (2 * power) * torch.arange(1, 2 * power + 1, 2, dtype=torch.float32))
    return torch.cat([exact, between])[:num_heads]


def alibi_bias(position_ids: Tensor, cache: KVCache, num_heads: int, *, max_bias: float = 8.0) -> Tensor:
    """ALiBi: what is added to attention's scores, 0 for the token itself and falling with the distance of a slot.

    Hugging Face counts from the first or the last slot instead, which a softmax does not see. Computed once for equal
    arguments, so that all layers share it.

    Args:
        position_ids: [B, L], int64.
        cache: the cache whose slots are meant.
        num_heads: N.
        max_bias: see `alibi_slopes`.

    Returns:
        float32 [B, N, L, S]; slots behind the token are for the mask to hide.
    """

    def make() -> Tensor:
        network = position_ids.network
        slot_S = arange(cache.max_seq_len, like=position_ids, dtype=position_ids.dtype)
        distance_B1LS = sub(slot_S, unsqueeze(unsqueeze(position_ids, 1), 3))
        slopes_1N11 = network.constant(alibi_slopes(num_heads, max_bias)[None, :, None, None])
        return mul(cast(distance_B1LS, "float32"), slopes_1N11)

    key = ("alibi_bias", position_ids.name, cache.max_seq_len, num_heads, max_bias)
    return position_ids.network.shared(key, make)
