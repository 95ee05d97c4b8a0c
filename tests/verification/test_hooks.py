"""Taps of modules whose outputs are more than one tensor of real numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trtllm_port.verification.hooks import tapped
from trtllm_port.verification.taps import further_output


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
