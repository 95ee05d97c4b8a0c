"""`port.json`: where a port comes from, and the digests that tell whether it was edited since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtllm_port import __version__
from trtllm_port.errors import WorkspaceError
from trtllm_port.foundation.digests import bytes_digest, file_digest
from trtllm_port.foundation.foreign import read_json, reading
from trtllm_port.foundation.quoting import json_text

FORMAT = 1
NAME = "port.json"
RECORD = "operations.txt"
"""Beside it: what was traced to write the port."""
DAMAGED = "remove it: then nothing says which files were edited"


def manifest_text(*, origin: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Return the text of `port.json`.

    Args:
        origin: what is known about the Hugging Face model.
        files: the port's files, relative path → text.
    """
    manifest = {
        "format": FORMAT,
        "tool": f"trtllm-port {__version__}",
        **origin,
        "files": {path: bytes_digest(text.encode()) for path, text in sorted(files.items())},
    }
    return json_text(manifest)


def edited_files(package_dir: Path, *others: Path) -> list[str] | None:
    """Return the files of the package that differ from what was written, or None where there is no manifest.

    Args:
        package_dir: of the port.
        others: the packages from which it takes classes; their files are named with the package.

    Raises:
        WorkspaceError: a manifest is not what `new` writes.
    """
    own = _edited(package_dir)
    if own is None:
        return None
    return own + [f"{other.name}/{name}" for other in others for name in _edited(other) or ()]


def _edited(package_dir: Path) -> list[str] | None:
    path = package_dir / NAME
    manifest = read_manifest(package_dir)
    if manifest is None:
        return None
    with reading(path, WorkspaceError, hint=DAMAGED, failed="is not what `trtllm-port new` writes"):
        prefix = f"models/{manifest['name']}/"
        files = {**manifest["files"]}.items()
        own = {name.removeprefix(prefix): digest for name, digest in files if name.startswith(prefix)}
    return [name for name, digest in own.items() if not _has_digest(package_dir / name, digest)]


def read_manifest(package_dir: Path) -> dict[str, Any] | None:
    """The content of a port's `port.json`; None where there is none.

    Raises:
        WorkspaceError: it is no JSON object.
    """
    path = package_dir / NAME
    return read_json(path, WorkspaceError, hint=DAMAGED) if path.is_file() else None


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest
