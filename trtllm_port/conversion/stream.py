"""Writes a planned conversion: every tensor goes through a check and a cast into each rank's file.

What was written is read again and compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from trtllm_port.conversion.finite import FiniteCheck
from trtllm_port.conversion.pipeline import Piece, WriterThread
from trtllm_port.conversion.safetensors_writer import SafetensorsWriter, TensorHeader
from trtllm_port.conversion.source import Source
from trtllm_port.conversion.written import IntendedFile, check_written
from trtllm_port.foundation.progress import Progress
from trtllm_port.layers.definition.dtypes import torch_dtype
from trtllm_port.layers.weights import WeightEntry, WeightPlan
from trtllm_port.layers.weights.header import DTYPES

SAFETENSORS_DTYPES = {name: code for code, (name, _size) in DTYPES.items()}


def rank_headers(plan: WeightPlan, entries: Sequence[WeightEntry]) -> list[TensorHeader]:
    """Return the tensors of a rank's file, in the order of the entries (every rank's shapes are alike)."""
    headers = []
    for name in (target for entry in entries for target in entry.targets):
        spec = plan.specs[name]
        shape = list(spec.shape)
        if spec.shard is not None:
            dim, parts = spec.shard
            shape[dim] //= parts
        headers.append(TensorHeader(name, SAFETENSORS_DTYPES[spec.dtype], tuple(shape)))
    return headers


def ordered_entries(plan: WeightPlan) -> list[WeightEntry]:
    """Return the plan's entries in the source's order, those with larger elements first: the file stays aligned."""
    return sorted(
        plan.entries, key=lambda entry: -max(torch_dtype(plan.specs[name].dtype).itemsize for name in entry.targets)
    )


def write_ranks(
    plan: WeightPlan, source: Source, directory: Path, *, ranks: int, progress: Progress | None = None
) -> dict[str, str]:
    """Write `rank{r}.safetensors` for every rank in one pass over the source.

    Returns:
        File name → digest.

    Raises:
        CheckpointError: a weight is not finite, or a file does not hold what was converted; all of them are named.
    """
    entries = ordered_entries(plan)
    headers = rank_headers(plan, entries)
    total = sum(source.size(name) for entry in entries for name in entry.sources)
    done = 0
    with ExitStack() as stack:
        stack.enter_context(_one_thread())
        paths = [directory / f"rank{rank}.safetensors" for rank in range(ranks)]
        writers = [stack.enter_context(SafetensorsWriter(path, headers, {"format": "pt"})) for path in paths]
        files = _RankFiles(plan, source, writers, stack.enter_context(WriterThread()))
        for entry in entries:
            files.write(entry)
            done += sum(source.size(name) for name in entry.sources)
            if progress is not None:
                progress("convert", done, total)
    files.check.report()
    check_written(dict(zip(paths, files.intended, strict=True)))
    return {path.name: intended.digest for path, intended in zip(paths, files.intended, strict=True)}


class _RankFiles:
    """All ranks' files while they are written.

    Attributes:
        check: of all values.
        intended: for each rank, what its file should hold in the end.
    """

    def __init__(
        self, plan: WeightPlan, source: Source, writers: Sequence[SafetensorsWriter], thread: WriterThread
    ) -> None:
        self.check = FiniteCheck()
        self.intended = [IntendedFile(writer.header) for writer in writers]
        self._plan = plan
        self._source = source
        self._writers = writers
        self._thread = thread

    def write(self, entry: WeightEntry) -> None:
        """Write what one step of the plan makes."""
        end_to_end = entry.end_to_end
        if end_to_end is not None and self._plan.specs[entry.targets[0]].shard is None:
            self._stream(end_to_end, entry.targets[0])
        else:
            self._transform(entry)

    def _stream(self, sources: Sequence[str], target: str) -> None:
        """Tensors whose bytes are the target's, piece by piece."""
        after = torch_dtype(self._plan.specs[target].dtype)
        for name in sources:
            before: torch.dtype = getattr(torch, self._source.dtype(name))
            for piece in self._source.pieces(name):
                read = torch.frombuffer(piece.data, dtype=before)
                cast = read.to(after)
                self.check.look(name, read, cast)
                if cast is not read:
                    piece.release()
                    piece = Piece(_bytes(cast))
                for intended in self.intended:
                    intended.add(piece.data)
                self._thread.put(self._writers, piece)
        for intended in self.intended:
            intended.mark(f"`{target}`")

    def _transform(self, entry: WeightEntry) -> None:
        """Tensors that are cut or computed: whole ones in memory, which nothing else uses."""
        for rank, (writer, intended) in enumerate(zip(self._writers, self.intended, strict=True)):
            for target, tensor in self._plan.load(entry, self._source, rank).items():
                self.check.look(entry.sources[0], tensor, tensor)
                piece = Piece(_bytes(tensor))
                intended.add(piece.data)
                intended.mark(f"`{target}`")
                self._thread.put([writer], piece)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The pieces are small: torch's threads would take the cores from the one that writes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _bytes(tensor: torch.Tensor) -> memoryview:
    data: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(data)
