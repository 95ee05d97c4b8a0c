"""Processes side by side, each with a limit of time and of memory; one that breaks a limit or dies is told, not lost.

A fork server that has loaded the large libraries once starts them: a process begins after milliseconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

PRELOADED = (
    *("trtllm_port.codegen", "trtllm_port.porting.create", "trtllm_port.verification", "trtllm_port.building"),
    *("trtllm_port.conversion", "trtllm_port.runtime.session", "cookiecutter.main"),
    *("transformers.models.llama.modeling_llama", "transformers.processing_utils"),
)
POLL_SECONDS = 0.2
CLOCK = 10  # seconds on the clock for each second of processor time: others may share the cores
GB = 1e9

Work = Callable[[str, str, str], None]
"""Called in a process with the name of the task, an empty directory, and the path of the file to write."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a process may take: seconds of processor time (ten times as many on the clock), bytes of memory."""

    seconds: float = 600.0
    memory: float = 12 * GB


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that is over: it has written its file, or `problem` says why not."""

    name: str
    seconds: float
    problem: str | None


@dataclass
class _Running:
    name: str
    process: BaseProcess
    directory: tempfile.TemporaryDirectory[str]
    began: float

    def problem(self, limits: Limits) -> str | None:
        """Which limit is broken."""
        if time.monotonic() - self.began > CLOCK * limits.seconds:
            return f"stopped after {CLOCK * limits.seconds:.0f} s"
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.process.pid)
            times = process.cpu_times()
            if times.user + times.system > limits.seconds:
                return f"stopped after {limits.seconds:.0f} s of processor time"
            if process.memory_info().rss > limits.memory:
                return f"stopped at {limits.memory / GB:.1f} GB of memory"
        return None

    def end(self, problem: str | None) -> Ended:
        """Stop the process if it runs, and clear up."""
        self.process.kill()
        self.process.join()
        self.directory.cleanup()
        code = self.process.exitcode
        if problem is None and code != 0:
            problem = f"the process ended with {'signal' if (code or 0) < 0 else 'code'} {abs(code or 0)}"
        return Ended(name=self.name, seconds=round(time.monotonic() - self.began, 1), problem=problem)


def run_all(work: Work, names: Sequence[str], results: Path, *, jobs: int, limits: Limits) -> Iterator[Ended]:
    """Run `work` once for every name, `jobs` at a time; yields each when it ends.

    A process writes `results/NAME.json`; what it prints is in `results/NAME.log`.
    """
    context = _context()
    waiting, running = list(names), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(context, work, waiting.pop(0), results))
            time.sleep(POLL_SECONDS)
            for item in list(running):
                problem = item.problem(limits)
                if problem is not None or not item.process.is_alive():
                    running.remove(item)
                    yield item.end(problem if item.process.is_alive() else None)
    finally:
        for item in running:
            item.end("interrupted")


def _context() -> multiprocessing.context.ForkServerContext:
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes share the cores
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _start(context: multiprocessing.context.ForkServerContext, work: Work, name: str, results: Path) -> _Running:
    directory = tempfile.TemporaryDirectory(prefix="trtllm-port-coverage-")
    files = (str(results / f"{name}.json"), str(results / f"{name}.log"))
    process = context.Process(target=_logged, args=(work, name, directory.name, *files), daemon=True)
    process.start()
    return _Running(name, process, directory, time.monotonic())


def _logged(work: Work, name: str, directory: str, result: str, log: str) -> None:
    """Run the work with standard output and error, those of libraries in C++ too, in a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    work(name, directory, result)
