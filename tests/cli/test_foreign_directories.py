"""Nothing of a directory is imported that is no workspace, and nothing is replaced that a command does not write."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from trtllm_port.cli.app import main
from trtllm_port.runtime import EngineDirectory

FOREIGN = "import pathlib\npathlib.Path('ran').touch()\nMODEL_MAP = {}\n"


@pytest.fixture
def cloned(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model repository with a package `models` that somebody else wrote; the current directory."""
    shutil.copytree(tiny_llama, tmp_path / "cloned")
    (tmp_path / "cloned" / "models").mkdir()
    (tmp_path / "cloned" / "models" / "__init__.py").write_text(FOREIGN)
    monkeypatch.chdir(tmp_path / "cloned")
    return tmp_path / "cloned"


@pytest.mark.parametrize("pyproject", [None, "[project]\nname = 'x'\n", "[", "project = 3\n", '[tool."trtllm-port"]\n'])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["models"], 0),
        (["convert", "--model-dir", ".", "--output-dir", "../ckpt"], 2),
        (["verify", "."], 2),
        (["diff-layers", ".", "--random-weights"], 2),
        (["new", "."], 2),
        (["new", "--blank", "mine"], 2),
        (["new", "--blank", "mine", "--force"], 2),
    ],
)
def test_the_code_of_a_cloned_repository_does_not_run(
    cloned: Path, words: list[str], code: int, pyproject: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if pyproject is not None:
        (cloned / "pyproject.toml").write_text(pyproject)
    before = sorted(cloned.rglob("*"))
    assert main(words) == code
    err = capsys.readouterr().err
    assert "touch models/trtllm-port.toml" in err.replace(f"{cloned}/", "")
    assert sorted(cloned.rglob("*")) == before


@pytest.mark.slow
def test_inspecting_a_cloned_repository_does_not_run_its_code(cloned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "."]) == 0
    assert not (cloned / "ran").exists()
    assert "served by" not in capsys.readouterr().out


def test_a_workspace_of_an_earlier_release_is_one_by_its_entry_point(
    cloned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[project.entry-points."trtllm_port.models"]\nmine = "mine:MODEL_MAP"\n'
    (cloned / "pyproject.toml").write_text(text)
    assert main(["models"]) == 0
    assert (cloned / "ran").exists()
    assert "touch" not in capsys.readouterr().err
    assert main(["new", "--blank", "mine"]) == 0
    assert (cloned / "models" / "trtllm-port.toml").is_file()


@pytest.fixture
def place(place: Path) -> Path:
    """A directory with a `model`, a checkpoint `ck` of it, and what must not be lost; the current directory."""
    assert main(["convert", "--model-dir", "model", "--output-dir", "ck"]) == 0
    return place


def files(place: Path) -> dict[Path, int]:
    return {path: path.stat().st_ino for path in sorted(place.rglob("*"))}


def refused(place: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(place)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "hint: " in err
    assert files(place) == before


def test_an_engine_and_notes_in_a_checkpoint_are_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = ["build", "--checkpoint-dir", "ck", "--backend", "reference", "--output-dir"]
    refused(place, [*build, "ck/engine"], "lies in the input `ck`", capsys)
    (place / "ck" / "engine").mkdir()
    shutil.copy(place / "model" / "config.json", place / "ck" / "engine")
    (place / "ck" / "notes.txt").write_text("mine")
    convert = ["convert", "--model-dir", "model", "--output-dir", "ck"]
    refused(place, convert, "does not write: `engine/config.json`, `notes.txt`", capsys)


def test_a_source_in_the_output_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "model").rename(place / "ck" / "model")
    refused(place, ["convert", "--model-dir", "ck/model", "--output-dir", "ck"], "does not write: `model/", capsys)
    (place / "link").symlink_to("ck")
    refused(place, ["convert", "--model-dir", "link/model", "--output-dir", "ck"], "does not write: `model/", capsys)
    refused(
        place, ["convert", "--model-dir", "ck/model", "--output-dir", "link/model/new"], "lies in the input", capsys
    )


def test_a_checkpoint_in_the_engine_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--checkpoint-dir", "ck", "--output-dir", "e", "--backend", "reference"]) == 0
    (place / "ck").rename(place / "e" / "ck")
    words = ["build", "--checkpoint-dir", "e/ck", "--output-dir", "e", "--backend", "reference"]
    refused(place, words, "does not write: `ck/", capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "--model-dir", "model", "--output-dir", "loop"],
        ["convert", "--model-dir", "model", "--output-dir", "loop/ck"],
        ["build", "--checkpoint-dir", "ck", "--output-dir", "loop"],
        ["verify", "model", "--save", "loop"],
        ["verify", "model", "--report-dir", "loop/report"],
        ["diff-layers", "model", "--report-dir", "loop"],
        ["new", "--blank", "mine", "--workspace", "loop"],
    ],
)
def test_links_in_a_circle_are_told_before_the_work(
    place: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "loop").symlink_to("pool")
    (place / "pool").symlink_to("loop")
    before = sorted(os.listdir(place))
    assert main(words) == 2
    assert "circle of symbolic links" in capsys.readouterr().err
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_all_files_have_the_mode_that_the_user_wants(place: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert main(["convert", "--model-dir", "model", "--output-dir", "fresh"]) == 0
        assert main(["build", "--checkpoint-dir", "fresh", "--output-dir", "e", "--backend", "reference"]) == 0
        assert main(["new", "--blank", "mine", "--workspace", "w"]) == 0
    finally:
        os.umask(before)
    assert "rank0.constants.safetensors" in EngineDirectory.read(place / "e").digests
    for top in ("fresh", "e", "w"):
        for path in (place / top, *(place / top).rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert oct(mode) == oct((0o777 if path.is_dir() else 0o666) & ~umask), path
