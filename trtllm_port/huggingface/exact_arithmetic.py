"""Hugging Face's float32 program, evaluated in float64: the reference of whatever runs in float32.

A modelling file writes float32 into its norms, softmaxes, routers and recurrences, to protect 16 bits. In a model of
float64 such a cast is the coarsest rounding of all, and the yardstick, which is the same model in float32, makes the
same one: a reference that has it measures how alike two models round, and a port that rounds elsewhere, no worse, looks
two or three times as bad. So the reference has none of them. What is of float32 before any of the model's numbers is
in it stays: tables of angles and slopes are made of positions and constants, and belong to the model as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["DTYPE", "ExactArithmetic", "tensors_as_they_are"]

DTYPE: Callable[[Any], torch.dtype] = Tensor.dtype.__get__  # type: ignore[attr-defined]
"""What torch calls when a tensor is asked for its data type."""
ALLOCATIONS = (torch.zeros, torch.ones, torch.empty)  # results and states are written into them


class _Sight(threading.local):
    plain = False  # tensors are seen as they are, though a model is running


_SIGHT = _Sight()


@contextmanager
def tensors_as_they_are(plain: bool = True) -> Iterator[None]:
    """For code of ours that a model calls, as a hook; `plain=False` for the model again, called by that code."""
    before, _SIGHT.plain = _SIGHT.plain, plain
    try:
        yield
    finally:
        _SIGHT.plain = before


class ExactArithmetic(TorchFunctionMode):
    """While active, a model of float64 takes itself for one of float32, and nothing of it is rounded to that.

    A float64 tensor says that it is of float32, so that the model decides as it does there. Where one takes part in an
    operation, float32 means float64: as what it is cast to, as what the result shall be, and of other operands. Memory
    that is asked for in float32 is of float64.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _SIGHT.plain:
            return func(*args, **kwargs)
        if func == DTYPE:
            dtype = func(*args)
            return torch.float32 if dtype == torch.float64 else dtype
        name = getattr(func, "__name__", "")
        if name == "__set__" or not _holds_float64((*args, *kwargs.values())):
            result = func(*args, **kwargs)
            return result.double() if func in ALLOCATIONS and result.dtype == torch.float32 else result
        if name == "float":
            return args[0]
        first = [args[0] if _writes(name) else _widened(args[0])] if args else []
        return func(*first, *map(_widened, args[1:]), **{key: _widened(value) for key, value in kwargs.items()})


def _holds_float64(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, Tensor):
            if value.dtype == torch.float64:
                return True
        elif isinstance(value, list | tuple) and _holds_float64(value):
            return True
    return False


def _writes(name: str) -> bool:
    """Whether a method writes into its own tensor, which then must be that one."""
    return name == "__setitem__" or name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def _widened(value: Any) -> Any:
    if value is torch.float32:
        return torch.float64
    if isinstance(value, Tensor):
        # A parameter of another type is one that stays on disk, and is cast piece by piece as it is used.
        return value.double() if value.dtype == torch.float32 and not isinstance(value, torch.nn.Parameter) else value
    if type(value) in (list, tuple):
        return type(value)(map(_widened, value))
    return value
