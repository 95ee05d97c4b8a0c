"""Taps of a torch model: what is handed out, and what is put in its place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trtllm_port.verification.hooks import tapped


def test_what_is_returned_takes_the_tensors_place() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU()).eval()
    seen: dict[str, Tensor] = {}

    def on_tap(tap: str, tensor: Tensor) -> Tensor | None:
        seen[tap] = tensor
        return torch.full_like(tensor, 3.0) if tap == "0" else None

    with tapped(model, on_tap, None):
        out = model(torch.ones(1, 2))
    assert list(seen) == ["0:input", "0", "1:input", "1"]
    assert out.tolist() == [[3.0, 3.0]]


def test_modules_that_compute_nothing_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Identity()).eval()
    seen: list[str] = []
    with tapped(model, lambda tap, _tensor: seen.append(tap), None):
        model(torch.ones(1, 2))
    assert seen == ["0:input", "0"]
