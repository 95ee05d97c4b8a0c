"""What quantization cost, as data: numbers with their intervals, modules with their shares, and a word for it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trtllm_port.verification.judge.gates import LOSS, Gate
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.stimulus.loss_bound import LossBound

# Llama 3 8B measures 0.0014 at 8 bits, 0.0057 at 6, 0.031 at 4 and 0.33 to 0.45 at 2.
# [llama.cpp, tools/perplexity/README.md]
WORDS = ((0.01, "negligible"), (0.05, "small"), (0.15, "moderate"), (0.5, "large"))
LARGEST, NO_NUMBER = "very large", "not a number"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over tokens, with a 95 % interval by bootstrap over the windows; None where there is one window alone."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """KL(original ‖ quantized) of the distribution of the next token, in nats, over all tokens."""

    mean: float
    low: float | None
    high: float | None
    median: float
    p99: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """How well each side predicts the text; `ratio` is quantized to original, its interval paired by token."""

    original: float
    quantized: float
    ratio: Estimate


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the model that was quantized alone.

    Attributes:
        name: of the module or layer.
        kl: mean KL with only this part's weights replaced by quantized ones.
        share: of the sum over all parts.
        error: ‖W − W_q‖ / ‖W‖ over its quantized weights; None where the original has none of these names.
    """

    name: str
    kl: float
    share: float
    error: float | None


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Which part costs how much.

    Attributes:
        by: what a part is.
        tokens: how many predictions each was judged by.
        together: mean KL over the same tokens with all of them quantized; the parts' sum tells how far they add up.
        sum: of the parts' KL.
        parts: the costliest first.
    """

    by: Literal["module", "layer"]
    tokens: int
    together: float
    sum: float
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What quantization cost.

    Attributes:
        text: what was predicted, in words.
        windows, window: how many, and how many predictions in each.
        word: how large the mean KL is.
        kl, perplexity: see there.
        top1: share of tokens where both sides prefer the same next token.
        shares: None where they were not measured; `notes` say why.
        weights: ‖W − W_q‖ / ‖W‖ by name, the largest first.
        notes: what a reader must know.
    """

    text: str
    windows: int
    window: int
    word: str
    kl: Divergence
    top1: Estimate
    perplexity: Perplexity
    shares: Shares | None
    weights: dict[str, float]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def word_of(kl: float) -> str:
    """Say how large a mean KL is, by what llama.cpp's documents measure at 8, 6, 4 and 2 bits."""
    if math.isnan(kl):
        return NO_NUMBER
    return next((word for bound, word in WORDS if kl < bound), LARGEST)


def loss_gate(loss: Loss, max_kl: float) -> Gate:
    """Judge a loss by the largest mean KL that is allowed; NaN fails."""
    mean = loss.kl.mean
    passes = mean <= max_kl
    return Gate(
        name="loss.kl",
        phase=LOSS,
        verdict=Verdict.PASS if passes else Verdict.FAIL,
        value=mean,
        threshold=max_kl,
        reason=f"quantization costs a mean KL divergence of {mean:.3g} ({loss.word}), "
        f"{'not more' if passes else 'more'} than the {max_kl:g} that `--max-kl` allows",
        source="--max-kl",
    )


def bound_gate(loss: Loss, bound: LossBound) -> Gate:
    """Judge a loss by the bound that modules were left unquantized for; NaN fails."""
    value = {"kl": loss.kl.mean, "top1": loss.top1.value, "perplexity": loss.perplexity.ratio.value}[bound.measure]
    passes = bound.is_met(value)
    return Gate(
        name="loss.repair",
        phase=LOSS,
        verdict=Verdict.PASS if passes else Verdict.FAIL,
        value=bound.distance(value),
        threshold=bound.distance(bound.limit),
        reason=f"{bound.measure} is {value:.4g}, `--repair` asks for {bound}",
        source="--repair",
    )


def describe(loss: Loss) -> str:
    """Say it in one line."""
    kl, ratio = loss.kl, loss.perplexity.ratio
    return (
        f"{loss.word}: mean KL {kl.mean:.3g}{interval(kl.low, kl.high)}, "
        f"same best token {loss.top1.value:.1%}{interval(loss.top1.low, loss.top1.high, '.1%')}, "
        f"perplexity {loss.perplexity.original:.4g} to {loss.perplexity.quantized:.4g}, "
        f"times {ratio.value:.4g}{interval(ratio.low, ratio.high, '.4g')}"
    )


def interval(low: float | None, high: float | None, form: str = ".3g") -> str:
    """Write an interval behind its value; nothing where there is none."""
    return "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"
