"""Writes a port into a workspace: all of its files and its registry entry, or nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trtllm_port import __version__
from trtllm_port.errors import WorkspaceError
from trtllm_port.foundation.atomic_files import require_writable
from trtllm_port.foundation.quoting import require_name
from trtllm_port.porting.registry_file import add_port, registered_package
from trtllm_port.porting.templates import render_template
from trtllm_port.porting.transaction import Transaction, settle_leftovers, transaction
from trtllm_port.registry.inheritance import names_taken
from trtllm_port.registry.manifest import NAME as MANIFEST
from trtllm_port.registry.manifest import RECORD, manifest_text
from trtllm_port.registry.names import PortPaths, port_paths
from trtllm_port.registry.workspace import MARKER, unmarked_models


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
    record: str | None = None,
) -> WrittenPort:
    """Render a port's files, put them into the workspace and register the port.

    Args:
        source: the bodies, and what they belong to.
        workspace: made if it does not exist.
        name: of the port's package.
        test: text of its test.
        force: replace a port of that name, or another port that serves the architecture.
        origin: more facts for `port.json`.
        record: the operations that were traced, to be kept beside it.

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
    if record is not None:
        files[f"models/{name}/{RECORD}"] = record
    facts = {key: values[key] for key in ("name", "architecture", "port_class")} | dict(origin or {})
    manifest = f"models/{name}/{MANIFEST}"
    with transaction(paths, source.architecture) as changes:
        _refuse(paths, source.architecture, force=force)  # another process may have written it meanwhile
        _refuse_orphans(paths, source.files["model.py"])
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
    """Return the port's places if it may be written; what a killed process left of a port is undone before.

    Raises:
        WorkspaceError: as `write_port`.
    """
    paths = port_paths(workspace, name)
    settle_leftovers(paths.workspace)
    require_writable(paths.workspace)
    _refuse(paths, architecture, force=force)
    return paths


def _refuse(paths: PortPaths, architecture: str | None, *, force: bool) -> None:
    name = paths.package.name
    if paths.registry.is_file() and (unmarked := unmarked_models(paths.workspace)) is not None:
        raise WorkspaceError(f"`{paths.workspace}` has a package `models` that is no workspace's", hint=unmarked)
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


def _refuse_orphans(paths: PortPaths, model: str) -> None:
    """Refuse to replace a port by one that lacks what others take from it."""
    defined = {node.name for node in ast.parse(model).body if isinstance(node, ast.ClassDef)}
    name = paths.package.name
    for heir in sorted(path.parent for path in paths.package.parent.glob("*/model.py")):
        if lost := sorted(names_taken(heir, name) - defined):
            raise WorkspaceError(
                f"port `{heir.name}` takes {', '.join(f'`{each}`' for each in lost)} from port `{name}`, "
                "and the new one has no such class",
                hint=f"`--name` writes it under another name; without `--like`, port `{heir.name}` stands on its own",
            )


def _place(changes: Transaction, paths: PortPaths, files: Mapping[str, str]) -> list[str]:
    for directory in (paths.package, paths.examples):
        prefix = f"{directory.relative_to(paths.workspace).as_posix()}/"
        inside = {path.removeprefix(prefix): text for path, text in files.items() if path.startswith(prefix)}
        changes.put(directory, inside)
    test = paths.test.relative_to(paths.workspace).as_posix()
    changes.put(paths.test, files[test])
    return sorted(files, key=lambda path: (not path.startswith("models/"), path))


def _place_workspace_files(changes: Transaction, paths: PortPaths, source: Source) -> list[str]:
    """Add the registry entry, last; and the files of a fresh workspace, which are never overwritten."""
    base = re.sub(r"\W", "_", paths.workspace.name.lower(), flags=re.ASCII).strip("_") or "my"
    package = f"{base}_ports" if base[0].isalpha() else f"ports_{base}"
    values = {"package": package, "distribution": package.replace("_", "-"), "version": __version__}
    fresh = render_template("workspace", values)
    pyproject = paths.workspace / "pyproject.toml"
    added = [f"models/{MARKER}"] if changes.is_new else []
    if not pyproject.exists():
        changes.put(pyproject, fresh["pyproject.toml"])
        added.append("pyproject.toml")
    registry = paths.registry.read_text(encoding="utf-8") if paths.registry.exists() else fresh["models/__init__.py"]
    registry = add_port(
        registry, package=paths.package.name, architecture=source.architecture, class_name=source.port_class
    )
    changes.put(paths.registry, registry)
    return [*added, "models/__init__.py"]
