"""Judging taps: the port's error against the noise floor. Pure functions over numbers.

Reference, yardstick and port are three runs on the same input. The yardstick is Hugging Face in the port's dtype; its
error against the more precise reference is the noise floor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from trtllm_port.verification.judge.metrics import TapMetrics, TokenErrors, summarise, token_errors
from trtllm_port.verification.judge.thresholds import RATIO, REL_L2_FLOAT32, ROUNDING, TAP_THRESHOLDS, USELESS_FLOOR
from trtllm_port.verification.judge.verdict import Verdict, worst

NO_SUCH_TAP = "the port has no such tap"


@dataclass(frozen=True, kw_only=True)
class TapComparison:
    """What became of one tap.

    Attributes:
        name: HF module path, with `:input` for its first tensor input.
        verdict: pass, warn, fail or cannot_tell.
        note: why, where numbers alone do not say it ("" otherwise).
        metrics: the port against the reference; None where nothing could be subtracted.
        floor: the yardstick against the reference.
        ratio: relative L2 error over the floor (never below one rounding).
        linf_ratio, token_ratio: the same for the largest error and for the 95th percentile over tokens.
        benign: a difference that nothing after it sees (a re-parameterisation).
        forced: what comes after it works on the reference's value in every run, and so says nothing about this one.
    """

    name: str
    verdict: Verdict
    note: str = ""
    metrics: TapMetrics | None = None
    floor: TapMetrics | None = None
    ratio: float | None = None
    linf_ratio: float | None = None
    token_ratio: float | None = None
    benign: bool = False
    forced: bool = False

    @property
    def norms_kept(self) -> bool:
        """Whether the tokens' norms are Hugging Face's: true of a permutation or rotation, not of a wrong value.

        Of what is forced it is not known whether the rest of the port undoes it.
        """
        if self.forced or self.metrics is None or self.floor is None or self.ratio is None:
            return False
        if self.metrics.rel_l2 == 0.0:
            return False
        floor = self.metrics.rel_l2 / self.ratio if self.ratio else 0.0
        return self.metrics.norm_drift <= RATIO.warns * floor

    @property
    def diverged(self) -> bool:
        """Whether this tap fails."""
        return self.verdict is Verdict.FAIL

    def as_benign(self) -> TapComparison:
        """Return the same comparison as a warning: nothing after it is affected."""
        note = "differs, but everything after it is on the noise floor: a benign re-parameterisation"
        return replace(self, verdict=Verdict.WARN, note=note, benign=True)


def failure(name: str, note: str) -> TapComparison:
    """A tap that could not be compared, which is a failure."""
    return TapComparison(name=name, verdict=Verdict.FAIL, note=note)


def compare_tap(name: str, value: Tensor, reference: Tensor, floor: TokenErrors | None, dtype: str) -> TapComparison:
    """Compare one tap of the port with the reference and judge it.

    Args:
        name: the tap.
        value: the port's tensor.
        reference: Hugging Face's, in the reference dtype.
        floor: the yardstick's errors against the same reference; None if it has no such tap.
        dtype: the port's dtype, which selects the thresholds.
    """
    if value.shape != reference.shape:
        return failure(name, f"shape {list(value.shape)}, Hugging Face has {list(reference.shape)}")
    if value.numel() == 0:
        return failure(name, "nothing to compare: the tensor is empty")
    return judge(name, token_errors(value, reference), floor, dtype)


def judge(name: str, errors: TokenErrors, floor: TokenErrors | None, dtype: str) -> TapComparison:
    """Judge a tap from its sums (see `compare_tap`)."""
    if floor is None:
        return failure(name, "no noise floor: Hugging Face in the port's dtype gave no such tensor")
    if not errors.reference_finite or not floor.finite:
        note = "Hugging Face itself is not finite here" + ("" if errors.finite else ", nor is the port")
        return TapComparison(name=name, verdict=Verdict.CANNOT_TELL, note=note)
    if not errors.finite:
        return failure(name, "NaN or infinity, Hugging Face is finite")
    port, yardstick, rounding = summarise(errors), summarise(floor), ROUNDING[dtype]
    # A floor of less than one rounding is raised to one, and with it that of the worst tokens: it is of the same run.
    raised = max(1.0, rounding / yardstick.rel_l2) if yardstick.rel_l2 else 1.0
    ratios = {
        "ratio": port.rel_l2 / max(yardstick.rel_l2, rounding),
        "linf_ratio": _over(port.max_abs, max(yardstick.max_abs, rounding * port.max_reference)),
        "token_ratio": port.token_p95 / max(yardstick.token_p95 * raised, rounding),
    }
    verdict, note = _verdict(port, yardstick, ratios, dtype)
    return TapComparison(
        name=name,
        verdict=verdict,
        note=note,
        metrics=port,
        floor=yardstick,
        ratio=ratios["ratio"],
        linf_ratio=ratios["linf_ratio"],
        token_ratio=ratios["token_ratio"],
    )


def _verdict(port: TapMetrics, yardstick: TapMetrics, ratios: dict[str, float], dtype: str) -> tuple[Verdict, str]:
    values = {**ratios, "rel_l2": port.rel_l2}
    judged = {t.metric: t.judge(values[t.metric]) for t in TAP_THRESHOLDS[dtype]}
    if judged.get(REL_L2_FLOAT32.metric) is not None and judged["ratio"] is Verdict.PASS:
        judged[REL_L2_FLOAT32.metric] = Verdict.PASS  # Hugging Face's own float32 errs as much
    verdict = worst(judged.values())
    if verdict is not Verdict.FAIL and yardstick.rel_l2 > USELESS_FLOOR:
        return Verdict.CANNOT_TELL, f"Hugging Face's own error is {yardstick.rel_l2:.0%} here"
    offenders = [name for name, each in judged.items() if each is not Verdict.PASS and name != "ratio"]
    note = "" if judged["ratio"] is verdict or not offenders else "by " + ", ".join(offenders)
    return verdict, note


def _over(error: float, floor: float) -> float:
    if error == 0.0:
        return 0.0
    return error / floor if floor else float("inf")
