"""The output directory of a stage: it is the old one until the new one is complete, then the new one, in one step.

The new one is made under a name of its own beside the directory, and the two names are swapped. A directory that cannot
be renamed (a mount point; one whose parent may not be written) is filled from within: then its marker file goes first
and comes last, so that a state in between is never taken for a complete one.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from trtllm_port.errors import PortError
from trtllm_port.foundation.atomic_files import disk_space, real_path, require_writable
from trtllm_port.foundation.claims import Claim, claimed, claims, is_alive, remove
from trtllm_port.foundation.exchange import exchange

_NOTHING_CHANGED = "choose another output directory; nothing was changed"
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a stage writes.

    Attributes:
        is_not: what is said of other directories: "no checkpoint".
        marker: the file without which a directory is not complete.
        names: patterns of all files' paths, `rank*.safetensors`; whatever else is in a directory is not replaced.
        is_one: whether a directory is a complete one, by its marker.
        error: the class of what is raised.
    """

    is_not: str
    marker: str
    names: tuple[str, ...]
    is_one: Callable[[Path], bool]
    error: type[PortError] = PortError


def check_output(target: Path, kind: Kind, inputs: Iterable[Path] = (), *, kept: Iterable[Path] = ()) -> Path:
    """Refuse before the work starts what could not, or must not, be replaced at its end.

    Args:
        target: absent, an empty directory, or one that holds what this stage writes and nothing else.
        kind: of the stage.
        inputs: directories that are read: the target may neither hold one nor lie in one.
        kept: other directories that the target may not hold.

    Returns:
        The place behind the target's symbolic links.

    Raises:
        PortError: of the kind's class; nothing was changed.
    """
    place = real_path(target)
    if os.path.lexists(place) and not place.is_dir():
        raise kind.error(f"`{target}` exists already and is no directory", hint=_NOTHING_CHANGED)
    if place.is_dir():
        _refuse_other_content(target, place, kind)
    _refuse_overlap(target, place, kind, list(inputs), kept)
    require_writable(place)
    return place


