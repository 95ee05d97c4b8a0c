from __future__ import annotations

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from trtllm_port.verification.judge import logit_metrics as module
from trtllm_port.verification.judge.gates import Gate, logit_gates
from trtllm_port.verification.judge.logit_metrics import agreement, confident_margin, logit_metrics
from trtllm_port.verification.judge.verdict import Verdict

GENERATOR = torch.Generator().manual_seed(0)
REFERENCE = 4 * torch.randn(60, 40, generator=GENERATOR, dtype=torch.float64)
YARDSTICK = REFERENCE + 0.02 * torch.randn(60, 40, generator=GENERATOR, dtype=torch.float64)
PORT = REFERENCE + 0.02 * torch.randn(60, 40, generator=GENERATOR, dtype=torch.float64)


def gates(logits: torch.Tensor, yardstick: torch.Tensor = YARDSTICK) -> dict[str, Gate]:
    found = logit_gates("prefill", "precision", "bfloat16", (logits, REFERENCE, yardstick))
    return {gate.name.partition(".")[2]: gate for gate in found}


def failing(logits: torch.Tensor) -> set[str]:
    return {name for name, gate in gates(logits).items() if gate.verdict is Verdict.FAIL}


def test_kl_is_what_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCRATCH_BYTES", 3200)  # several chunks
    found = logit_metrics(PORT, REFERENCE)
    expected = kl_div(log_softmax(PORT, -1), log_softmax(REFERENCE, -1), log_target=True, reduction="none").sum(-1)
    assert found.kl_max == pytest.approx(float(expected.max()))
    assert found.kl_mean == pytest.approx(float(expected.mean()))
    assert found.top1 == pytest.approx(float((PORT.argmax(-1) == REFERENCE.argmax(-1)).double().mean()))


def test_the_affine_fit_finds_scale_and_offset() -> None:
    found = logit_metrics(0.25 * REFERENCE + 3.0, REFERENCE)
    assert (found.scale, found.offset) == (pytest.approx(0.25), pytest.approx(3.0))


def test_a_clean_port_passes_every_gate() -> None:
    assert {gate.verdict for gate in gates(PORT).values()} == {Verdict.PASS}


def test_a_wrong_scale_is_caught_though_the_cosine_is_perfect() -> None:
    caught = failing(0.9 * PORT)
    assert {"affine", "error"} <= caught
    assert "cosine" not in caught


def test_a_confident_choice_must_be_the_same() -> None:
    swapped = PORT.clone()
    confident = int((REFERENCE.topk(2).values[:, 0] - REFERENCE.topk(2).values[:, 1]).argmax())
    best, second = REFERENCE[confident].topk(2).indices.tolist()
    swapped[confident, [best, second]] = PORT[confident, [second, best]]
    gate = gates(swapped)["top1"]
    assert gate.verdict is Verdict.FAIL
    assert f"first at token {confident}" in gate.reason


def test_a_choice_within_the_noise_may_differ() -> None:
    reference = torch.tensor([[1.0, 1.0001, -3.0]])
    margin = confident_margin(reference + 0.01, reference)
    assert agreement(reference.flip(-1), reference, margin).confident == 0


def test_nan_in_the_port_fails_and_in_hugging_face_cannot_be_told() -> None:
    broken = torch.full_like(REFERENCE, float("nan"))
    assert gates(broken)["finite"].verdict is Verdict.FAIL
    assert gates(PORT, broken)["finite"].verdict is Verdict.CANNOT_TELL


def test_another_vocabulary_fails() -> None:
    assert failing(PORT[:, :-1]) == {"shape"}


def test_a_maximum_over_tokens_of_which_few_are_near_a_tie_is_chance() -> None:
    """Nearly all tokens have one that is certain; for the other, rounding is a throw of dice."""
    generator = torch.Generator().manual_seed(3)
    reference = torch.zeros(500, 40, dtype=torch.float64)
    reference[:, 0] = 40.0
    reference[7, :2] = 40.0
    noise = 0.25 * torch.randn(2, 500, 40, generator=generator, dtype=torch.float64)
    yardstick, port = reference + noise[0], reference + noise[1]
    yardstick[7, :2], port[7, :2] = 40.001, torch.tensor([40.0, 40.3], dtype=torch.float64)
    lucky, unlucky = logit_metrics(yardstick, reference), logit_metrics(port, reference)
    assert unlucky.kl_max > 0.01 > 1000 * lucky.kl_max
    found = logit_gates("prefill", "precision", "bfloat16", (port, reference, yardstick))
    assert {gate.verdict for gate in found} == {Verdict.PASS}
    port[7, :2] = torch.tensor([38.0, 42.0], dtype=torch.float64)  # beyond what rounding of that size does
    found = logit_gates("prefill", "precision", "bfloat16", (port, reference, yardstick))
    assert [gate.verdict for gate in found if gate.name == "prefill.kl"] == [Verdict.FAIL]


def test_the_noise_of_kl_is_what_errors_of_that_size_make_of_a_tie() -> None:
    generator = torch.Generator().manual_seed(4)
    tie = torch.full((4000, 2), 3.0, dtype=torch.float64)
    found = logit_metrics(tie + 0.05 * torch.randn(4000, 2, generator=generator, dtype=torch.float64), tie)
    assert found.kl_noise == pytest.approx(found.kl_mean, rel=0.05)
