"""Reads the source tree: which modules there are, in which room each is, and what it imports.

Every import counts, that in a function and that for type checkers, too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from architecture_rules import OTHER_ROOM

PACKAGE = "trtllm_port"
LINKED = ("layers", "runtime", "scaffolds")  # folders at the top; symlinks in the package lead to them
IMPORTERS = ("import_module", "__import__")  # functions that import what they are given


@dataclass(frozen=True, kw_only=True)
class Module:
    """One of our files.

    Attributes:
        name: with dots, as it is imported.
        room: its package, without ours.
        file: relative to the checkout.
        text: what is in it.
    """

    name: str
    room: str
    file: str
    text: str = field(repr=False)

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    @property
    def docstring(self) -> str:
        """What it says of itself."""
        return ast.get_docstring(self.tree) or ""


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import.

    Attributes:
        by: the module that imports.
        line: where.
        name: what is imported, as `trtllm_port.errors.PortError` or `torch`.
        module: which of our modules that is, or is in; None for others'.
    """

    by: Module
    line: int
    name: str
    module: Module | None

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.by.file}:{self.line}"


@dataclass(frozen=True)
class SourceTree:
    """All modules by name, and all their imports."""

    modules: Mapping[str, Module] = field(repr=False)
    imports: tuple[Import, ...] = field(repr=False)

    @cached_property
    def rooms(self) -> dict[str, list[Module]]:
        """The modules of each room that there is, by name."""
        rooms: dict[str, list[Module]] = {}
        for module in sorted(self.modules.values(), key=lambda module: module.name):
            rooms.setdefault(module.room, []).append(module)
        return rooms

    @cached_property
    def arrows(self) -> dict[str, dict[str, Import]]:
        """Module → the modules of ours that it imports, each with the first import of it."""
        arrows: dict[str, dict[str, Import]] = {name: {} for name in sorted(self.modules)}
        for each in self.imports:
            if each.module is not None and each.module != each.by:
                arrows[each.by.name].setdefault(each.module.name, each)
        return arrows

    @cached_property
    def room_arrows(self) -> dict[str, set[str]]:
        """Room → the other rooms that it imports."""
        arrows: dict[str, set[str]] = {room: set() for room in self.rooms}
        for each in self.imports:
            if each.module is not None and each.module.room != each.by.room:
                arrows[each.by.room].add(each.module.room)
        return arrows

    def describes(self, room: str) -> Module | None:
        """The module whose docstring describes a room: its `__init__`, or the one that the room is."""
        files = self.rooms.get(room, [])
        own = (module for module in files if module.file.endswith("/__init__.py"))
        return next(own, files[0] if len(files) == 1 else None)


def read_tree(root: Path) -> SourceTree:
    """The source tree of a checkout."""
    modules = {module.name: module for module in (_module(root, path) for path in source_files(root))}
    imports = (
        Import(by=module, line=line, name=name, module=_ours(name, modules))
        for module in modules.values()
        for name, line in imported_names(module.tree, module.file)
    )
    return SourceTree(modules, tuple(imports))


def source_files(root: Path) -> Iterator[Path]:
    """Our Python files, each once."""
    links = {root / PACKAGE / name for name in LINKED}
    for folder in (PACKAGE, *LINKED):
        for path in sorted((root / folder).rglob("*.py")):
            template = folder == "scaffolds" and path.parent.name != "scaffolds"  # below it nothing is a module
            if not template and not links & set(path.parents):
                yield path


def imported_names(tree: ast.AST, file: str) -> Iterator[tuple[str, int]]:
    """(name, line) of every import below a node: `from a import b` gives `a.b`, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import; write out the module's name"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in IMPORTERS:
            yield from ((str(arg.value), node.lineno) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def belongs(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a name is one of these packages, or in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _module(root: Path, path: Path) -> Module:
    file = path.relative_to(root)
    parts = file.with_suffix("").parts
    parts = parts if parts[0] == PACKAGE else (PACKAGE, *parts)
    package = parts[:-1]
    name = ".".join(package if parts[-1] == "__init__" else parts)
    room = OTHER_ROOM.get(name, ".".join(package[1:]))
    return Module(name=name, room=room, file=file.as_posix(), text=path.read_text(encoding="utf-8"))


def _ours(name: str, modules: Mapping[str, Module]) -> Module | None:
    while name:
        if name in modules:
            return modules[name]
        name = name.rpartition(".")[0]
    return None
