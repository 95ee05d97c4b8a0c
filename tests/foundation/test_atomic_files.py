from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trtllm_port.errors import DiskSpaceError
from trtllm_port.foundation.atomic_files import require_space, write_json, write_text
from trtllm_port.foundation.digests import bytes_digest, file_digest


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
