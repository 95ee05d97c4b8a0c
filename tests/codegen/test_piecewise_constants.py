"""Constant vectors of a few parts, and lists of multipliers that they are made of."""

from __future__ import annotations

import pytest
import torch
from transformers import FalconH1Config

from tests.codegen.test_anti_unification import classes_of
from trtllm_port.codegen.configs.sizes import make_samples
from trtllm_port.codegen.recognise.piecewise_constants import parts_of


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.tensor([[[2.0, 2.0, 0.5]]]), ((2.0, 0.5), (2, 1))),
        (torch.tensor([1.0, 1.0, 3.0, 1.0]), ((1.0, 3.0, 1.0), (2, 1, 1))),
        (torch.ones(4), None),  # one number
        (torch.rand(4), None),  # as many as elements
        (torch.tensor([[2.0, 2.0], [0.5, 0.5]]), None),
        (torch.tensor([2, 2, 1]), None),
        (torch.arange(20.0).repeat_interleave(2), None),  # too many
    ],
)
def test_parts(tensor: torch.Tensor, expected: object) -> None:
    assert parts_of(tensor) == expected


def test_multipliers_of_a_list_differ_in_all_sizes() -> None:
    small = make_samples(FalconH1Config())
    for config in (*(sample.config for sample in small.traced), small.unseen):
        assert len({*config.ssm_multipliers, *config.mlp_multipliers, 1.0}) == 8


def test_a_vector_of_multipliers_follows_the_list() -> None:
    lines = classes_of("falcon_h1", num_hidden_layers=4)["FalconH1Mixer"]
    text = " ".join(lines)
    assert "parts_like(projected_states, self.config.ssm_multipliers, [" in text.replace("( ", "(")
