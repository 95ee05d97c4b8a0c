"""What modules of transformers' models give, token by token."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def of_tokens(module: nn.Module, given: Any, output: Any) -> Any:
    """A module's output without what belongs to no token.

    A convolution that is padded on both sides gives more than it was given; models cut that off behind the module.
    """
    first = given[0] if isinstance(given, tuple) and given else None
    if not isinstance(module, nn.Conv1d) or not isinstance(first, Tensor) or not isinstance(output, Tensor):
        return output
    return output[..., : first.shape[-1]]
