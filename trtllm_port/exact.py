"""Hugging Face in float64, without the float32 that its code writes into softmax.

`softmax(scores, dtype=float32)` protects 16 bits and rounds 64. Where the scores carry a large number that the softmax
does not see, as ALiBi does that counts from the first token, that rounding is the largest error of all, and the same in
float32: a reference with it would measure how alike two models round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["ExactSoftmax"]


class ExactSoftmax(TorchFunctionMode):
    """While active, a softmax of float64 scores is computed in float64, then rounded as the model asks.

    That is so for `softmax(scores, dtype=torch.float32)` and `softmax(scores.float())`; nothing else changes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rounded: tuple[Tensor, Tensor] | None = None  # the last cast from float64 to float32, and its source

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "softmax":
            return self._softmax(func, list(args), dict(kwargs))
        result = func(*args, **kwargs)
        if name in ("float", "to", "type") and args[0].dtype == torch.float64 and result.dtype == torch.float32:
            self._rounded = result, args[0]
        return result

    def _softmax(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        scores = args.pop(0) if args else kwargs.pop("input")
        wanted = kwargs.get("dtype") or scores.dtype
        if self._rounded is not None and scores is self._rounded[0]:
            scores = self._rounded[1]
        if scores.dtype == torch.float64:
            kwargs["dtype"] = torch.float64
        return func(scores, *args, **kwargs).to(wanted)
