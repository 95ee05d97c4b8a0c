"""Compares finished files with what was meant to be in them.

A file's digest is taken of the tensors as they leave their transform, before anything is handed to the thread that
writes, and noted after each of them. Then the file is read from its beginning, and its digest compared at the same
places: one hash on either side, at the disk's speed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import xxhash

from trtllm_port.conversion.pipeline import PIECE, read_all
from trtllm_port.errors import CheckpointError
from trtllm_port.foundation.digests import digest_text


@dataclass(frozen=True)
class _Mark:
    what: str
    stop: int
    digest: bytes  # of all bytes up to `stop`


class IntendedFile:
    """The digest of what a file should hold, noted after its header and after every tensor."""

    def __init__(self, header: bytes) -> None:
        self._state = xxhash.xxh3_128()
        self._size = 0
        self.marks: list[_Mark] = []
        self.add(memoryview(header))
        self.mark("the header")

    def add(self, data: memoryview) -> None:
        """The next bytes."""
        self._state.update(data)
        self._size += data.nbytes

    def mark(self, what: str) -> None:
        """Note that `what` ends here."""
        self.marks.append(_Mark(what, self._size, self._state.digest()))

    @property
    def digest(self) -> str:
        """Of all bytes, as `trtllm_port.foundation.digests.file_digest` would give it."""
        return digest_text(self._state)


def check_written(files: Mapping[Path, IntendedFile]) -> None:
    """Read files, which are complete and closed, and compare them with what they should hold.

    Args:
        files: path → what was meant to be in it.

    Raises:
        CheckpointError: names the first tensor of each file that is not what it should be.
    """
    with ThreadPoolExecutor(len(files)) as threads:
        found = threads.map(_first_wrong, files.keys(), files.values())
        wrong = [f"{what} in `{path.name}`" for path, what in zip(files, found, strict=True) if what is not None]
    if wrong:
        raise CheckpointError(
            f"the bytes in the file are not those that were converted: {', '.join(wrong)}",
            hint="convert again; if it stays, the disk or the memory of this machine is faulty",
        )


def _first_wrong(path: Path, intended: IntendedFile) -> str | None:
    state = xxhash.xxh3_128()
    buffer = memoryview(bytearray(PIECE))
    start = 0
    with _opened(path) as descriptor:
        for mark in intended.marks:
            for offset in range(start, mark.stop, PIECE):
                part = buffer[: min(PIECE, mark.stop - offset)]
                read_all(descriptor, part, offset, path)
                state.update(part)
            if state.digest() != mark.digest:
                return mark.what
            start = mark.stop
        return None if os.fstat(descriptor).st_size == start else "the end"


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
