"""A process that hangs, swells, dies or fails is told; the others go on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from coverage_pool import Ended, Limits, run_all


def _work(name: str, directory: str, result: str) -> None:
    assert list(Path(directory).iterdir()) == []
    if name == "hangs":
        time.sleep(600)
    if name == "works hard":
        while True:
            pass
    if name == "swells":
        kept = bytearray(os.urandom(1)) * 3_000_000_000
        time.sleep(600)
        del kept
    if name == "dies":
        os.kill(os.getpid(), 9)
    if name == "fails":
        raise RuntimeError("what a pity")
    os.write(2, b"a library writes this\n")
    Path(result).write_text(name)


@pytest.mark.slow
def test_limits(tmp_path: Path) -> None:
    names = ["hangs", "works hard", "swells", "dies", "fails", "works"]
    limits = Limits(seconds=4, memory=2e9)
    ended: dict[str, Ended] = {item.name: item for item in run_all(_work, names, tmp_path, jobs=2, limits=limits)}
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
