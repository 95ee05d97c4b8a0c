"""Every module can be the first of ours that a program imports.

No circle of imports that a file writes down is not enough for that: importing a module runs the `__init__` of every
package around it, and `trtllm_port.layers` imports all of its rooms.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from architecture_rules import HEAVY
from architecture_tree import read_tree

ROOT = Path(__file__).parents[2]
FORKED = """
import importlib, importlib.util, os, sys, traceback
for library in sys.argv[1].split():  # once for all, as they take seconds
    if importlib.util.find_spec(library) is not None:
        importlib.import_module(library)
for name in sys.argv[2].split():
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            print(f"{name}: {traceback.format_exc()}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def refused(names: str, libraries: str = "") -> str:
    """What importing each of these first raises."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED, libraries, names]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_every_module_can_be_imported_first() -> None:
    problems = refused(" ".join(read_tree(ROOT).modules), " ".join(HEAVY))
    if problems:
        pytest.fail(problems, pytrace=False)


def test_what_only_works_after_another_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "knot"
    package.mkdir()
    (package / "__init__.py").write_text("from knot.late import y\n")
    (package / "early.py").write_text("x = 1\n")
    (package / "late.py").write_text("from knot.early import x\ny = 1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert not refused("knot knot.early knot.late")
    (package / "early.py").write_text("from knot.late import y\nx = 1\n")
    assert "knot.early: Traceback" in refused("knot.early")
