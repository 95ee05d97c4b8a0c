"""Blocks that ask a list of experts in a loop, written as public files have it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtllm_port.huggingface.interception.expert_lists import StackedExperts, stack_expert_lists
from trtllm_port.huggingface.interception.expert_loops import loop_over_experts

WIDTH = 12


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w3 = (nn.Linear(WIDTH, 20, bias=False) for _ in range(2))
        self.w2 = nn.Linear(20, WIDTH, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.act_fn(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_experts, self.top_k = 6, 2
        self.gate = nn.Linear(WIDTH, self.num_experts, bias=False)
        self.experts = nn.ModuleList([Expert() for _ in range(self.num_experts)])


class Compared(Block):
    """Who chose an expert is found by its number."""

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        flat = x.view(-1, width)
        scores = F.softmax(self.gate(flat), dim=-1)
        weight, index = torch.topk(scores, k=self.top_k, dim=-1, sorted=False)
        y = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            mask = index == i
            if mask.any():
                tokens = mask.any(dim=-1).nonzero().flatten()
                y.index_add_(0, tokens, expert(flat[tokens]) * weight[mask].view(-1, 1))
            elif self.training:
                y[0, 0] += 0 * sum(p.sum() for p in expert.parameters())
        return y.view(batch, length, width)


class Masked(Block):
    """As Mixtral's file was until release 4.57: by a mask, which is made before the loop; logits come back, too."""

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        batch_size, sequence_length, hidden_dim = hidden_states.shape
        hidden_states = hidden_states.view(-1, hidden_dim)
        router_logits = self.gate(hidden_states)
        routing_weights = F.softmax(router_logits, dim=1, dtype=torch.float)
        routing_weights, selected_experts = torch.topk(routing_weights, self.top_k, dim=-1)
        routing_weights /= routing_weights.sum(dim=-1, keepdim=True)
        routing_weights = routing_weights.to(hidden_states.dtype)
        final_hidden_states = torch.zeros(
            (batch_size * sequence_length, hidden_dim), dtype=hidden_states.dtype, device=hidden_states.device
        )
        expert_mask = F.one_hot(selected_experts, num_classes=self.num_experts).permute(2, 1, 0)
        for expert_idx in range(self.num_experts):
            expert_layer = self.experts[expert_idx]
            idx, top_x = torch.where(expert_mask[expert_idx])
            current_state = hidden_states[None, top_x].reshape(-1, hidden_dim)
            current_hidden_states = expert_layer(current_state) * routing_weights[top_x, idx, None]
            final_hidden_states.index_add_(0, top_x, current_hidden_states.to(hidden_states.dtype))
        return final_hidden_states.reshape(batch_size, sequence_length, hidden_dim), router_logits


class ByPlace(Block):
    """One loop over the experts, one over the places of the choice, and a sum that is written into."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = self.gate(flat).topk(self.top_k)
        weights = weights.softmax(-1)
        out = torch.zeros_like(flat)
        for i in range(len(self.experts)):
            for place in range(self.top_k):
                who = torch.where(chosen[:, place] == i)[0]
                out[who] += weights[who, place, None] * self.experts[i](flat[who])
        return out.reshape(x.shape)


class OfTheText(Block):
    """The loop needs to know how long the text is."""

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        flat = x.view(-1, x.shape[-1])
        weight, index = self.gate(flat).topk(self.top_k)
        y = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            mask = index == i
            tokens = mask.any(dim=-1).nonzero().flatten()
            y.index_add_(0, tokens, expert(flat[tokens]) * weight[mask].view(-1, 1) / length)
        return y.view(x.shape)


def _first(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


@pytest.mark.parametrize("kind", [Compared, Masked, ByPlace])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loop_is_a_call_of_the_experts(kind: type[Block], dtype: torch.dtype) -> None:
    model = nn.ModuleDict({"layer": kind().to(dtype)}).eval()
    states = torch.randn(3, 4, WIDTH, dtype=dtype)
    with torch.no_grad():
        expected = _first(model["layer"](states))
        stack_expert_lists(model)
        calls: list[tuple[Any, ...]] = []
        model["layer"].experts.register_forward_pre_hook(lambda _, given: calls.append(given))
        found = _first(model["layer"](states))
    assert isinstance(model["layer"].experts, StackedExperts)
    assert [tuple(given.shape) for given in calls[0]] == [(12, WIDTH), (12, 2), (12, 2)]
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_the_lines_are_those_of_the_file() -> None:
    block = Compared()
    loop = loop_over_experts(block, WIDTH)
    assert loop is not None
    code = Compared.forward.__code__
    assert loop.forward.__code__.co_filename == loop.method.__code__.co_filename == code.co_filename
    assert loop.forward.__code__.co_firstlineno == code.co_firstlineno


def test_a_loop_that_needs_more_stays() -> None:
    assert loop_over_experts(OfTheText(), WIDTH) is None
    assert loop_over_experts(Block(), WIDTH) is None
