"""Rotary tables: the one tap whose two sides hold the same numbers in different shapes.

Hugging Face's cosine table repeats every angle ([B, L, H], in halves or in neighbouring pairs); TensorRT's rotary
embedding layer takes each angle once ([B, L, H/2]). The repetition is checked, not assumed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def is_rotary(class_name: str) -> bool:
    """Whether a Hugging Face class computes rotary tables."""
    return "RotaryEmbedding" in class_name


def match_table(reference: Tensor, value: Tensor) -> Tensor | None:
    """Return the reference table in the shape of the port's, or None if the two are not comparable.

    Args:
        reference: Hugging Face's table.
        value: the port's.
    """
    if reference.is_complex():
        return None
    if reference.shape == value.shape:
        return reference
    if reference.shape[:-1] != value.shape[:-1] or reference.shape[-1] != 2 * value.shape[-1]:
        return None
    half = value.shape[-1]
    for first, second in (
        (reference[..., :half], reference[..., half:]),
        (reference[..., ::2], reference[..., 1::2]),
    ):
        if torch.equal(first, second):
            return first
    return None
