"""Ports that are written into one workspace at the same time."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from toy_ports import write_toy

from trtllm_port.errors import WorkspaceError
from trtllm_port.porting import write
from trtllm_port.porting.registry_file import add_port
from trtllm_port.registry.manifest import edited_files
from trtllm_port.registry.ports import list_ports

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def start(run: Callable[[], object]) -> int:
    """Run in a child, which ends with 0, with 2 where it is refused, with 1 for anything else; returns its number."""
    child = os.fork()
    if child:
        return child
    try:
        run()
    except WorkspaceError:
        os._exit(2)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def codes(children: list[int]) -> list[int]:
    """What children end with."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.usefixtures("quick_templates")
def test_ports_that_are_written_at_the_same_time_are_all_there(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, letters = sandbox / "work", "ABCDEF"
    write_toy(workspace, "Z", 1)

    def slowly(*arguments: Any, **more: Any) -> str:
        text = add_port(*arguments, **more)
        time.sleep(0.05)  # between reading the registry and replacing it
        return text

    monkeypatch.setattr(write, "add_port", slowly)
    assert codes([start(partial(write_toy, workspace, letter, 1)) for letter in letters]) == [0] * len(letters)
    assert [port.architecture[0] for port in list_ports(workspace)] == [*letters, "Z"]
    assert not [path for path in workspace.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("quick_templates")
def test_of_two_that_write_the_same_port_one_is_refused(sandbox: Path) -> None:
    workspace = sandbox / "work"
    assert sorted(codes([start(partial(write_toy, workspace, "A", sizes)) for sizes in (1, 2, 3)])) == [0, 2, 2]
    assert [edited_files(port.package_dir) for port in list_ports(workspace)] == [[]]
