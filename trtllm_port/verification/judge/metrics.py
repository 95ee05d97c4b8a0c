"""Error measures of one tensor against its reference. Pure functions; sums are in float64 in the end.

B batch, T tokens (all leading dimensions taken together), F features (the last dimension)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SCRATCH_BYTES = 3 << 20  # what is computed of a chunk stays in the cores' caches; smaller ones wait for each other
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


def token_errors(value: Tensor, reference: Tensor, known: TokenErrors | None = None) -> TokenErrors:
    """Sum up the differences of `value` from `reference`, token by token.

    Args:
        value: [..., F], any dtype.
        reference: the same shape.
        known: the errors of another value against this reference, whose own sums are in them; None: there are none.

    Raises:
        ValueError: shapes differ or there is nothing to compare; callers check both and report them as failures.
    """
    if value.shape != reference.shape:
        raise ValueError(f"shapes differ: {tuple(value.shape)} and {tuple(reference.shape)}")
    if value.numel() == 0:
        raise ValueError("nothing to compare")
    if value.dtype in HALVES and reference.dtype == torch.float32:  # a quarter of the time, and still fine enough
        errors = _summed(value, reference, known, torch.float32)
        if errors.finite and errors.reference_finite:
            return errors
    return _summed(value, reference, known, torch.float64)


def _summed(value: Tensor, reference: Tensor, known: TokenErrors | None, wide: torch.dtype) -> TokenErrors:
    features = value.shape[-1] if value.ndim > 1 else 1
    x_TF, ref_TF = value.detach().reshape(-1, features), reference.detach().reshape(-1, features)
    errors, values, references = _Norms(), _Norms(), _Norms()
    step = min(max(1, SCRATCH_BYTES // (features * wide.itemsize)), len(x_TF))
    scratch_TF = torch.empty(step, features, dtype=wide)  # for every chunk again: new memory costs more than the sums
    for start in range(0, len(x_TF), step):
        part = slice(start, start + step)
        difference_TF = scratch_TF[: len(x_TF[part])].copy_(x_TF[part])
        values.add(difference_TF)
        wide_ref_TF = ref_TF[part].to("cpu", wide)
        difference_TF.sub_(wide_ref_TF).abs_()
        errors.add(difference_TF, difference_TF.amax())
        if known is None:
            references.add(wide_ref_TF, *wide_ref_TF.aminmax())
    error_T, value_T = errors.squares, values.squares
    reference_T = references.squares if known is None else known.reference_T
    return TokenErrors(
        error_T=error_T,
        reference_T=reference_T,
        value_T=value_T,
        dot_T=(reference_T + value_T - error_T) / 2,
        max_error=errors.largest,
        max_reference=references.largest if known is None else known.max_reference,
        elements=value.numel(),
        finite=bool(torch.isfinite(value_T).all()),
        reference_finite=bool(torch.isfinite(reference_T).all()) if known is None else known.reference_finite,
    )


class _Norms:
    """Norms per token and the largest absolute value of a tensor that comes in chunks; put together in the end."""

    def __init__(self) -> None:
        self._norms: list[Tensor] = []
        self._ends: list[Tensor] = []

    def add(self, chunk_TF: Tensor, *ends: Tensor) -> None:
        """Add a chunk; among `ends` is its largest value by magnitude."""
        self._norms.append(torch.linalg.vector_norm(chunk_TF, dim=-1))
        self._ends += ends

    @property
    def squares(self) -> Tensor:
        """The tokens' squared norms, float64 [T]."""
        return torch.cat(self._norms).double().square()

    @property
    def largest(self) -> float:
        return float(torch.stack(self._ends).abs().max())


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
