"""A tiny Llama, and the same with weights rounded to a few bits: what `measure` is given, whoever quantized it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trtllm_port.verification.loss.measure import Pair
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner

Change = Callable[[torch.Tensor], torch.Tensor]


def to_bits(bits: int) -> Change:
    """Rounds a weight, with one scale for each row."""

    def change(weight: torch.Tensor) -> torch.Tensor:
        scale = weight.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
        return (weight / scale).round() * scale

    return change


@pytest.fixture
def pair_of(tmp_path: Path) -> Callable[..., Pair]:
    """The function (model_dir, change, which, more={}) that writes a model with changed weights.

    `which` is an expression of the quantized ones' names; `more` changes tensors that are not quantized, by name.
    """

    def make(
        model_dir: Path, change: Change, which: str = r".*_proj\.weight", more: dict[str, Change] | None = None
    ) -> Pair:
        output = tmp_path / f"quantized-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(model_dir, output)
        tensors = load_file(model_dir / "model.safetensors")
        names = {name for name in tensors if re.fullmatch(which, name)}
        assert names
        tensors |= {name: change(tensors[name]) for name in names}
        tensors |= {name: other(tensors[name]) for name, other in (more or {}).items()}
        save_file(tensors, output / "model.safetensors", {"format": "pt"})
        load = partial(HuggingFaceRunner.load, dtype="float32")
        return Pair(original=model_dir, quantized=output, names=names, load=load)

    return make
