"""Parameters that are one number, without an axis."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from trtllm_port.codegen import check_port, generate_port


class ScaledMLP(modeling_llama.LlamaMLP):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = super().forward(x) * self.gain
        return scaled


@pytest.mark.slow
def test_a_parameter_may_be_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_llama, "LlamaMLP", ScaledMLP)
    config = LlamaConfig(architectures=[LlamaForCausalLM.__name__])
    port = generate_port(config)
    assert "self.gain = Parameter(())" in port.files["model.py"]
    assert check_port(config, source=port).passed
