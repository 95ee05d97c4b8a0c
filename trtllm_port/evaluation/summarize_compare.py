"""Is an engine's ROUGE as good as Hugging Face's? A paired comparison on the same articles.

The rule is MLPerf's: not more than one percent of the reference's score may be lost, and texts may not be more than a
tenth shorter or longer. Whether a difference is real is told by a paired bootstrap over the articles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

__all__ = ["Comparison", "RougeDifference", "Verdict", "compare", "paired_interval"]

Verdict = Literal["pass", "fail", "cannot_tell"]

ALLOWED_LOSS = 0.01
"""Share of Hugging Face's ROUGE that may be lost (MLPerf inference: 99 % of the reference)."""
LENGTH_RATIO = (0.9, 1.1)
"""Generated tokens, engine to Hugging Face (MLPerf inference: 0.9 to 1.1 times)."""
SUSPICIOUS_GAIN = 5.0
"""An engine that is better by so many points was probably not compared with the right thing."""
FEWEST = 8
"""With fewer articles a bootstrap says nothing."""
RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class RougeDifference:
    """Engine minus Hugging Face, in ROUGE points, with a 95 % interval of the mean."""

    mean: float
    low: float
    high: float
    allowed: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the comparison of the two sides came to.

    Args:
        rouge: per kind of ROUGE.
        length_ratio: generated tokens, engine to Hugging Face.
        equal_outputs: share of articles whose tokens are the same on both sides.
        verdict: the worst one; "cannot_tell" where the length ratio is out of bounds, too.
        reason: one sentence.
    """

    rouge: dict[str, RougeDifference]
    length_ratio: float
    equal_outputs: float
    verdict: Verdict
    reason: str


def compare(
    engine: dict[str, tuple[float, ...]],
    hugging_face: dict[str, tuple[float, ...]],
    engine_tokens: Sequence[Sequence[int]],
    hugging_face_tokens: Sequence[Sequence[int]],
) -> Comparison:
    """Judge an engine by its ROUGE.

    Args:
        engine, hugging_face: points per kind of ROUGE and article, in the same order of articles.
        engine_tokens, hugging_face_tokens: what was generated, per article.
    """
    rouge = {kind: _difference(engine[kind], hugging_face[kind]) for kind in hugging_face}
    ratio = sum(map(len, engine_tokens)) / max(1, sum(map(len, hugging_face_tokens)))
    pairs = list(zip(engine_tokens, hugging_face_tokens, strict=True))
    equal = fmean(tuple(left) == tuple(right) for left, right in pairs)
    verdict, reason = _judge(rouge, ratio, equal)
    return Comparison(rouge=rouge, length_ratio=ratio, equal_outputs=equal, verdict=verdict, reason=reason)


def paired_interval(differences: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """A 95 % bootstrap interval (percentiles) of the mean of paired differences."""
    values = np.asarray(differences, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def _difference(engine: Sequence[float], hugging_face: Sequence[float]) -> RougeDifference:
    differences = [left - right for left, right in zip(engine, hugging_face, strict=True)]
    low, high = paired_interval(differences)
    allowed = -ALLOWED_LOSS * fmean(hugging_face)
    verdict: Verdict = "cannot_tell"
    if not any(differences):
        verdict = "pass"
    elif len(differences) >= FEWEST:
        verdict = "pass" if low > allowed else "fail" if high < allowed else "cannot_tell"
    return RougeDifference(mean=fmean(differences), low=low, high=high, allowed=allowed, verdict=verdict)


def _judge(rouge: dict[str, RougeDifference], ratio: float, equal: float) -> tuple[Verdict, str]:
    """The verdict and the sentence that says why."""
    for verdict, what in (("fail", "is worse than"), ("cannot_tell", "cannot be told from more than")):
        kinds = [kind for kind, difference in rouge.items() if difference.verdict == verdict]
        if kinds:
            return verdict, f"{_named(kinds)} {what} a loss of {ALLOWED_LOSS:.0%}"  # type: ignore[return-value]
    low, high = LENGTH_RATIO
    if not low <= ratio <= high:
        return "cannot_tell", f"the engine's texts are {ratio:.2f} times as long as Hugging Face's"
    gained = [kind for kind, difference in rouge.items() if difference.mean > SUSPICIOUS_GAIN]
    if gained:
        return "cannot_tell", f"{_named(gained)} is better by more than {SUSPICIOUS_GAIN:.0f} points"
    return "pass", f"not more than {ALLOWED_LOSS:.0%} of any ROUGE is lost; {equal:.0%} of the texts are equal"


def _named(kinds: Sequence[str]) -> str:
    return ", ".join(kind.replace("rouge", "ROUGE-") for kind in kinds)
