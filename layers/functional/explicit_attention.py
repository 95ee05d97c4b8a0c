"""Attention as single operations, for what TensorRT's attention layer has not.

Shapes: B batch, L new tokens, S slots of the cache, N query heads, K key/value heads, H head size.
"""

from __future__ import annotations

from trtllm_port.layers.definition.network import Operand, Tensor
from trtllm_port.layers.operations.activation import tanh
from trtllm_port.layers.operations.elementwise import maximum, where
from trtllm_port.layers.operations.normalization import softmax
from trtllm_port.layers.operations.product import matmul
from trtllm_port.layers.operations.reduction import max, sum
from trtllm_port.layers.operations.shaping import repeat_interleave, transpose, view
from trtllm_port.layers.operations.unary import cast, exp


def explicit_attention(
    query_BNLH: Tensor,
    key_BKSH: Tensor,
    value_BKSH: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
    sinks: Operand | None,
) -> Tensor:
    """See `attention`; casts are those of transformers' eager attention of Gemma 2 and of gpt-oss."""
    groups = query_BNLH.shape[1] // key_BKSH.shape[1]
    if groups > 1:
        key_BKSH, value_BKSH = (repeat_interleave(x, groups, 1) for x in (key_BKSH, value_BKSH))
    scores_BNLS = matmul(query_BNLH, key_BKSH, transb=True) * scale
    if softcap is not None:
        scores_BNLS = tanh(scores_BNLS / softcap) * softcap
    if mask is not None:
        scores_BNLS = where(mask, scores_BNLS, float("-inf")) if mask.dtype == "bool" else scores_BNLS + mask
    weights_BNLS = softmax(scores_BNLS, -1, "float32") if sinks is None else _with_sinks(scores_BNLS, sinks)
    return transpose(matmul(cast(weights_BNLS, value_BKSH.dtype), value_BKSH), 1, 2)


def _with_sinks(scores_BNLS: Tensor, sinks: Operand) -> Tensor:
    """The softmax of scores and a sink, without the sink's column; float32."""
    network = scores_BNLS.network
    sinks_1N11 = view(network.operand(sinks, scores_BNLS.dtype, 1), (1, -1, 1, 1))
    greatest_BNL1 = maximum(max(scores_BNLS, -1, keepdim=True), sinks_1N11)
    powers_BNLS = exp(cast(scores_BNLS - greatest_BNL1, "float32"))
    return powers_BNLS / (sum(powers_BNLS, -1, keepdim=True) + exp(cast(sinks_1N11 - greatest_BNL1, "float32")))
