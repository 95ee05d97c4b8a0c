"""Small files that are either complete or absent: written under a name of their own, then renamed.

Whatever ends it early (an error, Ctrl-C, SIGTERM turned into SystemExit), what was there before is still there; what a
killed process left is removed by the next one that writes the file.
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
from trtllm_port.foundation.claims import claimed
from trtllm_port.foundation.quoting import json_text

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_text(path: Path, text: str) -> None:
    """Write a small text file in one step that survives a power cut.

    Raises:
        DiskSpaceError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_space(path), claimed(path) as claim:
        write_new(claim.part, text)
        claim.part.replace(path)


def write_new(path: Path, text: str) -> None:
    """Write a text file that does not exist yet, onto the disk; whoever reads it meanwhile sees half of it."""
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """As `write_text`, with two spaces of indentation."""
    write_text(path, json_text(value))


@contextmanager
def disk_space(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn "no space left on device" into an error that says where, and how much is free and needed (bytes)."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        free = shutil.disk_usage(existing_parent(path)).free
        wanted = "" if needed is None else f", {_megabytes(needed)} are needed"
        raise DiskSpaceError(
            f"no space left to write `{path}`: {_megabytes(free)} are free{wanted}",
            hint="free some space or write to another disk; nothing half-written was left",
        ) from error


def require_space(path: Path, needed: int) -> None:
    """Refuse before the work starts when the disk that holds `path` has less than `needed` bytes free."""
    if shutil.disk_usage(existing_parent(path)).free < needed:
        with disk_space(path, needed):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def real_path(path: Path) -> Path:
    """Return the absolute path behind all symbolic links; what it names need not exist.

    Raises:
        PortError: the links lead in a circle.
    """
    real = Path(os.path.realpath(path))
    if any(part.is_symlink() for part in (real, *real.parents)):
        raise PortError(f"`{path}` leads in a circle of symbolic links", hint="name a real directory")
    return real


def require_writable(path: Path) -> None:
    """Refuse before the work starts a directory that exists and cannot be written, or that cannot be made.

    Raises:
        PortError: names what is in the way.
    """
    place = existing_parent(path)
    if not place.is_dir():
        raise PortError(f"`{path}` cannot be written: `{place}` is not a directory", hint="choose another directory")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PortError(f"`{path}` cannot be written: no permission in `{place}`", hint="choose another directory")


def existing_parent(path: Path) -> Path:
    """Return the path itself if it exists, else the nearest directory above it that does."""
    path = real_path(path)
    while not path.exists():
        path = path.parent
    return path


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
