"""What makes a directory a workspace, whose ports may be imported; and the lock that its writers take.

`new` writes `models/trtllm-port.toml`. Without it nothing of a directory is imported: the current directory may be a
model repository that somebody else wrote. A directory whose `pyproject.toml` announces ports as an entry point, as the
workspaces of earlier releases do, is one, too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trtllm_port.errors import WorkspaceError
from trtllm_port.foundation.claims import same_file

ENTRY_POINT_GROUP = "trtllm_port.models"
MARKER = "trtllm-port.toml"
MARKER_TEXT = """\
# trtllm-port imports the ports in this directory because this file is here. `trtllm-port new` wrote it.
format = 1
"""
PATIENCE = 60.0  # seconds; a writer holds the lock for less than one
_PAUSE = 0.05


def is_workspace(workspace: Path) -> bool:
    """Whether the `models` of a directory may be imported."""
    if (workspace / "models" / MARKER).is_file():
        return True
    try:
        project = tomllib.loads((workspace / "pyproject.toml").read_text(encoding="utf-8"))
        return ENTRY_POINT_GROUP in project["project"]["entry-points"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def unmarked_models(workspace: Path) -> str | None:
    """Say that a directory has a `models/__init__.py` that was not imported, and what to do; None where it has none."""
    if is_workspace(workspace) or not (workspace / "models" / "__init__.py").is_file():
        return None
    return (
        f"`{workspace / 'models' / '__init__.py'}` was not imported: nothing says that it is a workspace's; "
        f"if you wrote it or trust it, `touch {shlex.quote(str(workspace / 'models' / MARKER))}`"
    )


@contextmanager
def locked(workspace: Path) -> Iterator[bool]:
    """Make a directory a workspace, and be its only writer until the block ends.

    Yields:
        Whether the marker is new. Whoever then writes nothing else removes it while the lock is held.

    Raises:
        WorkspaceError: another process wrote to it for a whole minute, or the file system has no locks.
    """
    descriptor, is_new = _open_locked(workspace / "models" / MARKER)
    try:
        if os.fstat(descriptor).st_size == 0:
            os.write(descriptor, MARKER_TEXT.encode())
        yield is_new
    finally:
        os.close(descriptor)


def _open_locked(path: Path) -> tuple[int, bool]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        is_new = not path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # whoever gives up a new workspace takes its directories away again
        if _lock(descriptor, path) and same_file(descriptor, path):
            return descriptor, is_new
        os.close(descriptor)
        time.sleep(_PAUSE)
    raise WorkspaceError(
        f"another process has been writing to the workspace `{path.parents[1]}` for {PATIENCE:.0f} s",
        hint="wait for it, or name another --workspace",
    )


def _lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            return False
        os.close(descriptor)
        raise WorkspaceError(
            f"`{path}` cannot be locked: {error.strerror}", hint="name a --workspace on another file system"
        ) from error
    return True
