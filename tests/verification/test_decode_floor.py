"""Decode steps are measured by Hugging Face's own, where those err more than its forward does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from trtllm_port.huggingface.random_weights import condition
from trtllm_port.verification.decode.decode_floor import decode_gates
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.hugging_face_sides import own_steps
from trtllm_port.verification.sides.recording import record
from trtllm_port.verification.stimulus.inputs import Stimulus

GENERATOR = torch.Generator().manual_seed(0)
REFERENCE = 4 * torch.randn(64, 40, generator=GENERATOR, dtype=torch.float64)


def off(size: float) -> Tensor:
    """Logits that are off by a size."""
    return REFERENCE + size * torch.randn(64, 40, generator=GENERATOR, dtype=torch.float64)


@pytest.mark.parametrize(
    ("port", "steps", "verdict"),
    [
        (1.8e-6, 1.7e-6, Verdict.PASS),  # the port's steps err as Hugging Face's do
        (1.8e-6, 1.0e-6, Verdict.WARN),  # they err more
        (1.8e-6, 1.0e-2, Verdict.WARN),  # what Hugging Face's own cache does wrong excuses nobody
        (1.0e-2, 1.7e-6, Verdict.FAIL),
        (1.0e-2, 1.0e-2, Verdict.FAIL),
    ],
)
def test_hugging_faces_own_steps_are_the_floor(port: float, steps: float, verdict: Verdict) -> None:
    gates = decode_gates(("logic", "float32"), (off(port), REFERENCE, off(1e-6)), lambda: off(steps))
    assert next(gate for gate in gates if gate.name == "decode.error").verdict is verdict


def test_they_are_not_run_for_a_port_that_passes() -> None:
    def never() -> Tensor:
        raise AssertionError

    gates = decode_gates(("logic", "float32"), (off(1e-6), REFERENCE, off(1e-6)), never)
    assert {gate.verdict for gate in gates} <= {Verdict.PASS, Verdict.SKIPPED}


def test_a_model_takes_its_steps_through_its_own_cache() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=32, n_embd=16, n_layer=2, n_head=2))
    condition(model)
    runner = HuggingFaceRunner(model.eval())
    stimulus = Stimulus(ids=tuple(range(3, 20)), source="seeded", decode_steps=5, rows=(), row_steps=0)
    recording = record(runner, stimulus)
    steps = own_steps(runner, stimulus, recording)
    assert steps is not None
    assert torch.allclose(steps, recording.logits[-5:], atol=1e-4)
    assert not torch.equal(steps, recording.logits[-5:])  # other kernels
