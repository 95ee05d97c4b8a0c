"""Modules of experts as transformers marks them (`use_experts_implementation`): what they hold, how they compute.

X experts, T tokens, E size of a token
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ExpertsInterface, _default_apply_gate

Experts = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
"""Of module, states [T, E], and of each token's experts and their weights [T, …]: gives [T, E]."""


def register_experts(name: str, experts: Experts) -> None:
    """Have modules of experts in models that are made with the experts implementation `name` call a function."""
    ExpertsInterface.register(name, experts)


def outputs_of_all(module: Any, hidden_states: Tensor) -> Tensor:
    """What every expert of a module gives for every token: [X, T, E]."""
    name = "gate_up_proj" if module.has_gate else "up_proj"
    output = _project(module, name, hidden_states)
    output = _activated(module, output)
    output = _project(module, "down_proj", output)
    return module.post_expert_norm(output) if module.has_post_expert_norm else output


def computed_by_default(module: nn.Module) -> AbstractContextManager[Any]:
    """While it lasts, a module of experts computes as transformers does where nobody chose a way."""
    config: Any = getattr(module, "config", None)
    if config is None:
        return nullcontext()
    return mock.patch.object(config, "_experts_implementation_internal", "batched_mm")


def _project(module: Any, name: str, states: Tensor) -> Tensor:
    weight = getattr(module, name)
    output = torch.matmul(states, weight if module.is_transposed else weight.transpose(1, 2))
    return output + getattr(module, f"{name}_bias").unsqueeze(1) if module.has_bias else output


def _activated(module: Any, output: Tensor) -> Any:
    """The gate or activation; the activation's `forward` is no module's call, which it is for one expert in HF."""
    if not module.has_gate:
        return _activation(module)(output)
    if type(module)._apply_gate is not _default_apply_gate:
        with _functions(module):
            return module._apply_gate(output)
    gate, up = output.chunk(2, dim=-1)
    return _activation(module)(gate) * up


@contextmanager
def _functions(module: Any) -> Iterator[None]:
    """A module's activations as plain functions, for the same reason."""
    held = {name: child for name, child in module._modules.items() if not any(True for _ in child.parameters())}
    for name, child in held.items():
        del module._modules[name]
        module.__dict__[name] = child.forward
    try:
        yield
    finally:
        for name, child in held.items():
            del module.__dict__[name]
            module._modules[name] = child


def _activation(module: Any) -> Any:
    return getattr(module.act_fn, "forward", module.act_fn)  # some models have a plain function there
