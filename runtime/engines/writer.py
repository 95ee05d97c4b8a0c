"""The serialized engine straight into a file: another copy of all weights need not fit into memory."""

from __future__ import annotations

from types import ModuleType
from typing import Any, BinaryIO

__all__ = ["stream_writer"]


def stream_writer(trt: ModuleType, file: BinaryIO) -> Any:
    """An `IStreamWriter` over an open file.

    Its `error` is what writing raised, a full disk say: no exception may cross into TensorRT, so the writer tells it
    that nothing was written, and the caller raises `error` when the build has returned.
    """

    class Writer(trt.IStreamWriter):  # type: ignore[misc, name-defined]  # no stubs
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.error: BaseException | None = None

        def write(self, data: bytes) -> int:
            try:
                return file.write(data)
            except BaseException as error:
                self.error = error
                return 0

    return Writer()
