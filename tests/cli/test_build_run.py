"""`build`, `run` and `doctor` from the command line: options in both spellings, outputs, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trtllm_port.cli.app import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def engine_dir(tiny_checkpoint: Path, llama_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    engine = tmp_path_factory.mktemp("cli") / "engine"
    words = ["build", "--checkpoint_dir", str(tiny_checkpoint), "--output_dir", str(engine)]
    assert main([*words, "--workspace", str(llama_workspace), "--backend", "reference", "--max_batch_size", "2"]) == 0
    return engine


def test_build_tells_what_attention_became(
    tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["build", "--checkpoint-dir", str(tiny_checkpoint), "--output-dir", str(tmp_path / "engine")]
    words += ["--workspace", str(llama_workspace), "--compute-capability", "8.6", "8.9", "--max-seq-len", "32"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "compiled by tensorrt_rtx" in told
    assert "float32, 4/2 heads of 8" in told
    assert "several kernels" in told
    assert "sequence 32 tokens" in told


def test_build_as_json(tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["build", "--checkpoint-dir", str(tiny_checkpoint), "--output-dir", str(tmp_path / "engine")]
    assert main([*words, "--workspace", str(llama_workspace), "--backend", "reference", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["port"] == "llama"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--compute-capability", "9.0"], 2),
        (["--max-input-len", "20", "--max-seq-len", "10"], 2),
        (["--max-batch-size", "0"], 2),
        (["--backend", "tensorrt"], 3),
    ],
)
def test_build_exit_codes(
    tiny_checkpoint: Path, llama_workspace: Path, tmp_path: Path, words: list[str], code: int
) -> None:
    given = ["build", "--checkpoint-dir", str(tiny_checkpoint), "--output-dir", str(tmp_path / "engine")]
    assert main([*given, "--workspace", str(llama_workspace), *words]) == code
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def stories_engine(
    stories: Path, llama_workspace: Path, write_checkpoint: object, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("stories_cli")
    write_checkpoint(stories, llama_workspace, root / "checkpoint")  # type: ignore[operator]
    words = ["build", "--checkpoint-dir", str(root / "checkpoint"), "--output-dir", str(root / "engine")]
    assert main([*words, "--workspace", str(llama_workspace), "--backend", "reference"]) == 0
    return root / "engine"


def test_run_prints_as_the_legacy_script_did(stories_engine: Path, stories: Path, capsys: Capture) -> None:
    words = ["run", "--engine_dir", str(stories_engine), "--tokenizer_dir", str(stories), "--max_output_len", "12"]
    assert main([*words, "--input_text", "Once upon a time", "The sun"]) == 0
    told = capsys.readouterr()
    assert 'Input [Text 0]: "Once upon a time"' in told.out
    assert 'Output [Text 0 Beam 0]: "' in told.out
    assert 'Input [Text 1]: "The sun"' in told.out
    assert "tokens per second" in told.out
    assert "reference executor" in told.out.splitlines()[-1]
    assert "because built with `--backend reference`" in told.err


def test_run_reads_a_file_and_streams(stories_engine: Path, stories: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "prompts.txt").write_text("Once upon a time\n")
    words = ["run", "--engine-dir", str(stories_engine), "--tokenizer-dir", str(stories), "--streaming"]
    assert main([*words, "--input-file", str(tmp_path / "prompts.txt"), "--max-output-len", "12"]) == 0
    streamed = capsys.readouterr().out.splitlines()
    assert main([*words[:-1], "--input-text", "Once upon a time", "--max-output-len", "12"]) == 0
    assert streamed[:-1] == capsys.readouterr().out.splitlines()[:-1]


def test_run_draws_only_where_an_option_asks_for_it(stories_engine: Path, stories: Path, capsys: Capture) -> None:
    words = [
        "run",
        "--engine-dir",
        str(stories_engine),
        "--tokenizer-dir",
        str(stories),
        "--input-text",
        "The",
        "--json",
    ]

    def output(*options: str) -> str:
        assert main([*words, *options]) == 0
        return str(json.loads(capsys.readouterr().out)["outputs"][0]["output"])

    greedy = output()
    assert output("--top-k", "1", "--temperature", "3") == greedy
    assert output("--temperature", "0") == greedy
    assert output("--temperature", "3", "--seed", "1") != greedy
    assert output("--top-p", "0.9", "--seed", "1") == output("--top-p", "0.9", "--seed", "1")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--max-output-len", "600"], 2, "max_seq_len"),
        (["--top-p", "2"], 2, "top_p"),
        (["--backend", "tensorrt_rtx"], 2, "holds no tensorrt_rtx engine"),
        (["--chat"], 2, "chat template"),
        (["--input-file", "absent.txt"], 2, "absent.txt"),
    ],
)
def test_run_exit_codes(
    stories_engine: Path, stories: Path, words: list[str], code: int, told: str, capsys: Capture
) -> None:
    given = ["run", "--engine-dir", str(stories_engine), "--tokenizer-dir", str(stories), "--input-text", "The"]
    assert main([*given, *words]) == code
    assert told in capsys.readouterr().err


def test_run_lets_a_tokenizers_own_code_run_where_told(
    stories_engine: Path, stories: Path, tmp_path: Path, capsys: Capture
) -> None:
    for path in stories.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": [None, "mine.Mine"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text("from transformers import PreTrainedTokenizerFast as F\nclass Mine(F): pass\n")
    words = ["run", "--engine-dir", str(stories_engine), "--input-text", "The", "--max-output-len", "4"]
    assert main([*words, "--tokenizer-dir", str(stories)]) == 0
    expected = capsys.readouterr().out.splitlines()[:-1]
    assert main([*words, "--tokenizer-dir", str(tmp_path)]) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert main([*words, "--tokenizer-dir", str(tmp_path), "--trust-remote-code"]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == expected


def test_run_names_a_missing_tokenizer(engine_dir: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["run", "--engine-dir", str(engine_dir), "--tokenizer-dir", str(tmp_path)]) == 2
    assert "tokenizer" in capsys.readouterr().err


def test_doctor(capsys: Capture) -> None:
    assert main(["doctor"]) == 0
    assert "tensorrt_rtx" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "ok"


def test_doctor_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from trtllm_port import doctor

    monkeypatch.setattr(doctor, "PYTHON", (9, 9))
    assert main(["doctor"]) == 3
    assert "install Python 9.9" in capsys.readouterr().out
