"""Writes a planned conversion: every tensor goes through a check and a cast into each rank's file.

What was written is read again and compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from trtllm_port.conversion.finite import FiniteCheck
from trtllm_port.conversion.kept_weights import KeptWeights
from trtllm_port.conversion.pipeline import Piece, WriterThread
from trtllm_port.conversion.safetensors_writer import SafetensorsWriter
from trtllm_port.conversion.source import Source
from trtllm_port.conversion.written import IntendedFile, check_written
from trtllm_port.foundation.progress import Progress
from trtllm_port.layers.definition.dtypes import torch_dtype
from trtllm_port.layers.weights import WeightEntry, WeightPlan


def ordered_entries(plan: WeightPlan, kept: KeptWeights) -> list[WeightEntry]:
    """Return the plan's entries in the source's order, those with larger elements first: the file stays aligned."""
    return sorted(
        plan.entries,
        key=lambda entry: (
            kept.keeps(entry),
            -max(torch_dtype(plan.specs[name].dtype).itemsize for name in entry.targets),
        ),
    )


def write_ranks(
    plan: WeightPlan,
    source: Source,
    kept: KeptWeights,
    directory: Path,
    *,
    ranks: int,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Write `rank{r}.safetensors` for every rank in one pass over the source.

    Args:
        plan: the conversion.
        source: the weights.
        kept: which of the parameters stay quantized.
        directory: where to write.
        ranks: how many.
        progress: called with ("convert", bytes done, bytes in all).

    Returns:
        File name → digest.

    Raises:
        CheckpointError: a weight is not finite, or a file does not hold what was converted; all of them are named.
    """
    entries = ordered_entries(plan, kept)
    headers = [header for entry in entries for header in kept.headers(entry)]
    total = sum(source.size(name) for entry in entries for name in entry.sources)
    done = 0
    with ExitStack() as stack:
        stack.enter_context(_one_thread())
        paths = [directory / f"rank{rank}.safetensors" for rank in range(ranks)]
        writers = [stack.enter_context(SafetensorsWriter(path, headers, {"format": "pt"})) for path in paths]
        files = _RankFiles(plan, source, kept, writers, stack.enter_context(WriterThread()))
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
        self,
        plan: WeightPlan,
        source: Source,
        kept: KeptWeights,
        writers: Sequence[SafetensorsWriter],
        thread: WriterThread,
    ) -> None:
        self.check = FiniteCheck()
        self.intended = [IntendedFile(writer.header) for writer in writers]
        self._plan = plan
        self._source = source
        self._kept = kept
        self._writers = writers
        self._thread = thread

    def write(self, entry: WeightEntry) -> None:
        """Write what one step of the plan makes."""
        end_to_end = entry.end_to_end
        if self._kept.keeps(entry):
            for rank in range(len(self._writers)):
                self._put(rank, self._kept.tensors(entry, rank))
        elif end_to_end is not None and self._plan.specs[entry.targets[0]].shard is None:
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
        for rank in range(len(self._writers)):
            tensors = self._plan.load(entry, self._source, rank)
            for tensor in tensors.values():
                self.check.look(entry.sources[0], tensor, tensor)
            self._put(rank, tensors)

    def _put(self, rank: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Hand one rank's tensors to the thread that writes."""
        for name, tensor in tensors.items():
            piece = Piece(_bytes(tensor))
            self.intended[rank].add(piece.data)
            self.intended[rank].mark(f"`{name}`")
            self._thread.put([self._writers[rank]], piece)


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
