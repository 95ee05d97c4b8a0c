"""Edits of a port's `model.py`: find the first piece of code that a bug fits, and change it.

A bug says what it changes as a function of an AST node; names of architectures occur nowhere.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EditSpot:
    """Where a node is.

    Attributes:
        class_name: the class around it.
        function: the method around it.
        attribute: `x`, if the statement is `self.x = …`, else "".
        attends: the class computes attention.
        layers: the class loops over layers.
        root: the class is the model itself, with the head.
    """

    class_name: str
    function: str
    attribute: str
    attends: bool
    layers: bool
    root: bool


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A port's source after an edit.

    Attributes:
        text: of the whole file.
        spot: where the edit was made.
        before, after: the statement; `after` is "" if it was deleted.
        called: attributes of self that the statement calls, as `q_proj`.
    """

    text: str
    spot: EditSpot
    before: str
    after: str
    called: tuple[str, ...]


DELETE = ast.Pass()
Change = Callable[[ast.AST, EditSpot], ast.AST | None]
"""Returns what a node becomes, a new one: `DELETE` for a statement that goes away, None where the bug does not fit."""


def edit(source: str, change: Change, *, skip: int = 0) -> Edited | None:
    """Apply a change once, at the first node that it fits after `skip` others; None if there is none."""
    tree = ast.parse(source)
    for block, index, spot in _walk(tree):
        statement = block[index]
        for node in _own_nodes(statement):
            changed = change(node, spot)
            if changed is None:
                continue
            if skip:
                skip -= 1
                break
            before, called = ast.unparse(statement), _called(statement)
            after = _replace(block, index, node, changed)
            text = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
            return Edited(text=text, spot=spot, before=before, after=after, called=called)
    return None


def attention_classes(source: str) -> tuple[str, ...]:
    """Return the names of the classes that compute attention."""
    return tuple(dict.fromkeys(spot.class_name for *_, spot in _walk(ast.parse(source)) if spot.attends))


def calls(node: ast.AST, *names: str) -> ast.Call | None:
    """Return the node if it is a call of a function, class or method of one of these names."""
    if not isinstance(node, ast.Call):
        return None
    function = node.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    return node if name in names else None


def own_call(node: ast.AST) -> str:
    """Return `x` for a call `self.x(…)`, else ""."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_self(node.func.value):
        return node.func.attr
    return ""


def keyword(call: ast.Call, name: str) -> ast.keyword | None:
    """Return a keyword argument of a call."""
    return next((argument for argument in call.keywords if argument.arg == name), None)


def with_argument(call: ast.Call, which: int | str, template: str) -> ast.Call:
    """Return a copy of a call whose argument, by place or by keyword, is what the template makes of it."""
    changed = copy.deepcopy(call)
    if isinstance(which, int):
        changed.args[which] = written(template, changed.args[which])
        return changed
    for argument in changed.keywords:
        if argument.arg == which:
            argument.value = written(template, argument.value)
            return changed
    changed.keywords.append(ast.keyword(arg=which, value=written(template)))
    return changed


def without_argument(call: ast.Call, name: str) -> ast.Call:
    """Return a copy of a call that lacks a keyword argument."""
    changed = copy.deepcopy(call)
    changed.keywords = [argument for argument in changed.keywords if argument.arg != name]
    return changed


def written(template: str, *nodes: ast.expr) -> ast.expr:
    """Return the expression that a template gives when its `{}` are filled with expressions."""
    texts = (f"({ast.unparse(node)})" for node in nodes)
    return ast.parse(template.format(*texts), mode="eval").body


def _walk(tree: ast.Module) -> Iterator[tuple[list[ast.stmt], int, EditSpot]]:
    for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        text = ast.unparse(owner)
        attends = "attention(" in text or ("softmax(" in text and "cache" in text)
        layers = any(isinstance(node, ast.For) for node in ast.walk(owner))
        root = any("ForCausalLM" in ast.unparse(base) for base in owner.bases)
        for function in (node for node in owner.body if isinstance(node, ast.FunctionDef)):
            for block, index in _places(function):
                spot = EditSpot(
                    class_name=owner.name,
                    function=function.name,
                    attribute=_assigned(block[index]),
                    attends=attends,
                    layers=layers,
                    root=root,
                )
                yield block, index, spot


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """Return the nodes of a statement; those of the statements inside it come in their own turn."""
    yield statement
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, ast.stmt):
            yield from ast.walk(child)


def _places(node: ast.AST) -> Iterator[tuple[list[ast.stmt], int]]:
    """Return the statements below a function in their order, each as a list and its place in it."""
    for name in ("body", "orelse"):
        block = getattr(node, name, None)
        for index, statement in enumerate(block if isinstance(block, list) else ()):
            yield block, index  # type: ignore[misc]  # a list, then
            yield from _places(statement)


def _replace(block: list[ast.stmt], index: int, node: ast.AST, changed: ast.AST) -> str:
    if changed is DELETE:
        block[index] = ast.Pass()
        return ""
    if node is block[index]:
        block[index] = changed  # type: ignore[call-overload]  # a statement replaces a statement
    else:
        _Replacer(node, changed).visit(block[index])
    return ast.unparse(ast.fix_missing_locations(block[index]))


class _Replacer(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self.old:
            return self.new
        result: ast.AST = self.generic_visit(node)
        return result


def _called(statement: ast.stmt) -> tuple[str, ...]:
    names = (own_call(node) for node in ast.walk(statement))
    return tuple(dict.fromkeys(name for name in names if name))


def _assigned(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute):
        return statement.targets[0].attr
    return ""


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
