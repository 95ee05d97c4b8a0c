"""Errors of pairs of tensors, each pair once: a tensor has several taps, as one module's output and others' input."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor

from trtllm_port.verification.judge.metrics import TokenErrors, token_errors

RECENT = 8  # references: a normalised input goes to three projections, with other taps between
VALUES = 4  # of each: what the other sides give there


class _Place(NamedTuple):
    """Tensors with the same place are the same numbers in the same memory, as long as nobody writes there."""

    address: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    version: int


class _Known(NamedTuple):
    value: Tensor
    reference: Tensor
    errors: TokenErrors


class ErrorCache:
    """Remembers the comparisons with the latest references; the tensors stay in memory with them."""

    def __init__(self) -> None:
        self._recent: OrderedDict[_Place, dict[_Place, _Known]] = OrderedDict()

    def __call__(self, value: Tensor, reference: Tensor) -> TokenErrors:
        """Return `token_errors`, without computing what is known of these very tensors from lately."""
        known = self._recent.setdefault(_place(reference), {})
        self._recent.move_to_end(_place(reference))
        place = _place(value)
        if place not in known:
            like = next(iter(known.values())).errors if known else None
            known[place] = _Known(value, reference, token_errors(value, reference, like))
        if len(known) > VALUES:
            del known[next(iter(known))]
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return known[place].errors


def _place(tensor: Tensor) -> _Place:
    version = 0 if tensor.is_inference() else tensor._version  # the executor writes into caches only
    return _Place(tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, version)
