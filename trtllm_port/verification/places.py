"""Where a module is written: the line to look at, and the lines around it, in a port's source or in Hugging Face's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TypeGuard

from trtllm_port.verification.taps import parent_of

LONGEST = 44  # lines of an excerpt: a screen beside the verdict
AROUND = 3  # lines shown before and after a single statement
NO_CODE = ("def ", "class ", "from ", "import ", '"', "#")
NAME_ONLY = re.compile(r"\w+,?$")  # a line of an import


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """Lines of a source file.

    Attributes:
        side: "port" or "hugging_face".
        path: the file, as a person would name it.
        first_line: number of the first line shown.
        lines: the text.
        marked: numbers of the lines that stand out.
        note: why they do.
    """

    side: str
    path: str
    first_line: int
    lines: tuple[str, ...]
    marked: tuple[int, ...]
    note: str


def place_of(package_dir: Path, module: str, class_names: Mapping[str, str], look: Sequence[str] = ()) -> str | None:
    """Return the file and line that a module comes from, or None if its source does not show.

    Args:
        package_dir: the port's package.
        module: HF module path; "" is the model itself.
        class_names: HF's class of every module; ports keep these names.
        look: patterns of the statement to look at, the most telling first; without a match it is the whole class.
    """
    source = _read(package_dir / "model.py")
    found = None if source is None else _find(source, module, class_names)
    if source is None or found is None:
        return None
    shown = "/".join((package_dir / "model.py").parts[-3:])
    line = _matching(source.splitlines(), found, look) if isinstance(found, ast.ClassDef) else found.lineno
    if isinstance(found, ast.ClassDef) and line == found.lineno:
        return f"`{shown}` line {line}: `class {found.name}`"
    return f"`{shown}` line {line}: `{source.splitlines()[line - 1].strip()}`"


def _matching(lines: Sequence[str], found: ast.ClassDef, look: Sequence[str]) -> int:
    """Return the line that fits the first pattern that fits any: in the class, else in all of the file's code."""
    numbers = [*range(found.lineno, (found.end_lineno or found.lineno) + 1), *range(1, len(lines) + 1)]
    code = [(number, lines[number - 1].strip()) for number in numbers]
    code = [(number, text) for number, text in code if not text.startswith(NO_CODE) and not NAME_ONLY.match(text)]
    fitting = (number for pattern in look for number, text in code if re.search(pattern, text))
    return next(fitting, found.lineno)


def excerpt_of(
    side: str, path: Path, module: str, class_names: Mapping[str, str], child: str | None = None
) -> Excerpt | None:
    """Return the lines that a module is written in, or None if the file does not show them.

    Args:
        side: see `Excerpt`.
        path: a Python file.
        module: HF module path; "" is the model itself.
        class_names: HF's class of every module.
        child: path, relative to the module, of what first receives a wrong value inside it; its uses are marked.
    """
    source = _read(path)
    found = None if source is None else _find(source, module, class_names)
    if source is None or found is None:
        return None
    lines = source.splitlines()
    marked = _uses(found, child.partition(".")[0]) if child and isinstance(found, ast.ClassDef) else ()
    note = f"`{child}` receives the first wrong value" if marked else ""
    first, last = _range(found, marked, len(lines))
    return Excerpt(
        side=side,
        path="/".join(path.parts[-3:]),
        first_line=first,
        lines=tuple(dedent("\n".join(lines[first - 1 : last])).split("\n")),
        marked=marked or (found.lineno,),
        note=note,
    )


def _read(path: Path) -> str | None:
    try:
        source = path.read_text(encoding="utf-8")
        ast.parse(source)
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    return source


def _find(source: str, module: str, class_names: Mapping[str, str]) -> ast.ClassDef | ast.Assign | None:
    """Return a module's own class, or else the statement in its holder that makes it."""
    classes = {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)}
    own = classes.get(class_names.get(module, ""))
    if own is not None:
        return own
    holder = classes.get(class_names.get(_holder(module), ""))
    return None if holder is None else _assignment(holder, module.rpartition(".")[2])


def _holder(module: str) -> str:
    """Return the module that assigns this one as an attribute: a list of layers is no holder."""
    parent = parent_of(module)
    return parent_of(parent) if module.rpartition(".")[2].isdigit() else parent


def _assignment(holder: ast.ClassDef, name: str) -> ast.Assign | None:
    for node in ast.walk(holder):
        if isinstance(node, ast.Assign) and any(_is_own(target, name) for target in node.targets):
            return node
    return None


def _is_own(node: ast.AST, name: str) -> TypeGuard[ast.Attribute]:
    """Whether a node is `self.name`."""
    return isinstance(node, ast.Attribute) and node.attr == name and getattr(node.value, "id", "") == "self"


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    yield from (each for each in node.body if isinstance(each, ast.FunctionDef))


def _uses(node: ast.ClassDef, name: str) -> tuple[int, ...]:
    """Return the lines, outside of `__init__`, in which a module of the class is used."""
    methods = [method for method in _methods(node) if method.name != "__init__"]
    return tuple(sorted({each.lineno for m in methods for each in ast.walk(m) if _is_own(each, name)}))


def _range(node: ast.ClassDef | ast.Assign, marked: tuple[int, ...], length: int) -> tuple[int, int]:
    """Return the first and the last line to show: what fits of a class, preferably the method that computes."""
    last = node.end_lineno or node.lineno
    if isinstance(node, ast.Assign):
        return max(1, node.lineno - AROUND), min(length, last + AROUND)
    if last - node.lineno < LONGEST:
        return node.lineno, last
    methods = [(m.lineno, m.end_lineno or m.lineno, m.name) for m in _methods(node)]
    inside = [m for m in methods if any(m[0] <= line <= m[1] for line in marked)]
    first, last, _ = next(iter(inside or [m for m in methods if m[2] == "forward"]), (node.lineno, last, ""))
    if marked and marked[-1] >= first + LONGEST:
        first = max(first, marked[-1] - LONGEST + AROUND + 1)
    return first, min(last, first + LONGEST - 1)
