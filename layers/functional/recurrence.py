"""Attention in linear time: recurrences over a state of fixed size, computed in float32.

Shapes: B batch, L new tokens, H heads, G key heads (H is a multiple), K key size, V value size; for state spaces E
channels, N state size.
"""

from __future__ import annotations

from collections.abc import Sequence

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.network import Operand, Tensor
from trtllm_port.layers.functional.states import State
from trtllm_port.layers.operations.elementwise import maximum, where
from trtllm_port.layers.operations.product import matmul
from trtllm_port.layers.operations.scan import scan
from trtllm_port.layers.operations.shaping import concat, repeat_interleave, transpose, unsqueeze
from trtllm_port.layers.operations.unary import expm1


def linear_attention(
    query_BLGK: Tensor,
    key_BLGK: Tensor,
    value_BLHV: Tensor,
    state: State,
    *,
    log_decay: Tensor,
    beta: Tensor | None = None,
) -> Tensor:
    """S = exp(log_decay) S + k vᵀ; output Sᵀ q, for every token and head. With `beta` the delta rule: v is what beta
    of the difference between v and Sᵀ k leaves to add.

    Args:
        query_BLGK, key_BLGK: each serves H / G heads of the values.
        value_BLHV: the values.
        state: S, [K, V] for every head.
        log_decay: [B, L, H], or [B, L, H, K] for a decay of its own for every row of S.
        beta: [B, L, H].

    Returns:
        [B, L, H, V] of value's data type.
    """
    heads, head_size = value_BLHV.shape[2:]
    groups, key_size = key_BLGK.shape[2:]
    if min(heads, head_size, groups, key_size) < 1 or heads % groups:
        where_ = value_BLHV.network.where()
        raise NetworkError(f"{where_}`linear_attention` of keys {key_BLGK.shape} and values {value_BLHV.shape}")
    decay = log_decay.float()
    decay_BLHK1 = unsqueeze(unsqueeze(decay, 3) if decay.ndim == 3 else decay, 4)
    mask_BL1 = unsqueeze(state.is_token(), 2)
    mask_BL111 = unsqueeze(unsqueeze(mask_BL1, 3), 4)
    inputs = [query_BLGK.float(), where(unsqueeze(mask_BL1, 3), key_BLGK.float(), 0.0), value_BLHV.float()]
    decay = where(mask_BL111, decay_BLHK1, 0.0)
    if beta is not None:
        inputs.append(unsqueeze(unsqueeze(beta.float(), 3), 4))
    past_BHKV = state.past((heads, key_size, head_size), "float32")
    is_constant = log_decay.shape[1] == 1 and beta is None
    factors = _factors(decay) if is_constant else [decay.exp()]

    def step(past_BHKV: Tensor, token: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        query_BHK, key_BHK = (repeat_interleave(x, heads // groups, 1) if heads > groups else x for x in token[:2])
        value_BH1V = unsqueeze(token[2], 2)
        if is_constant:
            present = _added_exactly(past_BHKV, token[3], token[4], unsqueeze(key_BHK, 3) * value_BH1V)
            return present, matmul(unsqueeze(query_BHK, 2), present[..., :head_size])
        decayed_BHKV = past_BHKV * token[-1]
        if beta is not None:
            value_BH1V = (value_BH1V - matmul(unsqueeze(key_BHK, 2), decayed_BHKV)) * token[3]
        present_BHKV = decayed_BHKV + unsqueeze(key_BHK, 3) * value_BH1V
        return present_BHKV, matmul(unsqueeze(query_BHK, 2), present_BHKV)

    start = concat([past_BHKV, past_BHKV * 0.0], -1) if is_constant else past_BHKV
    output_BLH1V, present = scan(step, start, [*inputs, *factors])
    state.keep(present[..., :head_size] + present[..., head_size:] if is_constant else present)
    return output_BLH1V.squeeze(3).to(value_BLHV.dtype)


def _factors(log_decay: Tensor) -> list[Tensor]:
    """Two factors whose sum is exp(log_decay), the second one what the first would round off a number near 1.

    A decay that is the same for all tokens would be rounded alike at each, and that adds up over a text.
    """
    is_slow = log_decay > -0.5
    return [where(is_slow, 1.0, log_decay.exp()), where(is_slow, expm1(log_decay), 0.0)]


def _added_exactly(past: Tensor, whole: Tensor, rest: Tensor, new: Tensor) -> Tensor:
    """(whole + rest) past + new, where the second half of `past` and of the result is what the first half rounds off.

    A state that hardly decays is a sum over the whole text. Source: Kahan's summation.
    """
    size = new.shape[-1]
    kept, lost = past[..., :size], past[..., size:]
    base = kept * whole
    change = new + kept * rest + lost * (whole + rest)
    total = base + change
    return concat([total, change - (total - base)], -1)


def selective_scan(x_BEL: Tensor, dt_BEL: Tensor, A_EN: Tensor, B_BNL: Tensor, C_BNL: Tensor, state: State) -> Tensor:
    """The selective state space of Mamba: S = exp(dt A) S + dt x Bᵀ; output S C, for every token and channel.

    Args:
        x_BEL, dt_BEL: inputs and their time steps, which are positive.
        A_EN: how the state decays: negative.
        B_BNL, C_BNL: into and out of the state.
        state: S, [E, N].

    Returns:
        [B, E, L] of x's data type.
    """
    channels, state_size = A_EN.shape
    A_1EN = unsqueeze(A_EN.float(), 0)
    dt_BEL = where(unsqueeze(state.is_token(), 1), dt_BEL.float(), 0.0)
    inputs = [transpose(x, 1, 2) for x in (dt_BEL, dt_BEL * x_BEL.float(), B_BNL.float(), C_BNL.float())]

    def step(past_BEN: Tensor, token: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        dt_BE, x_BE, B_BN, C_BN = token
        present_BEN = past_BEN * (unsqueeze(dt_BE, 2) * A_1EN).exp() + unsqueeze(x_BE, 2) * unsqueeze(B_BN, 1)
        return present_BEN, matmul(present_BEN, unsqueeze(C_BN, 2))

    output_BLE1, present_BEN = scan(step, state.past((channels, state_size), "float32"), inputs)
    state.keep(present_BEN)
    return transpose(output_BLE1.squeeze(3), 1, 2).to(x_BEL.dtype)


def linear_recurrence(x_BLE: Tensor, decay_BLE: Tensor, state: State) -> Tensor:
    """S = decay S + x, for every token and channel.

    Args:
        x_BLE: what is added.
        decay_BLE: what is left of the state.
        state: S, [E].

    Returns:
        S after every token, [B, L, E] of x's data type.
    """
    x_BLE.network.channel_loops = True
    mask_BL1 = unsqueeze(state.is_token(), 2)
    inputs = [where(mask_BL1, x_BLE.float(), 0.0), where(mask_BL1, decay_BLE.float(), 1.0)]

    def step(past_BE: Tensor, token: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        present_BE = past_BE * token[1] + token[0]
        return present_BE, present_BE

    output_BLE, present_BE = scan(step, state.past((x_BLE.shape[2],), "float32"), inputs)
    state.keep(present_BE)
    return output_BLE.to(x_BLE.dtype)


def weighted_average(key_BLE: Tensor, value_BLE: Tensor, decay_E: Operand, bonus_E: Operand, state: State) -> Tensor:
    """RWKV's average of the values so far, by exp(key): earlier ones count exp(decay) times as much with every token,
    the token itself exp(bonus) times.

    Args:
        key_BLE, value_BLE: of the new tokens.
        decay_E: negative.
        bonus_E: for the token itself.
        state: [3, E]: the sums of weighted values and of weights, both divided by exp of the third, so that they are
            near 1. No weights at all say that there was no token.

    Returns:
        [B, L, E] of value's data type.
    """
    mask_BL11 = unsqueeze(unsqueeze(state.is_token(), 2), 3)
    network = key_BLE.network
    decay_11E, bonus_11E = (network.operand(x, network.dtype, 3).float() for x in (decay_E, bonus_E))
    inputs = [unsqueeze(key_BLE.float(), 2), unsqueeze(value_BLE.float(), 2), mask_BL11]

    def add(past: Sequence[Tensor], scale: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        greatest = maximum(scale, key)
        before, now = (scale - greatest).exp(), (key - greatest).exp()
        return past[0] * before + value * now, past[1] * before + now, greatest

    def step(past_B3E: Tensor, token: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        key_B1E, value_B1E, mask_B11 = token
        sums = [past_B3E[:, i : i + 1] for i in range(3)]
        scale_B1E = where(sums[1] > 0.0, sums[2], -1e38)
        values, weights, _ = add(sums, scale_B1E, key_B1E + bonus_11E, value_B1E)
        present_B3E = concat(add(sums, scale_B1E + decay_11E, key_B1E, value_B1E), 1)
        return where(mask_B11, present_B3E, past_B3E), values / weights

    output_BL1E, present_B3E = scan(step, state.past((3, key_BLE.shape[2]), "float32"), inputs)
    state.keep(present_B3E)
    return output_BL1E.squeeze(2).to(value_BLE.dtype)
