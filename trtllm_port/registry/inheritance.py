"""The packages of a workspace that a port is made of: its own, and those whose classes it takes over."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def packages_used(package_dir: Path) -> tuple[Path, ...]:
    """Return a port's package and those of its workspace that it imports from, and these import from; its own first.

    A file that is no Python imports nothing: whoever imports the port says so.
    """
    found = [package_dir]
    for package in found:
        found += [each for each in dict.fromkeys(_imported(package)) if each not in found]
    return tuple(found)


def names_taken(package_dir: Path, other: str) -> set[str]:
    """Return the names that a port takes from the `model.py` of another one."""
    nodes = (node for path in sorted(package_dir.rglob("*.py")) for node in _relative_imports(path))
    return {alias.name for node in nodes if node.module == f"{other}.model" for alias in node.names}


def _imported(package: Path) -> Iterator[Path]:
    for path in sorted(package.rglob("*.py")):
        for node in _relative_imports(path):
            beside = package.parent / str(node.module).partition(".")[0]
            if beside.is_dir():
                yield beside


def _relative_imports(path: Path) -> Iterator[ast.ImportFrom]:
    """The imports from the package that holds the port's."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 2 and node.module:
            yield node
