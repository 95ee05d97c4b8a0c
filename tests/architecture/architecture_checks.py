"""What is wrong with a source tree by the rules: each check gives messages with the file, the line and what to do."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import pairwise

from architecture_rules import (
    HEAVY,
    HEAVY_OURS,
    HOMES,
    LONG_FILES,
    LONG_FUNCTIONS,
    MANY_PARAMETERS,
    MAX_FILES,
    MAX_FUNCTION,
    MAX_LEVELS,
    MAX_LINES,
    MAX_PARAMETERS,
    ORDER,
    objection,
)
from architecture_tree import PACKAGE, Import, Module, SourceTree, belongs, imported_names

RULES = "tests/architecture/architecture_rules.py"
Graph = Mapping[str, Mapping[str, Import]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def folder(room: str) -> str:
    """A room as a person finds it."""
    return f"`{room}`" if room else f"the root of `{PACKAGE}`"


def unknown_rooms(tree: SourceTree) -> list[str]:
    """Rooms without a place in the order, and places without a room."""
    new = [
        f"{files[0].file} is in {folder(room)}, which is no room: give it a place in ORDER in {RULES}"
        for room, files in tree.rooms.items()
        if room not in ORDER
    ]
    empty = (room for room in ORDER if room not in tree.rooms)
    return new + [f"{folder(room)} is empty: take it out of ORDER in {RULES}" for room in empty]


def forbidden_imports(tree: SourceTree) -> list[str]:
    """Imports of a room that the importing one may not know."""
    problems = {}
    for each in tree.imports:
        if each.module is None or not {each.by.room, each.module.room} <= set(ORDER):
            continue
        why = objection(each.by.room, each.module.room)
        if why is not None:
            problems[each.place, each.module.name] = (
                f"{each.place} imports {each.name}: {folder(each.by.room)} may not import {folder(each.module.room)}: "
                f"{why}; let the caller hand it in, or move what both need to a room before both"
            )
    return list(problems.values())


def circles(tree: SourceTree) -> list[str]:
    """Modules that import each other in a circle, each circle as the imports that it is made of."""
    return [
        "a circle: "
        + ", ".join(f"{each.place} imports {each.module.name}" for each in circle if each.module is not None)
        + "; move what two of them need to a file of its own, or let the caller hand it in"
        for circle in _circles(tree.arrows)
    ]


def _circles(graph: Graph) -> Iterator[list[Import]]:
    """A shortest circle through the first module of each knot: of modules that all reach each other."""
    seen: set[str] = set()
    for start in graph:
        circle = None if start in seen else _way_back(graph, start)
        if circle is not None:
            yield circle
            there = _reachable(graph, start)
            seen |= {name for name in there if start in _reachable(graph, name)}


def _way_back(graph: Graph, start: str) -> list[Import] | None:
    came: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        name = waiting.popleft()
        for target in graph[name]:
            if target == start:
                back = [name]
                while back[-1] != start:
                    back.append(came[back[-1]])
                way = [*reversed(back), start]
                return [graph[a][b] for a, b in pairwise(way)]
            if target not in came:
                came[target] = name
                waiting.append(target)
    return None


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = set(graph[waiting.pop()]) - found
        found |= new
        waiting += new
    return found


def crowded_rooms(tree: SourceTree) -> list[str]:
    """Rooms of too many files."""
    return [
        f"{folder(room)} has {len(files)} files, at most {MAX_FILES}: {files[-1].file} and what belongs to it want a "
        "room of their own"
        for room, files in tree.rooms.items()
        if len(files) > MAX_FILES
    ]


def deep_rooms(tree: SourceTree) -> list[str]:
    """Rooms in which too many files import one another in a row."""
    problems = []
    for room, files in tree.rooms.items():
        own = {module.name for module in files}
        inside = {name: {t: i for t, i in tree.arrows[name].items() if t in own} for name in own}
        chain = _longest_chain(inside)
        if len(chain) > MAX_LEVELS:
            steps = (inside[a][b].place for a, b in pairwise(chain))
            problems.append(
                f"{folder(room)} has {len(chain)} levels, at most {MAX_LEVELS}: {', '.join(steps)} import one another "
                "in a row; let one of them be handed what it imports"
            )
    return problems


def _longest_chain(graph: Graph) -> list[str]:
    """The longest way through a graph; where it has circles, which are told elsewhere, it ends before one closes."""
    known: dict[str, list[str]] = {}

    def chain(name: str, above: tuple[str, ...]) -> list[str]:
        if name not in known:
            below = (chain(target, (*above, name)) for target in sorted(graph[name]) if target not in (*above, name))
            known[name] = [name, *max(below, key=len, default=[])]
        return known[name]

    return max((chain(name, ()) for name in sorted(graph)), key=len, default=[])


def homeless_imports(tree: SourceTree) -> list[str]:
    """Imports of a library elsewhere than in the room that is there for it."""
    problems = {
        (each.place, library): f"{each.place} imports {each.name}: {library} is imported in `{home}` only; put what "
        "needs it there, and import that"
        for each in tree.imports
        for library, home in HOMES.items()
        if belongs(each.name, (library,)) and not belongs(each.by.room, (home,))
    }
    return list(problems.values())


def undescribed(tree: SourceTree) -> list[str]:
    """Rooms without a docstring of two lines or more, and modules without any."""
    problems = []
    for room in tree.rooms:
        module = tree.describes(room)
        if module is None:
            problems.append(f"{folder(room)} has no `__init__.py`: write one that says what the room is for")
        elif len([line for line in module.docstring.splitlines() if line.strip()]) < 2:
            problems.append(
                f"{module.file}:1 describes {folder(room)} in less than two lines: say what comes in, what goes out, "
                "and what a newcomer adds here"
            )
    silent = (module.file for module in tree.modules.values() if not module.docstring)
    return problems + [f"{file}:1 has no docstring: `make map` shows its first line" for file in silent]


def ours_in_errors(tree: SourceTree) -> list[str]:
    """`errors` is open to all, so it imports nothing of ours."""
    return [
        f"{each.place} imports {each.name}: `errors` imports nothing of ours"
        for each in tree.imports
        if each.by.name == f"{PACKAGE}.errors" and each.module is not None
    ]


def command_line_used(tree: SourceTree) -> list[str]:
    """Nothing but the command line imports it."""
    return [
        f"{each.place} imports {each.name}: only the command line imports it; return what it shall print"
        for each in tree.imports
        if belongs(each.name, (f"{PACKAGE}.cli",)) and not belongs(each.by.room, ("cli",))
    ]


def heavy_start(tree: SourceTree) -> list[str]:
    """Heavy imports on start of the command line."""
    starting = (m for m in tree.modules.values() if belongs(m.room, ("cli",)) or m.name == f"{PACKAGE}.errors")
    return [
        f"{module.file}:{line} imports {name} on start, and `--help` is instant: import it in the command's body"
        for module in starting
        for node in _run_on_import(module.tree)
        for name, line in imported_names(node, module.file)
        if belongs(name, (*HEAVY, *HEAVY_OURS))
    ]


def _run_on_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """What runs on import: all but the bodies of functions and of `if TYPE_CHECKING`."""
    for node in tree.body:
        checking = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        if not checking and not main and not isinstance(node, Function | ast.ClassDef):
            yield node


def functions(module: Module) -> Iterator[tuple[str, Function]]:
    """(`file:qualified name`, function) of all functions of a module, nested ones included."""

    def below(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if not isinstance(child, ast.ClassDef):
                    yield f"{module.file}:{name}", child
                yield from below(child, f"{name}.")
            else:
                yield from below(child, prefix)

    return below(module.tree, "")


def long_files(tree: SourceTree) -> list[str]:
    """Files of too many lines."""
    lengths = {module.file: len(module.text.splitlines()) for module in tree.modules.values()}
    return [
        f"{file}: {lines} lines, at most {MAX_LINES}: move a part that has a name of its own to a file of its own"
        for file, lines in lengths.items()
        if lines > MAX_LINES and file not in LONG_FILES
    ]


def long_functions(tree: SourceTree) -> list[str]:
    """Functions of too many lines."""
    problems = []
    for module in tree.modules.values():
        for name, node in functions(module):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION and name not in LONG_FUNCTIONS:
                problems.append(
                    f"{name} (line {node.lineno}): {lines} lines, at most {MAX_FUNCTION}: give a part of it a name"
                )
    return problems


def many_parameters(tree: SourceTree) -> list[str]:
    """Functions of too many parameters. Commands are exempt: theirs are the options of the command line."""
    problems = []
    for module in tree.modules.values():
        if belongs(module.room, ("cli",)):
            continue
        for name, node in functions(module):
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            count = len([argument for argument in arguments if argument.arg not in ("self", "cls")])
            if count > MAX_PARAMETERS and name not in MANY_PARAMETERS:
                problems.append(
                    f"{name} (line {node.lineno}): {count} parameters, at most {MAX_PARAMETERS}: those that belong "
                    "together are a dataclass"
                )
    return problems


CHECKS = (
    unknown_rooms,
    forbidden_imports,
    circles,
    crowded_rooms,
    deep_rooms,
    homeless_imports,
    undescribed,
    ours_in_errors,
    command_line_used,
    heavy_start,
    long_files,
    long_functions,
    many_parameters,
)
