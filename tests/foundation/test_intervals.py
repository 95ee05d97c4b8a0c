"""An interval of a mean: that of the normal distribution where values are many, one number where they are equal."""

from __future__ import annotations

import numpy as np
import pytest

from trtllm_port.foundation.intervals import bootstrap_interval


def test_the_interval_agrees_with_the_normal_one() -> None:
    differences = np.random.default_rng(3).normal(0.5, 2.0, 400)
    low, high = bootstrap_interval(differences.tolist())
    half = 1.96 * differences.std(ddof=1) / 20
    assert low == pytest.approx(differences.mean() - half, abs=0.03)
    assert high == pytest.approx(differences.mean() + half, abs=0.03)


def test_equal_values_scatter_not() -> None:
    assert bootstrap_interval([0.5] * 9) == (0.5, 0.5)
