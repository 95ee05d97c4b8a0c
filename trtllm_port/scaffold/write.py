"""Writes a port into a workspace: all of its files and its registry entry, or nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trtllm_port import __version__
from trtllm_port.errors import WorkspaceError
from trtllm_port.quoting import require_name
from trtllm_port.scaffold.manifest import NAME as MANIFEST
from trtllm_port.scaffold.manifest import manifest_text
from trtllm_port.scaffold.names import PortPaths, port_paths
from trtllm_port.scaffold.registry_file import add_port, registered_package
from trtllm_port.scaffold.templates import render_template
from trtllm_port.scaffold.transaction import Transaction, transaction


class Source(Protocol):
    """What is written: `config.py`, `model.py` and `convert.py`, and the class that `model.py` defines."""

    @property
    def architecture(self) -> str: ...
    @property
    def port_class(self) -> str: ...
    @property
    def files(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, kw_only=True)
class WrittenPort:
    """Where a port was written.

    Attributes:
        written: paths relative to the workspace, in the order a reader wants them.
    """

    name: str
    architecture: str
    workspace: Path
    package_dir: Path
    written: tuple[str, ...] = field(default=())


def write_port(
    source: Source,
    *,
    workspace: Path,
    name: str,
    test: str,
    force: bool = False,
    origin: Mapping[str, Any] | None = None,
) -> WrittenPort:
    """Render a port's files, put them into the workspace and register the port.

    Args:
        source: the bodies, and what they belong to.
        workspace: made if it does not exist.
        name: of the port's package.
        test: text of its test.
        force: replace a port of that name, or another port that serves the architecture.
        origin: more facts for `port.json`.

    Raises:
        PortError: what is to be written has no name that Python could have.
        WorkspaceError: the name is not usable, or a port exists and `force` is not given.
        DiskSpaceError: the disk is full.
    """
    require_name(source.architecture, "an architecture")
    require_name(source.port_class, "a class")
    paths = refuse_existing(workspace, name, source.architecture, force=force)
    values = {
        "name": name,
        "architecture": source.architecture,
        "port_class": source.port_class,
        "test": test,
        **{part: source.files[f"{part}.py"] for part in ("config", "model", "convert")},
    }
    files = render_template("port", values)
    facts = {key: values[key] for key in ("name", "architecture", "port_class")} | dict(origin or {})
    manifest = f"models/{name}/{MANIFEST}"
    with transaction(paths.workspace) as changes:
        changes.make_directory(paths.workspace)
        added = _place(changes, paths, files | {manifest: manifest_text(origin=facts, files=files)})
        added += _place_workspace_files(changes, paths, source)
    return WrittenPort(
        name=name,
        architecture=source.architecture,
        workspace=paths.workspace,
        package_dir=paths.package,
        written=tuple(added),
    )


def refuse_existing(workspace: Path, name: str, architecture: str | None, *, force: bool) -> PortPaths:
    """Return the port's places if it may be written.

    Raises:
        WorkspaceError: as `write_port`.
    """
    paths = port_paths(workspace, name)
    there = [path.relative_to(paths.workspace) for path in paths.own if path.exists()]
    if there and not force:
        raise WorkspaceError(
            f"port `{name}` exists already: {', '.join(f'`{path}`' for path in there)}",
            hint="`--force` replaces it, `--name` writes it under another name",
        )
    if architecture is not None and paths.registry.is_file() and not force:
        other = registered_package(paths.registry.read_text(encoding="utf-8"), architecture)
        if other not in (None, name):
            raise WorkspaceError(
                f"`{architecture}` is served by port `{other}` already",
                hint=f"`--force` lets port `{name}` serve it instead, `--workspace` writes it elsewhere",
            )
    return paths


def _place(changes: Transaction, paths: PortPaths, files: Mapping[str, str]) -> list[str]:
    for directory in (paths.package, paths.examples):
        prefix = f"{directory.relative_to(paths.workspace).as_posix()}/"
        inside = {path.removeprefix(prefix): text for path, text in files.items() if path.startswith(prefix)}
        changes.place_directory(directory, inside)
    test = paths.test.relative_to(paths.workspace).as_posix()
    changes.place_file(paths.test, files[test])
    return sorted(files, key=lambda path: (not path.startswith("models/"), path))


def _place_workspace_files(changes: Transaction, paths: PortPaths, source: Source) -> list[str]:
    """Add the registry entry, last; and the files of a fresh workspace, which are never overwritten."""
    base = re.sub(r"\W", "_", paths.workspace.name.lower(), flags=re.ASCII).strip("_") or "my"
    package = f"{base}_ports" if base[0].isalpha() else f"ports_{base}"
    values = {"package": package, "distribution": package.replace("_", "-"), "version": __version__}
    fresh = render_template("workspace", values)
    pyproject = paths.workspace / "pyproject.toml"
    added = []
    if not pyproject.exists():
        changes.place_file(pyproject, fresh["pyproject.toml"])
        added.append("pyproject.toml")
    registry = paths.registry.read_text(encoding="utf-8") if paths.registry.exists() else fresh["models/__init__.py"]
    registry = add_port(
        registry, package=paths.package.name, architecture=source.architecture, class_name=source.port_class
    )
    changes.place_file(paths.registry, registry)
    return [*added, "models/__init__.py"]