@contextmanager
def output_directory(target: Path, kind: Kind, inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """Fill a temporary directory, which takes the place of `target` when the block ends well.

    Args:
        target, kind, inputs: as for `check_output`, which is called.

    Raises:
        PortError: as `check_output`; or while the block ran, something appeared in `target` that must not be replaced.
        DiskSpaceError: the disk is full.
    """
    place = check_output(target, kind, inputs)
    fixed = _is_fixed(place)
    with disk_space(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with claimed(place, home=place if fixed else place.parent) as claim:
            claim.part.mkdir()
            yield claim.part
            if place.is_dir():
                _refuse_other_content(target, place, kind, claim)
                shutil.copymode(place, claim.part)
                _sync(claim.part)  # where nothing is replaced a power cut loses nothing, and digests tell what it took
            _publish(claim, place, kind, fixed=fixed)


def _publish(claim: Claim, place: Path, kind: Kind, *, fixed: bool) -> None:
    if fixed:
        _fill(claim.part, place, kind)
    elif not place.exists():
        claim.part.rename(place)
    else:
        try:
            _replace(claim, place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _fill(claim.part, place, kind)  # it lies in the lower layer of an overlay: names of files only can change
    _sync_directory(place.parent)


def _replace(claim: Claim, place: Path) -> None:
    if not exchange(claim.part, place):
        place.rename(claim.old)  # interrupted after this, the next process that claims the name renames it back
        claim.part.rename(place)


def _fill(new: Path, place: Path, kind: Kind) -> None:
    """Move what is in `new` into the place of what is in `place`, which is no complete directory meanwhile."""
    begun = place / _begun(kind)  # tells the next process that what it finds without a marker is the stage's
    begun.touch()
    _sync_directory(place)
    (place / kind.marker).unlink(missing_ok=True)
    _sync_directory(place)
    for path in place.iterdir():
        if _is_known(path.relative_to(place), kind):
            remove(path)
    for path in sorted(new.iterdir(), key=lambda path: path.name == kind.marker):
        if path.name == kind.marker:
            _sync_directory(place)
        path.rename(place / path.name)
    _sync_directory(place)
    begun.unlink()


def _begun(kind: Kind) -> str:
    return f".{kind.marker}.begun"


def _refuse_other_content(target: Path, place: Path, kind: Kind, own: Claim | None = None) -> None:
    inside = [claim for claim in claims(place.name, place) if claim != own]
    if any(is_alive(claim) for claim in inside):
        raise kind.error(f"another process is writing `{target}`", hint="wait for it, or choose another directory")
    begun = place / _begun(kind)
    hidden = {path for claim in (*inside, own) if claim is not None for path in (claim.lock, claim.part, claim.old)}
    paths = list(_walk(place, hidden | {begun}))
    if not paths:
        return
    if not begun.exists() and not kind.is_one(place):
        raise kind.error(f"`{target}` is not empty and {kind.is_not}", hint=_NOTHING_CHANGED)
    if other := sorted(path.as_posix() for path in paths if not _is_known(path, kind)):
        shown = ", ".join(f"`{name}`" for name in other[:_SHOWN])
        more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        raise kind.error(
            f"`{target}` would be replaced whole, and it holds what this command does not write: {shown}{more}",
            hint="move that elsewhere, or choose another output directory; nothing was changed",
        )


def _walk(place: Path, hidden: set[Path]) -> Iterator[PurePosixPath]:
    """Yield what a directory holds, relative to it; of a directory in it only that, if it is empty or a link."""
    for path in sorted(place.iterdir()):
        if path in hidden:
            continue
        inside = list(_walk(path, hidden)) if path.is_dir() and not path.is_symlink() else []
        yield from (PurePosixPath(path.name) / each for each in inside) if inside else (PurePosixPath(path.name),)


def _is_known(path: PurePosixPath | Path, kind: Kind) -> bool:
    """Whether the stage writes a path; of a directory: whether it writes something in it."""
    return any(
        len(path.parts) <= len(parts) and all(map(fnmatchcase, path.parts, parts))
        for parts in (PurePosixPath(name).parts for name in kind.names)
    )


def _refuse_overlap(target: Path, place: Path, kind: Kind, inputs: Sequence[Path], kept: Iterable[Path]) -> None:
    for given in inputs:
        if place.is_relative_to(real_path(given)):
            raise kind.error(f"the output `{target}` lies in the input `{given}`", hint=_NOTHING_CHANGED)
    for given in (*inputs, *kept):
        source = real_path(given)
        behind = [real_path(path) for path in source.iterdir() if path.is_symlink()] if source.is_dir() else []
        if any(path.is_relative_to(place) for path in (source, *behind)):
            raise kind.error(f"the output `{target}` would replace `{given}`, which lies in it", hint=_NOTHING_CHANGED)


def _is_fixed(place: Path) -> bool:
    """Whether a directory must keep its name: a mount point, or one in a directory that may not be changed."""
    if not place.is_dir():
        return False
    if os.path.ismount(place) or str(place) in _mount_points() or not os.access(place.parent, os.W_OK | os.X_OK):
        return True
    parent, user = place.parent.stat(), os.geteuid()
    return bool(parent.st_mode & stat.S_ISVTX) and user not in (0, parent.st_uid, place.stat().st_uid)


def _mount_points() -> set[str]:
    """Those of Linux; `os.path.ismount` misses a directory that is mounted from the same file system."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except FileNotFoundError:
        return set()
    # octal escapes stand for blanks: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
    return {os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1")) for line in lines}


def _sync(directory: Path) -> None:
    """Have everything on the disk before it replaces something that is."""
    for path in (*directory.rglob("*"), directory):
        _sync_directory(path)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
