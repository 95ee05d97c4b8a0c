"""What a file that comes with a model keeps as plain attributes from one text to the next."""

from __future__ import annotations

import torch
from torch import nn

from trtllm_port.huggingface.compatibility.attributes import PlainAttributes


class Table(nn.Module):
    """Keeps the table of the longest text, and takes all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.table: torch.Tensor | None = None
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None or len(self.table) < len(x):
            self.table = self.made = torch.arange(len(x)).float()
        self.calls += 1
        return x + self.table * self.weight


class Remote(nn.Module):
    __module__ = "transformers_modules.pebble"

    def __init__(self) -> None:
        super().__init__()
        self.inner = Table()


def test_they_are_what_they_were() -> None:
    model = Remote()
    held = PlainAttributes(model)
    model.inner(torch.zeros(5))
    with torch.no_grad():
        model.inner.weight.fill_(2.0)
    held.restore()
    assert (model.inner.calls, model.inner.table, hasattr(model.inner, "made")) == (0, None, False)
    assert model.inner(torch.zeros(3)).tolist() == [0.0, 2.0, 4.0]


def test_a_model_of_transformers_keeps_what_it_has() -> None:
    model = Table()
    held = PlainAttributes(model)
    model(torch.zeros(5))
    held.restore()
    assert model.calls == 1
