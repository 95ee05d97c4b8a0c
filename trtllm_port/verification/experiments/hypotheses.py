"""What a hypothesis is: a known bug, and the ways in which a module of Hugging Face can be given it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from trtllm_port.verification.experiments.experiment import IMPOSSIBLE, Experiment

NEWTON_STEPS = 6
NEARBY = 1e-3
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to have a bug.

    Attributes:
        detail: in words that complete "the port computes what Hugging Face computes …".
        compute: runs Hugging Face with it; returns the target.
        cause, id: in a few words, and of what kind, where that can be more telling than the hypothesis is.
        look: a pattern that is more telling than the hypothesis's.
        number: which of the statements that fit the patterns has it, counted from 0.
        parameter: name of the one that is wrong; "" where it is no parameter.
    """

    detail: str
    compute: Callable[[], Tensor] = field(repr=False)
    cause: str = ""
    id: str = ""
    look: str = ""
    number: int = 0
    parameter: str = ""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A known bug.

    Attributes:
        id: as `norm.epsilon`.
        cause: in a few words.
        look: patterns of the statement to look at in the port's class, the most telling first.
        elsewhere: the same of a statement that may be in another class.
        variants: the ways to have it, in this experiment.
        general: a law that would fit many bugs; tried where no other explains the difference.
        settles: where it explains everything, no other is tried.
    """

    id: str
    cause: str
    look: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    variants: Callable[[Experiment], Iterable[Variant]] = field(repr=False)
    general: bool = False
    settles: bool = False


def fitted(
    experiment: Experiment, run: Callable[[float], Tensor], low: float, high: float, *, steps: int = 10
) -> float:
    """Return the positive number between `low` and `high` that brings a run closest to the port."""

    def error(x: float) -> float:
        try:
            return experiment.error(run(math.exp(x)))
        except IMPOSSIBLE:
            return math.inf

    if experiment.settled:
        return low
    a, b = math.log(low), math.log(high)
    grid = [a + (b - a) * i / 8 for i in range(9)]
    errors = [error(x) for x in grid]
    best = errors.index(min(errors))
    a, b = grid[max(0, best - 1)], grid[min(8, best + 1)]
    x, y = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    left, right = error(x), error(y)
    for _ in range(steps):
        if min(left, right) <= experiment.noise:
            break
        if left < right:
            b, y, right = y, x, left
            x = b - GOLDEN * (b - a)
            left = error(x)
        else:
            a, x, left = x, y, right
            y = a + GOLDEN * (b - a)
            right = error(y)
    return _refined(experiment, run, math.exp(x if left < right else y))


def _refined(experiment: Experiment, run: Callable[[float], Tensor], x: float) -> float:
    """Follow the slope (Gauss-Newton): where a run depends linearly on the number, one step is exact."""
    error = math.inf
    for _ in range(NEWTON_STEPS):
        try:
            value, beside = run(x).double(), run(x * (1 + NEARBY)).double()
            if experiment.error(value) >= error or value.shape != experiment.port.shape:
                break
        except IMPOSSIBLE:
            break
        error = experiment.error(value)
        slope = (beside - value) / (NEARBY * x)
        step = float(((experiment.port.double() - value) * slope).sum() / slope.square().sum())
        if error <= experiment.noise or not math.isfinite(step) or x + step <= 0:
            break
        x += step
    return x


def config_numbers(experiment: Experiment) -> Iterator[tuple[str, float]]:
    """Return the numbers of the config that a multiplier may be made of, with their names."""
    for name, value in experiment.config.to_dict().items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            yield name, float(value)
