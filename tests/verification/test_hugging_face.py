"""Hugging Face's side where it fails: whose fault it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner


def test_a_model_of_hugging_faces_that_does_not_run(tiny_llama: Path) -> None:
    """It is told as theirs; what an observer raises is not."""
    runner = HuggingFaceRunner.load(tiny_llama, "float32")
    ids_BL = torch.tensor([[1, 2, 3]])

    def raises(*_: object, **__: object) -> None:
        raise AttributeError("a cache of long ago")

    with pytest.raises(AttributeError, match="a cache of long ago"):
        runner.run(ids_BL, on_tap=raises)
    runner.model.model.layers[1].forward = raises
    with pytest.raises(UnsupportedModelError, match="own model cannot run in float32: AttributeError: a cache"):
        runner.run(ids_BL)
    with pytest.raises(UnsupportedModelError, match="own model cannot run"):
        runner.greedy([1, 2], 3)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_of_torchs_that_fails_in_float64_is_theirs_too(tiny_llama: Path, streamed: bool) -> None:
    """There our arithmetic makes the call in the model's place."""
    runner = (HuggingFaceRunner.stream if streamed else HuggingFaceRunner.load)(tiny_llama, "float64")

    def raises(states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return states @ states.new_zeros(1, 1, 3, 3)

    runner.model.model.layers[1].forward = raises
    with pytest.raises(UnsupportedModelError, match="own model cannot run in float64: "):
        runner.run(torch.tensor([[1, 2, 3]]))
