"""The sum of experts' outputs.

Shapes: T tokens, X experts, A experts of one token, E hidden size.
"""

from __future__ import annotations

from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.operations.creation import arange
from trtllm_port.layers.operations.elementwise import where
from trtllm_port.layers.operations.reduction import sum
from trtllm_port.layers.operations.shaping import shape, transpose, unsqueeze
from trtllm_port.layers.operations.unary import cast


def combine_experts(output_XTE: Tensor, experts_TA: Tensor, weights_TA: Tensor) -> Tensor:
    """Each token's weighted sum of the outputs of its own experts.

    Products are in the wider data type of outputs and weights, their sum is in float32: transformers' `grouped_mm`.

    Args:
        output_XTE: what every expert made of every token.
        experts_TA: int64; an expert's number that is not below X adds nothing.
        weights_TA: of any floating-point type.

    Returns:
        [T, E], of the outputs' data type.
    """
    count = output_XTE.shape[0] if output_XTE.shape[0] >= 0 else shape(output_XTE, 0)
    index_11X = unsqueeze(unsqueeze(arange(count, like=experts_TA), 0), 0)
    is_chosen_TAX = unsqueeze(experts_TA, -1) == index_11X
    weights_TX = sum(where(is_chosen_TAX, unsqueeze(weights_TA, -1), 0.0), 1)
    weights_XT1 = unsqueeze(transpose(weights_TX, 0, 1), -1)
    wider = output_XTE.dtype if output_XTE.dtype == weights_TA.dtype else "float32"
    weighted_XTE = cast(output_XTE, wider) * cast(weights_XT1, wider)
    weighted_XTE = where(weights_XT1 != 0.0, weighted_XTE, 0.0)  # others' outputs may have overflowed: 0 * inf is nan
    return cast(sum(cast(weighted_XTE, "float32"), 0), output_XTE.dtype)
