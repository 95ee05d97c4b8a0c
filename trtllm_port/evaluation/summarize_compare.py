"""Is an engine's ROUGE as good as Hugging Face's? A paired comparison on the same articles.

The rule is MLPerf's: not more than one percent of the reference's score may be lost, and texts may not be more than a
tenth shorter or longer. Whether a difference is real is told by a paired bootstrap over the articles (Koehn 2004).
Beside it stands what the sample could have shown at all: without that, "no difference found" means nothing (Card et
al. 2020, "With Little Power Comes Great Responsibility").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
from scipy import stats

from trtllm_port.foundation.intervals import CONFIDENCE, bootstrap_interval

__all__ = ["Comparison", "RougeDifference", "Verdict", "compare", "smallest_effect"]

Verdict = Literal["pass", "fail", "cannot_tell"]

ALLOWED_LOSS = 0.01
"""Share of Hugging Face's ROUGE that may be lost (MLPerf inference: 99 % of the reference)."""
LENGTH_RATIO = (0.9, 1.1)
"""Generated tokens, engine to Hugging Face (MLPerf inference: 0.9 to 1.1 times)."""
SUSPICIOUS_GAIN = 5.0
"""An engine that is better by so many points was probably not compared with the right thing."""
FEWEST = 8
"""With fewer articles a bootstrap says nothing."""
LEAST_SCORE = 1.0
"""Points; a model that writes nothing of the summaries has nothing to lose."""
POWER = 0.80
"""How often a loss of the stated size would be found (Cohen 1988: 0.80)."""


@dataclass(frozen=True, kw_only=True)
class RougeDifference:
    """Engine minus Hugging Face, in ROUGE points.

    Attributes:
        mean: over all articles.
        low, high: a 95 % interval of the mean.
        allowed: the loss that passes, a negative number.
        detectable: the smallest true loss that four of five such samples would call a failure, a negative number; None
            where nothing scatters, as with equal texts.
        articles_needed: how many articles would tell, if the two sides are truly equal; None likewise.
        verdict: of this kind of ROUGE.
    """

    mean: float
    low: float
    high: float
    allowed: float
    detectable: float | None
    articles_needed: int | None
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
    verdict, reason = _judge(rouge, ratio)
    return Comparison(rouge=rouge, length_ratio=ratio, equal_outputs=equal, verdict=verdict, reason=reason)


def smallest_effect(differences: Sequence[float]) -> float | None:
    """The distance of a true mean from a bound that a sample like this one finds with the stated power.

    That is (t of the confidence + t of the power) standard errors; None for a single value or where nothing scatters.
    """
    if len(differences) < 2 or np.ptp(differences) == 0.0:
        return None
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    quantiles = stats.t.ppf(((1 + CONFIDENCE) / 2, POWER), df=len(differences) - 1)
    return float(quantiles.sum()) * error


def _difference(engine: Sequence[float], hugging_face: Sequence[float]) -> RougeDifference:
    differences = [left - right for left, right in zip(engine, hugging_face, strict=True)]
    low, high = bootstrap_interval(differences)
    allowed = -ALLOWED_LOSS * fmean(hugging_face)
    verdict: Verdict = "cannot_tell"
    if not _says_nothing(allowed):
        if not any(differences):
            verdict = "pass"
        elif len(differences) >= FEWEST:
            verdict = "pass" if low > allowed else "fail" if high < allowed else "cannot_tell"
    effect = smallest_effect(differences)
    return RougeDifference(
        mean=fmean(differences),
        low=low,
        high=high,
        allowed=allowed,
        detectable=None if effect is None else allowed - effect,
        articles_needed=None if effect is None or not allowed else _articles(len(differences), effect / -allowed),
        verdict=verdict,
    )


def _says_nothing(allowed: float) -> bool:
    """Whether Hugging Face's own score is too small for a loss to mean anything."""
    return -allowed < ALLOWED_LOSS * LEAST_SCORE


def _articles(articles: int, excess: float) -> int:
    """How many articles shrink the smallest effect to the allowed loss; it goes with the root of their number."""
    return max(FEWEST, math.ceil(articles * excess**2))


def _judge(rouge: dict[str, RougeDifference], ratio: float) -> tuple[Verdict, str]:
    """The verdict and the sentence that says why."""
    rouge = {kind: difference for kind, difference in rouge.items() if not _says_nothing(difference.allowed)}
    if not rouge:
        return "cannot_tell", f"Hugging Face's own summaries score less than {LEAST_SCORE:.0f} point"
    for verdict, what in (("fail", "is worse than"), ("cannot_tell", "cannot be told from more than")):
        kinds = [kind for kind, difference in rouge.items() if difference.verdict == verdict]
        if kinds:
            said = f"{_named(kinds)} {what} a loss of {ALLOWED_LOSS:.0%}"
            return verdict, said + _remedy([rouge[kind] for kind in kinds], verdict)  # type: ignore[return-value]
    low, high = LENGTH_RATIO
    if not low <= ratio <= high:
        return "cannot_tell", f"the engine's texts are {ratio:.2f} times as long as Hugging Face's"
    gained = [kind for kind, difference in rouge.items() if difference.mean > SUSPICIOUS_GAIN]
    if gained:
        return "cannot_tell", f"{_named(gained)} is better by more than {SUSPICIOUS_GAIN:.0f} points"
    return "pass", f"not more than {ALLOWED_LOSS:.0%} of any ROUGE is lost"


def _remedy(differences: Sequence[RougeDifference], verdict: str) -> str:
    needed = max((each.articles_needed or 0 for each in differences), default=0)
    return f"; about {needed:,} articles would tell" if needed and verdict == "cannot_tell" else ""


def _named(kinds: Sequence[str]) -> str:
    return ", ".join(kind.replace("rouge", "ROUGE-") for kind in kinds)
