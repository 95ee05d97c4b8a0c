"""Modules are recognised by what they compute, and only if they compute it exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.pytorch_utils import Conv1D

from trtllm_port.codegen.ir.nodes import Leaf
from trtllm_port.codegen.record.probing import named_activation, probe
from trtllm_port.huggingface.random_weights import condition


class HiddenLinear(nn.Module):
    """A linear layer of another name."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5, 7))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


class ScaledEmbedding(nn.Embedding):
    def forward(self, ids: Tensor) -> Tensor:
        return 3 * super().forward(ids)


class NoNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(4, 6), Leaf("Linear", (4, 6), {"bias": True})),
        (nn.Linear(4, 6, bias=False), Leaf("Linear", (4, 6), {"bias": False})),
        (HiddenLinear(), Leaf("Linear", (7, 5), {"bias": False})),
        (Conv1D(6, 4), Leaf("Conv1D", (6, 4))),
        (nn.Embedding(9, 4), Leaf("Embedding", (9, 4))),
        (ScaledEmbedding(9, 4), None),
        (nn.LayerNorm(8, eps=1e-3), Leaf("LayerNorm", (8,), {"eps": 1e-3, "bias": True})),
        (nn.LayerNorm(8, bias=False), Leaf("LayerNorm", (8,), {"eps": 1e-5, "bias": False})),
        (NoNorm(8), None),
        (LlamaRMSNorm(8, eps=1e-4), Leaf("RmsNorm", (8,), {"eps": 1e-4, "offset": 0.0})),
        (GemmaRMSNorm(8, eps=1e-4), Leaf("RmsNorm", (8,), {"eps": 1e-4, "offset": 1.0})),
        (Olmo2RMSNorm(8, eps=1e-4), None),  # multiplies by the gain before it casts back
        (nn.RMSNorm(8, eps=1e-4), None),  # the same
        (ACT2FN["gelu_new"], Leaf("Activation", ("gelu_pytorch_tanh",))),
        (ACT2FN["silu"], Leaf("Activation", ("silu",))),
        (nn.Dropout(0.5), None),
        (nn.Sequential(nn.Linear(4, 4)), None),
    ],
)
def test_probe(module: nn.Module, expected: Leaf | None) -> None:
    module = module.to(torch.bfloat16).eval()
    condition(module)
    assert probe(module) == expected


def test_names_of_one_function_are_one() -> None:
    assert named_activation("gelu_new") == named_activation("gelu_pytorch_tanh") == "gelu_pytorch_tanh"
    assert named_activation("nothing of the kind") is None


def test_a_layer_of_nan_is_none_and_no_fault() -> None:
    norm = nn.LayerNorm(8)
    nn.init.constant_(norm.weight, float("nan"))
    assert probe(norm) is None
