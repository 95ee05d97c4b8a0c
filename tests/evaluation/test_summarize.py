"""`summarize` on the demo model: the engine's texts beside those of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trtllm_port.building import build_engine
from trtllm_port.errors import EngineError, PortError
from trtllm_port.evaluation.summarize import SummarizeOptions, summarize
from trtllm_port.shipped_model import MODEL_DIR


@pytest.fixture(scope="module")
def engine_dir(llama_workspace: Path, write_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    checkpoint = write_checkpoint(MODEL_DIR, llama_workspace, root / "checkpoint", "float32")
    build_engine(
        checkpoint,
        root / "engine",
        workspace=llama_workspace,
        backend="reference",
        max_batch_size=4,
        max_input_len=300,
        max_seq_len=400,
    )
    return root / "engine"


def test_both_sides_write_the_same_and_are_judged(engine_dir: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    result = summarize(
        engine_dir,
        MODEL_DIR,
        options=SummarizeOptions(num_samples=6, output_len=60, output_dir=tmp_path / "out"),
        progress=lambda *update: seen.append(update),
    )
    assert result.engine is not None
    assert result.hugging_face is not None
    assert result.comparison is not None
    assert result.engine.outputs == result.hugging_face.outputs
    assert result.engine.executor.startswith("reference executor")
    assert result.hugging_face.executor.startswith("transformers")
    assert result.comparison.verdict == "pass"
    assert result.comparison.equal_outputs == 1.0
    assert result.engine.rouge["rouge1"] > 80
    assert 0 < result.engine.total_output_tokens < 360
    assert seen == [("engine", 4, 6), ("engine", 6, 6), ("hugging face", 4, 6), ("hugging face", 6, 6)]
    _check_files(tmp_path / "out", result.engine.outputs)


def _check_files(directory: Path, outputs: tuple[str, ...]) -> None:
    rows = [json.loads(line) for line in (directory / "outputs.jsonl").read_text().splitlines()]
    assert [row["trtllm"]["output"] for row in rows] == list(outputs) == [row["hf"]["output"] for row in rows]
    assert json.loads((directory / "summarize.json").read_text())["comparison"]["verdict"] == "pass"
    assert (directory / "trtllm.out").read_text() == (directory / "hf.out").read_text()


def test_one_side_may_write_alone_and_articles_are_cut(engine_dir: Path) -> None:
    options = SummarizeOptions(test_hf=False, max_batches=1, batch_size=2, output_len=8, max_input_len=40)
    result = summarize(engine_dir, MODEL_DIR, options=options)
    assert (result.samples, result.hugging_face, result.comparison) == (2, None, None)
    assert result.engine is not None
    assert max(result.engine.output_tokens) <= 8
    assert result.to_dict()["hugging_face"] is None


def test_another_dataset_is_read(engine_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"text": "It rained in Brubury.", "summary": "Rain."}\n')
    options = SummarizeOptions(test_trt_llm=False, output_len=5)
    result = summarize(engine_dir, MODEL_DIR, dataset=tmp_path / "own.jsonl", options=options)
    assert (result.samples, result.engine) == (1, None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (SummarizeOptions(test_trt_llm=False, test_hf=False), PortError, "nothing to test"),
        (SummarizeOptions(output_len=400), EngineError, "`max_seq_len` is 400"),
        (SummarizeOptions(batch_size=5), EngineError, "`max_batch_size` 4"),
        (SummarizeOptions(max_input_len=4), PortError, "no room for an article"),
        (SummarizeOptions(num_samples=0), PortError, "at least 1"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(
    engine_dir: Path, options: SummarizeOptions, error: type[PortError], message: str
) -> None:
    with pytest.raises(error, match=message):
        summarize(engine_dir, MODEL_DIR, options=options)
