"""The documents' commands and files work as printed.

A page is a story: its fenced blocks are carried out from top to bottom in one empty directory. A `python title="PATH"`
block is a file that the reader writes, a `bash` block commands that must succeed, a `bash fails=1` block a command that
must end with that exit code, a `text` block output, which is not compared.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from page_blocks import ROOT, blocks, run

PAGES = ("README.md", "docs/tutorial-generate.md", "docs/tutorial-by-hand.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_page_works_as_printed(page: str, tmp_path: Path) -> None:
    if not (ROOT / page).is_file():
        pytest.skip(f"{page} is not beside these tests")
    for block in blocks((ROOT / page).read_text()):
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
    assert all(any(block.language == "bash" for block in blocks((ROOT / page).read_text())) for page in present)
