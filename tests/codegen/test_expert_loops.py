"""Loops over experts become one computation for all of them: what that gives is what the module computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DbrxConfig, LongcatFlashConfig
from transformers.models.dbrx.modeling_dbrx import DbrxExperts
from transformers.models.longcat_flash.modeling_longcat_flash import LongcatFlashExperts

from trtllm_port.codegen import generate_port
from trtllm_port.codegen.ir.record import Attribute, Call, Operation
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.recognise.expert_loops import ExpertLoops
from trtllm_port.codegen.record.recorder import Recorder

TOKENS, HIDDEN, EXPERTS = 13, 24, 5
DBRX = DbrxConfig(d_model=HIDDEN, ffn_config={"ffn_hidden_size": 16, "moe_num_experts": EXPERTS})
LONGCAT = LongcatFlashConfig(
    **{"hidden_size": HIDDEN, "expert_ffn_hidden_size": 16, "n_routed_experts": 3, "zero_expert_num": 2}
)


class Biased(nn.Module):
    """Experts with biases, of which a token's are added one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(EXPERTS, HIDDEN, HIDDEN))
        self.bias = nn.Parameter(torch.empty(EXPERTS, HIDDEN))

    def forward(self, hidden_states: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        output = torch.zeros_like(hidden_states)
        chosen = F.one_hot(index, EXPERTS).permute(2, 1, 0)
        for number in chosen.sum((1, 2)).nonzero():
            expert = int(number[0])
            place, tokens = torch.where(chosen[expert])
            states = self.computed(F.linear(hidden_states[tokens], self.weight[expert], self.bias[expert]))
            output.index_add_(0, tokens, states * weights[tokens, place, None])
        return output

    def computed(self, states: Tensor) -> Tensor:
        return F.silu(states) * 2


class OfOthers(Biased):
    """What an expert computes depends on which tokens chose it, too."""

    def computed(self, states: Tensor) -> Tensor:
        return states - states.amax(0, keepdim=True)


class Sized(Biased):
    """What an expert computes depends on how many tokens chose it."""

    def computed(self, states: Tensor) -> Tensor:
        return states * len(states)


def _call(module: Any, *shape: int) -> tuple[Call, ExpertLoops]:
    """The record of a module for random tokens, and what joins its loop."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / HIDDEN**0.5
    states = torch.randn(*shape, HIDDEN, generator=generator)
    weights, index = torch.rand(TOKENS, EXPERTS, generator=generator).topk(2)
    recorder = Recorder(module)
    with torch.no_grad(), recorder:
        module(states, index, weights)
    assert recorder.root is not None
    return recorder.root, ExpertLoops(module)


@pytest.mark.parametrize(
    ("module", "shape"),
    [(DbrxExperts(DBRX.ffn_config), (1, TOKENS)), (LongcatFlashExperts(LONGCAT), (TOKENS,)), (Biased(), (TOKENS,))],
)
def test_all_experts_at_once_are_what_the_loop_gives(module: Any, shape: tuple[int, ...]) -> None:
    call, loops = _call(module, *shape)
    joined = loops.vectorized(call)
    assert call.host_reads
    assert joined.host_reads == []
    *before, last = [item for item in joined.body if isinstance(item, Operation)]
    assert last.outputs == call.outputs
    used = {leaf.path for one in before for leaf in leaves((one.args, one.kwargs)) if isinstance(leaf, Attribute)}
    assert used == {name for name, _ in module.named_parameters()}
    expected = call.outputs[0].tensor
    found = {
        "view": lambda source, *_: source.tensor.view(expected.shape),
        "add": lambda one, other: one.tensor + other.tensor,
        "combine_experts": lambda states, index, weights: (
            (F.one_hot(index.tensor, EXPERTS) * weights.tensor[..., None]).sum(1).T[..., None] * states.tensor
        ).sum(0),
    }[last.name](*last.args)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module", [DbrxExperts(DBRX.ffn_config), LongcatFlashExperts(LONGCAT)])
def test_the_activation_stays_the_module_that_the_config_names(module: Any) -> None:
    call, loops = _call(module, *((1, TOKENS) if isinstance(module, DbrxExperts) else (TOKENS,)))
    (activation,) = (item for item in loops.vectorized(call).body if isinstance(item, Call))
    assert activation.module is dict(module.named_modules())[activation.path]
    (given,) = activation.args.values()
    (output,) = activation.outputs
    assert given.tensor.ndim == 3  # experts, tokens, width
    torch.testing.assert_close(output.tensor, F.silu(given.tensor))


@pytest.mark.slow
def test_a_port_takes_the_activation_of_its_experts_from_the_config() -> None:
    text = generate_port(LongcatFlashConfig()).files["model.py"]
    assert "self.act_fn(gate) * up" in text
    assert text.count("self.act_fn = ACT2FN[config.hidden_act]") == 1  # a function: no module gives what it does
    assert "LongcatFlashMLA(config, 2 * layer_idx + 1)" in text


@pytest.mark.parametrize("module", [OfOthers(), Sized()])
def test_a_loop_whose_experts_need_to_know_their_tokens_stays(module: Any) -> None:
    call, loops = _call(module, TOKENS)
    assert loops.vectorized(call) is call


def test_a_module_that_is_no_loop_stays() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    recorder = Recorder(model)
    with torch.no_grad(), recorder:
        model(torch.ones(3, 4))
    assert recorder.root is not None
    assert ExpertLoops(model).vectorized(recorder.root) is recorder.root
