"""Inputs that are rounded to codes: decisions, as a router's, and compared as those.

Near the middle between two codes, two precise computations take different ones: of Hugging Face in float32 and in
float64 a few elements in 100,000 differ, and what comes after differs by a hundred thousand times float32's rounding,
though nothing is wrong. So every run goes on with the reference's codes, and of the port's own those are counted that
are others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trtllm_port.verification.judge.tap_errors import TapComparison, failure
from trtllm_port.verification.judge.thresholds import ROUNDING_FLIPS, ROUNDING_FLIPS_FREE
from trtllm_port.verification.judge.verdict import worst

PART = 0.4  # of the distance between codes: less is the rounding of what the codes stand for to 16 bits
NEIGHBOUR = 1.4  # distances between codes


def judge_rounding(tap: str, kind: str, sides: tuple[Tensor, Tensor, Tensor]) -> TapComparison:
    """Judge the port's codes by what they stand for.

    Args:
        tap: which.
        kind: of the codes.
        sides: port, reference and yardstick, of equal shapes.
    """
    own, reference, yardstick = (side.detach().reshape(-1).to("cpu", torch.float64) for side in sides)
    if not bool(torch.isfinite(own).all()):
        return failure(tap, "NaN or infinity")
    flips, far = _other_codes(kind, own, reference)
    floor, floor_far = _other_codes(kind, yardstick, reference)
    fewest, share = ROUNDING_FLIPS_FREE
    verdicts = [
        ROUNDING_FLIPS.judge(max(0.0, flips - max(fewest, share * len(own))) / max(1, floor)),
        ROUNDING_FLIPS.judge(max(0, far - fewest) / max(1, floor_far)),
    ]
    note = f"{flips} of {len(own):,} inputs are rounded to other codes, {floor} in Hugging Face's own run"
    if far:
        note += f"; {far} of them not to the next one, {floor_far} there"
    return TapComparison(name=tap, verdict=worst(verdicts), note=note if flips else "", forced=True)


def _other_codes(kind: str, one: Tensor, reference: Tensor) -> tuple[int, int]:
    """How many elements have other codes, and how many of them not the next one."""
    nonzero = reference.abs()[reference != 0]
    least = float(nonzero.min()) if len(nonzero) else 1.0
    difference = (one - reference).abs()
    if kind == "int8":  # the distance between codes is the same everywhere
        return int((difference > PART * least).sum()), int((difference > NEIGHBOUR * least).sum())
    # E4M3: a sixteenth to an eighth of the value, but for the least ones, whose distance is the least of all values
    greater = one.abs().maximum(reference.abs()).clamp(min=least)
    return int((difference > PART * greater / 16).sum()), int((difference > NEIGHBOUR * (greater / 8 + least)).sum())
