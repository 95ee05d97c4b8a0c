"""Weights that stay on disk: memory-mapped, read when they are needed, and given back to the system afterwards.

Pages of a mapped file count as the process's memory until they are given back; what was given back is read again from
the file, or from the system's cache of it.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from trtllm_port.layers.weights import TensorSource

MADV_DONTNEED = 4  # Linux
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc
MAPS = Path("/proc/self/maps")  # address range, permissions, offset, device, inode (0: no file), path
LARGE_BLOCK = 4 << 20
FREE_HEAP = 64 << 20
LARGEST_KEPT = 32 << 20  # bytes of a block; glibc takes no larger number
MOST_KEPT = 512 << 20  # free bytes at the end of the heap
CHUNK_BYTES = 64 << 20  # read at once where a tensor is cast


def checkpoint_bytes(model_dir: Path) -> int:
    """Return the size of a model's safetensors files; 0 if there are none."""
    return sum(path.stat().st_size for path in model_dir.glob("*.safetensors"))


def return_freed_memory() -> None:
    """Have the allocator of this process return what is freed, blocks of `LARGE_BLOCK` bytes at once.

    By itself it serves blocks of up to 32 MiB from its heap once some were freed, and small objects that live on
    between them keep it from shrinking.
    """
    _set_limits(LARGE_BLOCK, FREE_HEAP)


def keep_freed_memory() -> None:
    """Have the allocator of this process keep what is freed for the next block of its size.

    Where layer follows layer, one frees hundreds of megabytes that the next one needs again, and memory that is new to
    a process costs more time than most operations on it: of an 8-billion-parameter Llama, a sixth of all.
    """
    _set_limits(LARGEST_KEPT, MOST_KEPT)


def _set_limits(block: int, free: int) -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, 1)  # for all threads: of a comparison's, only one computes at a time
        libc.mallopt(M_MMAP_THRESHOLD, block)
        libc.mallopt(M_TRIM_THRESHOLD, free)
        libc.malloc_trim(0)


def give_back(tensors: Iterable[Tensor]) -> None:
    """Tell the system that the mapped files behind these tensors are not needed in memory now.

    Tensors that lie in no mapped file, such as experts' weights that were stacked, stay: their memory would be zero
    afterwards.

    Args:
        tensors: nobody writes into them.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "madvise") or not MAPS.is_file():
        return
    ranges = {(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) for t in tensors}
    files = _mapped_files()
    for start, size in ranges:
        place = bisect_right(files, (start, math.inf)) - 1
        if place >= 0 and start + size <= files[place][1]:
            aligned = start - start % mmap.PAGESIZE
            libc.madvise(ctypes.c_void_p(aligned), ctypes.c_size_t(size + start - aligned), MADV_DONTNEED)


def _mapped_files() -> list[tuple[int, float]]:
    """Where files are mapped in this process, in order: (first address, address behind the last)."""
    lines = (line.split() for line in MAPS.read_text().splitlines())
    ranges = (fields[0].split("-") for fields in lines if fields[4] != "0")
    return sorted((int(start, 16), int(stop, 16)) for start, stop in ranges)


class MappedCheckpoint:
    """Tensors that are looked at one after another.

    Args:
        source: where they are; those of a directory are mapped.
    """

    def __init__(self, source: TensorSource) -> None:
        self.source = source
        self._handed_out: dict[int, Tensor] = {}  # one per file

    def stored(self, name: str) -> Tensor:
        """Return a tensor as it is stored."""
        tensor = self.source.tensor(name)
        self._handed_out[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """Return a tensor: mapped where it has the dtype already, else cast piece by piece."""
        mapped = self.stored(name)
        if mapped.dtype == dtype:
            return mapped
        cast = torch.empty(mapped.shape, dtype=dtype)
        rows = max(1, CHUNK_BYTES // max(1, mapped[:1].nbytes)) if mapped.ndim else 1
        for start in range(0, len(mapped) if mapped.ndim else 1, rows):
            part = slice(start, start + rows) if mapped.ndim else ...
            cast[part] = mapped[part]
            give_back([mapped])
        return cast

    def release(self) -> None:
        """Give back what was read so far."""
        give_back(self._handed_out.values())
