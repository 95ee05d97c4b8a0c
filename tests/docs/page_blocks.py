"""The fenced blocks of a document: commands, files to write, and changes of files that are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    options: dict[str, str]
    text: str


@dataclass(frozen=True)
class Hunk:
    """A piece of a file before and after a change; what was nothing before is added at the file's end."""

    file: str
    before: str
    after: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, or of a part of it."""
    return [
        Block(match["language"], dict(re.findall(r'(\w+)="?([^"\s]+)"?', match["options"])), match["text"])
        for match in BLOCK.finditer(text)
    ]


def hunks(diff: str) -> Iterator[Hunk]:
    """The changes in a `diff` block, as a person reads them: `--- file`, then its lines; `@@` is between two places."""
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        file, _, lines = part.partition("\n")
        for place in re.split(r"^@@\n", lines, flags=re.MULTILINE):
            marked = [(line[:1], line[1:]) for line in place.splitlines(keepends=True)]
            before = "".join(text for mark, text in marked if mark != "+")
            yield Hunk(file.strip(), before, "".join(text for mark, text in marked if mark != "-"))


def changed(text: str, hunk: Hunk) -> str:
    """A file's text with a change."""
    if not hunk.before:
        return text + hunk.after
    assert text.count(hunk.before) == 1, f"{hunk.file} has this {text.count(hunk.before)} times:\n{hunk.before}"
    return text.replace(hunk.before, hunk.after)


def run(command: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell block where a reader would, with the tested environment's commands first on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=directory,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
