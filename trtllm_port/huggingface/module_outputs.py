"""What modules of transformers' models give, token by token."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

CHOSEN, WEIGHTS = ":input:chosen", ":input:weights"  # as `layers/modules/module.py` calls them


def of_tokens(module: nn.Module, given: Any, output: Any) -> Any:
    """A module's output without what belongs to no token.

    A convolution that is padded on both sides gives more than it was given; models cut that off behind the module.
    """
    first = given[0] if isinstance(given, tuple) and given else None
    if not isinstance(first, Tensor) or not isinstance(output, Tensor) or not is_convolution(module):
        return output
    return output[..., : first.shape[-1]]


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is torch's convolution, and no class that computes something else with its parameters."""
    return isinstance(module, nn.Conv1d) and type(module).forward is nn.Conv1d.forward


def choice_given(given: Mapping[Any, Any]) -> dict[str, Any]:
    """Find the experts that a module is told to use, integers [T, A], and their weights of the same shape.

    Some blocks choose experts by what their router returns, and hand the choice to the module of experts.

    Args:
        given: the arguments of a call, by position or keyword.

    Returns:
        The suffix of the tap to the argument's key, empty where no choice is given.
    """
    tensors = [(key, value) for key, value in given.items() if isinstance(value, Tensor)][1:]
    chosen = [(key, value) for key, value in tensors if is_number(value) and value.ndim > 1]
    if len(chosen) != 1:
        return {}
    weights = [key for key, value in tensors if value.is_floating_point() and value.shape == chosen[0][1].shape]
    return {CHOSEN: chosen[0][0], WEIGHTS: weights[0]} if len(weights) == 1 else {}


def is_number(tensor: Tensor) -> bool:
    """Whether a tensor holds numbers of something: of experts, slots, tokens."""
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def made_beside(module: str, choosers: Collection[str]) -> bool:
    """Whether one of the modules that return choices is beside `module`, in the block that hands the choice on."""
    block = module.rpartition(".")[0]
    return any(chooser.startswith(f"{block}.") for chooser in choosers)
