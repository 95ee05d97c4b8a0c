"""A Hugging Face directory's tensors, read with ordinary reads instead of a memory map.

A mapped page counts as the process's memory once it was touched: a map of the weights would look like the whole model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from trtllm_port.conversion.pipeline import BufferPool, DigestingReader, Piece
from trtllm_port.layers.quantization import QuantizationScheme, QuantizedSource, QuantizedWeight
from trtllm_port.layers.weights import HuggingFaceWeights


class StreamedWeights:
    """A `TensorSource` over `HuggingFaceWeights`' checked files that also yields a tensor's bytes in pieces.

    Attributes:
        left_out: tensors that belong to no weight: none.
        excluded: modules that were left as they are when others were quantized.
        keeps: whether quantized weights are to stay so where they can.

    Raises:
        CheckpointError: as `HuggingFaceWeights`.
    """

    left_out: tuple[str, ...] = ()
    excluded: Sequence[str] = ()
    keeps = False

    def __init__(self, hf_model_dir: Path) -> None:
        self.directory = hf_model_dir
        self._weights = HuggingFaceWeights(hf_model_dir)
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
        file, start, stop = self._weights.place(name)
        data = torch.empty(stop - start, dtype=torch.uint8)
        view: Any = data.numpy()
        self._readers[file].read_into(memoryview(view), start)
        dtype: torch.dtype = getattr(torch, self._weights.dtype(name))
        return data.view(dtype).reshape(self.shape(name))

    def is_quantized(self, name: str) -> bool:
        """Whether a tensor is quantized: none is."""
        return False

    def quantized(self, name: str) -> QuantizedWeight | None:
        """A weight's codes and scales: there are none."""
        return None

    def pieces(self, name: str) -> Iterator[Piece]:
        """Yield the tensor's bytes, in pieces that hold whole elements and belong to the caller."""
        file, start, stop = self._weights.place(name)
        return self._readers[file].pieces(start, stop)

    def size(self, name: str) -> int:
        """Return the tensor's bytes."""
        _, start, stop = self._weights.place(name)
        return stop - start

    def digests(self) -> dict[str, str]:
        """Read what was not read yet, close the files, and return file name → digest."""
        return {name: reader.finish() for name, reader in self._readers.items()}

    def close(self) -> None:
        """Close the files; may be called twice."""
        for reader in self._readers.values():
            reader.close()


class QuantizedWeights(QuantizedSource):
    """As `StreamedWeights`, of the model that a quantized one was made from, by that one's names.

    Weights are dequantized in float32, one at a time, so that a cast to any type is their only rounding.

    Attributes:
        keeps: whether quantized weights are to stay so where they can.

    Raises:
        CheckpointError: as `QuantizedSource`.
    """

    excluded: Sequence[str] = ()

    def __init__(self, stored: StreamedWeights, scheme: QuantizationScheme, *, keeps: bool) -> None:
        super().__init__(stored, scheme, "float32")
        self.check_values()
        self.keeps = keeps
        self.directory, self.digests, self.close = stored.directory, stored.digests, stored.close
        self._stored = stored

    def pieces(self, name: str) -> Iterator[Piece]:
        """Yield the tensor's bytes: of a dequantized one all at once."""
        return whole(self.tensor(name)) if self.is_quantized(name) else self._stored.pieces(name)

    def size(self, name: str) -> int:
        """Return the tensor's bytes."""
        if self.is_quantized(name):
            return math.prod(self.shape(name)) * torch.float32.itemsize
        return self._stored.size(name)


def whole(tensor: torch.Tensor) -> Iterator[Piece]:
    """Yield all of a tensor's bytes at once."""
    data: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    yield Piece(memoryview(data))


Source = StreamedWeights | QuantizedWeights
