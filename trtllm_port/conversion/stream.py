"""Writes a planned conversion: every tensor goes through a check and a cast into each rank's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from trtllm_port.conversion.finite import FiniteCheck
from trtllm_port.conversion.pipeline import WriterThread
from trtllm_port.conversion.safetensors_writer import SafetensorsWriter, TensorHeader
from trtllm_port.conversion.source import StreamedWeights
from trtllm_port.layers.dtypes import torch_dtype
from trtllm_port.layers.weights import WeightEntry, WeightPlan

SAFETENSORS_DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "bool": "BOOL",
}
Progress = Callable[[str, int, int], None]


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
    plan: WeightPlan, source: StreamedWeights, directory: Path, *, ranks: int, progress: Progress | None = None
) -> dict[str, str]:
    """Write `rank{r}.safetensors` for every rank in one pass over the source.

    Returns:
        File name → digest.

    Raises:
        CheckpointError: a weight is not finite; all of them are named.
    """
    entries = ordered_entries(plan)
    headers = rank_headers(plan, entries)
    check = FiniteCheck()
    total = sum(source.size(name) for entry in entries for name in entry.sources)
    done = 0
    with ExitStack() as stack:
        stack.enter_context(_one_thread())
        paths = [directory / f"rank{rank}.safetensors" for rank in range(ranks)]
        writers = [stack.enter_context(SafetensorsWriter(path, headers, {"format": "pt"})) for path in paths]
        thread = stack.enter_context(WriterThread())
        for entry in entries:
            if entry.end_to_end is not None and plan.specs[entry.targets[0]].shard is None:
                for name in entry.end_to_end:
                    _stream(plan, name, entry.targets[0], source, check, writers, thread)
            else:
                _transform(plan, entry, source, check, writers, thread)
            done += sum(source.size(name) for name in entry.sources)
            if progress is not None:
                progress("convert", done, total)
    check.report()
    return {path.name: writer.digest for path, writer in zip(paths, writers, strict=True)}


def _stream(
    plan: WeightPlan,
    name: str,
    target: str,
    source: StreamedWeights,
    check: FiniteCheck,
    writers: Sequence[SafetensorsWriter],
    thread: WriterThread,
) -> None:
    """One tensor, piece by piece."""
    before: torch.dtype = getattr(torch, source.dtype(name))
    after = torch_dtype(plan.specs[target].dtype)
    for piece in source.pieces(name):
        read = torch.frombuffer(piece, dtype=before)
        cast = read.to(after)
        check.look(name, read, cast)
        for writer in writers:
            thread.put(writer, piece if cast is read else _bytes(cast))


def _transform(
    plan: WeightPlan,
    entry: WeightEntry,
    source: StreamedWeights,
    check: FiniteCheck,
    writers: Sequence[SafetensorsWriter],
    thread: WriterThread,
) -> None:
    """Tensors that are cut or computed: whole ones in memory."""
    for rank, writer in enumerate(writers):
        for tensor in plan.load(entry, source, rank).values():
            check.look(entry.sources[0], tensor, tensor)
            thread.put(writer, _bytes(tensor))


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
