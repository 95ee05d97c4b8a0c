"""Taps of a torch model: what is handed out, and what is put in its place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trtllm_port.verification.taps.hooks import tapped
from trtllm_port.verification.taps.names import further_output


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


class _Tables(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.polar(torch.ones_like(x), x)


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = _Tables()

    def forward(self, x: Tensor) -> Tensor:
        table: Tensor = self.tables(x)
        return table


def test_a_table_of_complex_numbers_is_tapped_as_cosines_and_sines() -> None:
    found: dict[str, Tensor] = {}

    def keep(tap: str, tensor: Tensor) -> None:
        found[tap] = tensor

    x = torch.linspace(0, 1, 6)
    model = _Model()
    with tapped(model, keep, None):
        model(x)
    torch.testing.assert_close(found["tables"], x.cos())
    torch.testing.assert_close(found[further_output("tables", 1)], x.sin())


def test_either_part_of_a_table_can_be_replaced() -> None:
    model, x = _Model(), torch.linspace(0, 1, 6)

    def replace(tap: str, tensor: Tensor) -> Tensor | None:
        return torch.zeros_like(tensor) if tap == further_output("tables", 1) else None

    with tapped(model, replace, None):
        out = model(x)
    torch.testing.assert_close(out.real, x.cos())
    assert not out.imag.any()
