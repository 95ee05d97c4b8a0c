from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trtllm_port.errors import DiskSpaceError, PortError
from trtllm_port.files import atomic_directory, bytes_digest, file_digest, require_space, write_json, write_text


def test_text_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "one\n")
    write_text(path, "zwei é\n")
    assert path.read_bytes() == "zwei é\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_names_the_place_and_keeps_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DiskSpaceError, match=r"no space left to write `.*a\.json`: [\d,]+ MB are free"):
        write_json(path, {"new": 2})
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "out" / "ckpt"
    with atomic_directory(target) as directory:
        (directory / "a").write_text("a")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_it_early_the_old_directory_stays(tmp_path: Path, ending: type[BaseException]) -> None:
    target = tmp_path / "ckpt"
    with atomic_directory(target) as directory:
        (directory / "old").write_text("old")
    with pytest.raises(ending), atomic_directory(target, replace=True) as directory:  # noqa: PT012  the body is what ends early
        (directory / "new").write_text("half")
        raise ending
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "ckpt"
    for name in ("old", "new"):
        with atomic_directory(target, replace=True) as directory:
            (directory / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_to_a_directory_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "ckpt").symlink_to("disk")
    with atomic_directory(tmp_path / "ckpt") as directory:
        (directory / "a").write_text("a")
    assert (tmp_path / "ckpt").is_symlink()
    assert (tmp_path / "disk" / "a").is_file()


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    for name, replace in (("full", False), ("file", True)):
        with pytest.raises(PortError, match="exists already"), atomic_directory(tmp_path / name, replace=replace):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_a_digest_depends_on_content_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    assert file_digest(tmp_path / "a") == bytes_digest(b"weights") != bytes_digest(b"weighs")
    assert bytes_digest(b"") == "xxh3_128:99aa06d3014798d86001c324468d497f"  # from the xxHash specification's tests


def test_space_is_required_before_the_work(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(DiskSpaceError, match="MB are needed"):
        require_space(tmp_path / "not" / "yet", 1 << 60)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
