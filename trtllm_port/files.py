"""Files that are either complete or absent: written under a temporary sibling's name, then renamed; and digests.

Whatever ends a block early (an error, Ctrl-C, SIGTERM turned into SystemExit), the temporary sibling is removed and
what was there before is still there.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trtllm_port.errors import DiskSpaceError, PortError
from trtllm_port.quoting import json_text
from trtllm_port.runtime.digests import bytes_digest as bytes_digest
from trtllm_port.runtime.digests import file_digest as file_digest

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_text(path: Path, text: str) -> None:
    """Write a small text file in one step that survives a power cut.

    Raises:
        DiskSpaceError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path, "part")
    with disk_space(path):
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """As `write_text`, with two spaces of indentation."""
    write_text(path, json_text(value))


@contextmanager
def atomic_directory(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Fill a temporary sibling directory, which becomes `target` when the block ends well.

    Args:
        target: the directory to make; its parents are made, too.
        replace: whether a directory of that name is replaced (it stays in place until the new one is complete).

    Raises:
        PortError: something else of that name exists.
        DiskSpaceError: the disk is full.
    """
    target = Path(os.path.abspath(target)).parent.resolve() / target.name if target.name else target.resolve()
    if target.is_symlink():
        target = target.resolve()
    if os.path.lexists(target) and not (target.is_dir() and (replace or not any(target.iterdir()))):
        raise PortError(f"`{target}` exists already", hint="choose another output directory or remove it")
    with disk_space(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _sibling(target, "part")
        temporary.mkdir()
        try:
            yield temporary
            _sync_directory(temporary)
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def disk_space(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn "no space left on device" into an error that says where, and how much is free and needed (bytes)."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        free = shutil.disk_usage(_existing_parent(path)).free
        wanted = "" if needed is None else f", {_megabytes(needed)} are needed"
        raise DiskSpaceError(
            f"no space left to write `{path}`: {_megabytes(free)} are free{wanted}",
            hint="free some space or write to another disk; nothing half-written was left",
        ) from error


def require_space(path: Path, needed: int) -> None:
    """Refuse before the work starts when the disk that holds `path` has less than `needed` bytes free."""
    if shutil.disk_usage(_existing_parent(path)).free < needed:
        with disk_space(path, needed):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _swap(new: Path, target: Path) -> None:
    """Rename `new` to `target`; what was there is put aside first, and put back if the renaming fails."""
    old = _sibling(target, "old")
    had_one = target.exists()
    if had_one:
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if had_one:
            old.rename(target)
        raise
    _sync_directory(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{suffix}")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _existing_parent(path: Path) -> Path:
    path = Path(os.path.abspath(path))
    while not path.exists():
        path = path.parent
    return path


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
