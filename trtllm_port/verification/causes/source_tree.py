"""The source files of a port or of Hugging Face's model, and the way from the model's class to a module's.

It is followed through the attributes that classes assign, so a port's classes may have any names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from trtllm_port.layers.weights import making
from trtllm_port.verification.taps.names import ROOT, parent_of

Statement = ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class Sources:
    """Where the modules of one side are written.

    Attributes:
        files: Python files, that of the model's class first.
        root: name of the model's class.
        class_names: HF's class of every module, "" is the model itself; a port may have them under these names.
    """

    files: Sequence[Path]
    root: str
    class_names: Mapping[str, str]

    def read(self) -> Iterator[tuple[Path, list[str], ast.Module]]:
        """Return the lines of every file that is Python, and what they mean."""
        for path in self.files:
            try:
                source = path.read_text(encoding="utf-8")
                tree = ast.parse(source)
            except (OSError, SyntaxError, ValueError):  # not there, no Python, no text: it shows nothing
                continue
            yield path, source.split("\n"), tree  # as Python counts lines


@dataclass(frozen=True)
class PortCode:
    """The source of a port.

    Attributes:
        packages: its package, and those of the ports from which it takes classes.
        cls: the port's class.
    """

    packages: Sequence[Path]
    cls: type[Any]

    def sources(self, class_names: Mapping[str, str]) -> Sources:
        """Return the files of its packages, the `model.py` of each first."""
        files = (path for package in self.packages for path in sorted(package.glob("*.py")))
        ordered = sorted(files, key=lambda path: (self.packages.index(path.parent), path.name != "model.py"))
        return Sources(ordered, self.cls.__name__, class_names)

    def map_key(self, parameter: str) -> str | tuple[str, ...] | None:
        """Return the key of the weight map's entry that makes a parameter; None where it is taken as it is."""
        return making(self.cls.weight_map, parameter)


@dataclass(frozen=True)
class SourceSpot:
    """A piece of a file.

    Attributes:
        path: the file.
        lines: its text.
        node: a class, a statement that makes a module, or the key of an entry of a weight map.
        rest: the path below it of the module that was looked for and that no source shows; "": it is shown.
    """

    path: Path
    lines: Sequence[str] = field(repr=False)
    node: ast.ClassDef | Statement | ast.expr
    rest: str = ""

    @property
    def shown_path(self) -> str:
        """The file as a person would name it."""
        return "/".join(self.path.parts[-3:])


Classes = Mapping[str, SourceSpot]


def read_classes(sources: Sources) -> Classes:
    """Return every class of the files by its name, of equal names the first."""
    found: dict[str, SourceSpot] = {}
    for path, lines, tree in sources.read():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, SourceSpot(path, lines, node))
    return found


def spot_of(sources: Sources, classes: Classes, module: str) -> SourceSpot | None:
    """Return a module's class, else the statement that makes it, else the same of what holds it."""
    spot = _followed(sources, classes, module) or _by_name(sources, classes, module)
    if spot is not None or module == ROOT:
        return spot
    outer = spot_of(sources, classes, parent_of(module))
    name = module.rpartition(".")[2]
    return None if outer is None else replace(outer, rest=f"{outer.rest}.{name}" if outer.rest else name)


def _followed(sources: Sources, classes: Classes, module: str) -> SourceSpot | None:
    """Follow the attributes from the model's class on."""
    spot, path = classes.get(sources.root), ""
    for name in module.split(".") if module else ():
        path = f"{path}.{name}" if path else name
        made = None if spot is None else spot if name.isdigit() else _assignment(classes, spot, name)
        if made is None or (name.isdigit() and not _is_list(made.node)):
            return None
        is_element = name.isdigit() or not _is_list(made.node)
        spot = _made(classes, made, sources.class_names.get(path, "")) if is_element else made
    return spot


def _is_list(node: ast.AST) -> bool:
    """Whether a statement makes a list of modules."""
    value = node.value if isinstance(node, Statement) else None
    return value is not None and ("List(" in (text := ast.unparse(value)) or text.startswith("["))


def _made(classes: Classes, statement: SourceSpot, preferred: str) -> SourceSpot:
    """The class of the files that a statement makes an instance of, where it can be told; else the statement."""
    names = {node.id for node in ast.walk(statement.node) if isinstance(node, ast.Name)}
    named = [name for name in classes if name in names]
    chosen = preferred if preferred in named else named[0] if len(named) == 1 else ""
    return classes.get(chosen, statement)


def _assignment(classes: Classes, holder: SourceSpot, name: str) -> SourceSpot | None:
    """The statement `self.name = …` in a class, or in one of the files that it inherits from."""
    if not isinstance(holder.node, ast.ClassDef):
        return None
    for node in ast.walk(holder.node):
        if isinstance(node, Statement) and any(is_own(target, name) for target in _targets(node)):
            return SourceSpot(holder.path, holder.lines, node)
    others, bases = bases_of(classes, holder)
    return next((found for base in bases if (found := _assignment(others, base, name)) is not None), None)


def bases_of(classes: Classes, spot: SourceSpot) -> tuple[Classes, list[SourceSpot]]:
    """The classes without one, and those of them that it inherits from.

    Whoever goes on does so among the others: a base may name its own base as the class, which is another one.
    """
    others = {name: each for name, each in classes.items() if each.node is not spot.node}
    nodes = spot.node.bases if isinstance(spot.node, ast.ClassDef) else []
    return others, [others[base.id] for base in nodes if isinstance(base, ast.Name) and base.id in others]


def _targets(node: Statement) -> Sequence[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def _by_name(sources: Sources, classes: Classes, module: str) -> SourceSpot | None:
    """The class that has Hugging Face's name, or the statement that makes the module in the class that has."""
    own = classes.get(sources.class_names.get(module, ""))
    if own is not None:
        return own
    parent, _, name = module.rpartition(".")
    holder = classes.get(sources.class_names.get(parent_of(parent) if name.isdigit() else parent, ""))
    return None if holder is None else _assignment(classes, holder, name)


def is_own(node: ast.AST, name: str) -> TypeGuard[ast.Attribute]:
    """Whether a node is `self.name`."""
    return isinstance(node, ast.Attribute) and node.attr == name and getattr(node.value, "id", "") == "self"
