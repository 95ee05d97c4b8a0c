"""Mixture of experts, with transformers' names for its parts.

Every expert computes every token, and a token's sum weighs its own experts only: exact, and as much work as all experts
are. TensorRT's own layer (`add_moe`) is refused by its compiler for the GPUs that `tensorrt_rtx` knows.

Shapes: B batch, L tokens, T = B * L, E hidden size, M intermediate size, X experts, A experts of one token.
"""

from __future__ import annotations

from trtllm_port.layers.activation import Activation
from trtllm_port.layers.functional import arange, linear, matmul, shape, softmax, split, sum, topk, where
from trtllm_port.layers.module import Module
from trtllm_port.layers.parameter import Parameter
from trtllm_port.layers.tensor import Tensor


class TopKRouter(Module):
    """The experts of a token: the greatest probabilities, made to sum to one; computed in float32."""

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, normalize: bool = True) -> None:
        super().__init__()
        self.top_k = top_k
        self.normalize = normalize
        self.weight = Parameter((num_experts, hidden_size))

    def forward(self, hidden_BLE: Tensor) -> tuple[Tensor, Tensor]:
        """(weights [B, L, A] in float32, experts [B, L, A] int64)."""
        probabilities_BLX = softmax(linear(hidden_BLE, self.weight), -1, "float32")
        weights_BLA, experts_BLA = topk(probabilities_BLX, self.top_k)
        if self.normalize:
            weights_BLA = weights_BLA / sum(weights_BLA, -1, keepdim=True)
        return weights_BLA, experts_BLA


class Experts(Module):
    """Gated MLPs whose weights are stacked: `gate_up_proj` [X, 2M, E], `down_proj` [X, E, M]."""

    def __init__(self, hidden_size: int, intermediate_size: int, num_experts: int, hidden_act: str = "silu") -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_experts = num_experts
        self.gate_up_proj = Parameter((num_experts, 2 * intermediate_size, hidden_size))
        self.down_proj = Parameter((num_experts, hidden_size, intermediate_size))
        self.act_fn = Activation(hidden_act)

    def forward(self, hidden_BLE: Tensor, weights_BLA: Tensor, experts_BLA: Tensor) -> Tensor:
        """The weighted sum of each token's experts, [B, L, E]."""
        hidden_1TE = hidden_BLE.view(1, -1, self.hidden_size)
        gate_up_XTM = matmul(hidden_1TE, self.gate_up_proj, transb=True)
        gate_XTM, up_XTM = split(gate_up_XTM, self.intermediate_size, -1)
        output_XTE = matmul(self.act_fn(gate_XTM) * up_XTM, self.down_proj, transb=True)
        is_chosen_BLAX = experts_BLA.unsqueeze(-1) == arange(self.num_experts, like=experts_BLA)
        weights_BLX = sum(where(is_chosen_BLAX, weights_BLA.unsqueeze(-1), 0.0), 2)
        weights_XT1 = weights_BLX.view(-1, self.num_experts).transpose(0, 1).unsqueeze(-1)
        weighted_XTE = (output_XTE.float() * weights_XT1).to(hidden_BLE.dtype)
        return sum(weighted_XTE, 0).view(*(shape(hidden_BLE, axis) for axis in range(2)), self.hidden_size)


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
        self.gate = TopKRouter(hidden_size, num_experts, top_k, normalize)
        self.experts = Experts(hidden_size, intermediate_size, num_experts, hidden_act)

    def forward(self, hidden_BLE: Tensor) -> Tensor:
        weights_BLA, experts_BLA = self.gate(hidden_BLE)
        output_BLE: Tensor = self.experts(hidden_BLE, weights_BLA, experts_BLA)
        return output_BLE
