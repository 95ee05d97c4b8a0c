"""Steps of a `Transform` as data: stack, join, transpose, cut.

Each takes and gives groups of tensors: at first, a group is what one source pattern matched, in the order of the
numbers in the names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

Groups = list[list[torch.Tensor]]


@dataclass(frozen=True)
class Stack:
    """The tensors of each group as one, along a new dimension: the experts of a layer."""

    dim: int = 0

    def __call__(self, groups: Groups) -> Groups:
        return [[torch.stack(group, self.dim)] for group in groups]


@dataclass(frozen=True)
class Concat:
    """All tensors as one, along a dimension, in the order of the groups."""

    dim: int = 0

    def __call__(self, groups: Groups) -> Groups:
        return [[torch.cat([tensor for group in groups for tensor in group], self.dim)]]


@dataclass(frozen=True)
class Transpose:
    """Every tensor with two dimensions exchanged."""

    dim0: int
    dim1: int

    def __call__(self, groups: Groups) -> Groups:
        return [[tensor.transpose(self.dim0, self.dim1) for tensor in group] for group in groups]


@dataclass(frozen=True)
class Chunk:
    """One tensor as several of equal size, one for each target."""

    chunks: int
    dim: int = 0

    def __call__(self, groups: Groups) -> Groups:
        ((tensor,),) = groups
        return [[part] for part in tensor.chunk(self.chunks, self.dim)]


Step = Stack | Concat | Transpose | Chunk


def run_steps(steps: Sequence[Step], groups: Groups) -> tuple[torch.Tensor, ...]:
    """One tensor for each target; raises what torch raises for shapes that do not fit."""
    for step in steps:
        groups = step(groups)
    return tuple(tensor for group in groups for tensor in group)


def laid_end_to_end(steps: Sequence[Step], counts: Sequence[int]) -> list[int] | None:
    """The order in which the sources' bytes are those of the one target, or None where bytes must be rearranged.

    Args:
        steps: of the transform.
        counts: tensors of each group.
    """
    plain = list(range(sum(counts)))
    if list(steps) in ([Stack(0)], [Concat(0)]) and (len(counts) == 1 or steps[0] == Concat(0)):
        return plain
    if list(steps) == [Stack(0), Concat(1)] and len(set(counts)) == 1:  # each expert's gate, then its up projection
        return [index for expert in range(counts[0]) for index in plain[expert :: counts[0]]]
    return None
