"""Lines of `forward` that only change a shape, joined with the line before or behind them."""

from __future__ import annotations

import ast
import re

from trtllm_port.codegen.ir.formatting import WIDTH
from trtllm_port.foundation.words import words

SHAPING = words("view transpose permute unsqueeze squeeze flatten expand")
LONGEST = WIDTH - 8  # of what is joined, in a method
ATOMS = (ast.Call, ast.Subscript, ast.Attribute)


def join_lines(lines: list[str]) -> list[str]:
    """The same statements in fewer lines.

    `x = f(y)`, `x = x.view(…)` is `x = f(y).view(…)`, and `x = x.view(…)`, `return f(x)` is `return f(x.view(…))`,
    where nothing else takes what had the name for a line.
    """
    joined: list[str] = []
    for number, line in enumerate(lines):
        whole: str | None = line
        while joined and (whole := _joined(joined[-1], line, lines[number + 1 :])) is not None:
            joined.pop()
            line = whole
        joined.append(line)
    return joined


def _joined(first: str, second: str, rest: list[str]) -> str | None:
    """Two lines as one, or None; `rest` comes behind them."""
    lead = len(first) - len(first.lstrip())
    if lead != len(second) - len(second.lstrip()):
        return None
    made, used = _statement(first), _statement(second)
    if not isinstance(made, ast.Assign) or used is None or used.value is None or not isinstance(made.value, ATOMS):
        return None
    name = _target(made)
    uses = [node for node in ast.walk(used.value) if isinstance(node, ast.Name) and node.id == name]
    if name is None or len(uses) != 1 or name not in (_shaped(made.value), _shaped(used.value)):
        return None
    if not isinstance(used, ast.Return) and _target(used) != name and (lead or not _is_forgotten(name, rest)):
        return None
    begin, text = uses[0].col_offset, second.strip()
    start, stop = made.value.col_offset, made.value.end_col_offset
    whole = text[:begin] + first.strip()[start:stop] + text[begin + len(name) :]
    return " " * lead + whole if lead + len(whole) <= LONGEST else None


def _is_forgotten(name: str, rest: list[str]) -> bool:
    """Whether lines give a name anew before they use it, or never use it."""
    mention = re.compile(rf"\b{name}\b")
    start = next((number for number, line in enumerate(rest) if mention.search(line)), None)
    if start is None:
        return True
    stop = next((n for n in range(start + 1, len(rest)) if rest[n][0] not in " )]}"), len(rest))
    text = "\n".join(rest[start:stop])
    statement = None if text[0] == " " else _statement(text)
    return isinstance(statement, ast.Assign) and _target(statement) == name and len(mention.findall(text)) == 1


def _statement(line: str) -> ast.Assign | ast.Return | None:
    """An assignment or `return` that is whole."""
    try:
        (statement,) = ast.parse(line.strip()).body
    except (SyntaxError, ValueError):
        return None
    return statement if isinstance(statement, ast.Assign | ast.Return) else None


def _target(statement: ast.Assign) -> str | None:
    target = statement.targets[0]
    return target.id if isinstance(target, ast.Name) else None


def _shaped(value: ast.expr) -> str | None:
    """The name of what a chain of methods changes the shape of, if it does nothing else."""
    inner = value
    while isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr in SHAPING:
        inner = inner.func.value
    return inner.id if isinstance(inner, ast.Name) and inner is not value else None
