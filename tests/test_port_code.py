"""What a port's own code does not have yet, or does wrong, is told with its file and line, by every command."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtllm_port.cli.app import main


def begin_with(place: Path, line: str, *, only: bool = False) -> int:
    """Let a `forward` begin with a line, or have that line only; return the line's number."""
    path = place / "models" / "llama" / "model.py"
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, each in enumerate(lines) if "def forward(" in each)
    end = next(i for i in range(at + 1, len(lines)) if not lines[i].strip())
    rest = [] if only else lines[at + 1 : end]
    path.write_text("".join([*lines[: at + 1], f"        {line}\n", *rest, *lines[end:]]))
    return at + 2


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "--model-dir", "model", "--output-dir", "out"],
        ["diff-layers", "model"],
        ["verify", "model", "--backend", "reference"],
    ],
)
def test_a_part_to_fill_in(words: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`convert` cannot; what verifies gives its verdict."""
    line = begin_with(place, "raise NotImplementedError('Net.forward: reads a weight on the host')", only=True)
    assert main(words) == 1
    out, err = capsys.readouterr()
    told = err if words[0] == "convert" else out
    assert (out == "") is (words[0] == "convert")
    assert told.startswith("error:" if words[0] == "convert" else "FAIL:")
    assert f"models/llama/model.py:{line}: Net.forward: reads a weight on the host" in told
    assert "port `llama` has a part to fill in" in told.splitlines()[0]
    assert "\\n" not in told
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("raise NotImplementedError('not for this mask')", "part to fill in"),
        ("[][0]", "IndexError"),
        ("None.weight", "AttributeError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_code_that_raises(line: str, words: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = begin_with(place, line)
    assert main(["convert", "--model-dir", "model", "--output-dir", "out"]) == 0
    assert main(["build", "--checkpoint-dir", "out", "--output-dir", "engine", "--backend", "reference"]) == 1
    err = capsys.readouterr().err
    assert f"models/llama/model.py:{number}" in err
    assert words in err
    assert "Traceback" not in err


def test_faults_of_ours_stay_ours(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of the port's was running: this is a bug, and told as one."""

    def broken(*_: object) -> None:
        raise AttributeError("a bug")

    monkeypatch.setattr("trtllm_port.conversion._port_config", broken)
    assert main(["convert", "--model-dir", "model", "--output-dir", "out"]) == 70
    assert "this is a bug in trtllm-port" in capsys.readouterr().err
