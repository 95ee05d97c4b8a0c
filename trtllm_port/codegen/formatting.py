"""Lines of Python as the project's formatter (ruff, 120 columns) leaves them."""

from __future__ import annotations

import math
import re
from itertools import pairwise

WIDTH = 120
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def indent(lines: list[str], by: int = 4) -> list[str]:
    """Lines moved to the right; empty ones stay empty."""
    return [" " * by + line if line else line for line in lines]


def wrap(line: str, depth: int) -> list[str]:
    """One statement as lines, for a place indented by `depth`: where it is too long, its last bracket is opened."""
    if len(line) + depth <= WIDTH:
        return [line]
    choice = _choice(line)
    if choice is not None:
        head, first, rest = choice
        inner = f"{first} {rest}"
        pieces = [inner] if len(inner) + depth + 4 <= WIDTH else [first, *_alternatives(rest)]
        return [f"{head}(", *(f"    {piece}" for piece in pieces), ")"]
    chain = _chain(line)
    if chain is not None:
        head, calls = chain
        return [f"{head}(", *indent([piece for call in calls for piece in wrap(call, depth + 4)]), ")"]
    start = _matching(line) if line[-1] in ")]}" else None
    if start is None:
        return _operation(line, depth)
    stop = len(line) - 1
    if start + 1 + depth > WIDTH:  # that would not help: an earlier bracket is the long one
        start, stop = max(_brackets(line), key=lambda bracket: bracket[1] - bracket[0])
    head, inner, end = line[: start + 1], line[start + 1 : stop], line[stop:]
    generator = next((i for i in _outside(inner) if inner.startswith(" for ", i)), None)
    if len(inner) + depth + 4 <= WIDTH:
        return [head, f"    {inner}", end]
    if generator is not None:
        return [head, *indent([*_pieces(inner[:generator], depth + 4), inner[generator + 1 :]]), end]
    if re.search(r"(^|[^\w)\]])\($", head) and len(split_arguments(inner)) == 1:  # no call: a comma would make a tuple
        return [head, *indent(wrap(inner, depth + 4)), end]
    return [head, *indent([piece for part in split_arguments(inner) for piece in _argument(part, depth + 4)]), end]


def _brackets(line: str) -> list[tuple[int, int]]:
    """Where the outermost brackets of a line open and close."""
    depths = _depths(line)
    starts = [i for i, depth in enumerate(depths) if depth == 1 and line[i] in _CLOSING]
    return [
        (start, next(i for i in range(start, len(line)) if depths[i] == 1 and line[i] in ")]}")) for start in starts
    ]


def _argument(part: str, depth: int) -> list[str]:
    """An argument with its comma."""
    *lines, last = _pieces(part, depth + 1)
    return [*lines, f"{last},"]


def _pieces(part: str, depth: int) -> list[str]:
    """An expression in brackets; where it is too long, the alternatives of a choice have lines of their own."""
    condition = next((i for i in _outside(part) if part.startswith(" if ", i)), None)
    if condition is None:
        return wrap(part, depth)
    if len(part) + depth <= WIDTH:
        return [part]
    return [part[:condition], *_alternatives(part[condition + 1 :])]


def _chain(line: str) -> tuple[str, list[str]] | None:
    """`name = ` (or `return `) and the calls of a chain of three or more, or None."""
    head, found, value = line.partition(" = ")
    if not found:
        head, found, value = line.partition("return ")
    outside = list(_outside(value))
    if not found or "(" in head or any(value[i] == " " for i in outside):
        return None
    starts = [i for i in outside if value[i] == "." and value[i - 1] in ")]" and re.match(r"\.\w+\(", value[i:])]
    if len(starts) < 2:
        return None
    return head + found, [value[i:j] for i, j in pairwise([0, *starts, len(value)])]


