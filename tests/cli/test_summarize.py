"""`summarize` from the command line: legacy spelling, output, files, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trtllm_port.building import build_engine
from trtllm_port.cli.app import main
from trtllm_port.shipped_model import MODEL_DIR

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def words(llama_workspace: Path, write_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command with the engine of the demo model."""
    root = tmp_path_factory.mktemp("summarize_cli")
    checkpoint = write_checkpoint(MODEL_DIR, llama_workspace, root / "checkpoint")
    build_engine(checkpoint, root / "engine", workspace=llama_workspace, backend="reference", max_batch_size=2)
    return ["summarize", "--engine_dir", str(root / "engine"), "--hf_model_dir", str(MODEL_DIR)]


def test_both_sides_are_shown_as_the_legacy_script_did(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    given = ["--max_ite", "2", "--batch_size", "2", "--output_len", "60", "--output_dir", str(tmp_path / "out")]
    assert main([*words, *given]) == 0
    told = capsys.readouterr()
    assert "4 of the articles that ship with trtllm-port, batches of 2" in told.out
    for expected in ("TensorRT network: reference executor", "Hugging Face: transformers", "tokens per second:"):
        assert expected in told.out
    assert told.out.count("rougeLsum: ") == 2
    assert "verdict: pass" in told.out
    assert "executor: reference executor" in told.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "summarize.json",
        "outputs.jsonl",
        "trtllm.out",
        "hf.out",
    }


def test_one_side_as_json(words: list[str], capsys: Capture) -> None:
    assert main([*words, "--test_trt_llm", "--num-samples", "1", "--output_len", "4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["samples"], result["hugging_face"], result["comparison"]) == (1, None, None)
    assert set(result["engine"]["rouge"]) == {"rouge1", "rouge2", "rougeL", "rougeLsum"}


def test_a_worse_engine_is_told_by_the_exit_code(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from trtllm_port.evaluation import summarize_sides

    generate = summarize_sides.generate

    def stutter(*given: Any, **options: Any) -> Any:
        from dataclasses import replace

        found = generate(*given, **options)
        return replace(found, tokens=tuple(tokens[:6] * 6 for tokens in found.tokens))

    monkeypatch.setattr(summarize_sides, "generate", stutter)
    assert main([*words, "--num-samples", "8", "--output_len", "40"]) == 1


@pytest.mark.parametrize(
    "given",
    [["--dataset", "absent.csv"], ["--batch_size", "3"], ["--output_len", "5000"], ["--max_ite", "0"]],
)
def test_bad_requests_are_usage_errors(words: list[str], given: list[str]) -> None:
    assert main([*words, *given]) == 2
