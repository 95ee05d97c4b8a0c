"""Running a command as a whole process: wall-clock seconds and peak memory of the process and its children."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Cost:
    """What one run of a command took."""

    seconds: float
    peak_bytes: int  # resident memory: mapped files, which the system can take back at any time, count in it
    anonymous_bytes: int = 0  # the process's own memory, without mapped files; sampled, so short peaks are missed


def measure(command: Sequence[str | Path], *, cwd: Path | None = None) -> Cost:
    """Run `command` to its end; a failure shows its output and ends the benchmark."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        peaks = [0]
        watcher = threading.Thread(target=_watch, args=(process.pid, peaks), daemon=True)
        watcher.start()
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {process.returncode}:\n{output[-4000:]}")
    return Cost(seconds, usage.ru_maxrss * 1024, peaks[0])


def _watch(pid: int, peaks: list[int]) -> None:
    """Note the largest `RssAnon` of a process until it ends."""
    status = Path(f"/proc/{pid}/status")
    while True:
        try:
            lines = status.read_text().splitlines()
        except OSError:
            return
        found = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
        if not found:
            return
        peaks[0] = max(peaks[0], int(found[0]) * 1024)
        time.sleep(SAMPLE_SECONDS)


def median_of(command: Sequence[str | Path], times: int, *, cwd: Path | None = None) -> Cost:
    """The median seconds and the largest peak of `times` runs."""
    costs = [measure(command, cwd=cwd) for _ in range(times)]
    return Cost(statistics.median(cost.seconds for cost in costs), max(cost.peak_bytes for cost in costs))
