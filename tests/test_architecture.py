"""The rules of the code base that a linter does not know, held: which room may import which, and how long things get.

The rules are data, in `tests/architecture/architecture_rules.py`. That each of these tests can fail is tested in
`tests/architecture/test_bites.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "architecture"))  # the folder is no package

import architecture_checks as checks  # noqa: E402  (the path must be known first)
import architecture_rules as rules  # noqa: E402
from architecture_tree import LINKED, SourceTree, read_tree  # noqa: E402


@pytest.fixture(scope="module")
def tree() -> SourceTree:
    return read_tree(ROOT)


def test_the_sources_are_found(tree: SourceTree) -> None:
    """A tree that is read in part would pass every test below."""
    named = {"trtllm_port.errors", "trtllm_port.layers", "trtllm_port.runtime", "trtllm_port.cli.app"}
    assert named <= tree.modules.keys()
    assert len(tree.modules) > 300
    assert sum(len(arrows) for arrows in tree.arrows.values()) > 1000


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_there_are_no(check: Callable[[SourceTree], list[str]], tree: SourceTree) -> None:
    problems = check(tree)
    if problems:
        pytest.fail("\n".join(sorted(problems)), pytrace=False)


def test_the_rules_are_of_rooms_that_there_are() -> None:
    assert len(set(rules.ORDER)) == len(rules.ORDER)
    for bar in rules.BARS:
        for pattern in (*bar.rooms, *bar.unknown):
            assert any(rules.matches(room, (pattern,)) for room in rules.ORDER), pattern
    composed = {stage for stages in rules.COMPOSERS.values() for stage in stages}
    assert {*rules.STAGES, *rules.COMPOSERS, *rules.HOMES.values(), *rules.OTHER_ROOM.values()} <= set(rules.ORDER)
    assert composed <= set(rules.STAGES)


def test_every_bar_says_more_than_the_order() -> None:
    """A bar of rooms that stand later, or that another bar holds apart, says what is said already."""
    for bar in rules.BARS:
        for pattern in bar.unknown:
            pairs = (
                (room, other)
                for room in rules.ORDER
                for other in rules.ORDER[: rules.ORDER.index(room)]
                if rules.matches(room, bar.rooms) and rules.matches(other, (pattern,))
            )
            assert any(rules.objection(*pair) == bar.why for pair in pairs), (bar, pattern)


def test_what_is_composed_is_imported(tree: SourceTree) -> None:
    """A room that composes stages no longer is taken out."""
    for room, stages in rules.COMPOSERS.items():
        imported = {rules.stage_of(other) for other in tree.room_arrows[room]}
        assert set(stages) <= imported, room


def test_exemptions_are_needed(tree: SourceTree) -> None:
    """An exemption for what no longer exists is removed."""
    names = {name for module in tree.modules.values() for name, _ in checks.functions(module)}
    assert set(rules.LONG_FILES) <= {module.file for module in tree.modules.values()}
    assert {*rules.LONG_FUNCTIONS, *rules.MANY_PARAMETERS} <= names


def test_the_linked_packages_are_the_top_level_folders() -> None:
    for name in LINKED:
        link = ROOT / "trtllm_port" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name
