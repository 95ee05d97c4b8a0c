"""Left padding: what Hugging Face's left-padded batch gives, the port's right-padded one gives too."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from trtllm_port.verification.decode.left_padding import left_padding_gate
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner

ROWS = ((5, 6, 7, 8, 9, 10), (3, 4), (11, 12, 13))
MODELS = {
    "rotary": lambda: LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    ),
    "learned positions": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_left_padded_rows_are_the_rows_alone(kind: str) -> None:
    torch.manual_seed(0)
    runner = HuggingFaceRunner(MODELS[kind]().eval())
    padded = runner.run_left_padded(ROWS)
    assert padded is not None
    for row, logits_LV in zip(ROWS, padded, strict=True):
        torch.testing.assert_close(logits_LV, runner.run(torch.tensor([row]))[0], atol=1e-5, rtol=1e-4)


def noisy(tensor: torch.Tensor, size: float, seed: int) -> torch.Tensor:
    return tensor + size * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("port", "left", "verdict"),
    [
        (1e-3, 1e-3, Verdict.PASS),
        (1e-2, 1e-3, Verdict.FAIL),
        (1e-3, 1e-2, Verdict.SKIPPED),  # Hugging Face itself depends on the padding
        (1e-3, float("nan"), Verdict.SKIPPED),
        (1e-3, None, Verdict.SKIPPED),
    ],
)
def test_the_port_may_err_as_the_left_padded_rows_do(port: float, left: float | None, verdict: Verdict) -> None:
    reference_TV = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    rows = None if left is None else (noisy(reference_TV, left, 1),)
    sides = reference_TV, noisy(reference_TV, 1e-3, 2)
    gate = left_padding_gate(("precision", "bfloat16"), noisy(reference_TV, port, 3), sides, rows)
    assert gate.verdict is verdict
