"""Adds a port to the text of a workspace's `models/__init__.py`, in sorted order; everything else stays."""

from __future__ import annotations

import ast
from io import StringIO

from trtllm_port.errors import WorkspaceError
from trtllm_port.foundation.quoting import literal, require_name


def registered_package(text: str, architecture: str) -> str | None:
    """Return the package that serves an architecture (None if unknown or not imported in the usual way)."""
    tree = _parse(text)
    keys, values = _map_items(_model_map(tree))
    for key, value in zip(keys, values, strict=True):
        if key.value == architecture and isinstance(value, ast.Name):
            return next((_package(node) for node in _imports(tree) if _binds(node, value.id)), value.id)
    return None


def add_port(text: str, *, package: str, architecture: str, class_name: str) -> str:
    """Return the text with the port's import and its line in `MODEL_MAP`; unchanged if both are there.

    Another package that serves the architecture is replaced.

    Raises:
        PortError: one of the names is none.
        WorkspaceError: the file cannot be parsed or has no `MODEL_MAP` dictionary; the hint has the lines to add.
    """
    for name, what in ((package, "a port"), (architecture, "an architecture"), (class_name, "a class")):
        require_name(name, what)
    by_hand = f'add by hand: `from .{package} import {class_name}` and `"{architecture}": {class_name}` in MODEL_MAP'
    try:
        before = registered_package(text, architecture)
        text = _add_import(text, package, class_name)
        if before is not None and before != package:
            text = _remove_import(text, before, class_name)
        return _add_entry(text, architecture, class_name)
    except WorkspaceError as error:
        raise WorkspaceError(error.message, hint=by_hand) from error


def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise WorkspaceError(f"`models/__init__.py` cannot be parsed: line {error.lineno}: {error.msg}") from error


def _model_map(tree: ast.Module) -> ast.Dict:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "MODEL_MAP" for target in targets):
            value = node.value  # type: ignore[attr-defined]  # both kinds of node have it
            if isinstance(value, ast.Dict):
                return value
    raise WorkspaceError("`models/__init__.py` has no dictionary `MODEL_MAP`")


def _map_items(node: ast.Dict) -> tuple[list[ast.Constant], list[ast.expr]]:
    pairs = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)]
    return [key for key, _ in pairs], [value for _, value in pairs]


def _imports(tree: ast.Module) -> list[ast.ImportFrom]:
    return [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module]


def _package(node: ast.ImportFrom) -> str:
    return str(node.module).partition(".")[0]


def _binds(node: ast.ImportFrom, name: str) -> bool:
    return any((alias.asname or alias.name) == name for alias in node.names)


def _add_import(text: str, package: str, class_name: str) -> str:
    tree = _parse(text)
    imports = _imports(tree)
    if any(node.module == package and _binds(node, class_name) for node in imports):
        return text
    line = f"from .{package} import {class_name}\n"
    lines = _lines(text)
    if imports:
        after = [node for node in imports if str(node.module) <= package]
        at = (after[-1].end_lineno or 0) if after else imports[0].lineno - 1
        return "".join([*lines[:at], line, *lines[at:]])
    preamble = [node for node in tree.body if _is_preamble(node)]
    at = (preamble[-1].end_lineno or 0) if preamble else 0
    return "".join([*lines[:at], "\n" if at else "", line, "" if at else "\n", *lines[at:]])


def _lines(text: str) -> list[str]:
    """The lines of a file as Python counts them: strings may hold what other readers take for line ends."""
    return StringIO(text).readlines()


def _is_preamble(node: ast.stmt) -> bool:
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or isinstance(node, ast.Import | ast.ImportFrom)


def _remove_import(text: str, package: str, class_name: str) -> str:
    lines = _lines(text)
    for node in _imports(_parse(text)):
        if _package(node) == package and _binds(node, class_name) and len(node.names) == 1:
            del lines[node.lineno - 1 : node.end_lineno]
    return "".join(lines)


def _add_entry(text: str, architecture: str, class_name: str) -> str:
    node = _model_map(_parse(text))
    keys, values = _map_items(node)
    if any(key.value == architecture for key in keys):
        return text
    entry = f'"{architecture}": {class_name},'
    if node.lineno == node.end_lineno:  # on one line: spread it
        pairs = zip(keys, values, strict=True)
        spread = [f"    {literal(key.value)}: {ast.unparse(value)},\n" for key, value in pairs]
        opened = "{\n" + "".join(sorted([*spread, f"    {entry}\n"])) + "}"
        return _replace(text, node, opened)
    lines = _lines(text)
    later = [key for key in keys if str(key.value) > architecture]
    at = later[0].lineno - 1 if later else (node.end_lineno or 1) - 1
    if not later and values:
        lines = _with_trailing_comma(lines, values[-1])
    return "".join([*lines[:at], f"    {entry}\n", *lines[at:]])


def _with_trailing_comma(lines: list[str], value: ast.expr) -> list[str]:
    row, column = (value.end_lineno or 1) - 1, value.end_col_offset or 0
    line = lines[row].encode()
    if not line[column:].lstrip().startswith(b","):
        lines[row] = (line[:column] + b"," + line[column:]).decode()
    return lines


def _replace(text: str, node: ast.expr, new: str) -> str:
    lines = _lines(text)
    line = lines[node.lineno - 1].encode()
    lines[node.lineno - 1] = (line[: node.col_offset] + new.encode() + line[node.end_col_offset :]).decode()
    return "".join(lines)
