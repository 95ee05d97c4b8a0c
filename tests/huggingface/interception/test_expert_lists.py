"""Experts in a list, computed by a method that asks those that tokens chose, as one module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trtllm_port.huggingface.interception.expert_lists import StackedExperts, stack_expert_lists


class Expert(nn.Module):
    def __init__(self, act_fn: Any) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(8, 12, bias=False), nn.Linear(8, 12, bias=False)
        self.w2 = nn.Linear(12, 8, bias=False)
        self.act_fn = act_fn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w2(self.act_fn(self.w1(x)) * self.w3(x))
        return out


class Ungated(Expert):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w2(self.act_fn(self.w1(x)) + self.w3(x))
        return out


class Block(nn.Module):
    def __init__(self, expert: type[Expert]) -> None:
        super().__init__()
        self.experts = nn.ModuleList([expert(nn.SiLU()) for _ in range(5)])

    def forward(self, x: Tensor, topk_ids: Tensor, topk_weight: Tensor) -> Tensor:
        return self.moe_infer(x, topk_ids, topk_weight)

    def moe_infer(self, x: Tensor, topk_ids: Tensor, topk_weight: Tensor) -> Tensor:
        found = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            tokens, place = torch.where(topk_ids == number)
            if len(tokens):
                found[tokens] += expert(x[tokens]) * topk_weight[tokens, place, None]
        return found


class Model(nn.Module):
    def __init__(self, expert: type[Expert] = Expert) -> None:
        super().__init__()
        self.mlp = Block(expert)


@pytest.fixture
def given() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.rand(7, 5, generator=generator).argsort(-1)[:, :2]
    return torch.randn(7, 8, generator=generator), ids, torch.rand(7, 2, generator=generator)


def test_the_stacked_experts_compute_what_the_list_does(given: tuple[Tensor, Tensor, Tensor]) -> None:
    model = Model()
    before = model.mlp(*given)
    stack_expert_lists(model)
    assert isinstance(model.mlp.experts, StackedExperts)
    assert {name for name, _ in model.named_parameters()} == {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}
    torch.testing.assert_close(model.mlp(*given), before)
    with torch.no_grad():
        model.mlp.experts.down_proj *= 2  # what it holds is what it computes with
    torch.testing.assert_close(model.mlp(*given), 2 * before)


def test_gate_and_up_are_told_apart_by_what_they_do() -> None:
    model = Model()
    stack_expert_lists(model)
    assert model.mlp.experts.names == ("w1.weight", "w3.weight", "w2.weight")


def test_other_experts_stay_a_list(given: tuple[Tensor, Tensor, Tensor]) -> None:
    model = Model(Ungated)
    stack_expert_lists(model)
    assert isinstance(model.mlp.experts, nn.ModuleList)
    assert not hasattr(model, "_weight_conversions")
