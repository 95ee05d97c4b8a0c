"""How far each weight is from the original's, read from the two directories, one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch

from trtllm_port.foundation.progress import Progress
from trtllm_port.layers.weights import TensorSource

ROUNDING = 2.0**-8  # what is stored in another 16-bit type differs by half of it at most


@dataclass(frozen=True, kw_only=True)
class WeightErrors:
    """The tensors of both directories, compared.

    Attributes:
        relative: of each quantized weight ‖W − W_q‖ / ‖W‖, by name.
        squares: of the same, ‖W − W_q‖² and ‖W‖².
        others: names of what is not quantized, and yet differs by more than rounding.
        absent: quantized weights that the original has not, by that name and shape.
    """

    relative: dict[str, float]
    squares: dict[str, tuple[float, float]]
    others: tuple[str, ...]
    absent: tuple[str, ...]


def weight_errors(
    original: TensorSource, quantized: TensorSource, names: Collection[str], progress: Progress | None = None
) -> WeightErrors:
    """Compare all tensors that have one name and shape on both sides.

    Args:
        original, quantized: the tensors of the two models.
        names: those that are quantized.
        progress: called with ("loss of weights", done, total).
    """
    shapes = {name: original.shape(name) for name in original.names()}
    alike = [name for name in quantized.names() if shapes.get(name) == quantized.shape(name)]
    squares, others = dict[str, tuple[float, float]](), list[str]()
    for done, name in enumerate(alike):
        if progress is not None:
            progress("loss of weights", done, len(alike))
        own = original.tensor(name)
        if not own.is_floating_point():
            continue
        own = own.to(torch.float32)
        error, size = (_square(part) for part in (own - quantized.tensor(name).to(torch.float32), own))
        if name in names:
            squares[name] = error, size
        elif not error <= ROUNDING**2 * size:  # NaN is another value, too
            others.append(name)
    return WeightErrors(
        relative={name: relative(*each) for name, each in squares.items()},
        squares=squares,
        others=tuple(others),
        absent=tuple(sorted(name for name in names if name not in squares)),
    )


def relative(error: float, size: float) -> float:
    """Return √(error / size) of two squares; of a weight of zeros that was not kept, infinity."""
    if size == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return math.sqrt(error / size)


def _square(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2
