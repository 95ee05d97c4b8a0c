"""A trained Llama, written in `layers/`, against transformers: logits, taps, greedy tokens, a batch of two lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from trtllm_port.runtime.network import NetworkFile, parameter_values
from trtllm_port.runtime.reference import ReferenceExecutor

SLOTS = 128


@pytest.fixture(scope="module")
def port(import_file: Callable[[Path], ModuleType]) -> ModuleType:
    return import_file(Path(__file__).parents[2] / "layers" / "llama.py")


class Runner:
    """The port in the reference executor, loaded from its network file, with caches for a batch."""

    def __init__(self, port: ModuleType, stories: Path, folder: Path, dtype: str, batch: int = 1) -> None:
        network = port.LlamaForCausalLM.from_hugging_face(stories, dtype=dtype).define(max_seq_len=SLOTS)
        NetworkFile.from_network(network).save(folder / "rank0.network.json")
        file = NetworkFile.load(folder / "rank0.network.json")
        self.executor = ReferenceExecutor(file, parameter_values(network), check=True)
        self.caches = {
            spec.name: torch.zeros(batch, *spec.shape[1:], dtype=getattr(torch, spec.dtype))
            for spec in self.executor.inputs
            if spec.name.startswith("past_key_values.")
        }

    def __call__(self, ids: torch.Tensor, start: list[int], wanted: list[list[int]], **options: Any) -> Any:
        positions = torch.tensor(start)[:, None] + torch.arange(ids.shape[1])
        feeds = {"input_ids": ids, "position_ids": positions, "logits_indices": torch.tensor(wanted)}
        return self.executor.run(feeds | self.caches, **options)


def _hugging_face(stories: Path, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(stories, dtype=dtype, attn_implementation="eager").eval()


def _relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@torch.no_grad()
def test_logits_and_taps_in_float32(port: ModuleType, stories: Path, tmp_path: Path) -> None:
    model = _hugging_face(stories, "float32")
    run = Runner(port, stories, tmp_path, "float32")
    ids = torch.randint(3, model.config.vocab_size, (1, 100), generator=torch.Generator().manual_seed(0))
    expected = model(ids, output_hidden_states=True)
    taps = [f"model.layers.{i}" for i in range(model.config.num_hidden_layers - 1)]
    result = run(ids, [0], [list(range(100))], taps=taps)
    assert _relative(result["logits"], expected.logits) < 1e-5
    for tap, hidden in zip(taps, expected.hidden_states[1:], strict=False):
        assert _relative(result[tap], hidden) < 1e-5


@torch.no_grad()
def test_greedy_tokens_of_two_prompts_of_different_lengths(port: ModuleType, stories: Path, tmp_path: Path) -> None:
    model = _hugging_face(stories, "float32")
    run = Runner(port, stories, tmp_path, "float32", batch=2)
    prompts = [[1, 403, 407, 261, 378], [1, 410, 429]]
    expected = [
        model.generate(torch.tensor([p]), max_new_tokens=20, min_new_tokens=20, do_sample=False)[0, len(p) :].tolist()
        for p in prompts
    ]
    ids = torch.tensor([prompts[0], [*prompts[1], 0, 0]])
    lengths = [len(prompt) for prompt in prompts]
    logits = run(ids, [0, 0], [[n - 1] for n in lengths])["logits"]
    tokens = [logits[:, 0].argmax(-1)]
    while len(tokens) < 20:
        logits = run(tokens[-1][:, None], [n + len(tokens) - 1 for n in lengths], [[0], [0]])["logits"]
        tokens.append(logits[:, 0].argmax(-1))
    assert torch.stack(tokens, 1).tolist() == expected


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_errs_no_more_than_transformers(
    port: ModuleType, stories: Path, tmp_path: Path, dtype: str
) -> None:
    ids = torch.randint(3, 512, (1, 100), generator=torch.Generator().manual_seed(0))
    exact = _hugging_face(stories, "float32")(ids).logits
    theirs = _relative(_hugging_face(stories, dtype)(ids).logits, exact)
    ours = _relative(Runner(port, stories, tmp_path, dtype)(ids, [0], [list(range(100))])["logits"], exact)
    assert ours < 1.5 * theirs
