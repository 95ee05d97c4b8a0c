"""What a report advises is something that was not done yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trtllm_port.verification import DiffSettings, Verdict, diff_layers
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.report.advice import next_steps


@pytest.mark.parametrize(
    ("dtype", "reason", "advised"),
    [
        ("float16", "Hugging Face's own logits are not finite", ["bfloat16", "float32"]),
        ("bfloat16", "Hugging Face's own logits are not finite", ["float32"]),
        ("float32", "Hugging Face's own logits are not finite", []),
        ("float16", "60% off", ["float32"]),
        ("bfloat16", "60% off", ["float32"]),
        ("float32", "60% off", []),
    ],
)
def test_no_data_type_is_advised_that_was_used(
    model_dir: Path, llama_workspace: Path, dtype: str, reason: str, advised: list[str]
) -> None:
    report = diff_layers(model_dir, workspace=llama_workspace, dtype="float32", settings=DiffSettings(tokens=8))
    gate = Gate(name="prefill.error", phase="logic", verdict=Verdict.CANNOT_TELL, reason=reason)
    doubtful = replace(report, verdict=Verdict.CANNOT_TELL, gates=(gate,), subject=replace(report.subject, dtype=dtype))
    first = next_steps(doubtful)[0]
    assert [each for each in ("bfloat16", "float32") if f"--dtype {each}`" in first] == advised
    assert advised or "prefill.error" in first
