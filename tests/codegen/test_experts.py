"""Experts: what is recorded in place of transformers' loop computes the same, and the layer is recognised exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AriaTextConfig, GptOssConfig, MixtralConfig
from transformers.models.aria.modeling_aria import AriaExperts
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from trtllm_port.codegen.ir.nodes import Leaf
from trtllm_port.codegen.ir.record import Call, Value
from trtllm_port.codegen.record.experts import dense_experts, probe_experts

SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "experts_implementation": "eager",
}
MIXTRAL = MixtralConfig(**SIZES, num_local_experts=5)


class Doubled(MixtralExperts):
    def forward(self, *args: Any) -> Tensor:
        doubled: Tensor = 2 * super().forward(*args)
        return doubled


class PlainFunction(MixtralExperts):
    """Its activation is a function, no module."""

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__(config)
        del self.act_fn
        self.act_fn = F.silu


class OwnGate(MixtralExperts):
    """Its gate is its own, with the activation called as a module."""

    def _apply_gate(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        gated: Tensor = self.act_fn(gate) * (up + 1)
        return gated


class WideGate(MixtralExperts):
    """Computes the gate in float32: another cast than the layer's."""

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        output = torch.zeros_like(hidden_states)
        for expert in range(self.num_experts):
            gate, up = F.linear(hidden_states, self.gate_up_proj[expert]).float().chunk(2, -1)
            states = F.linear((F.silu(gate) * up).to(hidden_states.dtype), self.down_proj[expert])
            weight = (top_k_weights * (top_k_index == expert)).sum(-1, keepdim=True)
            output += (states * weight).to(output.dtype)
        return output


def _filled(module: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    return module.bfloat16()


def _inputs(tokens: int = 40, experts: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(tokens, experts, generator=generator)
    weights, index = scores.softmax(-1).topk(2)
    return torch.randn(tokens, 24, generator=generator).bfloat16(), index, weights


@pytest.mark.parametrize(
    "module",
    [
        MixtralExperts(MIXTRAL),
        PlainFunction(MIXTRAL),
        AriaExperts(AriaTextConfig(**SIZES, moe_num_experts=5)),
        GptOssExperts(GptOssConfig(**SIZES, num_local_experts=5)),
    ],
)
def test_dense_is_what_transformers_computes(module: Any) -> None:
    exact = _filled(module).float()
    states, index, weights = _inputs()
    with torch.no_grad():
        expected = exact(states.float(), index, weights)
        torch.testing.assert_close(dense_experts(exact, states.float(), index, weights), expected)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (MixtralExperts(MIXTRAL), Leaf("Experts", (24, 40, 5, "silu"))),
        (PlainFunction(MIXTRAL), Leaf("Experts", (24, 40, 5, "silu"))),
        (Doubled(MIXTRAL), None),
        (WideGate(MIXTRAL), None),
        (AriaExperts(AriaTextConfig(**SIZES, moe_num_experts=5)), None),
        (nn.Linear(24, 24), None),
    ],
)
def test_the_layer_is_recognised(module: nn.Module, expected: Leaf | None) -> None:
    states, index, weights = map(Value, _inputs())
    call = Call("experts", _filled(module), {"a": states, "b": index, "c": weights}, None)
    assert probe_experts(call, {}) == expected


def test_an_activation_is_no_call_of_a_module() -> None:
    """Hugging Face calls it for the tokens of one expert; the port's result for all tokens is no tap of it."""
    module = _filled(OwnGate(MIXTRAL))
    called: list[Tensor] = []
    module.act_fn.register_forward_hook(lambda _module, _args, out: called.append(out))
    given = _inputs()
    with torch.no_grad():
        dense_experts(module, *given)
    assert not called
    assert isinstance(module.act_fn, nn.Module)
    with torch.no_grad():
        module(*given)
    assert called
