"""Sketches of tensors: few enough numbers to travel, and enough to measure the distance of another tensor from it.

Evenly spaced tokens of a tensor are multiplied with a fixed matrix of signs. By Johnson and Lindenstrauss the lengths
of differences survive this (Achlioptas 2003 for signs): with 32 columns a token's error is known to 12 %, the error of
128 tokens together to 1 %. The signs come from a generator whose stream is fixed for good: any machine makes the same.

T tokens (all leading dimensions), F features, K columns of a sketch, N sampled tokens
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trtllm_port.verification.judge.metrics import TokenErrors

COLUMNS = 32
TOKENS = 128
SEED = 20031


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """What is kept of a tensor.

    Attributes:
        shape: of the tensor.
        values_NK: the sampled tokens times the signs.
        norms_N: sums of squares of the sampled tokens.
        largest: largest absolute value of the whole tensor.
        finite: whether the whole tensor is.
    """

    shape: tuple[int, ...]
    values_NK: Tensor = field(repr=False)
    norms_N: Tensor = field(repr=False)
    largest: float
    finite: bool


def sketch(tensor: Tensor) -> Sketch:
    """Sketch a tensor [..., F] of real numbers with at least one element."""
    features = tensor.shape[-1] if tensor.ndim > 1 else 1
    x_TF = tensor.detach().reshape(-1, features)
    x_NF = x_TF[sampled(x_TF.shape[0], TOKENS)].to("cpu", torch.float64)
    largest = float(x_TF.abs().max())
    return Sketch(
        shape=tuple(tensor.shape),
        values_NK=x_NF @ _signs(features),
        norms_N=x_NF.square().sum(-1),
        largest=largest,
        finite=bool(np.isfinite(largest)),
    )


def sketched_errors(value: Sketch, reference: Sketch) -> TokenErrors:
    """Return the errors of a tensor against another of the same shape, estimated from their sketches.

    `max_error` is the largest of the differences' projections: the same multiple of the true one on all sides.
    """
    difference_NK = value.values_NK.to(torch.float64) - reference.values_NK.to(torch.float64)
    error_N = difference_NK.square().sum(-1)
    return TokenErrors(
        error_T=error_N,
        reference_T=reference.norms_N,
        value_T=value.norms_N,
        dot_T=(value.norms_N + reference.norms_N - error_N) / 2,
        max_error=float(difference_NK.abs().max()),
        max_reference=reference.largest,
        elements=int(np.prod(value.shape)),
        finite=value.finite,
        reference_finite=reference.finite,
    )


def sampled(length: int, most: int) -> Tensor:
    """Return up to `most` evenly spaced indices below `length`, the first and the last included."""
    if length <= most:
        return torch.arange(length)
    return torch.from_numpy(np.linspace(0, length - 1, most).round().astype(np.int64))


@lru_cache(maxsize=16)
def _signs(features: int) -> Tensor:
    """Return the signs [F, K] over √K; NumPy keeps the stream of a bit generator unchanged."""
    words = np.random.PCG64(SEED).random_raw(-(-features * COLUMNS // 64))
    bits = np.unpackbits(np.asarray(words, dtype="<u8").view(np.uint8))[: features * COLUMNS]
    signs: Tensor = torch.from_numpy(bits.astype(np.float64)).reshape(features, COLUMNS) * 2 - 1
    return signs / math.sqrt(COLUMNS)
