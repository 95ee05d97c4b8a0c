"""A linear layer whose weight is known beforehand, for one input or for several at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class Linear:
    """x Wᵀ.

    Args:
        weight: [features out, features in]; it may be memory-mapped.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

    @property
    def nbytes(self) -> int:
        """What is read of it."""
        return self.weight.nbytes

    def together(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs for several inputs, their rows multiplied at once: the weight is read once."""
        rows = [x.reshape(-1, x.shape[-1]) for x in inputs]
        outputs = torch.split(F.linear(torch.cat(rows), self.weight), [len(x) for x in rows])
        return [y.view(*x.shape[:-1], -1) for x, y in zip(inputs, outputs, strict=True)]
