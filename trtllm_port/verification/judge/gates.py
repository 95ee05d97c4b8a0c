"""Gates: named yes-or-no questions with a number each. Pure functions.

The logits are judged by absolute limits or by the noise floor, whichever is kinder: a deep bfloat16 model's own error
may exceed any absolute limit, and a tiny model's floor may be unfairly low.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from trtllm_port.verification.judge.logit_metrics import LogitMetrics, agreement, confident_margin, logit_metrics
from trtllm_port.verification.judge.tap_errors import TapComparison
from trtllm_port.verification.judge.thresholds import (
    AFFINE_SCALE,
    CONFIDENT_MISSES,
    COSINE_DISTANCE,
    KL,
    KL_RATIO,
    NMSE,
    RATIO,
    ROUNDING,
    USELESS_FLOOR,
    Threshold,
)
from trtllm_port.verification.judge.verdict import Verdict, worst
from trtllm_port.verification.taps.pairing import Pairing, declaration

LOSS = "loss"
"""The phase of gates that ask what quantization cost: one that fails says nothing against the port."""
INJECTED = " where each module works on Hugging Face's values"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One question and its answer.

    Attributes:
        name: where and what, as `prefill.kl`.
        phase: "logic" (the port in float32), "precision" (the port in its own dtype), or a stage's name.
        verdict: pass, warn, fail, cannot_tell or skipped.
        value: the number that was judged, None where there is none.
        threshold: the largest value that passes.
        reason: why this threshold, or what happened.
        source: where the threshold comes from.
    """

    name: str
    phase: str
    verdict: Verdict
    value: float | None = None
    threshold: float | None = None
    reason: str
    source: str = ""


def skipped(name: str, phase: str, reason: str) -> Gate:
    """A gate that was not asked."""
    return Gate(name=name, phase=phase, verdict=Verdict.SKIPPED, reason=reason)


def threshold_gate(name: str, phase: str, value: float, threshold: Threshold) -> Gate:
    """Judge a value by the table."""
    return Gate(
        name=name,
        phase=phase,
        verdict=threshold.judge(value),
        value=value,
        threshold=threshold.passes,
        reason=threshold.reason,
        source=threshold.source,
    )


def logit_gates(where: str, phase: str, dtype: str, runs: tuple[Tensor, Tensor, Tensor]) -> list[Gate]:
    """Judge logits.

    Args:
        where: "prefill", "decode" or "batch"; the first part of each gate's name.
        phase: see `Gate`.
        dtype: the port's dtype.
        runs: logits of the port, the reference and the yardstick, each [..., V].
    """
    logits, reference, yardstick = runs
    if logits.shape != reference.shape:
        reason = f"shape {list(logits.shape)}, Hugging Face has {list(reference.shape)}"
        return [Gate(name=f"{where}.shape", phase=phase, verdict=Verdict.FAIL, reason=reason)]
    finite = [all(bool(end.isfinite()) for end in run.aminmax()) for run in runs]
    if not all(finite):
        verdict = Verdict.FAIL if finite[1] and finite[2] else Verdict.CANNOT_TELL
        who = "the port's logits are" if verdict is Verdict.FAIL else "Hugging Face's own logits are"
        return [Gate(name=f"{where}.finite", phase=phase, verdict=verdict, reason=f"{who} not finite")]
    port, floor = logit_metrics(logits, reference), logit_metrics(yardstick, reference)
    gates = _distance_gates(where, phase, dtype, port, floor)
    gates.append(_agreement_gate(where, phase, runs))
    return gates


def _distance_gates(where: str, phase: str, dtype: str, port: LogitMetrics, floor: LogitMetrics) -> list[Gate]:
    noise = max(floor.tap.rel_l2, ROUNDING[dtype])
    error = threshold_gate(f"{where}.error", phase, port.tap.rel_l2 / noise, RATIO)
    if error.verdict is not Verdict.FAIL and floor.tap.rel_l2 > USELESS_FLOOR:
        error = Gate(
            name=error.name,
            phase=phase,
            verdict=Verdict.CANNOT_TELL,
            value=floor.tap.rel_l2,
            threshold=USELESS_FLOOR,
            reason=f"Hugging Face's logits in {dtype} are {floor.tap.rel_l2:.0%} off its own more precise ones",
        )
    cosine, cosine_floor = 1.0 - port.tap.cosine, 1.0 - floor.tap.cosine
    scale = abs(port.scale - 1.0) / noise
    return [
        error,
        _either(f"{where}.kl", phase, (port.kl_max, max(floor.kl_max, floor.kl_noise)), KL[dtype]),
        _either(f"{where}.cosine", phase, (cosine, cosine_floor), COSINE_DISTANCE),
        _either(f"{where}.nmse", phase, (port.nmse, floor.nmse), NMSE),
        threshold_gate(f"{where}.affine", phase, scale, AFFINE_SCALE),
    ]


