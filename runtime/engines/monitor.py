"""TensorRT's progress as calls of our progress callback, and a signal as an end of the build.

TensorRT reports nested phases of a few steps each, from any of its threads. Users see the outermost phase.
"""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

from trtllm_port.foundation.progress import Progress
from trtllm_port.runtime.engines.signals import Pending

PHASE = "compile"


def progress_monitor(trt: ModuleType, progress: Progress | None, pending: Pending) -> Any:
    """An `IProgressMonitor`; a pending signal ends the build at its next step.

    Its `error` is what a callback raised: no exception may cross into TensorRT, so the monitor asks for the build's end
    instead, and the caller raises `error` when the build has returned.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]  # no stubs
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._lock = threading.Lock()
            self._outermost: str | None = None
            self._steps = 1

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            with self._lock:
                if parent is None:
                    self._outermost, self._steps = name, max(steps, 1)
                    self._report(0)

        def step_complete(self, name: str, step: int) -> bool:
            with self._lock:
                if name == self._outermost:
                    self._report(step + 1)
                return self.error is None and pending.signal is None

        def phase_finish(self, name: str) -> None:
            with self._lock:
                if name == self._outermost:
                    self._report(self._steps)

        def _report(self, done: int) -> None:
            try:
                if progress is not None and self.error is None:
                    progress(PHASE, done, self._steps)
            except BaseException as error:
                self.error = error

    return Monitor()
