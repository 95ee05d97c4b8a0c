"""What functions of modelling files compute that go from token to token, in terms of what `trtllm_port.layers` has.

Shapes: B batch, L tokens, H heads, G key heads, K key size, V value size, E channels, N state size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Record = Callable[..., Tensor]
Formula = Callable[[Record, dict[str, Any]], Tensor]


def linear_attention(query: Tensor, key: Tensor, value: Tensor, *, log_decay: Tensor, beta: Tensor | None) -> Tensor:
    """`layers.linear_attention` in torch, from a state of zeros."""
    query, key, numbers, decay = (x.float() for x in (query, key, value, log_decay))
    groups = value.shape[2] // key.shape[2]
    query, key = query.repeat_interleave(groups, 2), key.repeat_interleave(groups, 2)
    decay = (decay if decay.ndim == 4 else decay[..., None]).exp()
    state, outputs = torch.zeros(*key.shape[::2], key.shape[3], value.shape[3]), []
    for t in range(value.shape[1]):
        state = state * decay[:, t, ..., None]
        new = numbers[:, t]
        if beta is not None:
            new = (new - (state * key[:, t, ..., None]).sum(-2)) * beta[:, t, :, None].float()
        state = state + key[:, t, ..., None] * new[..., None, :]
        outputs.append((state * query[:, t, ..., None]).sum(-2))
    return torch.stack(outputs, 1).to(value.dtype)


def selective_scan(x: Tensor, dt: Tensor, decay: Tensor, into: Tensor, out_of: Tensor) -> Tensor:
    """`layers.selective_scan` in torch, from a state of zeros."""
    numbers, dt, decay, into, out_of = (tensor.float() for tensor in (x, dt, decay, into, out_of))
    state, outputs = torch.zeros(x.shape[0], *decay.shape), []
    for t in range(x.shape[2]):
        state = state * (dt[:, :, t, None] * decay).exp() + (dt * numbers)[:, :, t, None] * into[:, None, :, t]
        outputs.append((state * out_of[:, None, :, t]).sum(-1))
    return torch.stack(outputs, 2).to(x.dtype)


def linear_recurrence(x: Tensor, decay: Tensor) -> Tensor:
    """`layers.linear_recurrence` in torch, from a state of zeros."""
    numbers, decay = x.float(), decay.float()
    state, outputs = torch.zeros_like(numbers[:, 0]), []
    for t in range(x.shape[1]):
        state = state * decay[:, t] + numbers[:, t]
        outputs.append(state)
    return torch.stack(outputs, 1).to(x.dtype)


PRIMITIVES: dict[str, Callable[..., Tensor]] = {
    "linear_attention": linear_attention,
    "selective_scan": selective_scan,
    "linear_recurrence": linear_recurrence,
}


# with one of the primitives as `record`; names of variables become the port's


def _state_space(record: Record, given: dict[str, Any]) -> Tensor:
    """Mamba: a state for every channel. x and dt are [B, E, L], B and C [B, N, L]."""
    x, dt = given["hidden_states"], _time_steps(given["dt"], given.get("delta_bias"), 1, given.get("delta_softplus"))
    out = record("selective_scan", x, dt, given["A"], given["B"], given["C"])
    if given.get("D") is not None:
        out = out + x * given["D"][:, None]
    return out if given.get("z") is None else out * F.silu(given["z"])


def _state_space_of_heads(record: Record, given: dict[str, Any]) -> Tensor:
    """Mamba 2: one decay for every head. x is [B, L, H, V], dt [B, L, H], B and C [B, L, G, K]."""
    x = given["hidden_states"].float()
    dt = _time_steps(given["dt"], given.get("dt_bias"), 0, given.get("dt_softplus"))
    low, high = given.get("dt_limit", (0.0, float("inf")))
    low, high = (None if low <= 0 else low), (None if high == float("inf") else high)
    if low is not None or high is not None:
        dt = torch.clamp(dt, min=low, max=high)
    dt = dt.float()
    out = record("linear_attention", given["C"], given["B"], x * dt[..., None], log_decay=given["A"].float() * dt)
    return out if given.get("D") is None else out + x * given["D"][:, None]


def _time_steps(dt: Tensor, bias: Tensor | None, behind: int, positive: bool | None) -> Tensor:
    if bias is not None:
        bias = bias.to(dt.dtype)
        dt = dt + (bias[:, None] if behind else bias)
    return F.softplus(dt) if positive else dt


def _delta_rule(record: Record, given: dict[str, Any]) -> Tensor:
    """The gated delta rule: everything is [B, L, H or G, …], the decay for a head or for each of its keys."""
    query, key, value = (given[name].float() for name in ("query", "key", "value"))
    if given.get("use_qk_l2norm_in_kernel"):
        query = query * torch.rsqrt((query * query).sum(-1, keepdim=True) + 1e-6)
        key = key * torch.rsqrt((key * key).sum(-1, keepdim=True) + 1e-6)
    query = query * query.shape[-1] ** -0.5
    options = {"log_decay": given["g"].float(), "beta": given["beta"].float()}
    out = record("linear_attention", query, key, value, **options)
    return out.to(given["query"].dtype)


def _linear_recurrence(record: Record, given: dict[str, Any]) -> Tensor:
    """One number for every channel, [B, L, E], forgotten where a text begins."""
    recurrent_gate = given["recurrent_gate"] * ~given["reset"]
    return record("linear_recurrence", given["hidden_states"], recurrent_gate)


FORMULAS: tuple[tuple[frozenset[str], frozenset[str], Formula], ...] = (  # parameters with, parameters without
    (frozenset(("hidden_states", "dt", "A", "B", "C", "chunk_size")), frozenset(("state",)), _state_space_of_heads),
    (frozenset(("hidden_states", "dt", "A", "B", "C")), frozenset(("state", "chunk_size")), _state_space),
    (frozenset(("hidden_states", "recurrent_gate", "reset")), frozenset(), _linear_recurrence),
    (frozenset(("query", "key", "value", "g", "beta", "chunk_size")), frozenset(), _delta_rule),
)
