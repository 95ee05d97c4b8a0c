"""Ctrl-C and SIGTERM during a build: held back while TensorRT runs, then delivered.

Python runs a signal's handler at the next line of Python, and during a build that is a line of a callback. What the
handler raises there, TensorRT's bindings print and swallow, and the build goes on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Pending", "held_signals"]

HELD = (signal.SIGINT, signal.SIGTERM)


class Pending:
    """The first signal that came, if any."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def hold(self, number: int, _frame: FrameType | None) -> None:
        """A signal handler that only takes note."""
        if self.signal is None:
            self.signal = number


@contextmanager
def held_signals() -> Iterator[Pending]:
    """Hold signals back within the block; afterwards their own handlers run. Without effect outside the main thread."""
    pending = Pending()
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return
    before = {number: signal.signal(number, pending.hold) for number in HELD}
    try:
        yield pending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    if pending.signal is not None:
        signal.raise_signal(pending.signal)
