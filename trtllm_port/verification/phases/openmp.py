"""Threads of OpenMP, which computes for torch: every thread of Python that computes gets workers of its own.

Where there are more workers than cores, those of a thread that computes sleep between two operations, and to wake them
takes longer than most operations. So a thread that is about to wait for another ends its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

from trtllm_port.verification.sides.mapped_weights import MAPS

OMP_PAUSE_SOFT = 1  # OpenMP 5.0, 3.6: what was set stays
RUNTIMES = ("libgomp", "libomp", "libiomp")


def end_own_workers() -> None:
    """End the workers of the calling thread; they are there again when it computes the next time."""
    for pause in _pauses():
        pause(OMP_PAUSE_SOFT)


@cache
def _pauses() -> tuple[Callable[[int], int], ...]:
    """OpenMP's function in every library of it that this process has loaded, where it has one."""
    paths = {line.split()[-1] for line in MAPS.read_text().splitlines()} if MAPS.is_file() else set()
    loaded = [ctypes.CDLL(path) for path in sorted(paths) if Path(path).name.startswith(RUNTIMES)]
    return tuple(library.omp_pause_resource_all for library in loaded if hasattr(library, "omp_pause_resource_all"))
