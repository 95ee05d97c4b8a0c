"""Several changes to a workspace by its only writer: all happen or none, whatever ends it; nothing is absent meanwhile.

All is written into `.trtllm-port.new` first, and then renamed to its place, the registry last. A process that is killed
leaves that directory; the next writer undoes from it what the registry does not know of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from trtllm_port.errors import WorkspaceError
from trtllm_port.foundation.atomic_files import disk_space, write_json, write_new
from trtllm_port.foundation.claims import remove
from trtllm_port.foundation.exchange import exchange
from trtllm_port.foundation.foreign import read_json, reading
from trtllm_port.porting.registry_file import registered_package
from trtllm_port.registry.names import PortPaths, port_paths
from trtllm_port.registry.workspace import MARKER, is_workspace, locked

STAGE = ".trtllm-port.new"
JOURNAL = "port.json"


class Transaction:
    """Changes that are made at its end; see `transaction`.

    Attributes:
        is_new: whether the workspace was made just now.
    """

    def __init__(self, paths: PortPaths, is_new: bool) -> None:
        self.is_new = is_new
        self._paths = paths
        self._stage = paths.workspace / STAGE
        self._pieces: list[Path] = []
        self._undo: list[Callable[[], object]] = []

    def begin(self, architecture: str) -> None:
        """Note what is not there yet, for the next writer if this one is killed."""
        added = [str(path.relative_to(self._paths.workspace)) for path in self._paths.own if not path.exists()]
        journal = {"name": self._paths.package.name, "architecture": architecture, "added": added}
        write_json(self._stage / JOURNAL, journal)

    def put(self, path: Path, content: Mapping[str, str] | str) -> None:
        """Have a directory with these files, or a file with this text, at `path`; in the place of what is there."""
        staged = self._staged(path)
        files = {staged: content} if isinstance(content, str) else {staged / name: content[name] for name in content}
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_new(file, text)
        self._pieces.append(path)

    def finish(self) -> None:
        """Rename everything to its place, in the order in which it was put."""
        for path in self._pieces:
            path.parent.mkdir(exist_ok=True)
            (self._place_directory if self._staged(path).is_dir() else self._place_file)(path)
        self._undo.clear()
        remove(self._stage)

    def roll_back(self) -> None:
        """Undo everything, last step first."""
        while self._undo:
            self._undo.pop()()
        remove(self._stage)

    def _place_file(self, path: Path) -> None:
        staged, before = self._staged(path), path.read_bytes() if path.exists() else None
        self._undo.append(lambda: _restore(path, staged, before))
        staged.replace(path)

    def _place_directory(self, path: Path) -> None:
        staged, aside = self._staged(path), _aside(self._stage, path)
        identity = staged.stat().st_ino
        self._undo.append(lambda: _take_back(path, staged, aside, identity))
        if path.exists() and not exchange(staged, path):
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)  # interrupted after this, the next writer renames it back
        if staged.stat().st_ino == identity:
            staged.rename(path)

    def _staged(self, path: Path) -> Path:
        return self._stage / "new" / path.relative_to(self._paths.workspace)


@contextmanager
def transaction(paths: PortPaths, architecture: str) -> Iterator[Transaction]:
    """Give what collects the changes; they are made when the block ends well, and none if it or they do not.

    Raises:
        WorkspaceError: the workspace cannot be locked.
        DiskSpaceError: the disk is full.
    """
    root = paths.workspace
    wanted = [*reversed(root.parents), root, *(path.parent for path in (paths.package, paths.examples, paths.test))]
    missing = [path for path in wanted if not path.exists()]
    with disk_space(root), locked(root) as is_new:
        changes = Transaction(paths, is_new)
        try:
            settle(root)
            changes.begin(architecture)
            yield changes
            changes.finish()
        except BaseException:
            changes.roll_back()
            if is_new:
                (root / "models" / MARKER).unlink()
            for path in reversed(missing):
                with suppress(OSError):  # it is not empty: somebody else uses it by now
                    path.rmdir()
            raise


def settle_leftovers(workspace: Path) -> None:
    """Undo what a killed writer left in a workspace, if there is such; waits for a living one."""
    if (workspace / STAGE).exists() and is_workspace(workspace):
        with locked(workspace):
            settle(workspace)


def settle(workspace: Path) -> None:
    """Undo what a killed writer left; the caller holds the lock.

    Raises:
        WorkspaceError: what lies there was not left by a writer.
    """
    stage = workspace / STAGE
    if not (stage / JOURNAL).is_file():
        remove(stage)  # nothing was placed yet
        return
    hint = "remove that directory"
    with reading(stage, WorkspaceError, hint=hint):
        journal = read_json(stage / JOURNAL, WorkspaceError, hint=hint)
        paths, architecture, added = port_paths(workspace, journal["name"]), journal["architecture"], journal["added"]
    text = paths.registry.read_text(encoding="utf-8") if paths.registry.is_file() else ""
    is_registered = bool(text) and registered_package(text, architecture) == paths.package.name
    for path in paths.own:
        aside = _aside(stage, path)
        if os.path.lexists(aside) and not os.path.lexists(path):
            aside.rename(path)
        if not is_registered and str(path.relative_to(workspace)) in added:
            remove(path)
    remove(stage)


def _aside(stage: Path, path: Path) -> Path:
    return stage / "old" / f"{path.parent.name}-{path.name}"


def _restore(path: Path, staged: Path, before: bytes | None) -> None:
    if before is None:
        path.unlink(missing_ok=True)
    else:
        staged.write_bytes(before)
        staged.replace(path)


def _take_back(path: Path, staged: Path, aside: Path, identity: int) -> None:
    placed = path.exists() and path.stat().st_ino == identity
    if aside.exists():
        if placed:
            path.rename(staged)
        aside.rename(path)
    elif placed and not (staged.exists() and exchange(path, staged)):
        path.rename(staged)
