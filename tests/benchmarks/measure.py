"""Running a command as a whole process: wall-clock seconds and peak memory of the process and its children."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What one run of a command took."""

    seconds: float
    peak_bytes: int


def measure(command: Sequence[str | Path], *, cwd: Path | None = None) -> Cost:
    """Run `command` to its end; a failure shows its output and ends the benchmark."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {process.returncode}:\n{output[-4000:]}")
    return Cost(seconds, usage.ru_maxrss * 1024)


def median_of(command: Sequence[str | Path], times: int, *, cwd: Path | None = None) -> Cost:
    """The median seconds and the largest peak of `times` runs."""
    costs = [measure(command, cwd=cwd) for _ in range(times)]
    return Cost(statistics.median(cost.seconds for cost in costs), max(cost.peak_bytes for cost in costs))
