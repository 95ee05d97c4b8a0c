"""Linear layers, whole and cut over ranks.

Shapes: x [*, in], weight [out, in] (Conv1D: [in, out]), bias [out] → [*, out].
"""

from __future__ import annotations

from trtllm_port.layers.functional import linear, matmul
from trtllm_port.layers.module import Module, Parameter
from trtllm_port.layers.tensor import Tensor


class Linear(Module):
    """x weightᵀ + bias, as torch.nn.Linear."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = Parameter((out_features, in_features))
        self.bias = Parameter((out_features,)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Conv1D(Module):
    """x weight + bias: GPT-2's linear layer, whose weight is stored [in, out]. Arguments as transformers' Conv1D."""

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.weight = Parameter((in_features, out_features))
        self.bias = Parameter((out_features,))

    def forward(self, x: Tensor) -> Tensor:
        return matmul(x, self.weight) + self.bias
