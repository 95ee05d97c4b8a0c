"""How near the attention scores came to a soft cap, measured where Hugging Face computes it: `tanh(scores / cap)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class ScorePeak(TorchFunctionMode):
    """While this is active, the largest argument of `tanh` over attention scores [B, N, L, L] is noted in `peak`.

    Only keys that the query may see are counted: later ones are masked after the cap.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak: float | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[Any], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.tanh, Tensor.tanh) and args[0].ndim == 4 and args[0].shape[-1] == args[0].shape[-2]:
            largest = float(args[0].detach().tril().abs().max())
            self.peak = max(largest, self.peak or 0.0)
        return func(*args, **(kwargs or {}))
