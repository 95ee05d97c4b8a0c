"""Finds the port that serves an architecture: in a workspace's `models/__init__.py`, else among installed workspaces.

A workspace's `models` package is imported under a private name made from its path and its content, so that several
workspaces live side by side in one process, an edited port is seen at the next call, and `sys.path` stays as it is.
An installed workspace announces its `MODEL_MAP` through the entry-point group `trtllm_port.models`. Of a directory that
is no workspace nothing is imported.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from trtllm_port.errors import PortError, RegistryError
from trtllm_port.foundation.digests import bytes_digest
from trtllm_port.foundation.quoting import shell_command
from trtllm_port.registry.inheritance import packages_used
from trtllm_port.registry.workspace import ENTRY_POINT_GROUP, is_workspace, unmarked_models


@dataclass(frozen=True, kw_only=True)
class PortEntry:
    """A registered port.

    Attributes:
        name: the name of its package, `llama`.
        architecture: Hugging Face's name of the model class that it serves, `LlamaForCausalLM`.
        cls: the port's class.
        package_dir: the directory that holds its source.
        packages: that directory, and those of the ports from which it takes classes.
        digest: of the Python source of all of them; changes with every edit.
        origin: `workspace`, or the name of the entry point that announced it.
    """

    name: str
    architecture: str
    cls: type[Any]
    package_dir: Path
    packages: tuple[Path, ...]
    digest: str
    origin: str

    def has_file(self, path: str | Path) -> bool:
        """Whether a file belongs to the source of the port."""
        return any(Path(path).resolve().is_relative_to(package.resolve()) for package in self.packages)

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "class": f"{self.cls.__qualname__}",
            "package_dir": str(self.package_dir),
            "digest": self.digest,
            "origin": self.origin,
        }


def find_port(workspace: Path, architecture: str, *others: str) -> PortEntry:
    """Return the port of an architecture.

    Args:
        workspace: where ports are registered.
        architecture: its name.
        others: names under which it is looked for next.

    Raises:
        RegistryError: no port is registered for it, or the workspace's ports cannot be imported.
    """
    ports = {port.architecture: port for port in reversed(list_ports(workspace))}
    for name in (architecture, *others):
        if name in ports:
            return ports[name]
    near = difflib.get_close_matches(architecture, ports, n=3, cutoff=0.6)
    known = f"registered are {', '.join(sorted(ports))}" if ports else "no port is registered"
    similar = f"; near is {', '.join(near)}" if near else ""
    wanted = " or ".join(f"`{name}`" for name in (*others, architecture))
    words = ["trtllm-port", "new", "MODEL_DIR", "--workspace", workspace]
    write_one = f"write one with `{shell_command(words)}`, or name another --workspace"
    raise RegistryError(
        f"no port for {wanted} in workspace `{workspace}`: {known}{similar}",
        hint=unmarked_models(workspace) or write_one,
    )


def list_ports(workspace: Path) -> list[PortEntry]:
    """Return every registered port, those of the workspace first, each group sorted by architecture.

    Raises:
        RegistryError: a port cannot be imported; the message names the file and the line.
    """
    ports = []
    if is_workspace(workspace) and (workspace / "models" / "__init__.py").is_file():
        ports += _entries(import_models(workspace).MODEL_MAP, "workspace")
    for point in sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        with _import_errors(f"entry point `{point.name}`"):
            model_map = point.load()
        ports += _entries(model_map, point.name)
    return ports


def import_models(workspace: Path) -> ModuleType:
    """Import a workspace's `models` package under a private name; unchanged sources are imported once.

    Raises:
        RegistryError: it cannot be imported, or has no `MODEL_MAP` dictionary.
    """
    package_dir = (workspace / "models").resolve()
    origin = f"{package_dir}\n{source_digest(package_dir)}".encode(errors="surrogatepass")
    name = "_trtllm_port_" + bytes_digest(origin).partition(":")[2]
    module = sys.modules.get(name)
    if module is None:
        with _import_errors(f"workspace `{workspace}`", package_dir):
            module = _import_package(name, package_dir)
    if not isinstance(getattr(module, "MODEL_MAP", None), Mapping):
        raise RegistryError(
            f"`{package_dir / '__init__.py'}` has no dictionary `MODEL_MAP`",
            hint='it maps architecture names to port classes: MODEL_MAP = {"LlamaForCausalLM": LlamaForCausalLM}',
        )
    return module


def source_digest(*directories: Path) -> str:
    """Digest of all Python sources under some directories, with their relative names."""
    parts = []
    for directory in directories:
        for path in sorted(directory.rglob("*.py")):
            parts.append(os.fsencode(path.relative_to(directory)) + b"\0" + path.read_bytes())
    return bytes_digest(b"\0".join(parts))


def _import_package(name: str, package_dir: Path) -> ModuleType:
    init = package_dir / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(package_dir)])
    if spec is None or spec.loader is None:
        raise RegistryError(f"`{init}` cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _no_bytecode():
            spec.loader.exec_module(module)
    except BaseException:
        for loaded in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[loaded]
        raise
    return module


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Bytecode is cached by second and size: two quick edits of equal length would be mistaken for one."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextmanager
def _import_errors(what: str, package_dir: Path | None = None) -> Iterator[None]:
    """Name the innermost line of the package itself, not of what it called."""
    try:
        yield
    except PortError:
        raise
    except SyntaxError as error:
        raise RegistryError(f"{what} cannot be imported: {error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        trace = traceback.extract_tb(error.__traceback__)
        frames = [frame for frame in trace if package_dir is None or frame.filename.startswith(str(package_dir))]
        place = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
        raise RegistryError(f"{what} cannot be imported: {place}{type(error).__name__}: {error}") from error


def _entries(model_map: Mapping[str, type[Any]], origin: str) -> list[PortEntry]:
    return [_entry(architecture, model_map[architecture], origin) for architecture in sorted(model_map)]


def _entry(architecture: str, cls: type[Any], origin: str) -> PortEntry:
    file = getattr(sys.modules.get(getattr(cls, "__module__", "")), "__file__", None)
    if not isinstance(cls, type) or file is None:
        raise RegistryError(f"MODEL_MAP[{architecture!r}] is {cls!r}, not a class of a port")
    package_dir = Path(file).parent
    packages = packages_used(package_dir)
    return PortEntry(
        name=package_dir.name,
        architecture=architecture,
        cls=cls,
        package_dir=package_dir,
        packages=packages,
        digest=source_digest(*packages),
        origin=origin,
    )
