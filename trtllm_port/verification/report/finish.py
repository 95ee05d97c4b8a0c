"""The end of every report: what can only be said last, and the files."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from trtllm_port.verification.report.advice import next_steps
from trtllm_port.verification.report.files import write_report
from trtllm_port.verification.report.report import Report


def finish(report: Report, started: float, report_dir: Path | None) -> Report:
    """Add the time since `started` and the next steps, and write the report if it is to be written.

    Raises:
        DiskSpaceError: the disk is full.
    """
    report = replace(report, seconds=time.perf_counter() - started, next_steps=next_steps(report))
    return report if report_dir is None else write_report(report, report_dir)
