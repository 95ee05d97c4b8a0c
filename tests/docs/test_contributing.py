"""What CONTRIBUTING.md says is so: paths and targets exist, and the recipes work as printed, in a copy of the tree."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from architecture_checks import CHECKS
from architecture_tree import read_tree
from page_blocks import ROOT, Block, blocks, changed, hunks, run

PAGE = ROOT / "CONTRIBUTING.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="CONTRIBUTING.md is not beside these tests")
TEXT = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
RECIPES = dict(re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", TEXT, re.MULTILINE | re.DOTALL))
COPIED = ("trtllm_port", "layers", "runtime", "scaffolds", "tests", "docs", "pyproject.toml")
PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]*)+|\w+\.(?:md|toml|txt)")


def test_there_are_recipes() -> None:
    """The pattern finds them: a page without any would pass unread."""
    assert len(RECIPES) == 4
    assert all(any(block.language == "bash" for block in blocks(recipe)) for recipe in RECIPES.values())
    assert sum(block.language == "diff" for block in blocks(TEXT)) >= 4


def test_every_path_exists() -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    named = {path for code in re.findall(r"`([^`\n]+)`", prose) for path in PATH.findall(code)}
    named |= set(re.findall(r"\]\(([^)#]+)\)", prose))
    named |= {path for block in blocks(TEXT) if block.language == "bash" for path in PATH.findall(block.text)}
    named |= {hunk.file for block in blocks(TEXT) if block.language == "diff" for hunk in hunks(block.text)}
    written = {block.options["title"] for block in blocks(TEXT) if "title" in block.options}
    assert len(named) > 30
    assert [
        path for path in sorted(named - written) if not path.startswith(".venv") and not (ROOT / path).exists()
    ] == []
    assert [path for path in sorted(written) if (ROOT / path).exists()] == []


def test_every_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z-]+)", TEXT))
    assert {"test-fast", "lint", "demo", "map"} <= targets
    assert [
        target for target in sorted(targets) if not re.search(rf"^[\w -]*\b{target}\b[\w -]*:", makefile, re.M)
    ] == []
    ci = set(re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE))
    assert ci <= targets


@pytest.mark.parametrize("name", RECIPES)
def test_the_lines_that_a_recipe_changes_are_there(name: str) -> None:
    texts: dict[str, str] = {}
    for block in blocks(RECIPES[name]):
        for hunk in hunks(block.text) if block.language == "diff" else ():
            texts[hunk.file] = changed(texts.get(hunk.file) or (ROOT / hunk.file).read_text(), hunk)
    assert texts


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works_as_printed(name: str, tmp_path: Path) -> None:
    for entry in COPIED:
        if (ROOT / entry).is_dir():
            shutil.copytree(ROOT / entry, tmp_path / entry, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / entry, tmp_path / entry)
    edited = sorted({file for block in blocks(RECIPES[name]) for file in _carry_out(block, tmp_path)})
    if edited:
        sources = " ".join(file for file in edited if file.endswith(".py")) or "tests/docs"
        linted = run(f"ruff check {sources}; ruff format --check {sources}", tmp_path)
        assert linted.returncode == 0, linted.stdout
        assert _problems(tmp_path) <= _problems(ROOT)
    for block in blocks(RECIPES[name]):
        if block.language == "bash":
            commands = "".join(line for line in block.text.splitlines(True) if not line.startswith("make "))
            done = run(commands, tmp_path, PYTHONPATH=str(tmp_path))
            assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"


def _carry_out(block: Block, root: Path) -> list[str]:
    """Do what a block of a recipe says, unless it is a command; returns the files that were written."""
    if "title" in block.options:
        (root / block.options["title"]).write_text(block.text)
        return [block.options["title"]]
    changes = list(hunks(block.text)) if block.language == "diff" else []
    for hunk in changes:
        (root / hunk.file).write_text(changed((root / hunk.file).read_text(), hunk))
    return [hunk.file for hunk in changes]


def _problems(root: Path) -> set[str]:
    """What the rules of the architecture have to say to a tree, wherever in a file it is."""
    tree = read_tree(root)
    return {re.sub(r":\d+", "", problem) for check in CHECKS for problem in check(tree)}
