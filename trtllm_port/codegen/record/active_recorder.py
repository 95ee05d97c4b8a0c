"""The recorder that hooks report to while a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trtllm_port.codegen.ir.record import Recorder

_active: list[Recorder] = []


def active_recorder() -> Recorder | None:
    """The recorder of the forward pass that is running, if one records."""
    return _active[-1] if _active and _active[-1].is_recording else None


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """`recorder` as the one that the hooks report to."""
    _active.append(recorder)
    try:
        yield
    finally:
        _active.remove(recorder)
