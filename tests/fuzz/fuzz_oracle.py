"""Runs a case in this process and says what is wrong with its outcome.

Right is an exit code 0, or 1, 2 or 3 with a message that is no traceback, within a time and a memory, and with nothing
written outside of the case's directory.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from fuzz_cases import Place, make_case

SECONDS = 60  # of this process's own work, whatever else the machine does
MEMORY = 2 << 30  # bytes beyond what the process has when it begins
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename": 2, "os.link": 2, "os.symlink": 2} | dict.fromkeys(
    ("os.mkdir", "os.remove", "os.rmdir", "os.truncate"), 1
)
"""Audit events that change a file system → how many of their first arguments are paths."""
PASSES = ("/dev/", "/proc/self/")


class Hang(BaseException):
    """No `Exception`: nothing that a command catches."""


@dataclass
class Outcome:
    """What came of a case."""

    seed: int
    kind: str
    words: list[str]
    code: int | None
    seconds: float
    problems: list[str]
    out: str = field(repr=False)
    err: str = field(repr=False)


class WriteGuard:
    """Notes what is written outside of a directory, while it is armed. Audit hooks stay for the life of a process."""

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.found: list[str] = []
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def only_in(self, directory: Path) -> Iterator[list[str]]:
        """Note writes elsewhere while the block lasts."""
        self.inside, self.found = directory, []
        try:
            yield self.found
        finally:
            self.inside = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            self._check(event, arguments[0])
        for path in arguments[: CHANGES.get(event, 0)]:
            self._check(event, path)

    def _check(self, event: str, path: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a descriptor
        name = os.path.abspath(os.fsdecode(path))
        if not name.startswith((f"{self.inside}", *PASSES)):
            self.found.append(f"{event} {name}")


class Oracle:
    """Runs cases one after another, each in an empty directory of the same name.

    Args:
        corpus: see `make_corpus`.
        work: a directory of this process's own.
    """

    def __init__(self, corpus: Path, work: Path) -> None:
        self.place = Place(corpus, work.resolve() / "case")
        self.guard = WriteGuard()

    def limit_memory(self) -> None:
        """Let this process have `MEMORY` bytes more than it has now."""
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def run(self, seed: int, only: str | None = None, *, fast: bool = False) -> Outcome:
        """Make a case and judge what comes of it."""
        directory = self.place.directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        kind, words = make_case(seed, self.place, only, fast=fast)
        before, temporary = Path.cwd(), tempfile.tempdir
        os.chdir(directory)
        tempfile.tempdir = str(directory)
        began = time.monotonic()
        out, err = io.StringIO(), io.StringIO()
        try:
            with self.guard.only_in(directory) as written, _alarm():
                code, problems = _outcome(words, out, err)
        finally:
            os.chdir(before)
            tempfile.tempdir = temporary
        seconds = time.monotonic() - began
        problems += [f"wrote outside: {write}" for write in written[:3]]
        return Outcome(seed, kind, words, code, seconds, problems, out.getvalue(), err.getvalue())


def _outcome(words: list[str], out: io.StringIO, err: io.StringIO) -> tuple[int | None, list[str]]:
    from trtllm_port.cli.app import main

    code: int | None = None
    problems = []
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
    except Hang:
        problems.append(f"not done after {SECONDS} s")
    except BaseException as error:
        problems.append(f"the command line let {type(error).__name__} pass: {str(error)[:200]}")
    if code is not None and code not in (0, 1, 2, 3):
        problems.append(f"exit code {code}")
    said = err.getvalue()
    if (code in (2, 3) and "error:" not in said) or (code == 1 and not said + out.getvalue()):
        problems.append(f"exit code {code} without a message")
    if "Traceback (most recent call last)" in said:
        problems.append("a traceback")
    return code, problems


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    before = signal.signal(signal.SIGPROF, _ring)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _ring(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Hang
