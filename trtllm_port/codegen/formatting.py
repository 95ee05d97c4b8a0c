"""Texts of generated Python: a statement is one line, however long, until the formatter has the whole file."""

from __future__ import annotations

import math
import subprocess

from ruff import find_ruff_bin

from trtllm_port.errors import PortError

WIDTH = 120


def indent(lines: list[str], by: int = 4) -> list[str]:
    """Lines moved to the right; empty ones stay empty."""
    return [" " * by + line if line else line for line in lines]


def formatted(source: str) -> str:
    """Return a Python file as ruff formats it, whatever a user's own settings are.

    Raises:
        PortError: it is no Python; that is a mistake of ours.
    """
    options = ["--isolated", "--no-cache", f"--line-length={WIDTH}", "--target-version=py311"]
    command = [find_ruff_bin(), "format", *options, "-"]
    run = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise PortError(f"the generated file cannot be formatted: {run.stderr.strip()}")
    return run.stdout


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
