"""A process that hangs, swells, dies or fails is told; the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage_pool import Ended, Limits, run_all
from pool_tasks import work


@pytest.mark.slow
def test_limits(tmp_path: Path) -> None:
    names = ["hangs", "works hard", "swells", "dies", "fails", "works"]
    limits = Limits(seconds=4, memory=2e9)
    ended: dict[str, Ended] = {item.name: item for item in run_all(work, names, tmp_path, jobs=2, limits=limits)}
    assert {name: item.problem for name, item in ended.items()} == {
        "hangs": "stopped after 40 s",
        "works hard": "stopped after 4 s of processor time",
        "swells": "stopped at 2.0 GB of memory",
        "dies": "the process ended with signal 9",
        "fails": "the process ended with code 1",
        "works": None,
    }
    assert (tmp_path / "works.json").read_text() == "works"
    assert (tmp_path / "works.log").read_text() == "a library writes this\n"
    assert "what a pity" in (tmp_path / "fails.log").read_text()
