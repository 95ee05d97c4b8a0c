"""Errors of pairs of tensors, each pair once: a tensor has several taps, as one module's output and others' input."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from torch import Tensor

from trtllm_port.verification.metrics import TokenErrors, token_errors

RECENT = 32  # a layer's normalised input goes to three projections, with other taps and other runs between


class _Known(NamedTuple):
    value: Tensor
    version: int
    reference: Tensor
    errors: TokenErrors


class PairErrors:
    """Remembers the latest comparisons; the tensors stay in memory with them."""

    def __init__(self) -> None:
        self._recent: deque[_Known] = deque(maxlen=RECENT)

    def __call__(self, value: Tensor, reference: Tensor) -> TokenErrors:
        """Return `token_errors`, without computing them if these very tensors were compared lately."""
        version = _version(value)
        same = [known for known in self._recent if _is(known.reference, reference)]
        for known in same:
            if known.version == version and _is(known.value, value):
                return known.errors
        errors = token_errors(value, reference, same[-1].errors if same else None)
        self._recent.append(_Known(value, version, reference, errors))
        return errors


def _is(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same numbers in the same memory."""
    return (a.data_ptr(), a.shape, a.stride(), a.dtype) == (b.data_ptr(), b.shape, b.stride(), b.dtype)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # the executor writes into caches only
