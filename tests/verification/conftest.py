"""A transformers model with one bug stands in for a port: every check must bite, at the right module."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from trtllm_port.huggingface.caches import Continuation
from trtllm_port.huggingface.random_weights import condition, save_random_checkpoint
from trtllm_port.layers.weights import MappingWeights
from trtllm_port.verification.phases.phase import PhaseResult, run_phase
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.stimulus.precisions import Phase
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.runner import OnTap

Bug = Callable[[Any], None]
TOKENS = 160


class TorchPort:
    """A torch model behind the interface of a port."""

    name = "torch"
    max_batch_size = 4
    computed_elsewhere: ClassVar[dict[str, str | None]] = {}
    unread = ()
    inputs: ClassVar[dict[str, set[str]]] = {}

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.runner = HuggingFaceRunner(model.eval())
        self.weights = MappingWeights(self.runner.parameters())
        names: list[str] = []
        self.runner.run(torch.tensor([[1, 2]]), on_tap=lambda tap, _: names.append(tap))
        self.tap_names = tuple(names)

    def run(self, ids_BL: Tensor, *, on_tap: OnTap | None = None, taps: Collection[str] | None = None) -> Tensor:
        return self.runner.run(ids_BL, on_tap=on_tap, taps=taps)

    @torch.no_grad()
    def run_incrementally(self, rows: Sequence[Sequence[int]], prefill: Sequence[int], **_forced: Any) -> list[Tensor]:
        results = []
        for row, length in zip(rows, prefill, strict=True):
            feed = Continuation(self.runner.model, torch.tensor([row]))
            pieces = [row[:length], *([token] for token in row[length:])]
            results.append(torch.cat([feed(torch.tensor([piece]))[0] for piece in pieces]))
        return results

    @torch.no_grad()
    def look_up(self, tap: str, ids_L: Tensor, positions_L: Tensor) -> Tensor:
        table = self.runner.model.get_submodule(tap)
        return table(ids_L)[None]

    def run_last(self, prompts: Sequence[Sequence[int]], **_forced: Any) -> Tensor:
        return torch.stack([self.run(torch.tensor([prompt]))[0, -1:] for prompt in prompts])


def tiny_config(*, bias: bool) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TOKENS,
        rms_norm_eps=1e-5,
        attention_bias=bias,
        attn_implementation="eager",
        architectures=["LlamaForCausalLM"],
    )


def tiny_llama(dtype: str) -> LlamaForCausalLM:
    model = LlamaForCausalLM(tiny_config(bias=True))
    condition(model)
    return model.to(getattr(torch, dtype)).eval()


def stimulus() -> Stimulus:
    ids = torch.randint(96, (TOKENS,), generator=torch.Generator().manual_seed(1)).tolist()
    rows = (tuple(ids[:20]), tuple(ids[40:49]))
    return Stimulus(ids=tuple(ids), source="seeded", decode_steps=8, rows=rows, row_steps=4)


def compare(phase: Phase, *bugs: Bug) -> PhaseResult:
    """Compare a tiny Llama that has `bugs` with one that has none."""
    model = tiny_llama(phase.dtype)
    for bug in bugs:
        bug(model)
    return run_phase(phase, lambda dtype: HuggingFaceRunner(tiny_llama(dtype)), TorchPort(model), stimulus())


@pytest.fixture(scope="session")
def compare_tiny() -> Callable[..., PhaseResult]:
    """Compares a tiny Llama that has a bug with one that has not."""
    return compare


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama without a tokenizer, on disk."""
    directory = tmp_path_factory.mktemp("model")
    save_random_checkpoint(tiny_config(bias=False), directory)
    return directory


@pytest.fixture
def workspace(llama_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace with the hand-written port that a test may edit."""
    shutil.copytree(llama_workspace, tmp_path / "workspace", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "workspace"


@pytest.fixture
def edit(workspace: Path) -> Callable[[str, str], None]:
    """Replaces a piece of the port's source."""

    def replace(old: str, new: str) -> None:
        path = workspace / "models" / "llama" / "model.py"
        source = path.read_text()
        assert source.count(old) == 1
        path.write_text(source.replace(old, new))

    return replace
