"""An output directory is the old one or the new one; no other's content is replaced; leftovers are cleaned."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trtllm_port.errors import PortError
from trtllm_port.foundation import claims, publishing
from trtllm_port.foundation.claims import claimed, scratch
from trtllm_port.foundation.publishing import Kind, check_output, output_directory

KIND = Kind(
    is_not="no box",
    marker="mark",
    names=("mark", "part*", "sub/*.txt"),
    is_one=lambda directory: (directory / "mark").is_file(),
)


def fill(target: Path, text: str, *inputs: Path) -> None:
    with output_directory(target, KIND, inputs) as directory:
        (directory / "part0").write_text(text)
        (directory / "sub").mkdir()
        (directory / "sub" / "a.txt").write_text(text)
        (directory / "mark").write_text(text)


def content(target: Path) -> dict[str, str]:
    return {
        path.relative_to(target).as_posix(): path.read_text() for path in sorted(target.rglob("*")) if path.is_file()
    }


def box(text: str) -> dict[str, str]:
    return {"mark": text, "part0": text, "sub/a.txt": text}


@pytest.fixture(params=["swapped", "renamed", "mounted"])
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of a file system that swaps names, of one that cannot, and one that may not be renamed."""
    place = tmp_path / "out" / "box"
    if request.param == "renamed":
        monkeypatch.setattr(publishing, "exchange", lambda one, other: False)
    if request.param == "mounted":
        place.mkdir(parents=True)
        monkeypatch.setattr(publishing, "_mount_points", lambda: {str(place)})
    return place


def test_a_directory_appears_when_it_is_complete_and_is_replaced_whole(target: Path) -> None:
    for text in ("old", "new"):
        with output_directory(target, KIND) as directory:
            (directory / "part0").write_text(text)
            (directory / f"part-{text}").write_text(text)
            (directory / "mark").write_text(text)
            assert KIND.is_one(target) == (text == "new")
    assert content(target) == {"mark": "new", "part-new": "new", "part0": "new"}
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_it_early_the_old_directory_stays(target: Path, ending: type[BaseException]) -> None:
    fill(target, "old")
    with pytest.raises(ending), output_directory(target, KIND) as directory:  # noqa: PT012  the body is what ends early
        (directory / "part0").write_text("half")
        raise ending
    assert content(target) == box("old")
    assert list(target.parent.iterdir()) == [target]


