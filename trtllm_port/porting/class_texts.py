"""The classes of a `model.py`: their text, and what Python reads in it."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

from trtllm_port.layers import PretrainedConfig

OWN = "."  # the port's own package


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


def content(node: ast.AST, names: Mapping[str, str]) -> str:
    """What Python reads, with other names: equal for texts that differ in layout and comments only."""
    return ast.dump(_Renamed(names).visit(copy.deepcopy(node)))


def names_in(node: ast.AST) -> set[str]:
    """Names of variables, functions and classes."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


@dataclass(frozen=True)
class ClassText:
    """A class of a file."""

    node: ast.ClassDef
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.node.name

    @cached_property
    def members(self) -> dict[str, ast.stmt]:
        """Its methods and its variables by name; what is neither stands under its own text."""
        return {_member_name(node): node for node in self.node.body}

    def content(self, names: Mapping[str, str]) -> str:
        """See `content`: of bases and body, so that classes of different names can be equal."""
        parts = [*self.node.decorator_list, *self.node.bases, *self.node.keywords, *self.node.body]
        return "\n".join(content(part, names) for part in parts)

    def text(self, names: Mapping[str, str], node: ast.stmt | None = None) -> str:
        """The lines of the class, or of a statement in it with the comments above it; some names are others."""
        node = node or self.node
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        while node is not self.node and self.lines[first - 2].lstrip().startswith("#"):
            first -= 1
        return with_names("\n".join(self.lines[first - 1 : node.end_lineno]), names)


def with_names(text: str, names: Mapping[str, str]) -> str:
    """A text of Python in which some names are others."""
    return re.sub(r"\b[A-Za-z_]\w*\b", lambda found: names.get(found[0], found[0]), text)


def _member_name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return ast.unparse(node)


@dataclass(frozen=True)
class ModelFile:
    """A `model.py`.

    Attributes:
        classes: by name, in the order of the file.
        imports: module, with its leading dots → the names that are imported from it; `math` → itself.
        docstring: of the file.
    """

    classes: dict[str, ClassText]
    imports: dict[str, list[str]]
    docstring: str

    @classmethod
    def of(cls, text: str) -> Self:
        """SyntaxError where it is no Python."""
        tree, lines = ast.parse(text), tuple(text.split("\n"))
        imports: dict[str, list[str]] = {}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module != "__future__":
                module = "." * node.level + (node.module or "")
                imports.setdefault(module, []).extend(alias.name for alias in node.names if alias.asname is None)
            if isinstance(node, ast.Import):
                imports |= {alias.name: [alias.name] for alias in node.names}
        classes = {node.name: ClassText(node, lines) for node in tree.body if isinstance(node, ast.ClassDef)}
        return cls(classes, imports, ast.get_docstring(tree, clean=False) or "")

    @property
    def config_class(self) -> str:
        """The name of the class of its configs."""
        return next(iter(self.imports.get(".config", ())), "")

    def config_fields(self, config: str) -> frozenset[str]:
        """What an instance of that class has, by the text of the file that defines it."""
        found = {node.name: node for node in ast.walk(ast.parse(config)) if isinstance(node, ast.ClassDef)}
        own = found[self.config_class].body if self.config_class in found else []
        names = {_member_name(node) for node in own}
        return frozenset(names | {field.name for field in fields(PretrainedConfig)})

    def means_the_same(self, other: ModelFile, *nodes: ast.AST) -> bool:
        """Whether the names in some text mean the same in both files: each is imported from one library, or by none.

        What comes from the port's own package, its config and its weight map, is another thing in every port.
        """
        names = set().union(*map(_names_used, nodes))
        return all(self._origin(name) == other._origin(name) != OWN for name in names)

    def _origin(self, name: str) -> str | None:
        """The library from which a name is imported, or `OWN`; None for classes of ports, and what is not imported."""
        module = next((module for module, names in self.imports.items() if name in names), None)
        if module is None or module.startswith(".."):
            return None
        return OWN if module.startswith(".") else module


def _names_used(node: ast.AST) -> set[str]:
    """As `names_in`, without those of annotations only."""
    tree = copy.deepcopy(node)
    for each in ast.walk(tree):
        for field in ("annotation", "returns"):
            if getattr(each, field, None) is not None:
                setattr(each, field, ast.Constant(None))
    return names_in(tree)
