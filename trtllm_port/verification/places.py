"""Where in a port's source a module is written: the line to look at."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from trtllm_port.verification.taps import parent_of


def place_of(package_dir: Path, module: str, class_names: Mapping[str, str]) -> str | None:
    """Return the file and line that a module comes from, or None if its source does not show.

    Args:
        package_dir: the port's package.
        module: HF module path; "" is the model itself.
        class_names: HF's class of every module; ports keep these names.
    """
    path = package_dir / "model.py"
    try:
        source = path.read_text(encoding="utf-8")
        classes = {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)}
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    shown = "/".join(path.parts[-3:])
    own = classes.get(class_names.get(module, ""))
    if own is not None:
        return f"`{shown}` line {own.lineno}: `class {own.name}`"
    parent, name = _holder(module), module.rpartition(".")[2]
    holder = classes.get(class_names.get(parent, ""))
    line = None if holder is None else _assignment(holder, name)
    if line is None:
        return None
    return f"`{shown}` line {line}: `{source.splitlines()[line - 1].strip()}`"


def _holder(module: str) -> str:
    """Return the module that assigns this one as an attribute: a list of layers is no holder."""
    parent = parent_of(module)
    return parent_of(parent) if module.rpartition(".")[2].isdigit() else parent


def _assignment(holder: ast.ClassDef, name: str) -> int | None:
    for node in ast.walk(holder):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute) and target.attr == name:
                    return node.lineno
    return None
