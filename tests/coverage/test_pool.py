"""A process that hangs, swells, dies or fails is told; the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage_pool import Limits, run_all
from pool_tasks import work


def _problems(names: list[str], results: Path, limits: Limits) -> dict[str, str | None]:
    return {item.name: item.problem for item in run_all(work, names, results, jobs=2, limits=limits)}


@pytest.mark.slow
def test_time(tmp_path: Path) -> None:
    names = ["hangs", "works hard", "dies", "fails", "works"]
    assert _problems(names, tmp_path, Limits(seconds=4)) == {
        "hangs": "stopped after 40 s",
        "works hard": "stopped after 4 s of processor time",
        "dies": "the process ended with signal 9",
        "fails": "the process ended with code 1",
        "works": None,
    }
    assert (tmp_path / "works.json").read_text() == "works"
    assert (tmp_path / "works.log").read_text() == "a library writes this\n"
    assert "what a pity" in (tmp_path / "fails.log").read_text()


@pytest.mark.slow
def test_memory(tmp_path: Path) -> None:
    """To fill memory takes a slow machine longer than the other test gives."""
    assert _problems(["swells", "works"], tmp_path, Limits(memory=2e9)) == {
        "swells": "stopped at 2.0 GB of memory",
        "works": None,
    }
