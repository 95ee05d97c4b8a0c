"""A compiled network: a flat list of steps over numbered slots.

A slot holds one tensor. Slot 0 always holds None (an absent input), slot 1 the list of slots itself, which is how a
loop reaches its body's tensors. A step reads slots, calls one function, fills one slot and empties those that nobody
reads again, so that memory stays bounded by what is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from trtllm_port.runtime.network.schema import LayerRecord
from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError
from trtllm_port.runtime.reference.evaluators.layer import Evaluator
from trtllm_port.runtime.reference.evaluators.linear import Linear
from trtllm_port.runtime.reference.evaluators.quantization import Dequantized

NONE_SLOT = 0
SELF_SLOT = 1
FIRST_FREE_SLOT = 2
Slots = list[Any]
# What torch raises when an operation meets values that it cannot work on.
VALUE_ERRORS = (RuntimeError, IndexError, ValueError, TypeError)


class Step(NamedTuple):
    """One call. `frees` lists the slots that are empty afterwards."""

    run: Evaluator
    inputs: tuple[int, ...]
    output: int
    frees: tuple[int, ...]
    layer: LayerRecord


@dataclass(frozen=True)
class Draft:
    """A step before its liveness is known; `reads` are the slots that must have a value when it starts."""

    run: Evaluator
    inputs: tuple[int, ...]
    output: int
    layer: LayerRecord
    hidden_reads: frozenset[int] = frozenset()

    @property
    def reads(self) -> frozenset[int]:
        """Its inputs, and what it reads through the list of slots."""
        return (self.hidden_reads | frozenset(self.inputs)) - {NONE_SLOT, SELF_SLOT}


def with_liveness(drafts: Sequence[Draft], keep: Iterable[int]) -> tuple[Step, ...]:
    """Final steps: each empties the slots filled by these steps that no later one reads and that are not in `keep`."""
    own = {draft.output for draft in drafts}
    alive = set(keep)
    steps: list[Step] = []
    for draft in reversed(drafts):
        frees = ((draft.reads | {draft.output}) & own) - alive
        alive |= draft.reads
        steps.append(Step(draft.run, draft.inputs, draft.output, tuple(sorted(frees)), draft.layer))
    return tuple(reversed(steps))


def execute(steps: Sequence[Step], slots: Slots) -> None:
    """Run the steps in order.

    Raises:
        LayerExecutionError: a layer cannot be evaluated on the values that it met.
    """
    index = 0
    try:
        for index, (run, inputs, output, frees, _) in enumerate(steps):  # noqa: B007
            slots[output] = run(*[slots[i] for i in inputs])
            for i in frees:
                slots[i] = None
    except VALUE_ERRORS as error:
        _fail(steps[index], slots, error)


def execute_observed(steps: Sequence[Step], slots: Slots, after: Callable[[Step, Any], bool]) -> None:
    """Run the steps in order; `after(step, value)` sees each value before anything is emptied, and stops by True."""
    for step in steps:
        try:
            value = step.run(*[slots[i] for i in step.inputs])
        except VALUE_ERRORS as error:
            _fail(step, slots, error)
        slots[step.output] = value
        if after(step, value):
            return
        for i in step.frees:
            slots[i] = None


def execute_together(steps: Sequence[Step], runs: Sequence[Slots], after: Callable[[Step, int, Any], Any]) -> None:
    """Run the steps in order, each for all runs before the next: what is read once serves them all.

    `after(step, number, value)` sees each value of each run, and what it returns takes its place.
    """
    for step in steps:
        slots = runs[0]
        try:
            if isinstance(step.run, Linear):
                values = step.run.together([slots[step.inputs[0]] for slots in runs])
            elif not step.inputs:  # the same for all; giving memory back once is enough, too
                values = [step.run()] * len(runs)
            else:
                values = []
                for slots in runs:
                    values.append(step.run(*[slots[i] for i in step.inputs]))
        except VALUE_ERRORS as error:
            _fail(step, slots, error)
        for number, (slots, value) in enumerate(zip(runs, values, strict=True)):
            slots[step.output] = after(step, number, value)
        for slots in runs:
            for i in step.frees:
                slots[i] = None


def with_releases(
    drafts: Sequence[Draft], sizes: Mapping[int, int], release: Callable[[], None], limit: int, slot: int
) -> list[Draft]:
    """The steps, with a call of `release` whenever weights of `limit` bytes were read since the one before.

    Args:
        drafts: the steps.
        sizes: bytes of each slot that holds weights.
        release: gives back the memory of weights.
        limit: bytes.
        slot: an unused one, which takes what `release` returns.
    """
    result: list[Draft] = []
    pending = 0
    for draft in drafts:
        result.append(draft)
        pending += sum(sizes.get(i, 0) for i in draft.reads)
        if isinstance(draft.run, Linear | Dequantized):
            pending += draft.run.nbytes
        if pending >= limit:
            result.append(Draft(release, (), slot, draft.layer))
            pending = 0
    return result


def _fail(step: Step, slots: Slots, error: Exception) -> NoReturn:
    met = [f"{str(v.dtype)[6:]}{list(v.shape)}" for v in (slots[i] for i in step.inputs) if hasattr(v, "dtype")]
    on = ", ".join(met) or "its inputs"
    raise LayerExecutionError(
        f"the layer {step.layer.name!r} ({step.layer.type}) cannot be evaluated on {on}: {error}", layer=step.layer.name
    ) from error
