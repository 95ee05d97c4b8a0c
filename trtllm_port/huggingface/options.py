"""Names as values of config keys: activations, and those that the code of a model compares a key with."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from transformers.activations import ACT2FN

from trtllm_port.huggingface.text_part import listed_class


def is_activation(name: str) -> bool:
    """Whether transformers knows an activation of this name."""
    return name in ACT2FN


def make_activation(name: str) -> Any:
    """A new module, or the function, of a name.

    Raises:
        KeyError: transformers knows none of this name.
    """
    return ACT2FN[name]


def known_names(config: Any, key: str) -> list[str]:
    """The values of a key that its config's class and the modelling file know, in the order of their sources.

    Those are the strings that something called like the key is compared with, the keys of a table that it is looked up
    in, and those of a `Literal` in the class's annotations.
    """
    names = _called(config, key)
    found = (name for source in _sources(config) for name in _compared(source, names))
    return list(dict.fromkeys(found))


def known_entries(config: Any, key: str) -> list[str]:
    """The entries of a dict in the config that the modelling file itself asks for."""
    tree, names = _modelling_tree(config), _called(config, key)
    return list(dict.fromkeys(name for node in (ast.walk(tree) if tree else ()) for name in _entry(node, names)))


def is_read(config: Any, key: str) -> bool:
    """Whether the modelling file mentions a key at all."""
    tree, names = _modelling_tree(config), _called(config, key)
    nodes = ast.walk(tree) if tree is not None else ()
    told = (node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None) for node in nodes)
    return tree is None or any(isinstance(name, str) and name in names for name in told)


def _called(config: Any, key: str) -> frozenset[str]:
    """The names of a key."""
    mapped = getattr(config, "attribute_map", None) or {}
    return frozenset((key, *(name for name, known in mapped.items() if known == key)))


def _modelling_tree(config: Any) -> ast.Module | None:
    """The modelling file of a config's model; None where there is none to read."""
    kind = listed_class(config)
    return None if kind is None else _tree(kind.__module__)


def _sources(config: Any) -> list[str]:
    """The modules that define a config's class and its model's, with those that they are derived from."""
    kinds = [*type(config).__mro__, *getattr(listed_class(config), "__mro__", ())]
    modules = dict.fromkeys(kind.__module__ for kind in kinds)
    return [name for name in modules if name.rpartition(".")[2].startswith(("configuration_", "modeling_"))]


@cache
def _tree(module: str) -> ast.Module | None:
    try:
        return ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError):  # not there as a file
        return None


@cache
def _compared(module: str, names: frozenset[str]) -> tuple[str, ...]:
    tree = _tree(module)
    if tree is None:
        return ()
    tables = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(_is_called(side, names) for side in sides):
                found += [text for side in sides for text in _strings(side)]
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and _is_called(node.slice, names):
            table = tables.get(node.value.id)
            found += [text for entry in (table.keys if table else []) if entry is not None for text in _strings(entry)]
        elif isinstance(node, ast.AnnAssign) and _is_called(node.target, names):
            literals = (one for one in ast.walk(node.annotation) if isinstance(one, ast.Subscript))
            found += [
                text
                for one in literals
                if ast.unparse(one.value).rpartition(".")[2] == "Literal"
                for text in _strings(one.slice)
            ]
    return tuple(dict.fromkeys(found))


def _is_called(node: ast.expr, names: frozenset[str]) -> bool:
    """Whether an expression is a key by its name: `config.kind`, `kind`, `config["kind"]`, `config.get("kind")`."""
    if isinstance(node, ast.Attribute):
        return node.attr in names
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value in names
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        return isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args[0].value in names
    return False


def _entry(node: ast.AST, names: frozenset[str]) -> Iterator[str]:
    """What a dict that is called by one of the names is asked for: `[entry]`, `.get(entry)`, `entry in`."""
    if isinstance(node, ast.Subscript) and _is_called(node.value, names):
        yield from _strings(node.slice)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        if _is_called(node.func.value, names):
            yield from _strings(node.args[0])
    elif isinstance(node, ast.Compare) and any(_is_called(side, names) for side in node.comparators):
        yield from _strings(node.left)


def _strings(node: ast.expr) -> Iterator[str]:
    """A string, or those in a display of them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for item in node.elts:
            yield from _strings(item)
