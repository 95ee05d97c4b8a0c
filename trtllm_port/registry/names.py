"""Which names a port may have, and where in the workspace its files go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trtllm_port.errors import WorkspaceError
from trtllm_port.foundation.atomic_files import real_path
from trtllm_port.foundation.quoting import is_name


@dataclass(frozen=True)
class PortPaths:
    """The places of one port in a workspace, all of them inside it."""

    workspace: Path
    package: Path
    examples: Path
    test: Path
    registry: Path

    @property
    def own(self) -> tuple[Path, ...]:
        """What belongs to this port alone."""
        return (self.package, self.examples, self.test)


def port_paths(workspace: Path, name: str) -> PortPaths:
    """Return the places of a port.

    Raises:
        WorkspaceError: the name is not usable, or a symbolic link leads out of the workspace.
    """
    check_name(name)
    root = real_path(Path(os.path.expanduser(workspace)))
    if root.exists() and not root.is_dir():
        raise WorkspaceError(f"the workspace `{workspace}` is not a directory")
    paths = PortPaths(
        workspace=root,
        package=root / "models" / name,
        examples=root / "examples" / name,
        test=root / "tests" / f"test_{name}.py",
        registry=root / "models" / "__init__.py",
    )
    for path in (*paths.own, paths.registry):
        if not path.resolve().is_relative_to(root) or path.is_symlink():
            raise WorkspaceError(
                f"`{path.relative_to(root)}` leads to `{path.resolve()}`",
                hint="remove the symbolic link, or name the real directory with --workspace",
            )
    return paths


def check_name(name: str) -> None:
    """Refuse a name that cannot be the name of a Python package inside `models/`."""
    if not is_name(name) or name.startswith("_"):
        raise WorkspaceError(
            f"a port cannot be named `{name}`",
            hint="give --name letters, digits and underscores that start with a letter and are no Python keyword",
        )


def default_name(model_type: str) -> str:
    """Return the port name made from `model_type`: `gpt-neox` becomes `gpt_neox`."""
    return model_type.replace("-", "_").replace(".", "_")
