"""Taps that do not fit in memory: a mapping whose tensors lie in a temporary file each, and are read when asked for."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

RECENT = 8


class TapStore(MutableMapping[str, Tensor]):
    """Tensors by name, on disk.

    Reading gives a new tensor every time. `like` has their shapes and dtypes without reading. A tensor that comes
    several times in a row, as one module's output and the next one's input, is written once.
    """

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="trtllm-port-taps-"))
        weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        self.like: dict[str, Tensor] = {}
        self._files: dict[str, Path] = {}
        self._recent: deque[tuple[Tensor, int, Path]] = deque(maxlen=RECENT)

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        version = tensor._version
        known = (path for same, when, path in self._recent if same is tensor and when == version)
        path = next(known, None) or self._write(tensor)
        self._recent.append((tensor, version, path))
        self._files[name] = path
        self.like[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    def _write(self, tensor: Tensor) -> Path:
        path = self._directory / str(len(self._files))
        tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tofile(path)
        return path

    def __getitem__(self, name: str) -> Tensor:
        like = self.like[name]
        data = torch.from_numpy(np.fromfile(self._files[name], dtype=np.uint8))
        return data.view(like.dtype).view(like.shape)

    def __delitem__(self, name: str) -> None:
        del self._files[name], self.like[name]

    def __contains__(self, name: object) -> bool:
        return name in self.like

    def __iter__(self) -> Iterator[str]:
        return iter(self.like)

    def __len__(self) -> int:
        return len(self.like)
