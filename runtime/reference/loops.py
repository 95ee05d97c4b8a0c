"""TRIP_LIMIT, ITERATOR, RECURRENCE, LOOP_OUTPUT: a loop as one step of the program.

Before each iteration the trip limits are asked: COUNT by the number of iterations done, WHILE by a value of the coming
iteration. A recurrence has its first input's value in the first iteration and then what its second input had in the
iteration before. An output LAST_VALUE is a recurrence's value after the last iteration; CONCATENATE and REVERSE stack a
value of every iteration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trtllm_port.runtime.network.dtypes import STORAGE
from trtllm_port.runtime.network.schema import LayerRecord, TensorRecord
from trtllm_port.runtime.reference.arrangement import Loop, Node
from trtllm_port.runtime.reference.evaluators.errors import UnsupportedLayerError
from trtllm_port.runtime.reference.program import SELF_SLOT, Draft, Slots, Step, execute, with_liveness


class LoopCompilation(Protocol):
    """The part of the compiler that loops need."""

    device: torch.device

    def new_slot(self) -> int: ...
    def slot(self, name: str | None) -> int: ...
    def record(self, name: str) -> TensorRecord: ...
    def compile_nodes(self, nodes: Iterable[Node]) -> list[Draft]: ...


@dataclass(frozen=True)
class Iterator:
    """Hands out one slice of `source` along `axis` per iteration."""

    source: int
    output: int
    axis: int
    reverse: bool


@dataclass(frozen=True)
class Recurrence:
    """A value that each iteration hands to the next."""

    first: int
    following: int
    output: int


@dataclass(frozen=True)
class Output:
    """What leaves the loop: `axis` is None for the last value of the recurrence in slot `value`."""

    value: int
    axis: int | None
    length: int
    reverse: bool
    record: TensorRecord
    device: torch.device


@dataclass(frozen=True)
class CompiledLoop:
    """A loop over slots.

    Attributes:
        count, condition: the slots of the trip limits; None where the loop has no such limit.
        test: the steps that the condition needs.
        body: the other steps.
        inner: the slots that are filled by the loop itself and empty after it.
    """

    count: int | None
    condition: int | None
    iterators: tuple[Iterator, ...]
    recurrences: tuple[Recurrence, ...]
    outputs: tuple[Output, ...]
    test: tuple[Step, ...]
    body: tuple[Step, ...]
    inner: tuple[int, ...]

    def __call__(self, slots: Slots) -> tuple[Tensor, ...]:
        """Run the loop; the outputs in order."""
        trips = None if self.count is None else int(slots[self.count])
        collected: list[list[Tensor]] = [[] for _ in self.outputs]
        values = [slots[recurrence.first] for recurrence in self.recurrences]
        done = 0
        while True:
            for recurrence, value in zip(self.recurrences, values, strict=True):
                slots[recurrence.output] = value
            if trips is not None and done >= trips:
                break
            execute(self.test, slots)
            if self.condition is not None and not bool(slots[self.condition]):
                break
            self._iterate(slots, done, trips)
            execute(self.body, slots)
            for output, kept in zip(self.outputs, collected, strict=True):
                kept.append(slots[output.value])
            values = [slots[recurrence.following] for recurrence in self.recurrences]
            done += 1
        results = tuple(_leave(output, kept, slots) for output, kept in zip(self.outputs, collected, strict=True))
        for slot in self.inner:
            slots[slot] = None
        return results

    def _iterate(self, slots: Slots, done: int, trips: int | None) -> None:
        for iterator in self.iterators:
            if iterator.reverse and trips is None:
                raise ValueError("a reverse iterator in a loop without a trip count")
            place = trips - 1 - done if iterator.reverse and trips is not None else done
            source = slots[iterator.source]
            if place >= source.shape[iterator.axis]:
                raise IndexError(f"iteration {done} leaves axis {iterator.axis} of size {source.shape[iterator.axis]}")
            slots[iterator.output] = source.select(iterator.axis, place)


def _leave(output: Output, kept: Sequence[Tensor], slots: Slots) -> Tensor:
    if output.axis is None:
        value: Tensor = slots[output.value]
        return value
    if len(kept) != int(slots[output.length]):
        raise ValueError(f"{len(kept)} iterations, but an output of {int(slots[output.length])}: the rest is undefined")
    if kept:
        return torch.stack(tuple(reversed(kept)) if output.reverse else tuple(kept), output.axis)
    shape = [0 if axis == output.axis else size for axis, size in enumerate(output.record.shape)]
    if min(shape) < 0:
        raise ValueError("no iterations, and an output whose shape only an iteration would tell")
    return torch.empty(shape, dtype=STORAGE[output.record.dtype], device=output.device)


def compile_loop(loop: Loop, compilation: LoopCompilation) -> tuple[Draft, list[str]]:
    """A step that runs the loop and fills its slot with a tuple, and the names of the tuple's elements."""
    slot = compilation.slot
    limits = {layer.attributes["kind"]: slot(layer.inputs[0]) for layer in loop.of("TRIP_LIMIT")}
    iterators = tuple(
        Iterator(slot(layer.inputs[0]), slot(layer.outputs[0]), layer.attributes["axis"], layer.attributes["reverse"])
        for layer in loop.of("ITERATOR")
    )
    recurrences = tuple(Recurrence(*map(slot, (*layer.inputs, *layer.outputs))) for layer in loop.of("RECURRENCE"))
    recurring = {recurrence.output for recurrence in recurrences}
    outputs = tuple(_output(layer, recurring, compilation) for layer in loop.of("LOOP_OUTPUT"))
    drafts = compilation.compile_nodes(loop.body)
    condition = limits.get("WHILE")
    first = _needed_for(condition, drafts)
    ordered = [d for d in drafts if d.output in first] + [d for d in drafts if d.output not in first]
    wanted = {r.following for r in recurrences} | {o.value for o in outputs} | ({condition} if condition else set())
    steps = with_liveness(ordered, wanted)
    filled = {draft.output for draft in drafts} | recurring | {iterator.output for iterator in iterators}
    test, body = steps[: len(first)], steps[len(first) :]
    compiled = CompiledLoop(limits.get("COUNT"), condition, iterators, recurrences, outputs, test, body, tuple(filled))
    read = wanted | set(limits.values()) | {slot for draft in drafts for slot in draft.reads}
    read |= {r.first for r in recurrences} | {i.source for i in iterators} | {o.length for o in outputs}
    layers = loop.of("LOOP_OUTPUT")
    draft = Draft(compiled, (SELF_SLOT,), compilation.new_slot(), layers[0], frozenset(read - filled))
    return draft, [layer.outputs[0] for layer in layers]


def _needed_for(condition: int | None, drafts: Sequence[Draft]) -> set[int]:
    """The slots among those of `drafts` that must be filled to know the condition."""
    needed = set() if condition is None else {condition}
    for draft in reversed(drafts):
        if draft.output in needed:
            needed |= draft.reads
    return needed & {draft.output for draft in drafts}


def _output(layer: LayerRecord, recurring: set[int], compilation: LoopCompilation) -> Output:
    kind = layer.attributes["kind"]
    value = compilation.slot(layer.inputs[0])
    length = compilation.slot(layer.inputs[1] if len(layer.inputs) > 1 else None)
    record = compilation.record(layer.outputs[0])
    if kind == "LAST_VALUE":
        if value not in recurring:
            raise UnsupportedLayerError.of(layer, "kind LAST_VALUE of a tensor that is no recurrence")
        return Output(value, None, length, False, record, compilation.device)
    if kind not in ("CONCATENATE", "REVERSE"):
        raise UnsupportedLayerError.of(layer, f"kind {kind}")
    return Output(value, layer.attributes["axis"], length, kind == "REVERSE", record, compilation.device)
