"""The documents' commands and files work as printed.

A page is a story: its fenced blocks are carried out from top to bottom in one empty directory. A `python title="PATH"`
block is a file that the reader writes, a `bash` block commands that must succeed, a `bash fails=1` block a command that
must end with that exit code, a `text` block output, which is not compared.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/tutorial-generate.md", "docs/tutorial-by-hand.md")
BLOCK = re.compile(r"^```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    options: dict[str, str]
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(match["language"], dict(re.findall(r'(\w+)="?([^"\s]+)"?', match["options"])), match["text"])
        for match in BLOCK.finditer((ROOT / page).read_text())
    ]


def run(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell block where a reader would, with the tested environment's `trtllm-port` first on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=directory,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_page_works_as_printed(page: str, tmp_path: Path) -> None:
    if not (ROOT / page).is_file():
        pytest.skip(f"{page} is not beside these tests")
    for block in blocks(page):
        if "title" in block.options:
            target = tmp_path / block.options["title"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text)
        elif block.language == "bash" and not block.text.startswith("make "):  # CI runs the make targets themselves
            done = run(block.text, tmp_path)
            assert done.returncode == int(block.options.get("fails", "0")), (
                f"{block.text}\n{done.stdout}\n{done.stderr}"
            )


def test_pages_have_commands() -> None:
    """The pattern finds blocks: a page without any would pass unread."""
    present = [page for page in PAGES if (ROOT / page).is_file()]
    assert all(any(block.language == "bash" for block in blocks(page)) for page in present)
