"""Kills a stage at any file operation, and sees what it has left.

A child is forked for every operation and killed there with SIGKILL, which no handler and no `finally` sees.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trtllm_port.errors import PortError, WorkspaceError
from trtllm_port.foundation import publishing
from trtllm_port.porting import transaction

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.chmod"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
LAST = 30  # operations, among which everything gets its name
Run = Callable[[], object]


class Operations:
    """Counts file operations from now on, and kills this process at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.count = 0
        self._kill_at = kill_at
        self._lock = threading.RLock()
        sys.addaudithook(self._hear)  # cannot be removed: for a process that ends soon
        for module, name in ((os, "write"), (os, "fsync"), (publishing, "exchange"), (transaction, "exchange")):
            setattr(module, name, self._around(getattr(module, name)))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
            self._tick()

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self._tick()
            result = function(*arguments)
            self._tick()
            return result

        return counted

    def _tick(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def in_child(run: Run, kill_at: int | None) -> int | None:
    """Return how many operations a run takes, or None if it was killed."""
    read, written = os.pipe()
    if (child := os.fork()) == 0:
        try:
            operations = Operations(kill_at)
            run()
            count = operations.count
            os.write(written, str(count).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(written)
    with os.fdopen(read) as pipe:
        count = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
    return int(count) if status == 0 else None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A stage to kill.

    Attributes:
        run: the stage.
        state: what it left: "old", "new", or "none"; raises if that is something else.
        between: states other than "old" and "new" that may be met before it runs again.
    """

    run: Run
    state: Callable[[], str]
    between: tuple[str, ...] = ()


def tree(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


def kill_everywhere(case: Case, sandbox: Path, step: int = 1) -> None:
    """Kill a run at every operation (or at every few, but the last), and run it again from what was before it."""
    template = Path(shutil.copytree(sandbox, sandbox.parent / "template", symlinks=True))

    def put_back() -> None:
        shutil.rmtree(sandbox)
        shutil.copytree(template, sandbox, symlinks=True)

    before = case.state()
    case.run()  # what is imported, rendered or computed once is there from here on
    put_back()
    count = in_child(case.run, None)
    assert count is not None
    assert count > 10
    assert case.state() == "new"
    finished = tree(sandbox)
    met = set()
    for at in [at for at in range(1, count + 1) if at % step == 0 or at > count - LAST]:
        put_back()
        if in_child(case.run, at) is not None:
            continue  # threads make the number of operations differ by a few
        state = case.state()
        assert state in {before, "new", *case.between}, f"killed at operation {at} of {count}: {state}"
        met.add(state)
        try:
            case.run()
        except WorkspaceError as error:
            if state != "new" or "exists already" not in error.message:
                raise
        assert case.state() == "new"
        assert tree(sandbox) == finished, f"killed at operation {at} of {count}"
    assert {before, "new"} <= met


FILE_SYSTEMS = ["swaps", "renames", "mounted"]


def behave(file_system: str, output: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Have a file system that swaps names, one that cannot, or a mount point; returns the states in between."""
    if file_system == "renames":
        for module in (publishing, transaction):
            monkeypatch.setattr(module, "exchange", lambda one, other: False)
        return ("none",)
    if file_system == "mounted":
        output.mkdir(exist_ok=True)
        monkeypatch.setattr(publishing, "_mount_points", lambda: {str(output)})
        return ("none",)
    return ()


def complete(check: Callable[[], str]) -> str:
    """What a reader makes of a directory: refused is none; wrong is an error of another kind."""
    try:
        return check()
    except PortError:
        return "none"
