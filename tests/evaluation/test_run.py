"""`run`: text in, text out, beside transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trtllm_port.building import build_engine
from trtllm_port.errors import EngineError, PortError
from trtllm_port.evaluation.run import run_prompts
from trtllm_port.runtime import SamplingConfig

TEXTS = ["Once upon a time, there was a little girl named Lily.", "Tom and", "The sun was"]


@pytest.fixture(scope="module")
def engine_dir(
    stories: Path, llama_workspace: Path, write_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("stories")
    checkpoint = write_checkpoint(stories, llama_workspace, root / "checkpoint")
    build_engine(
        checkpoint, root / "engine", workspace=llama_workspace, backend="reference", max_batch_size=2, max_input_len=20
    )
    return root / "engine"


@pytest.fixture(scope="module")
def expected(stories: Path) -> list[str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval()
    outputs = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        tokens = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
        outputs.append(tokenizer.decode(tokens, skip_special_tokens=True))
    return outputs


def test_texts_are_those_of_transformers_also_over_several_batches(
    engine_dir: Path, stories: Path, expected: list[str]
) -> None:
    result = run_prompts(engine_dir, stories, TEXTS, max_output_len=24)
    assert [output.output for output in result.outputs] == expected
    assert [output.text for output in result.outputs] == TEXTS
    assert result.new_tokens == 72
    assert result.tokens_per_second > 0
    assert result.executor.startswith("reference executor")
    assert result.to_dict()["outputs"][0]["output"] == expected[0]


def test_pieces_add_up_to_the_text(engine_dir: Path, stories: Path, expected: list[str]) -> None:
    pieces: dict[int, str] = {}

    def collect(number: int, piece: str) -> None:
        pieces[number] = pieces.get(number, "") + piece

    run_prompts(engine_dir, stories, TEXTS, max_output_len=24, on_text=collect)
    assert [pieces[number] for number in range(3)] == expected


def test_draws_differ_by_seed_only(engine_dir: Path, stories: Path) -> None:
    def drawn(seed: int) -> str:
        sampling = SamplingConfig(temperature=1.5, seed=seed)
        return run_prompts(engine_dir, stories, TEXTS[:1], sampling=sampling).outputs[0].output

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_prompt_that_is_too_long_stops_all_before_anything_runs(engine_dir: Path, stories: Path) -> None:
    pieces: list[str] = []
    with pytest.raises(EngineError, match=r"prompt 2 has .* more than the engine's `max_input_len` 20"):
        run_prompts(engine_dir, stories, ["a", "b", TEXTS[0] * 3], on_text=lambda _number, piece: pieces.append(piece))
    assert pieces == []


def test_no_prompts_are_refused(engine_dir: Path, stories: Path) -> None:
    with pytest.raises(PortError, match="no prompts"):
        run_prompts(engine_dir, stories, [])


def test_another_models_tokenizer_is_noticed(
    stories: Path, tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path
) -> None:
    build_engine(tiny_checkpoint, tmp_path / "engine", workspace=llama_workspace, backend="reference")
    with pytest.raises(EngineError, match="tokenizer does not belong"):
        run_prompts(tmp_path / "engine", stories, TEXTS)