def _operation(line: str, depth: int) -> list[str]:
    """`name = ` (or `return `) and a sum or product, in brackets; one operand a line where it is longer than that."""
    head, found, value = line.partition(" = ")
    if not found:
        head, found, value = line.partition("return ")
    outside = _outside(value)
    cuts = next((cuts for symbols in ("+-", "*/@") if (cuts := _operators(value, outside, symbols))), [])
    if not found or "(" in head or not cuts:
        return [line]
    bounds = [0, *(cut + 1 for cut in cuts), len(value)] if len(value) + depth + 4 > WIDTH else [0, len(value)]
    return [f"{head}{found}(", *(f"    {value[a:b].strip()}" for a, b in pairwise(bounds)), ")"]


def _operators(value: str, outside: list[int], symbols: str) -> list[int]:
    """Where the spaces before the operators are that stand in no bracket."""
    return [
        i for i in outside if value[i] == " " and value[i + 1 : i + 2] in [*symbols] and value[i + 2 : i + 3] == " "
    ]


def _choice(line: str) -> tuple[str, str, str] | None:
    """`name = `, `one` and `if condition else other` of a statement with a choice, or None."""
    head, found, value = line.partition(" = ")
    condition = next((i for i in _outside(value) if value.startswith(" if ", i)), None)
    if not found or not head.replace(".", "").replace("_", "").isalnum() or condition is None:
        return None
    return f"{head} = ", value[:condition], value[condition + 1 :]


def _alternatives(rest: str) -> list[str]:
    """`if condition`, `else other` of `if condition else other`, and so on."""
    cuts = [i for i in _outside(rest) if rest.startswith((" else ", " if "), i)]
    return [rest[a:b].strip() for a, b in zip([0, *cuts], [*cuts, len(rest)], strict=True)]


def wrap_signature(head: str, parameters: list[str], returns: str, depth: int) -> list[str]:
    """`head(parameters) -> returns:` as lines."""
    inner = ", ".join(parameters)
    line = f"{head}({inner}) -> {returns}:"
    if len(line) + depth <= WIDTH:
        return [line]
    if len(inner) + depth + 4 <= WIDTH:
        return [f"{head}(", f"    {inner}", f") -> {returns}:"]
    return [f"{head}(", *(f"    {parameter}," for parameter in parameters), f") -> {returns}:"]


def _depths(text: str) -> list[int]:
    """For each character how many brackets it is in, the bracket itself included; in a string one more."""
    depths, depth, quote = [], 0, ""
    for position, character in enumerate(text):
        if quote:
            depths.append(depth + 1)
            quote = "" if character == quote and text[position - 1] != "\\" else quote
            continue
        quote = character if character in "\"'" else ""
        depth += character in _CLOSING
        depths.append(depth + bool(quote))
        depth -= character in _CLOSING.values()
    return depths


def _outside(text: str) -> list[int]:
    """The places that are in no bracket and in no string."""
    return [position for position, depth in enumerate(_depths(text)) if depth == 0]


def _matching(text: str) -> int | None:
    """Where the bracket that closes at the end of `text` opens."""
    depths = _depths(text)
    starts = [position for position, depth in enumerate(depths) if depth == 1 and text[position] in _CLOSING]
    return starts[-1] if starts and depths[-1] == 1 else None


def split_arguments(text: str) -> list[str]:
    """`text` at the commas that are in no bracket and in no string."""
    cuts = [position for position in _outside(text) if text[position] == ","]
    parts = [text[a:b].strip() for a, b in zip([0, *(cut + 1 for cut in cuts)], [*cuts, len(text)], strict=True)]
    return [part for part in parts if part]


def literal(value: object) -> str:
    """A Python value as the formatter writes it: double quotes, as few digits as the number needs."""
    if isinstance(value, str):
        return f'"{value}"' if '"' not in value else repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, tuple):
        inner = ", ".join(literal(item) for item in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f'float("{float(value)}")'
    return repr(value)


def reference(path: str) -> str:
    """A module below `self`: `experts.0.up` as `self.experts[0].up`."""
    parts = path.split(".") if path else []
    return "".join(("self", *(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)))
