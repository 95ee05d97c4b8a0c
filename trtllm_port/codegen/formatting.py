"""Lines of Python as the project's formatter (ruff, 120 columns) leaves them."""

from __future__ import annotations

import math

WIDTH = 120
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def indent(lines: list[str], by: int = 4) -> list[str]:
    """Lines moved to the right; empty ones stay empty."""
    return [" " * by + line if line else line for line in lines]


def wrap(line: str, depth: int) -> list[str]:
    """One statement as lines, for a place indented by `depth`: where it is too long, its last bracket is opened."""
    start = _matching(line) if len(line) + depth > WIDTH and line[-1] in ")]}" else None
    if start is None:
        return [line]
    head, inner, end = line[: start + 1], line[start + 1 : -1], line[-1]
    if len(inner) + depth + 4 <= WIDTH and "," in inner:
        return [head, f"    {inner}", end]
    return [head, *(f"    {part}," for part in split_arguments(inner)), end]


def wrap_signature(head: str, parameters: list[str], returns: str, depth: int) -> list[str]:
    """`head(parameters) -> returns:` as lines."""
    inner = ", ".join(parameters)
    line = f"{head}({inner}) -> {returns}:"
    if len(line) + depth <= WIDTH:
        return [line]
    if len(inner) + depth + 4 <= WIDTH:
        return [f"{head}(", f"    {inner}", f") -> {returns}:"]
    return [f"{head}(", *(f"    {parameter}," for parameter in parameters), f") -> {returns}:"]


def _matching(text: str) -> int | None:
    """Where the bracket that closes at the end of `text` opens."""
    depth = 0
    for position in range(len(text) - 1, -1, -1):
        if text[position] in _CLOSING.values():
            depth += 1
        elif text[position] in _CLOSING:
            depth -= 1
            if depth == 0:
                return position
    return None


def split_arguments(text: str) -> list[str]:
    """`text` at the commas that are in no bracket."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in _CLOSING:
            depth += 1
        elif character in _CLOSING.values():
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    parts.append(text[start:].strip())
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
