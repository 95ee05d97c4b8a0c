"""Hugging Face in float64, without the float32 that its code writes into softmax, recurrences and constants.

Both casts protect 16 bits and round 64. Where the scores of a softmax carry a large number that it does not see, as
ALiBi does that counts from the first token, that rounding is the largest error of all, and the same in float32. A
recurrence that is computed chunk by chunk rounds more than one that goes from token to token, as a port does. With
either in it, a reference would measure how alike two models round. A constant made of float64's lowest number, which
hides scores, is no float32 at all: torch refuses it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["ExactArithmetic"]

STATES = frozenset(("initial_state", "initial_states"))  # what transformers' functions call the state they begin with
SUMS = frozenset(("add", "__add__", "__radd__"))
CASTS = frozenset(("float", "to", "type"))


class ExactArithmetic(TorchFunctionMode):
    """While active, a softmax of float64 scores is computed in float64, then rounded as the model asks.

    That is so for `softmax(scores, dtype=torch.float32)` and `softmax(scores.float())`. A tensor filled with a number
    beyond float32, of no data type that the model asks for, is one of float64. A function that takes the state of a
    recurrence computes in float64 where it asks for float32. Scores that a model holds in float32 stay of that type
    with a mask added, as they do in 16 bits; GPT-2 asks. Nothing else changes.
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
        if name == "full" and kwargs.get("dtype") is None and _is_beyond_float32(args[1] if len(args) > 1 else None):
            kwargs["dtype"] = torch.float64
        result = func(*args, **kwargs)
        if name in SUMS and result is not NotImplemented and _masks_float32(args, result):
            self._rounded = result.float(), result
            return self._rounded[0]
        if name in CASTS and result.dtype == torch.float32:
            if _in_recurrence(sys._getframe(1)):
                return args[0].double()
            if args[0].dtype == torch.float64:
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


def _masks_float32(args: Sequence[Any], result: Any) -> bool:
    """Whether a sum of float64 is that of scores in float32 and of a mask: nothing, or what hides them."""
    if result.dtype != torch.float64 or len(args) != 2 or not all(isinstance(arg, Tensor) for arg in args):
        return False
    scores, mask = sorted(args, key=lambda arg: bool(arg.dtype == torch.float64))
    lowest = torch.finfo(torch.float32).min
    return scores.dtype == torch.float32 and mask.ndim == 4 and bool(((mask == 0) | (mask <= lowest)).all())


def _is_beyond_float32(value: Any) -> bool:
    return isinstance(value, float) and torch.finfo(torch.float32).max < abs(value) < float("inf")


def _in_recurrence(frame: FrameType | None) -> bool:
    """Whether the function that is running takes the state of a recurrence."""
    while frame is not None and frame.f_code.co_name.startswith("<"):  # a comprehension belongs to its function
        frame = frame.f_back
    if frame is None:
        return False
    code = frame.f_code
    return not STATES.isdisjoint(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
