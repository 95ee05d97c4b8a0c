"""Where a module is written: the line to look at, and the lines around it, in a port's source or in Hugging Face's.

Sources are read as text: nothing is imported, so a file that was changed since, or no longer works, has its lines, too.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from textwrap import dedent
from typing import NamedTuple

from trtllm_port.verification.causes.source_tree import (
    Classes,
    Sources,
    SourceSpot,
    Statement,
    bases_of,
    is_own,
    read_classes,
    spot_of,
)

LONGEST = 44  # lines of an excerpt: a screen beside the verdict
AROUND = 3  # lines shown before and after a single statement
INIT = "__init__"
NO_CODE = ("def ", "class ", "from ", "import ", '"""', "#")
NAME_ONLY = re.compile(r"\w+,?$")  # a line of an import


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """Lines of a source file.

    Attributes:
        side: "port" or "hugging_face".
        path: the file, as a person would name it.
        first_line: number of the first line shown.
        lines: the text.
        marked: numbers of the lines that stand out, all of them shown; at least one.
        note: why they do.
    """

    side: str
    path: str
    first_line: int
    lines: tuple[str, ...]
    marked: tuple[int, ...]
    note: str


@dataclass(frozen=True, kw_only=True)
class WhereToLook:
    """What to look at in a module's class.

    Attributes:
        patterns: of a statement of it, the most telling first.
        elsewhere: the same of a statement anywhere in the sources, where none of those fits.
        number: which of the statements that fit the first fitting pattern.
        child: path, relative to the module, of what first receives a wrong value inside it: its uses, at last.
        parameter: the parameter that is wrong; what makes it is looked at instead.
        caller: whether what should call the module is looked at instead.
    """

    patterns: Sequence[str] = ()
    elsewhere: Sequence[str] = ()
    number: int = 0
    child: str | None = None
    parameter: str = ""
    caller: bool = False


