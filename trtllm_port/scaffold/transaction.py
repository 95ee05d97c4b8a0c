"""Several changes to a workspace that happen all or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from trtllm_port.files import disk_space, write_text


class Transaction:
    """Makes changes and remembers how to undo them; see `transaction`."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []
        self._put_aside: list[Path] = []

    def make_directory(self, path: Path) -> None:
        """Make a directory and its missing parents."""
        for missing in reversed([parent for parent in (path, *path.parents) if not parent.exists()]):
            self._undo.append(lambda missing=missing: missing.exists() and missing.rmdir())  # type: ignore[misc]
            missing.mkdir()

    def place_directory(self, path: Path, files: Mapping[str, str]) -> None:
        """Make a directory with these files; it appears when it is complete, and replaces the one that is there."""
        self.make_directory(path.parent)
        part = _sibling(path, "part")
        self._undo.append(lambda: shutil.rmtree(part, ignore_errors=True))
        part.mkdir()
        for name, text in files.items():
            write_text(part / name, text)
        self._put_out_of_the_way(path)
        self._undo.append(lambda: shutil.rmtree(path, ignore_errors=True))
        part.rename(path)

    def place_file(self, path: Path, text: str) -> None:
        """Write a file; it replaces the one that is there."""
        self.make_directory(path.parent)
        self._put_out_of_the_way(path)
        self._undo.append(lambda: path.unlink(missing_ok=True))
        write_text(path, text)

    def roll_back(self) -> None:
        """Undo everything, last step first."""
        while self._undo:
            self._undo.pop()()

    def finish(self) -> None:
        """Delete what was replaced."""
        for path in self._put_aside:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _put_out_of_the_way(self, path: Path) -> None:
        if not path.exists():
            return
        aside = _sibling(path, "old")
        self._undo.append(lambda: aside.exists() and aside.rename(path))
        path.rename(aside)
        self._put_aside.append(aside)


@contextmanager
def transaction(workspace: Path) -> Iterator[Transaction]:
    """Undo all changes if the block ends with any exception, Ctrl-C included.

    Raises:
        DiskSpaceError: the disk is full.
    """
    changes = Transaction()
    with disk_space(workspace):
        try:
            yield changes
        except BaseException:
            changes.roll_back()
            raise
        changes.finish()


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{suffix}")
