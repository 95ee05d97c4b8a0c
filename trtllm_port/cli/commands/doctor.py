"""`trtllm-port doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtllm_port.cli.terminal import console, options

if TYPE_CHECKING:
    from trtllm_port.doctor import DoctorReport

LACKS_SOMETHING = 3


def doctor(workspace: options.Workspace = Path("."), as_json: options.Json = False) -> int:
    """Show what this machine has of what the commands need."""
    from trtllm_port.doctor import examine

    report = examine(workspace)
    console.emit(report, render, as_json=as_json)
    return LACKS_SOMETHING if report.lacks else 0


def render(report: DoctorReport) -> None:
    """One line per check, and the way out under those that need one."""
    rows = [[check.name, check.status, check.found] for check in report.checks]
    console.table(["check", "status", "found"], rows)
    for check in report.checks:
        if check.hint:
            console.line(f"{check.name}: {check.hint}")
