"""Names for unfinished work: unique, owned by a living process, cleaned by whoever comes next once that one is dead.

    .NAME.<16 hex digits>.lock   held locked (flock) by the process that works; the lock dies with it, however it ends
    .NAME.<16 hex digits>.part   what it makes
    .NAME.<16 hex digits>.old    what it replaces, where two names cannot be swapped in one step

A process id would not do: in a container every process is number 1.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_PRIVATE = 0o700


@dataclass(frozen=True)
class Claim:
    """The three names, in one directory."""

    lock: Path

    @property
    def part(self) -> Path:
        return self.lock.with_suffix(".part")

    @property
    def old(self) -> Path:
        return self.lock.with_suffix(".old")

    def settle(self, target: Path) -> None:
        """Leave `target` as it is or was, remove all else; the lock last, and only if nothing is left to clean."""
        if os.path.lexists(self.old) and not os.path.lexists(target):
            self.old.rename(target)  # it was interrupted between its two renames
        for path in (self.old, self.part):
            remove(path)
        if not os.path.lexists(self.old) and not os.path.lexists(self.part):
            self.lock.unlink(missing_ok=True)


@contextmanager
def claimed(target: Path, *, home: Path | None = None) -> Iterator[Claim]:
    """Claim names for work that ends as `target`; before that, settle what dead processes left of theirs.

    Args:
        target: the file or directory to make.
        home: the directory of the names; the parent of `target` by default.
    """
    home = target.parent if home is None else home
    for claim in claims(target.name, home):
        if (descriptor := _take(claim.lock)) is not None:
            try:
                claim.settle(target)
            finally:
                os.close(descriptor)
    claim, descriptor = _new(target.name, home)
    try:
        yield claim
    finally:
        try:
            claim.settle(target)
        finally:
            os.close(descriptor)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a private directory for temporary files, of which nothing stays."""
    with claimed(Path(tempfile.gettempdir()) / "trtllm-port") as claim:
        claim.part.mkdir(_PRIVATE)
        yield claim.part


def claims(name: str, home: Path) -> list[Claim]:
    """Return all claims of a name, of the living and of the dead."""
    pattern = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.lock")
    return [Claim(path) for path in sorted(home.iterdir()) if pattern.fullmatch(path.name)] if home.is_dir() else []


def is_alive(claim: Claim) -> bool:
    """Whether a process holds the claim."""
    descriptor = _take(claim.lock)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None and claim.lock.exists()


def remove(path: Path) -> None:
    """Remove a file or a directory as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def same_file(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name: between opening and locking it, its owner may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _new(name: str, home: Path) -> tuple[Claim, int]:
    while True:
        claim = Claim(home / f".{name}.{secrets.token_hex(8)}.lock")
        try:
            descriptor = os.open(claim.lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:  # where nobody can lock, nobody takes it for dead either
                os.close(descriptor)
                raise
        if same_file(descriptor, claim.lock):
            return claim, descriptor
        os.close(descriptor)  # somebody was faster to lock it, and took it for a dead one's


def _take(lock: Path) -> int | None:
    """Lock a file whose owner is dead; None: it lives, cannot be told, is another user's, or was settled just now."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.ELOOP):
            raise
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, *_UNSUPPORTED):
            raise
        return None
    if same_file(descriptor, lock) and os.fstat(descriptor).st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    return None
