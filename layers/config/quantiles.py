"""Numbers that ports compute from their configs, beside plain arithmetic."""

from __future__ import annotations

from statistics import NormalDist


def normal_quantile(share: float) -> float:
    """The number that a standard normal variable is below with a probability (torch's `Normal(0, 1).icdf`).

    Args:
        share: the probability, between 0 and 1.
    """
    return NormalDist().inv_cdf(share)
