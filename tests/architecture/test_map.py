"""The page of the architecture is what `make map` writes, and its picture is of what there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from architecture_map import page, picture, reduced
from architecture_rules import ORDER
from architecture_tree import SourceTree, read_tree

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tree() -> SourceTree:
    return read_tree(ROOT)


def test_the_page_is_up_to_date(tree: SourceTree) -> None:
    written = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    if written != page(tree):
        pytest.fail(
            "docs/architecture.md is not what `make map` writes: run it, and read the difference", pytrace=False
        )


def test_the_page_shows_every_room_and_every_file(tree: SourceTree) -> None:
    written = page(tree)
    for number, room in enumerate(ORDER, 1):
        assert f"| {number} | [{room or 'the root'}]" in written
    described = {tree.describes(room) for room in tree.rooms}
    for module in tree.modules.values():
        assert module in described or f"](../{module.file})" in written
        assert (ROOT / "docs" / ".." / module.file).is_file()


def test_arrows_that_follow_from_others_are_left_out() -> None:
    arrows = {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"c", "a"}}
    assert reduced(arrows) == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"c"}}


def test_an_arrow_against_the_order_is_drawn() -> None:
    """Whoever draws a tree that is wrong sees where."""
    arrows = {"a": {"c"}, "b": {"a"}, "c": {"a", "b"}}
    assert reduced(arrows) == {"a": {"c"}, "b": {"a"}, "c": {"b"}}
    assert "    a --> c\n" in picture(arrows)
