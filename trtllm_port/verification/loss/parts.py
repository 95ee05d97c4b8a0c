"""Which parameters of a model make a part that can be quantized alone: a module, or a layer where modules are many.

Weights are named as in the checkpoint. Where transformers stacks or renames them, as experts, the nearest module that
holds them is the part.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

MOST_MODULES = 64  # that run one by one; of more, layers do
LAYER = re.compile(r"(?:^|.*?\.)\d+(?=\.)")  # of a name, up to the first number


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a model.

    Attributes:
        by: what a part is.
        parameters: part → names of its parameters in the model.
        weights: part → names of its quantized weights in the checkpoint.
    """

    by: Literal["module", "layer"]
    parameters: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, tuple[str, ...]]


def parts_of(original: nn.Module, quantized: nn.Module, names: Collection[str], others: Collection[str]) -> Parts:
    """Divide what quantization changed.

    Args:
        original, quantized: the model with either weights.
        names: the quantized weights.
        others: further tensors that differ: a method that moves scales from weights into norms before them makes
            sense of a layer as a whole alone, so there is no division by module.
    """
    held = Held(original, quantized, [*names, *others])
    modules: dict[str, tuple[set[str], list[str]]] = {}
    for name in (*names, *others):
        module, parameters = held.find(name)
        found = modules.setdefault(module, (set(), []))
        found[0].update(parameters)
        if name in names:
            found[1].append(name)
    by_layer = bool(others) or len(modules) > MOST_MODULES
    parts: dict[str, tuple[set[str], list[str]]] = {}
    for module, (held_there, weights) in modules.items():
        part = _layer_of(module) if by_layer else module
        found = parts.setdefault(part, (set(), []))
        found[0].update(held_there)
        found[1].extend(weights)
    return Parts(
        by="layer" if by_layer else "module",
        parameters={part: tuple(sorted(parameters)) for part, (parameters, _) in parts.items()},
        weights={part: tuple(weights) for part, (_, weights) in parts.items()},
    )


class Held:
    """Finds the parameters that hold a tensor of the checkpoint."""

    def __init__(self, original: nn.Module, quantized: nn.Module, names: Collection[str]) -> None:
        self.parameters = dict(original.named_parameters(remove_duplicate=False))
        self.others = dict(quantized.named_parameters(remove_duplicate=False))
        self.modules = {path for path, _ in original.named_modules()}
        self.within: dict[str, list[str]] = {}
        self.prefix = f"{getattr(original, 'base_model_prefix', '')}."
        self.direct = {parameter for name in names if (parameter := self.parameter(name)) is not None}

    def parameter(self, name: str) -> str | None:
        """Return the parameter of a tensor's name, with or without the inner model's prefix; None if there is none."""
        spellings = (name, name.removeprefix(self.prefix), self.prefix + name)
        return next((spelt for spelt in spellings if spelt in self.parameters), None)

    def find(self, name: str) -> tuple[str, list[str]]:
        """Return the path of a module and the names of its parameters that hold a tensor."""
        known = self.parameter(name)
        if known is not None:
            return known.rpartition(".")[0], [known]
        path = next(path for path in _above(name) if path in self.modules)
        if path not in self.within:
            below = [each for each in self.parameters if each not in self.direct and _lies_in(each, path)]
            self.within[path] = [each for each in below if not torch.equal(self.parameters[each], self.others[each])]
        return path, self.within[path]


def _lies_in(parameter: str, path: str) -> bool:
    return not path or parameter.startswith(f"{path}.")


def _above(name: str) -> Iterator[str]:
    """The paths that a name lies below, the nearest first, the model's own last."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _layer_of(module: str) -> str:
    found = LAYER.match(f"{module}.")
    return module if found is None else found[0]
