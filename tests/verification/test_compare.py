from __future__ import annotations

import pytest
import torch

from trtllm_port.verification.judge.gates import tap_gates
from trtllm_port.verification.judge.metrics import summarise, token_errors
from trtllm_port.verification.judge.tap_errors import TapComparison, compare_tap
from trtllm_port.verification.judge.thresholds import ROUNDING
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.report.assembly import summary
from trtllm_port.verification.taps.pairing import Pairing

GENERATOR = torch.Generator().manual_seed(0)
REFERENCE = torch.randn(64, 32, generator=GENERATOR, dtype=torch.float64)
NOISE = torch.randn(64, 32, generator=GENERATOR, dtype=torch.float64)
OTHER_NOISE = torch.randn(64, 32, generator=GENERATOR, dtype=torch.float64)


def judged(value: torch.Tensor, dtype: str = "bfloat16", noise: float = 5e-3) -> TapComparison:
    return compare_tap("tap", value, REFERENCE, token_errors(REFERENCE + noise * NOISE, REFERENCE), dtype)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.5, Verdict.PASS), (1.2, Verdict.PASS), (2.0, Verdict.WARN), (3.5, Verdict.FAIL)]
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_ratio_to_the_noise_floor_decides(factor: float, verdict: Verdict, dtype: str) -> None:
    found = judged(REFERENCE + factor * 5e-3 * OTHER_NOISE, dtype)
    assert found.verdict is verdict
    assert found.ratio == pytest.approx(factor, rel=0.05)


def test_float32_fails_far_below_a_rounding_of_bfloat16() -> None:
    assert judged(REFERENCE * (1 + 2e-6), "float32", noise=3e-7).verdict is Verdict.FAIL


def test_float32_may_err_as_hugging_face_errs() -> None:
    assert judged(REFERENCE + 1.2e-3 * OTHER_NOISE, "float32", noise=1e-3).verdict is Verdict.PASS


def test_one_wrong_element_fails() -> None:
    value = REFERENCE + 5e-3 * OTHER_NOISE
    value[3, 5] += 0.2
    found = judged(value)
    assert found.ratio is not None
    assert found.ratio < 1.5
    assert found.verdict is Verdict.FAIL
    assert "linf_ratio" in found.note


def test_a_copy_is_measured_against_one_rounding() -> None:
    floor = token_errors(REFERENCE, REFERENCE)
    assert compare_tap("tap", REFERENCE, REFERENCE, floor, "float32").verdict is Verdict.PASS
    assert compare_tap("tap", REFERENCE.float(), REFERENCE, floor, "float32").verdict is Verdict.PASS
    assert compare_tap("tap", REFERENCE * 1.0001, REFERENCE, floor, "float32").verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (torch.zeros(64, 31), "shape"),
        (torch.full((64, 32), float("nan")), "NaN"),
        (torch.full((64, 32), float("inf")), "infinity"),
    ],
)
def test_what_cannot_be_compared_fails(value: torch.Tensor, note: str) -> None:
    found = judged(value)
    assert found.verdict is Verdict.FAIL
    assert note in found.note


def test_an_empty_tensor_fails() -> None:
    empty = torch.zeros(0, 4)
    assert compare_tap("tap", empty, empty, None, "float32").verdict is Verdict.FAIL


def test_a_missing_floor_fails() -> None:
    assert compare_tap("tap", REFERENCE, REFERENCE, None, "float32").verdict is Verdict.FAIL


def test_nothing_can_be_told_where_hugging_face_is_not_finite() -> None:
    broken = token_errors(torch.full_like(REFERENCE, float("inf")), REFERENCE)
    assert compare_tap("tap", REFERENCE, REFERENCE, broken, "float16").verdict is Verdict.CANNOT_TELL


def test_nothing_can_be_told_from_a_useless_yardstick() -> None:
    assert judged(REFERENCE + 0.8 * OTHER_NOISE, noise=0.8).verdict is Verdict.CANNOT_TELL


def test_taps_that_cannot_be_judged_are_named() -> None:
    taps = [
        TapComparison(name="a", verdict=Verdict.PASS, ratio=1.0),
        TapComparison(name="b", verdict=Verdict.CANNOT_TELL, note="Hugging Face itself is not finite here"),
    ]
    gates = tap_gates("precision", taps, [], Pairing(paired=("a", "b"), missing=(), extra=(), ignored={}))
    doubtful = next(gate for gate in gates if gate.name == "taps.error")
    assert doubtful.verdict is Verdict.CANNOT_TELL
    assert "1 of 2 taps cannot be judged, first `b`: Hugging Face itself is not finite" in doubtful.reason
    assert "first `b`" in summary(Verdict.CANNOT_TELL, (), gates, "float16")


def test_a_floor_of_less_than_a_rounding_is_raised_for_the_worst_tokens_as_for_all() -> None:
    """A module that the port has and Hugging Face's run does not round in: two roundings beside less than one."""
    generator = torch.Generator().manual_seed(5)
    reference = torch.randn(400, 8, generator=generator, dtype=torch.float64) ** 3  # few large values in each token
    noise = torch.randn(2, 400, 8, generator=generator, dtype=torch.float64) * reference
    yardstick, port = (reference + size * ROUNDING["float32"] * noise[i] for i, size in enumerate((0.6, 1.2)))
    floor = token_errors(yardstick, reference)
    found = compare_tap("mlp", port, reference, floor, "float32")
    assert found.verdict is Verdict.PASS
    assert found.token_ratio is not None
    assert found.token_ratio < 1.5 < found.metrics.token_p95 / summarise(floor).token_p95  # type: ignore[union-attr]
    worse = compare_tap("mlp", reference + 5 * ROUNDING["float32"] * noise[1], reference, floor, "float32")
    assert worse.verdict is Verdict.FAIL