def _either(name: str, phase: str, values: tuple[float, float], threshold: Threshold) -> Gate:
    """Judge a quantity that is quadratic in the error by its absolute limit, or by a multiple of the floor's."""
    value, floor = values
    limit = max(threshold.passes, KL_RATIO.passes * floor)
    if value <= limit:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.WARN if value <= max(threshold.warns, KL_RATIO.warns * floor) else Verdict.FAIL
    return Gate(
        name=name,
        phase=phase,
        verdict=verdict,
        value=value,
        threshold=limit,
        reason=f"{threshold.reason}; or {KL_RATIO.passes:g} times Hugging Face's own",
        source=threshold.source,
    )


def _agreement_gate(where: str, phase: str, runs: tuple[Tensor, Tensor, Tensor]) -> Gate:
    logits, reference, yardstick = runs
    margin = confident_margin(yardstick, reference)
    result = agreement(logits, reference, margin)
    if not result.confident:
        return skipped(f"{where}.top1", phase, f"no token leads by more than the noise ({margin:.2g})")
    first = "" if result.first_miss is None else f", first at token {result.first_miss}"
    return Gate(
        name=f"{where}.top1",
        phase=phase,
        verdict=CONFIDENT_MISSES.judge(result.misses),
        value=float(result.misses),
        threshold=CONFIDENT_MISSES.passes,
        reason=f"{CONFIDENT_MISSES.reason}: {result.confident} tokens lead by more than {margin:.2g}{first}",
        source=CONFIDENT_MISSES.source,
    )


def tap_gates(phase: str, taps: Sequence[TapComparison], own: Sequence[TapComparison], pairing: Pairing) -> list[Gate]:
    """Summarise the taps: are all there, does none differ, and does no module err by itself?

    Args:
        phase: see `Gate`.
        taps: of the run from end to end.
        own: of the injected run.
        pairing: which taps are missing or extra.
    """
    unpaired = [*(f"{name} is missing" for name in pairing.missing), *(f"{name} is extra" for name in pairing.extra)]
    hint = (
        f"; if the port computes it elsewhere, its class says so: `{declaration(pairing)}`" if pairing.missing else ""
    )
    compared = any(tap.ratio is not None for tap in taps)
    paired = Gate(
        name="taps.paired",
        phase=phase,
        verdict=Verdict.FAIL if unpaired or not compared else Verdict.PASS,
        value=float(len(unpaired)),
        threshold=0.0,
        reason=("; ".join(unpaired[:8]) + hint) or f"{len(taps)} taps have their counterpart of equal name",
    )
    return [paired, _taps_gate("taps.error", phase, taps, ""), _taps_gate("taps.own", phase, own, INJECTED)]


def _taps_gate(name: str, phase: str, taps: Sequence[TapComparison], how: str) -> Gate:
    failing = [tap.name for tap in taps if tap.diverged]
    doubtful = [tap for tap in taps if tap.verdict is Verdict.CANNOT_TELL]
    said = f"{len(failing)} taps fail, first {failing[0]}" if failing else f"no tap of {len(taps)} fails"
    if doubtful and not failing:
        said = f"{len(doubtful)} of {len(taps)} taps cannot be judged, first `{doubtful[0].name}`: {doubtful[0].note}"
    return Gate(
        name=name,
        phase=phase,
        verdict=worst(tap.verdict for tap in taps),
        value=max((tap.ratio for tap in taps if tap.ratio is not None), default=None),
        threshold=RATIO.passes,
        reason=f"{said}{how}; {RATIO.reason}",
        source=RATIO.source,
    )
