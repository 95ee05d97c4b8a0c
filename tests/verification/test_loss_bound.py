"""A bound is read as it is written, or refused before any work."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtllm_port.errors import ConfigError
from trtllm_port.verification import LossBound


@pytest.mark.parametrize(
    ("text", "written", "within", "beyond"),
    [
        ("kl<0.01", "kl<0.01", 0.0099, 0.01),
        (" kl < 1e-3 ", "kl<0.001", 0.0, 0.002),
        ("top1>0.95", "top1>0.95", 0.951, 0.95),
        ("top1>0", "top1>0", 0.1, 0.0),
        ("perplexity<1.01", "perplexity<1.01", 0.99, 1.01),
    ],
)
def test_a_bound_is_strict(text: str, written: str, within: float, beyond: float) -> None:
    bound = LossBound.parse(text)
    assert str(bound) == written
    assert bound.is_met(within)
    assert not bound.is_met(beyond)
    assert not bound.is_met(math.nan)
    assert bound.distance(within) < bound.distance(bound.limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, "is no bound of a loss")
            for text in ("", "kl", "kl<", "kl=0.1", "kl<=0.1", "kl<0.1,top1>0.9", "ku<1")
        ),
        *((text, "has no number as its limit") for text in ("kl<x", "kl<nan", "kl<inf", "perplexity<1.0.1")),
        *((text, "on the side where nothing is lost") for text in ("kl>0.01", "top1<0.9", "perplexity>1")),
        *(
            (text, "cannot be met")
            for text in ("kl<0", "kl<-1", "top1>1", "top1>1.5", "perplexity<1", "perplexity<0.9")
        ),
    ],
)
def test_what_cannot_be_met_or_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        LossBound.parse(text)
    assert refused.value.hint == "one of `kl<0.01`, `top1>0.95` and `perplexity<1.01`"


@given(st.text())
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        bound = LossBound.parse(text)
    except ConfigError:
        return
    assert LossBound.parse(str(bound)).measure == bound.measure


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_a_written_bound_is_the_bound(limit: float) -> None:
    assert LossBound.parse(f"kl<{limit!r}").limit == limit
