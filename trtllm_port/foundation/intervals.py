"""How sure a mean is: the interval that a sample allows to state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
BATCH_ELEMENTS = 1 << 22


def bootstrap_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """A 95 % bootstrap interval (percentiles) of the mean of values that are independent of each other.

    Args:
        values: finite numbers, such as paired differences.
        seed: same seed, same interval.
    """
    sample = np.asarray(values, dtype=np.float64)
    if np.ptp(sample) == 0.0:
        return float(sample[0]), float(sample[0])
    found = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_ELEMENTS // len(sample)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
