"""Writes a safetensors file from beginning to end: the header first, then every tensor's bytes as they come.

Format: https://huggingface.co/docs/safetensors/index#format (8 bytes length of the header, little-endian; JSON header,
padded with spaces; the tensors' bytes without gaps).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from trtllm_port.layers.weights.header import DTYPES

_LENGTH_BYTES = 8
_ALIGNMENT = 64  # of the first tensor, which the file is mapped at: matrix products are slower from odd addresses


@dataclass(frozen=True)
class TensorHeader:
    """One tensor of a file: its name, safetensors' name of its data type, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype][1]


class SafetensorsWriter:
    """Writes the tensors of a file one after another, in the order of `tensors`, in pieces of any size.

    Attributes:
        header: all bytes in front of the tensors'.

    Args:
        path: the file to make.
        tensors: all tensors that will be written. Those with larger elements must come first, which keeps all aligned.
        metadata: strings that go into the header.
    """

    def __init__(self, path: Path, tensors: Sequence[TensorHeader], metadata: Mapping[str, str]) -> None:
        self.path = path
        self.header = _header(tensors, metadata)
        self._left = sum(tensor.size for tensor in tensors)

    def write(self, data: memoryview) -> None:
        """Write the next bytes.

        Raises:
            ValueError: more bytes than announced.
            OSError: the disk is full.
        """
        self._left -= data.nbytes
        if self._left < 0:
            raise ValueError(f"{-self._left} bytes more than announced for `{self.path}`")
        _write_all(self._file.fileno(), data)

    def __enter__(self) -> SafetensorsWriter:
        self._file = self.path.open("xb", buffering=0)
        try:
            # all blocks at once: a full disk shows before any work, and the writes themselves are twice as fast
            os.posix_fallocate(self._file.fileno(), 0, len(self.header) + self._left)
            _write_all(self._file.fileno(), memoryview(self.header))
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None and self._left:
            raise ValueError(f"{self._left} bytes fewer than announced for `{self.path}`")


def _header(tensors: Sequence[TensorHeader], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _write_all(descriptor: int, data: memoryview) -> None:
    data = data.cast("B")
    while data.nbytes:
        data = data[os.write(descriptor, data) :]
