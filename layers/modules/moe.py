"""Mixture of experts, with transformers' names for its parts.

Every expert computes every token, and a token's sum takes its own experts only: exact, and as much work as all experts
are. TensorRT's own layer (`add_moe`) is refused by its compiler for the GPUs that `tensorrt_rtx` knows.

Shapes: B batch, L tokens, T = B * L, E hidden size, M intermediate size, X experts, A experts of one token.
"""

from __future__ import annotations

from trtllm_port.layers.definition.network import Tensor
from trtllm_port.layers.definition.parameter import Parameter
from trtllm_port.layers.modules.activation import ACT2FN
from trtllm_port.layers.modules.module import Module
from trtllm_port.layers.operations.experts import combine_experts
from trtllm_port.layers.operations.normalization import softmax
from trtllm_port.layers.operations.product import linear, matmul
from trtllm_port.layers.operations.reduction import sum, topk
from trtllm_port.layers.operations.shaping import shape
from trtllm_port.layers.operations.slicing import split


class TopKRouter(Module):
    """The experts of a token: the greatest probabilities, made to sum to one; computed in float32."""

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, normalize: bool = True) -> None:
        super().__init__()
        self.top_k = top_k
        self.normalize = normalize
        self.weight = Parameter((num_experts, hidden_size))

    def forward(self, hidden_TE: Tensor) -> tuple[Tensor, Tensor]:
        """(experts [T, A] int64, their weights [T, A] in float32)."""
        probabilities_TX = softmax(linear(hidden_TE, self.weight), -1, "float32")
        weights_TA, experts_TA = topk(probabilities_TX, self.top_k)
        if self.normalize:
            weights_TA = weights_TA / sum(weights_TA, -1, keepdim=True)
        return experts_TA, weights_TA


class Experts(Module):
    """Gated MLPs whose weights are stacked: `gate_up_proj` [X, 2M, E], `down_proj` [X, E, M].

    Experts with another gate, biases or transposed weights are a few lines of their own around `combine_experts`.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, num_experts: int, hidden_act: str = "silu") -> None:
        super().__init__()
        self.intermediate_size = intermediate_size
        self.gate_up_proj = Parameter((num_experts, 2 * intermediate_size, hidden_size))
        self.down_proj = Parameter((num_experts, hidden_size, intermediate_size))
        self.activation = ACT2FN[hidden_act]  # no module: HF's has no output for all tokens to compare

    def forward(self, hidden_TE: Tensor, experts_TA: Tensor, weights_TA: Tensor) -> Tensor:
        """The weighted sum of each token's experts, [T, E]; `weights_TA` may be float32 where the rest is not."""
        gate_up_XTM = matmul(hidden_TE.unsqueeze(0), self.gate_up_proj, transb=True)
        gate_XTM, up_XTM = split(gate_up_XTM, self.intermediate_size, -1)
        output_XTE = matmul(self.activation(gate_XTM) * up_XTM, self.down_proj, transb=True)
        return combine_experts(output_XTE, experts_TA, weights_TA)


class MOE(Module):
    """A router `gate` and its `experts`; `normalize` makes the weights of a token's experts sum to one."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        num_experts: int,
        top_k: int,
        hidden_act: str = "silu",
        *,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.gate = TopKRouter(hidden_size, num_experts, top_k, normalize)
        self.experts = Experts(hidden_size, intermediate_size, num_experts, hidden_act)

    def forward(self, hidden_BLE: Tensor) -> Tensor:
        hidden_TE = hidden_BLE.flatten(0, 1)
        output_TE: Tensor = self.experts(hidden_TE, *self.gate(hidden_TE))
        return output_TE.view(*(shape(hidden_BLE, axis) for axis in range(2)), self.hidden_size)
