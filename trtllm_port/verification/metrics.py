"""Error measures of one tensor against its reference. Pure functions; sums are in float64 in the end.

B batch, T tokens (all leading dimensions taken together), F features (the last dimension)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 17  # so that what is computed of a chunk stays in a core's cache, whatever the vocabulary
HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class TokenErrors:
    """Per-token sums from which every metric of a tap follows; the tensors themselves can be dropped."""

    error_T: Tensor  # sum of squared differences
    reference_T: Tensor  # sum of squared reference values
    value_T: Tensor  # sum of squared values
    dot_T: Tensor  # sum of products of value and reference
    max_error: float
    max_reference: float
    elements: int
    finite: bool
    reference_finite: bool


@dataclass(frozen=True, kw_only=True)
class TapMetrics:
    """The error of one tap.

    Attributes:
        rel_l2: ‖x - ref‖ / ‖ref‖ over the whole tensor.
        max_abs: largest absolute difference (L∞).
        cosine: cosine similarity of the whole tensors.
        token_p50, token_p95, token_max: the relative L2 error per token, its percentiles and its maximum.
        max_reference: largest absolute value of the reference, to see massive activations and overflow.
        norm_drift: relative L2 difference of the tokens' norms: zero for a permutation or a rotation of the features.
    """

    rel_l2: float
    max_abs: float
    cosine: float
    token_p50: float
    token_p95: float
    token_max: float
    max_reference: float
    norm_drift: float


def token_errors(value: Tensor, reference: Tensor) -> TokenErrors:
    """Sum up the differences of `value` from `reference`, token by token.

    Args:
        value: [..., F], any dtype.
        reference: the same shape.

    Raises:
        ValueError: shapes differ or there is nothing to compare; callers check both and report them as failures.
    """
    if value.shape != reference.shape:
        raise ValueError(f"shapes differ: {tuple(value.shape)} and {tuple(reference.shape)}")
    if value.numel() == 0:
        raise ValueError("nothing to compare")
    if value.dtype in HALVES and reference.dtype == torch.float32:  # a quarter of the time, and still fine enough
        errors = _summed(value, reference, torch.float32)
        if errors.finite and errors.reference_finite:
            return errors
    return _summed(value, reference, torch.float64)


def _summed(value: Tensor, reference: Tensor, wide: torch.dtype) -> TokenErrors:
    norms: list[list[Tensor]] = []
    ends: list[Tensor] = []  # put together after the loop, not chunk by chunk: there are many
    for x_TF, ref_TF in _chunks(value, reference, wide):
        difference_TF = x_TF - ref_TF
        norms.append([torch.linalg.vector_norm(each, dim=-1) for each in (difference_TF, ref_TF, x_TF)])
        ends += [difference_TF.abs_().amax(), ref_TF.amax(), ref_TF.amin()]
    error_T, reference_T, value_T = (torch.cat(parts).double().square() for parts in zip(*norms, strict=True))
    max_error, *reference_ends = torch.stack(ends).view(-1, 3).abs().amax(0)
    return TokenErrors(
        error_T=error_T,
        reference_T=reference_T,
        value_T=value_T,
        dot_T=(reference_T + value_T - error_T) / 2,
        max_error=float(max_error),
        max_reference=float(torch.stack(reference_ends).max()),
        elements=value.numel(),
        finite=bool(torch.isfinite(value_T).all()),
        reference_finite=bool(torch.isfinite(reference_T).all()),
    )


def summarise(errors: TokenErrors) -> TapMetrics:
    """Reduce per-token sums to the metrics of a tap."""
    reference = float(errors.reference_T.sum())
    value = float(errors.value_T.sum())
    tokens = relative_error_per_token(errors)
    p50, p95 = torch.quantile(tokens, torch.tensor([0.5, 0.95], dtype=tokens.dtype)).tolist()
    norms = (reference * value) ** 0.5
    return TapMetrics(
        rel_l2=_ratio(float(errors.error_T.sum()) ** 0.5, reference**0.5),
        max_abs=errors.max_error,
        cosine=min(1.0, float(errors.dot_T.sum()) / norms) if norms else float(reference == value),
        token_p50=p50,
        token_p95=p95,
        token_max=float(tokens.max()),
        max_reference=errors.max_reference,
        norm_drift=_ratio(float((errors.value_T.sqrt() - errors.reference_T.sqrt()).norm()), reference**0.5),
    )


def relative_error_per_token(errors: TokenErrors) -> Tensor:
    """Return ‖x_t - ref_t‖ / ‖ref_t‖ for every token, float64 [T].

    A token whose reference is (nearly) zero is measured against the average token: its own norm says nothing.
    """
    average = errors.reference_T.mean()
    scale_T = torch.maximum(errors.reference_T, average * 1e-12)
    relative_T = (errors.error_T / scale_T).sqrt()
    return torch.where(errors.error_T == 0, torch.zeros_like(relative_T), relative_T)


def metrics(value: Tensor, reference: Tensor) -> TapMetrics:
    """Return the error of `value` against `reference` (shapes as in `token_errors`)."""
    return summarise(token_errors(value, reference))


def _ratio(error: float, scale: float) -> float:
    if error == 0.0:
        return 0.0
    return error / scale if scale else float("inf")


def _chunks(value: Tensor, reference: Tensor, wide: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    features = value.shape[-1] if value.ndim > 1 else 1
    x_TF = value.detach().reshape(-1, features)
    ref_TF = reference.detach().reshape(-1, features)
    step = max(1, CHUNK_ELEMENTS // features)
    for start in range(0, x_TF.shape[0], step):
        yield (
            x_TF[start : start + step].to("cpu", wide),
            ref_TF[start : start + step].to("cpu", wide),
        )
