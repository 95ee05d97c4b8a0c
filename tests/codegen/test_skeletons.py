"""What cannot be translated becomes a marked skeleton: the rest of the port is there, and the place is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.llama import modeling_llama

from trtllm_port.codegen import PortSource, check_port, generate_port


def _sorts(self: nn.Module, x: Tensor) -> Tensor:
    return self.down_proj(torch.sort(self.gate_proj(x) * self.up_proj(x)).values)


def _looks(self: nn.Module, x: Tensor) -> Tensor:
    hidden: Tensor = self.gate_proj(x) * self.up_proj(x)
    return self.down_proj(hidden if bool((hidden > 1e9).any()) else -hidden)


def _invents(self: nn.Module, x: Tensor) -> Tensor:
    number = 0.1 * hash(str(x.shape)) % 7
    return self.down_proj(self.gate_proj(x) * self.up_proj(x) * number)


def _port(monkeypatch: pytest.MonkeyPatch, forward: Callable[..., Tensor]) -> PortSource:
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    return generate_port(transformers.LlamaConfig())


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (_sorts, "no translation of `sort` (test_skeletons.py:"),
        (_looks, "depends on the content of a tensor: `__bool__` (test_skeletons.py:"),
        (_invents, "a number of `*` is "),
    ],
)
@pytest.mark.slow
def test_one_class_is_a_skeleton(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, forward: Callable[..., Tensor], reason: str
) -> None:
    port = _port(monkeypatch, forward)
    (skeleton,) = port.skeletons
    assert (skeleton.name, skeleton.path) == ("LlamaMLP", "model.layers.0.mlp")
    assert reason in skeleton.reason
    text = port.files["model.py"]
    assert "TODO" in text
    assert "self.gate_proj = Linear(config.hidden_size, config.intermediate_size" in text
    assert "hidden_states = self.mlp(hidden_states)" in text
    check = check_port(transformers.LlamaConfig(), source=port)
    assert not check.passed
    assert str(check.problem).startswith("1 class is to be written by hand: `LlamaMLP`: ")
    assert reason in str(check.problem)
    (tmp_path / "model.py").write_text(text)
    pyproject = str(Path(__file__).parents[2] / "pyproject.toml")
    command = [sys.executable, "-m", "ruff", "check", "--config", pyproject, "--no-cache", str(tmp_path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
