from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from trtllm_port import __version__
from trtllm_port.cli import app as app_module
from trtllm_port.cli.app import app, main
from trtllm_port.cli.terminal import console, options
from trtllm_port.errors import CheckpointError, EnvironmentLackError

COMMANDS = [
    "inspect",
    "new",
    "convert",
    "build",
    "run",
    "summarize",
    "verify",
    "diff-layers",
    "models",
    "doctor",
    "demo",
]


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Makes a function the only command, `probe`."""

    def install(function: Callable[..., None]) -> None:
        probed = typer.Typer()
        probed.command("probe", cls=options.PortCommand)(function)
        probed.callback()(lambda: None)
        monkeypatch.setattr(app_module, "app", probed)

    return install


def test_all_commands_are_there_in_the_order_of_use() -> None:
    assert list(get_command(app).commands) == COMMANDS  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_no_arguments_show_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert all(command in out for command in COMMANDS)
    assert err == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"trtllm-port {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from trtllm_port.cli.app import main; main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'tensorrt', 'tensorrt_rtx', 'numpy', 'datasets', 'cookiecutter', 'jinja2'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_error_is_a_message_a_hint_and_its_exit_code(
    probe: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise EnvironmentLackError("no [GPU] here", hint="buy one")

    probe(fail)
    assert main(["probe"]) == 3
    assert capsys.readouterr() == ("", "error: no [GPU] here\nhint: buy one\n")


def test_with_json_errors_are_json_too(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def fail(as_json: options.Json = False) -> None:
        raise CheckpointError("it is torn")

    probe(fail)
    assert main(["probe", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report == {"error": {"kind": "CheckpointError", "message": "it is torn", "hint": None, "exit_code": 2}}


@pytest.mark.parametrize("words", [["convrt"], ["convert", "--model-dir", "x"], ["convert", "--dtype", "int4"]])
def test_wrong_usage_is_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "--help` to see the options" in err


def test_a_bug_is_not_mistaken_for_a_difference(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise IndexError("oops")

    probe(fail)
    assert main(["probe"]) == 70
    assert "IndexError: oops" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_no_bug(
    tmp_path: Path, probe: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        (tmp_path / "file").touch()
        (tmp_path / "file" / "below").mkdir()

    probe(fail)
    assert main(["probe"]) == 2
    assert capsys.readouterr().err == f"error: `{tmp_path}/file/below`: Not a directory\n"


def test_a_verdict_is_an_exit_code(probe: Callable[..., None]) -> None:
    def differ() -> None:
        raise typer.Exit(1)

    probe(differ)
    assert main(["probe"]) == 1


def test_ctrl_c_and_sigterm_unwind(probe: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def interrupted(name: str) -> None:
        try:
            os.kill(os.getpid(), signal.Signals[name])
        finally:
            cleaned.append(name)

    probe(interrupted)
    assert main(["probe", "SIGINT"]) == 130
    assert "interrupted" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="143"):
        main(["probe", "SIGTERM"])
    assert cleaned == ["SIGINT", "SIGTERM"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_legacy_spelling(probe: Callable[..., None]) -> None:
    seen = []

    def legacy(model_dir: options.ModelDirOption, input_text: list[str], tp_size: int = 1) -> None:
        seen.append((model_dir, input_text, tp_size))

    legacy.__annotations__["input_text"] = options.Annotated[list[str], typer.Option("--input-text")]
    legacy.__annotations__["tp_size"] = options.Annotated[int, typer.Option("--tp-size")]
    probe(legacy)
    assert main(["probe", "--model_dir", "m", "--input_text", "a_b", "--c_d", "--tp_size=2"]) == 2  # no --c_d
    assert main(["probe", "--model_dir", "m", "--input_text", "a_b", "c", "--tp_size=2", "--input-text", "-d"]) == 0
    assert seen == [("m", ["a_b", "c", "-d"], 2)]


def test_results_go_to_stdout_and_the_rest_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.line("result [bold]")
    console.table(["name", "count"], [["[x]", 1234567]])
    console.note("by the way")
    console.warning("mind [this]")
    out, err = capsys.readouterr()
    assert "result [bold]" in out
    assert "[x]" in out
    assert "1,234,567" in out
    assert err == "by the way\nwarning: mind [this]\n"


def test_a_wide_table_is_not_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["name"], [["x" * 150]])
    assert "x" * 150 in capsys.readouterr().out


def test_no_progress_bar_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress() as progress:
        assert progress is None
    assert capsys.readouterr() == ("", "")


def test_module_is_the_command(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "trtllm_port", "models", "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"ports": []}


@pytest.mark.parametrize("code", [0, 1])
def test_a_reader_that_stops_reading_changes_no_exit_code(
    code: int, probe: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `trtllm-port … | head -1` does; the stream can also be closed without a complaint."""

    def command() -> int:
        console.line("the verdict")
        console.table(["a", "b"], [["x" * 100, "y"]] * 2000)
        console.piece("the end")
        return code

    read, write = os.pipe()
    os.close(read)
    probe(command)
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["probe"]) == code
    assert capsys.readouterr().err == ""


HUGGING_FACE_COMMANDS = [
    ["inspect", "absent"],
    ["new", "absent"],
    ["convert", "--model-dir", "absent", "--output-dir", "out"],
    ["run", "--engine-dir", "absent", "--tokenizer-dir", "absent"],
    ["summarize", "--engine-dir", "absent", "--hf-model-dir", "absent"],
    ["verify", "absent"],
    ["diff-layers", "absent"],
    ["demo"],
]


def installed(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformers of this version seems to be installed."""
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == "transformers" else real(name))


@pytest.mark.parametrize("words", HUGGING_FACE_COMMANDS)
def test_a_transformers_that_cannot_work_is_a_lack(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed("4.40.1", monkeypatch)
    assert main(words) == 3
    err = capsys.readouterr().err
    assert "transformers 4.40.1 is installed, and no release before 5.13 works" in err
    assert "pip install 'transformers>=5.20,<5.25'" in err


@pytest.mark.parametrize("words", [words for words in HUGGING_FACE_COMMANDS if "absent" in words])
def test_a_transformers_that_is_not_tested_is_a_warning(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    installed("5.99.0", monkeypatch)
    assert main(words) == 2  # what it was asked for is absent
    err = capsys.readouterr().err
    assert "warning: transformers 5.99.0 is installed; tested are 5.20 to 5.24" in err
