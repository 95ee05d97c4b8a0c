"""Which modules make rotary tables: probed on the recorded call, against the frequencies of `layers.RotaryEmbedding`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trtllm_port.codegen.ir import Leaf
from trtllm_port.codegen.recorder import Call, Operation, Value, leaves

if TYPE_CHECKING:
    from trtllm_port.codegen.tracing import Trace


def probe_rotary(call: Call, trace: Trace, uses: dict[Value, list[Operation]]) -> Leaf | None:
    """The `RotaryEmbedding` that a call is, or None.

    Its two outputs must be cos and sin of position times frequency, and go into rotations only: HF's tables hold every
    angle twice, the port's once.
    """
    cos, sin = (value.tensor for value in call.outputs)
    positions = [v.tensor for v in leaves(call.args) if isinstance(v, Value) and v.tensor.dtype == torch.int64]
    if len(positions) != 1 or cos.ndim != 3 or cos.shape != sin.shape or cos.shape[-1] % 2:
        return None
    if any(use.name != "rotary_embedding" for value in call.outputs for use in uses.get(value, ())):
        return None
    config: Any = trace.sample.config
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return None
    for halved in (_halves, _pairs):
        table_cos, table_sin = halved(cos), halved(sin)
        if table_cos is None or table_sin is None:
            continue
        size = cos.shape[-1]
        expected = _tables(parameters, size, int(config.max_position_embeddings), positions[0])
        if expected is None:
            continue
        if all(torch.equal(a, b.to(a.dtype)) for a, b in zip((table_cos, table_sin), expected, strict=True)):
            return Leaf("RotaryEmbedding", (dict(parameters), size, int(config.max_position_embeddings)))
    return None


def _halves(table: Tensor) -> Tensor | None:
    first, second = table.chunk(2, -1)
    return first if torch.equal(first, second) else None


def _pairs(table: Tensor) -> Tensor | None:
    return table[..., ::2] if torch.equal(table[..., ::2], table[..., 1::2]) else None


def _tables(
    parameters: dict[str, Any], size: int, max_positions: int, position_ids: Tensor
) -> tuple[Tensor, Tensor] | None:
    inv_freq = 1.0 / (parameters["rope_theta"] ** (torch.arange(0, size, 2).float() / size))
    angles = position_ids[..., None].float() * inv_freq
    return angles.cos(), angles.sin()
