"""Taps that do not fit in memory: a mapping whose tensors lie in a temporary file each, and are read when asked for."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from trtllm_port.foundation.claims import scratch

RECENT = 8


class TapStore(MutableMapping[str, Tensor]):
    """Tensors by name, on disk.

    Reading maps the file and copies nothing; nobody may write into what it gives. `like` has shapes and dtypes without
    reading. A tensor that comes several times in a row, as one module's output and the next one's input, is written
    once, and read as one tensor, too, if it is asked for several times in a row.
    """

    def __init__(self) -> None:
        with ExitStack() as stack:
            self._directory = stack.enter_context(scratch())
            weakref.finalize(self, stack.pop_all().close)
        self.like: dict[str, Tensor] = {}
        self._files: dict[str, Path] = {}
        self._recent: deque[tuple[Tensor, int, Path]] = deque(maxlen=RECENT)
        self._mapped: deque[tuple[Path, Tensor]] = deque(maxlen=RECENT)

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
        like, path = self.like[name], self._files[name]
        mapped = next((tensor for file, tensor in self._mapped if file == path), None)
        if mapped is None:
            size = like.numel() * like.element_size()
            mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8) if size else torch.empty(0)
            self._mapped.append((path, mapped))
        return mapped.view(like.dtype).view(like.shape)

    def __delitem__(self, name: str) -> None:
        del self._files[name], self.like[name]

    def __contains__(self, name: object) -> bool:
        return name in self.like

    def __iter__(self) -> Iterator[str]:
        return iter(self.like)

    def __len__(self) -> int:
        return len(self.like)
