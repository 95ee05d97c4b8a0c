"""A Hugging Face directory's tensors, read with ordinary reads instead of a memory map.

A mapped page counts as the process's memory once it was touched: a map of the weights would look like the whole model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trtllm_port.conversion.pipeline import BufferPool, DigestingReader, Piece
from trtllm_port.conversion.safetensors_writer import ITEM_SIZES
from trtllm_port.errors import CheckpointError
from trtllm_port.layers.weights import HuggingFaceWeights


@dataclass(frozen=True)
class _Region:
    file: str
    start: int
    stop: int


class StreamedWeights:
    """A `TensorSource` over `HuggingFaceWeights`' checked files that also yields a tensor's bytes in pieces.

    Raises:
        CheckpointError: as `HuggingFaceWeights`, or a header that contradicts itself.
    """

    def __init__(self, hf_model_dir: Path) -> None:
        self.directory = hf_model_dir
        self._weights = HuggingFaceWeights(hf_model_dir)
        self._regions = {name: region for path in self._weights.files for name, region in _regions(path)}
        pool = BufferPool()
        self._readers = {path.name: DigestingReader(path, pool) for path in self._weights.files}

    def names(self) -> Sequence[str]:
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._weights.shape(name)

    def dtype(self, name: str) -> str:
        return self._weights.dtype(name)

    def tensor(self, name: str) -> torch.Tensor:
        """Return the whole tensor, in memory of its own."""
        region = self._regions[name]
        data = torch.empty(region.stop - region.start, dtype=torch.uint8)
        view: Any = data.numpy()
        self._readers[region.file].read_into(memoryview(view), region.start)
        dtype: torch.dtype = getattr(torch, self.dtype(name))
        return data.view(dtype).reshape(self.shape(name))

    def pieces(self, name: str) -> Iterator[Piece]:
        """Yield the tensor's bytes, in pieces that hold whole elements and belong to the caller."""
        region = self._regions[name]
        return self._readers[region.file].pieces(region.start, region.stop)

    def size(self, name: str) -> int:
        """Return the tensor's bytes."""
        return self._regions[name].stop - self._regions[name].start

    def digests(self) -> dict[str, str]:
        """Read what was not read yet, close the files, and return file name → digest."""
        return {name: reader.finish() for name, reader in self._readers.items()}

    def close(self) -> None:
        """Close the files; may be called twice."""
        for reader in self._readers.values():
            reader.close()


def _regions(path: Path) -> Iterator[tuple[str, _Region]]:
    """Where each tensor's bytes are.

    Raises:
        CheckpointError: the header's places overlap, leave gaps, or do not fit the shapes.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    position = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        item_size = ITEM_SIZES.get(entry["dtype"])  # of other types nothing is read: the plan refuses them
        if start != position or (item_size is not None and stop - start != math.prod(entry["shape"]) * item_size):
            raise CheckpointError(
                f"`{path}` is damaged: `{name}` of shape {tuple(entry['shape'])} has bytes {start} to {stop}",
                hint="fetch the file again",
            )
        position = stop
        yield name, _Region(path.name, 8 + length + start, 8 + length + stop)
