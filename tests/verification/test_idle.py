"""Modules that Hugging Face computes for nothing, and those that matter in any way at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.idle_modules import without_idle
from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.taps.pairing import Pairing

STIMULUS = Stimulus(ids=(3, 5, 4, 1, 2), source="", decode_steps=0, rows=(), row_steps=0)


class Adapter(nn.Module):
    """Adds what there is of images to embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(3, 6)

    def forward(self, input_ids: Tensor, x: Tensor, images: Tensor | None = None) -> Tensor:
        return x if images is None else x + self.projection(images)


class Experts(nn.Module):
    """One expert, which gets some of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.expert = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        output = torch.zeros_like(x[0])
        return output.index_add(0, torch.tensor([0, 2]), self.expert(x[0, [0, 2]]))[None]


class Model(nn.Module):
    """A pooler that nobody asks, one that decides by an index alone, and an expert."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 6)
        self.pooler = nn.Linear(6, 6)
        self.chooser = nn.Linear(6, 4)
        self.adapter = Adapter()
        self.experts = Experts()

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        x = self.adapter(input_ids, self.embed(input_ids))
        self.pooler(x)
        x = x + self.experts(x)
        chosen = self.chooser(x).argmin(-1, keepdim=True)
        return SimpleNamespace(logits=x.scatter(-1, chosen, 0.0))


def remaining(*missing: str, paired: tuple[str, ...] = ("embed",)) -> Pairing:
    torch.manual_seed(1)
    pairing = Pairing(paired=paired, missing=missing, extra=(), ignored={})
    return without_idle(pairing, HuggingFaceRunner(Model()), STIMULUS)


def test_what_nobody_uses_may_be_missing() -> None:
    pairing = remaining("pooler")
    assert pairing.missing == ()
    assert "same logits" in pairing.ignored["pooler"]


def test_an_expert_may_be_missing_where_the_sum_is_compared() -> None:
    pairing = remaining("experts.expert", paired=("embed", "experts"))
    assert pairing.missing == ()
    assert "some of the tokens" in pairing.ignored["experts.expert"]
    assert remaining("experts.expert").missing == ("experts.expert",)


def test_what_hands_on_its_input_may_be_missing() -> None:
    pairing = remaining("adapter")
    assert pairing.missing == ()
    assert "hands on" in pairing.ignored["adapter"]


@pytest.mark.parametrize("missing", [("chooser",), ("embed",), ("chooser", "pooler")])
def test_what_matters_may_not(missing: tuple[str, ...]) -> None:
    assert remaining(*missing).missing == missing
