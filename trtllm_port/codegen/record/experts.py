"""Experts: recognised as the layer `Experts`, else recorded as what all experts compute for all tokens.

Transformers computes an expert for the tokens that chose it, so its operations depend on the data. What comes out is
the same as the weighted sum over all experts in which those that a token did not choose have no weight.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from trtllm_port.codegen.ir.nodes import Leaf
from trtllm_port.codegen.ir.record import Call, Value
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.record.probing import activation_name, options
from trtllm_port.codegen.record.recorder import active_recorder
from trtllm_port.huggingface.interception.experts import computed_by_default, outputs_of_all

TOLERANCE = 2e-6  # relative, in float32
CAST = 0.25  # of the error that the model's own precision makes: another cast would make one of about that size


def dense_experts(module: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """The implementation that is traced."""
    return _combined(outputs_of_all(module, hidden_states), top_k_index, top_k_weights)


def _combined(output: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """`combine`, recorded as one operation."""
    recorder = active_recorder()
    if recorder is None:
        return combine(output, top_k_index, top_k_weights)
    reference = recorder.reference((output, top_k_index, top_k_weights))
    with torch._C.DisableTorchFunction():
        combined = combine(output, top_k_index, top_k_weights)
    recorder.record("combine_experts", reference, {}, combined, recorder.location())
    return combined


def combine(output: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """`layers.combine_experts` in torch: outputs [X, T, E], indices and weights [T, A] → [T, E]."""
    chosen = top_k_index.unsqueeze(-1) == torch.arange(output.shape[0])
    weights = (chosen * top_k_weights.unsqueeze(-1)).sum(1).T.unsqueeze(-1)
    return torch.where(weights != 0, output * weights, 0).sum(0, dtype=torch.float32).to(output.dtype)


def gated_experts(module: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """`layers.Experts` in torch, with a module's parameters and activation."""
    gate, up = torch.matmul(hidden_states, module.gate_up_proj.transpose(1, 2)).chunk(2, -1)
    output = torch.matmul(module.act_fn(gate) * up, module.down_proj.transpose(1, 2))
    return combine(output, top_k_index, top_k_weights)


def probe_experts(call: Call, known: dict[Any, bool]) -> Leaf | None:
    """The `Experts` that a call is, or None.

    Args:
        known: which modules of the model were probed, by what tells them apart: layers are alike.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in call.module.named_parameters()}
    up, down = shapes.get("gate_up_proj", ()), shapes.get("down_proj", ())
    children = dict(call.module.named_children())
    act_fn = getattr(call.module, "act_fn", None)
    if len(shapes) != 2 or children.keys() - {"act_fn"} or act_fn is None or len(up) != 3 or len(down) != 3:
        return None
    experts, hidden, intermediate = down
    name, given = activation_name(act_fn), experts_arguments(call)
    if name is None or given is None or up != (experts, 2 * intermediate, hidden):
        return None
    key = type(call.module), options(call.module), down, name
    if key not in known:
        known[key] = _is_gated(call.module, given)
    return Leaf("Experts", (hidden, intermediate, experts, name)) if known[key] else None


def experts_arguments(call: Call) -> tuple[Value, ...] | None:
    """What a call takes, as states, experts and weights."""
    given = [leaf for leaf in leaves(call.args) if isinstance(leaf, Value)]
    indices = [value for value in given if value.tensor.dtype == torch.int64]
    rest = [value for value in given if value.tensor.dtype != torch.int64]
    if len(indices) != 1 or len(rest) != 2 or len({value.tensor.ndim for value in given} | {2}) > 1:
        return None
    states, weights = rest if rest[1].tensor.shape == indices[0].tensor.shape else rest[::-1]
    return (states, indices[0], weights) if weights.tensor.shape == indices[0].tensor.shape else None


def _is_gated(module: nn.Module, given: tuple[Value, ...]) -> bool:
    """Whether a module computes what `gated_experts` does: as exactly, and with the same casts."""
    states, indices, weights = (value.tensor for value in given)
    exact = copy.deepcopy(module).float()
    with torch._C.DisableTorchFunction(), torch.no_grad():
        theirs, ours = (f(exact, states.float(), indices, weights.float()) for f in (_original, gated_experts))
        rounded, again = (f(module, states, indices, weights) for f in (_original, gated_experts))
    if rounded.dtype != again.dtype or _distance(ours, theirs) > TOLERANCE:
        return False
    return _distance(again.float(), rounded.float()) <= CAST * _distance(rounded.float(), theirs)


def _original(module: nn.Module, states: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """The module as transformers computes it by default."""
    with computed_by_default(module):
        output: Tensor = module(states, indices, weights)
    return output


def _distance(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))
