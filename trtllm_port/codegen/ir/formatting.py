"""Texts of generated Python: a statement is one line, however long, until the formatter has the whole file."""

from __future__ import annotations

import re
import subprocess

from ruff import find_ruff_bin

from trtllm_port.errors import PortError
from trtllm_port.foundation.quoting import docstring as docstring
from trtllm_port.foundation.quoting import is_name as is_name
from trtllm_port.foundation.quoting import is_word as is_word
from trtllm_port.foundation.quoting import literal as literal

WIDTH = 120
_PART = re.compile(r'(?P<number>\d+)|(?P<name>\w+)(?:\["[\w-]+"\])?', re.ASCII)  # the last: in a `ModuleDict`


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
    run = subprocess.run(command, input=source, capture_output=True, encoding="utf-8", check=False)
    if run.returncode != 0:
        raise PortError(f"the generated file cannot be formatted: {run.stderr.strip()}")
    return run.stdout


def reference(path: str) -> str:
    """A module or parameter below `self`: `experts.0.up` as `self.experts[0].up`.

    Raises:
        PortError: a part of the path is neither a number nor a name.
    """
    text = "self"
    for part in path.split(".") if path else []:
        found = _PART.fullmatch(part)
        if found is None or not (found["number"] or is_name(found["name"])):
            raise PortError(f"a port has no module `{path}`: `{part}` is no name in Python")
        text += f"[{part}]" if found["number"] else f".{part}"
    return text
