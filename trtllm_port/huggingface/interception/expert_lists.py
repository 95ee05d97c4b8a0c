"""Experts in a list of modules, as most code that comes with a model holds them, as one module that holds them stacked.

    self.experts = nn.ModuleList([MLP(config) for _ in range(config.n_routed_experts)])
    …
    output = self.moe_infer(hidden_states, topk_ids, topk_weight)

DeepSeek's files have written it so, and many have taken it over; others have a loop in its place (see `expert_loops`).
Which experts are asked depends on the data; that goes on, of a module that the generator knows.

X experts, E size of a token, I size between the projections
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import permutations
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter

from trtllm_port.huggingface.interception.expert_loops import loop_over_experts

METHOD = "moe_infer"
ACTIVATIONS = ("act_fn", "act", "activation_fn", "activation")
_TOKENS = 7
_TOLERANCE = 1e-5  # relative, in float32


class StackedExperts(nn.Module):
    """Gated experts as two parameters, `gate_up_proj` [X, 2 I, E] and `down_proj` [X, E, I].

    It is called with states, indices and weights, and computes what a method of the module around it does with a list.

    Args:
        experts: the list; its modules are all alike.
        names: of the weights of gate, up and down projection in each.
        act_fn: between them.
        method: the method, which takes experts from this module as from a list.
    """

    def __init__(self, experts: nn.ModuleList, names: tuple[str, str, str], act_fn: Any, method: MethodType) -> None:
        super().__init__()
        gate, up, down = (torch.stack([dict(one.named_parameters())[name] for one in experts]) for name in names)
        self.gate_up_proj = nn.Parameter(torch.cat([gate, up], 1).detach())
        self.down_proj = nn.Parameter(down.detach())
        self.act_fn = act_fn
        self.names = names
        self.__dict__["expert"] = experts[0]  # no part of this module
        self.method = method

    def forward(self, hidden_states: Tensor, topk_ids: Tensor, topk_weight: Tensor) -> Any:
        return self.method(hidden_states, topk_ids, topk_weight)

    def __len__(self) -> int:
        return len(self.down_proj)

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Any:
        """What computes one of the experts."""
        gate, up = self.gate_up_proj[number].chunk(2)
        weights = dict(zip(self.names, (gate, up, self.down_proj[number]), strict=True))
        expert: nn.Module = self.__dict__["expert"]
        return lambda states: functional_call(expert, weights, (states,))


def stack_expert_lists(model: nn.Module) -> None:
    """Put `StackedExperts` where a model has lists that they compute the same as; its files keep the lists' names."""
    found: list[WeightConverter] = []
    for path, block in list(model.named_modules()):
        experts = getattr(block, "experts", None)
        if not isinstance(experts, nn.ModuleList):
            continue
        names = _weights(experts)
        method = None if names is None else _method(block, experts[0].get_parameter(names[0]).shape[1])
        if names is None or method is None:
            continue
        block.experts = StackedExperts(experts, names, _activation(experts[0]), method)
        if hasattr(block, METHOD):  # inherited, perhaps
            block.__dict__[METHOD] = block.experts  # not a second part of the block
        gate, up, down = (f"{path}.experts.*.{name}" for name in names)
        found += [
            WeightConverter([gate, up], f"{path}.experts.gate_up_proj", [MergeModulelist(0), Concatenate(1)]),
            WeightConverter([down], f"{path}.experts.down_proj", [MergeModulelist(0)]),
        ]
    if found:
        model._weight_conversions = found  # type: ignore[assignment]  # which transformers keeps there, too


def _method(block: nn.Module, width: int) -> MethodType | None:
    """What asks a block's experts: a loop in `forward`, which is changed to call them, or a method."""
    loop = loop_over_experts(block, width)  # one for training is not run, and not understood
    if loop is not None:
        block.forward = loop.forward
        return loop.method
    method = getattr(block, METHOD, None)
    takes_three = isinstance(method, MethodType) and len(inspect.signature(method).parameters) == 3
    return method if takes_three else None


def _activation(expert: nn.Module) -> Any:
    return next((held for name in ACTIVATIONS if (held := getattr(expert, name, None)) is not None), None)


def _weights(experts: nn.ModuleList) -> tuple[str, str, str] | None:
    """The names of the weights of gate, up and down projection, if the modules of a list are gated MLPs."""
    if len(experts) < 2 or len({type(one) for one in experts}) > 1:
        return None
    act_fn = _activation(experts[0])
    shapes = {name: tuple(parameter.shape) for name, parameter in experts[0].named_parameters()}
    if act_fn is None or len(shapes) != 3 or any(len(shape) != 2 for shape in shapes.values()):
        return None
    for gate, up, down in permutations(shapes):
        names = gate, up, down
        if shapes[gate] == shapes[up] == shapes[down][::-1] and _is_gated(experts[0], names, act_fn):
            return names
    return None


def _is_gated(expert: nn.Module, names: tuple[str, ...], act_fn: Any) -> bool:
    """Whether a module is a gated MLP with these weights."""
    generator = torch.Generator().manual_seed(0)
    own = dict(expert.named_parameters())
    gate, up, down = (torch.randn(own[name].shape, generator=generator) / own[name].shape[1] ** 0.5 for name in names)
    states = torch.randn(_TOKENS, gate.shape[1], generator=generator)
    with torch.no_grad():
        found = functional_call(expert, dict(zip(names, (gate, up, down), strict=True)), (states,))
        expected = (act_fn(states @ gate.T) * (states @ up.T)) @ down.T
    return isinstance(found, Tensor) and torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE)
