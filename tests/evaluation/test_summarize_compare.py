"""The paired comparison: real losses fail, noise cannot be told, equal texts pass."""

from __future__ import annotations

import numpy as np
import pytest

from trtllm_port.evaluation.summarize_compare import compare, smallest_effect

RNG = np.random.default_rng(1)
HF = tuple(float(score) for score in RNG.normal(40, 11, 64))
TOKENS = tuple(tuple(range(20 + n % 5)) for n in range(64))


def _shifted(mean: float, spread: float) -> dict[str, tuple[float, ...]]:
    noise = np.random.default_rng(2).normal(0, spread, len(HF))
    noise -= noise.mean()
    return {"rouge1": tuple(float(a + b + mean) for a, b in zip(HF, noise, strict=True))}


@pytest.mark.parametrize(
    ("mean", "spread", "verdict"),
    [
        (0.0, 0.0, "pass"),
        (-0.1, 0.3, "pass"),  # the interval stays above the allowed loss of 0.4 points
        (-2.0, 1.0, "fail"),
        (-0.4, 1.0, "cannot_tell"),
        (0.0, 11.0, "cannot_tell"),
        (7.0, 1.0, "cannot_tell"),  # suspiciously good
    ],
)
def test_a_verdict_follows_from_the_interval(mean: float, spread: float, verdict: str) -> None:
    found = compare(_shifted(mean, spread), {"rouge1": HF}, TOKENS, TOKENS)
    assert found.verdict == verdict, found.reason
    assert found.rouge["rouge1"].mean == pytest.approx(mean, abs=1e-9)
    assert found.rouge["rouge1"].allowed == pytest.approx(-np.mean(HF) / 100)


def test_the_worst_kind_decides() -> None:
    engine = {"rouge1": HF, "rouge2": tuple(score - 3 for score in HF)}
    found = compare(engine, {"rouge1": HF, "rouge2": HF}, TOKENS, TOKENS)
    assert (found.rouge["rouge1"].verdict, found.verdict) == ("pass", "fail")
    assert "ROUGE-2 is worse" in found.reason


def test_texts_of_another_length_are_not_passed() -> None:
    longer = tuple((*tokens, *tokens) for tokens in TOKENS)
    found = compare({"rouge1": HF}, {"rouge1": HF}, longer, TOKENS)
    assert found.verdict == "cannot_tell"
    assert found.length_ratio == 2.0
    assert found.equal_outputs == 0.0


def test_few_articles_tell_nothing_unless_all_is_equal() -> None:
    few = {"rouge1": HF[:3]}
    assert compare({"rouge1": tuple(s - 9 for s in HF[:3])}, few, TOKENS[:3], TOKENS[:3]).verdict == "cannot_tell"
    assert compare(few, few, TOKENS[:3], TOKENS[:3]).verdict == "pass"


def test_a_loss_of_the_smallest_size_is_found_as_often_as_promised() -> None:
    """The stated power, by drawing samples: four of five are called a failure."""
    rng = np.random.default_rng(4)
    found = compare(_shifted(0.0, 3.0), {"rouge1": HF}, TOKENS, TOKENS).rouge["rouge1"]
    assert found.detectable is not None
    failed = 0
    for _ in range(100):
        drawn = np.asarray(HF) + rng.normal(found.detectable, 3.0, len(HF))
        failed += compare({"rouge1": tuple(drawn.tolist())}, {"rouge1": HF}, TOKENS, TOKENS).verdict == "fail"
    assert 68 <= failed <= 92


def test_more_articles_are_asked_for_where_they_would_tell() -> None:
    found = compare(_shifted(0.0, 3.0), {"rouge1": HF}, TOKENS, TOKENS)
    needed = found.rouge["rouge1"].articles_needed
    assert needed is not None
    assert f"about {needed:,} articles would tell" in found.reason
    many = np.random.default_rng(5).normal(40, 11, needed)
    noise = np.random.default_rng(6).normal(0, 3.0, needed)
    engine = {"rouge1": tuple((many + noise - noise.mean()).tolist())}
    tokens = TOKENS[:1] * needed
    assert compare(engine, {"rouge1": tuple(many.tolist())}, tokens, tokens).verdict == "pass"


def test_a_model_that_scores_nothing_proves_nothing() -> None:
    nothing = {"rouge1": (0.0,) * 64}
    found = compare(nothing, nothing, TOKENS, TOKENS)
    assert (found.verdict, found.rouge["rouge1"].verdict) == ("cannot_tell", "cannot_tell")
    assert "score less than 1 point" in found.reason


def test_equal_scores_scatter_not() -> None:
    assert smallest_effect([0.0] * 9) is None
    assert smallest_effect([1.0]) is None