@dataclass(frozen=True)
class Place:
    """Lines to look at.

    Attributes:
        spot: the class, or the statement, that they are in.
        marks: their numbers; empty: all of it.
        note: why they are looked at.
    """

    spot: SourceSpot
    marks: tuple[int, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        node, lines = self.spot.node, self.spot.lines
        line = (*self.marks, node.lineno)[0]
        text = lines[line - 1].strip()
        if isinstance(node, ast.ClassDef) and line == node.lineno:
            text = f"class {node.name}"
        elif isinstance(node, Statement) and len(self.marks) > 1:
            text = " ".join(lines[mark - 1].strip() for mark in self.marks)
        return f"`{self.spot.shown_path}` line {line}: `{text}`"


def place_of(sources: Sources, module: str, look: WhereToLook | None = None) -> Place | None:
    """Return what to look at for a module, or None if no source shows it or anything that holds it.

    Args:
        sources: of the port, or of Hugging Face.
        module: HF module path; "" is the model itself.
        look: for which statement; by default the whole class.
    """
    classes = read_classes(sources)
    spot, look = spot_of(sources, classes, module), look or WhereToLook()
    if spot is None:
        return None
    if not isinstance(spot.node, ast.ClassDef):
        return Place(spot, tuple(range(spot.node.lineno, (spot.node.end_lineno or spot.node.lineno) + 1)))
    child = spot.rest or look.child
    own = _with_bases(classes, spot)
    if not spot.rest:
        searched = itertools.chain(itertools.product(look.patterns, own), _elsewhere(look, classes))
        for pattern, other in searched:
            line = _matching(other, pattern, look.number)
            if line is not None:
                return Place(other.spot, (line,))
    for each in own:
        if marks := _uses(each, child):
            return Place(each.spot, marks, "" if spot.rest else f"`{look.child}` receives the first wrong value")
    return Place(spot)


class _Methods(NamedTuple):
    """The methods of a class that count: of a base those that are not overridden."""

    spot: SourceSpot
    methods: Sequence[ast.FunctionDef]


def _with_bases(classes: Classes, spot: SourceSpot, overridden: frozenset[str] = frozenset()) -> list[_Methods]:
    """A class; where it inherits from others, what all compute, then the constructors, which call each other."""
    methods = [each for each in _methods(spot.node) if each.name not in overridden]
    below = overridden | {each.name for each in methods} - {INIT}
    others, found = bases_of(classes, spot)
    bases = [each for base in found for each in _with_bases(others, base, below)]
    if not bases:
        return [_Methods(spot, methods)]
    parts = [
        _Methods(where, [each for each in own if (each.name == INIT) is is_init])
        for is_init in (False, True)
        for where, own in (_Methods(spot, methods), *bases)
    ]
    return [part for part in parts if part.methods]


def _elsewhere(look: WhereToLook, classes: Classes) -> Iterator[tuple[str, _Methods]]:
    everything = [_Methods(spot, list(_methods(spot.node))) for spot in classes.values()]
    return itertools.product(look.elsewhere, everything)


def excerpt_of(side: str, place: Place) -> Excerpt:
    """Return the lines of a place, and those around them.

    Args:
        side: see `Excerpt`.
        place: what is marked.
    """
    spot = place.spot
    shown, marked = window(_part(spot, place.marks), place.marks, LONGEST)
    return Excerpt(
        side=side,
        path=spot.shown_path,
        first_line=shown.start,
        lines=tuple(dedent("\n".join(spot.lines[shown.start - 1 : shown.stop - 1])).split("\n")),
        marked=marked or (shown.start,),
        note=place.note,
    )


def window(lines: range, marks: Sequence[int], longest: int) -> tuple[range, tuple[int, ...]]:
    """Return which of some lines are shown, and which of the marks are among them: the first, and all that fit.

    Args:
        lines: numbers of all lines; at least one.
        marks: numbers of lines; those that are not among `lines` do not count.
        longest: the most lines that are shown.
    """
    inside = sorted(mark for mark in marks if mark in lines)
    start = lines.start
    if inside:
        last = max(mark for mark in inside if mark - inside[0] < longest)
        start = min(inside[0], max(start, last + AROUND + 1 - longest))
    shown = range(start, min(lines.stop, start + longest))
    return shown, tuple(mark for mark in inside if mark in shown)


def _part(spot: SourceSpot, marks: Sequence[int]) -> range:
    """A statement with the lines around it, a class, or of a long one the method that counts: `forward`, unmarked."""
    node = spot.node
    whole = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    if not isinstance(node, ast.ClassDef):
        return range(max(1, whole.start - AROUND), min(len(spot.lines), whole.stop - 1 + AROUND) + 1)
    if len(whole) <= LONGEST:
        return whole
    methods = {method.name: range(method.lineno, (method.end_lineno or method.lineno) + 1) for method in _methods(node)}
    if not marks:
        return methods.get("forward", whole)
    return next((lines for lines in methods.values() if marks[0] in lines), whole)


def _matching(where: _Methods, pattern: str, number: int) -> int | None:
    """The line of a class that fits a pattern."""
    code = [(line, where.spot.lines[line - 1].strip()) for line in _bodies(where.methods)]
    code = [(line, text) for line, text in code if not text.startswith(NO_CODE) and not NAME_ONLY.match(text)]
    fitting = [line for line, text in code if re.search(pattern, text)]
    return fitting[min(number, len(fitting) - 1)] if fitting else None


def _bodies(methods: Sequence[ast.FunctionDef]) -> Iterator[int]:
    """The lines of the statements of methods: of what they compute, then of `__init__`."""
    for method in sorted(methods, key=lambda method: method.name == INIT):
        yield from range(method.body[0].lineno, (method.end_lineno or method.lineno) + 1)


def _methods(node: ast.AST) -> Iterator[ast.FunctionDef]:
    nodes = node.body if isinstance(node, ast.ClassDef) else ()
    yield from (each for each in nodes if isinstance(each, ast.FunctionDef))


def _uses(where: _Methods, child: str | None) -> tuple[int, ...]:
    """The lines, outside of `__init__`, in which a part of the class is used."""
    name = (child or "").partition(".")[0]
    methods = [method for method in where.methods if method.name != INIT]
    found = (each for method in methods for each in ast.walk(method) if is_own(each, name))
    return tuple(sorted({each.lineno for each in found}))


def map_entry(sources: Sources, key: str | tuple[str, ...] | None) -> Place | None:
    """Return where a weight map has an entry, else where it begins; None if there is no weight map.

    Args:
        sources: where to look.
        key: of the entry; None: there is no entry.
    """
    maps = [
        (SourceSpot(path, lines, node), node.value)
        for path, lines, tree in sources.read()
        for node in ast.walk(tree)
        if isinstance(node, Statement) and isinstance(node.value, ast.Dict) and _is_map(node)
    ]
    for spot, value in maps:
        for each in value.keys:
            if each is not None and ast.unparse(each) == repr(key):
                return Place(replace(spot, node=each), (each.lineno,))
    return Place(maps[0][0], (maps[0][0].node.lineno,)) if maps else None


def _is_map(node: Statement) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id.lower() == "weight_map" for target in targets)