def test_a_directory_that_cannot_be_renamed_stays_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose output is mounted, from the same file system even: `os.path.ismount` does not see it."""
    monkeypatch.setattr(publishing, "_mount_points", lambda: {str(tmp_path)})
    before = tmp_path.stat().st_ino
    for text in ("old", "new"):
        fill(tmp_path, text)
        assert content(tmp_path) == box(text)
    assert tmp_path.stat().st_ino == before


def test_a_directory_that_was_filled_by_half_is_known_however_many_runs_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_mount_points", lambda: {str(tmp_path)})
    fill(tmp_path, "old")
    (tmp_path / "mark").unlink()
    (tmp_path / ".mark.begun").touch()
    for _ in range(2):
        with pytest.raises(ValueError, match="fails"), output_directory(tmp_path, KIND):
            raise ValueError("fails")
    fill(tmp_path, "new")
    assert content(tmp_path) == box("new")


def test_mount_points_are_read_from_linux() -> None:
    assert {"/", "/proc"} <= publishing._mount_points()


def test_a_parent_that_may_not_be_written_does_not_matter_where_the_directory_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, may = tmp_path / "shut" / "box", os.access
    target.mkdir(parents=True)
    before = target.stat().st_ino
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != target.parent and may(path, mode))
    for text in ("old", "new"):
        fill(target, text)
        assert content(target) == box(text)
    assert target.stat().st_ino == before
    with pytest.raises(PortError, match=r"no permission in `.*shut`"):
        check_output(tmp_path / "shut" / "another", KIND)


@pytest.mark.parametrize("extra", ["notes.txt", "engine/rank0.engine", "sub/deep/a.txt", "empty/", "sub/b.md"])
def test_what_the_stage_does_not_write_is_never_replaced(target: Path, extra: str) -> None:
    fill(target, "old")
    if extra.endswith("/"):
        (target / extra).mkdir()
    else:
        (target / extra).parent.mkdir(parents=True, exist_ok=True)
        (target / extra).write_text("mine")
    before = sorted(target.rglob("*"))
    with pytest.raises(PortError, match=f"holds what this command does not write: `{extra.rstrip('/')}`"):
        fill(target, "new")
    assert sorted(target.rglob("*")) == before


def test_what_appears_meanwhile_is_not_replaced_either(target: Path) -> None:
    fill(target, "old")
    with pytest.raises(PortError, match=r"notes\.txt"), output_directory(target, KIND) as directory:  # noqa: PT012
        (directory / "mark").write_text("new")
        (target / "notes.txt").write_text("mine")
    assert content(target) == {**box("old"), "notes.txt": "mine"}


def test_what_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "part0").touch()
    (tmp_path / "file").touch()
    for name, words in (("full", "is not empty and no box"), ("file", "exists already"), ("file/box", "not a dir")):
        with pytest.raises(PortError, match=words):
            fill(tmp_path / name, "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_a_link_to_a_directory_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "box").symlink_to("disk")
    fill(tmp_path / "box", "new")
    assert (tmp_path / "box").is_symlink()
    assert content(tmp_path / "disk") == box("new")


def test_links_in_a_circle_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "self").symlink_to("self")
    for name in ("a", "a/box", "self", "self/deep/box"):
        with pytest.raises(PortError, match="circle of symbolic links"):
            fill(tmp_path / name, "new")


def test_an_output_neither_holds_an_input_nor_lies_in_one(tmp_path: Path) -> None:
    (tmp_path / "source" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("source")
    for name in ("source", "source/box", "link/box", "link/deep", "."):
        with pytest.raises(PortError, match=r"lies in the input|would replace|is not empty"):
            fill(tmp_path / name, "new", tmp_path / "source")
    fill(tmp_path / "box", "old")
    (tmp_path / "source" / "weights").symlink_to("../box/part0")
    with pytest.raises(PortError, match=r"would replace .*source"):
        fill(tmp_path / "box", "new", tmp_path / "source")
    with pytest.raises(PortError, match="would replace"):
        check_output(tmp_path / "box", KIND, kept=[tmp_path / "box" / "report"])


def test_leftovers_of_the_dead_are_cleaned_and_those_of_the_living_are_not(target: Path) -> None:
    fill(target, "old")
    home = target if target.name in {path.rpartition("/")[2] for path in publishing._mount_points()} else target.parent
    (home / ".box.0123456789abcdef.lock").touch()
    (home / ".box.0123456789abcdef.part").mkdir()
    (home / ".box.0123456789abcdef.part" / "half").touch()
    (home / ".other.0123456789abcdef.lock").touch()
    if home == target:  # two cannot fill the same directory
        with claimed(target, home=home), pytest.raises(PortError, match="another process is writing"):
            fill(target, "new")
    else:
        with claimed(target, home=home) as alive:
            alive.part.mkdir()
            fill(target, "new")
            assert alive.part.is_dir()
    (home / ".other.0123456789abcdef.lock").unlink()
    fill(target, "newest")
    assert content(target) == box("newest")
    assert list(target.parent.iterdir()) == [target]


def test_two_at_once_leave_one_of_both_complete(tmp_path: Path) -> None:
    for old in (False, True):
        target = tmp_path / f"box{old}"
        if old:
            fill(target, "old")
        with output_directory(target, KIND) as first:
            (first / "mark").write_text("first")
            fill(target, "second")
        assert content(target) == {"mark": "first"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxFalse", "boxTrue"]


def test_scratch_space_is_private_and_gone_and_that_of_a_killed_process_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims.tempfile, "gettempdir", lambda: str(tmp_path))
    if (child := os.fork()) == 0:
        with scratch() as directory:
            (directory / "weights").write_text("large")
            os._exit(9)
    os.waitpid(child, 0)
    assert list(tmp_path.rglob("weights"))
    with scratch() as directory:
        assert directory.stat().st_mode & 0o777 == 0o700
        assert not list(tmp_path.rglob("weights"))
    assert not list(tmp_path.iterdir())
